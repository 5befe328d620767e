"""Streams return the same images as loading an entire source."""

import os
import shutil
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data import sources, streams
from keras_vae.data.dataset import Dataset


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK_SIZE", 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(11):
        path = tmp_path / "photos" / ("b" if index % 3 else "a") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 5), dtype="uint8")).save(path)
    return tmp_path / "photos"


def test_blocks_of_a_folder_equal_the_loaded_folder(folder: Path) -> None:
    stream, whole = sources.stream(folder), sources.load(folder).train
    parts = [stream.read(number) for number in range(len(stream.sizes))]
    assert stream.sizes == (4, 4, 3)
    assert len(stream) == 11
    np.testing.assert_array_equal(np.concatenate([part.images for part in parts]), whole.images)
    np.testing.assert_array_equal(
        np.concatenate([part.labels for part in parts if part.labels is not None]), whole.labels
    )
    assert stream.classes == whole.classes
    assert parts[0].names[:2] == ("a/00.png", "a/03.png")


def test_reading_a_block_opens_only_its_files(folder: Path) -> None:
    stream = sources.stream(folder)
    (folder / "b" / "10.png").write_bytes(b"damaged")
    stream.read(0)
    with pytest.raises(InputError, match=r"10\.png"):
        stream.read(2)


def test_blocks_are_resized(folder: Path) -> None:
    assert sources.stream(folder, image_size=(3, 2), color="rgb").read(0).images.shape == (4, 3, 2, 3)


def test_fingerprint_depends_on_files_and_conversion(folder: Path) -> None:
    before = sources.stream(folder).fingerprint
    assert sources.stream(folder).fingerprint == before
    assert sources.stream(folder, color="rgb").fingerprint != before
    (folder / "b" / "10.png").unlink()
    assert sources.stream(folder).fingerprint != before


def test_blocks_do_not_span_data_sets() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 3, 1), dtype="uint8")
    stream = streams.stream_datasets(
        [
            Dataset.from_arrays(images[:5], name="x", split="test"),
            Dataset.from_arrays(images[5:], name="x", split="train"),
        ]
    )
    assert stream.sizes == (4, 1, 4)
    assert stream.read(1).names == ("test/4",)
    assert stream.read(2).names[0] == "train/0"
    np.testing.assert_array_equal(stream.read(2).images, images[5:])


def test_subset_keeps_the_order_of_positions(folder: Path) -> None:
    stream, whole = sources.stream(folder), sources.load(folder).train
    positions = np.array([10, 0, 4, 3])
    chosen = stream.subset(positions)
    np.testing.assert_array_equal(chosen.images, whole.images[positions])
    assert chosen.labels is not None
    assert whole.labels is not None
    np.testing.assert_array_equal(chosen.labels, whole.labels[positions])


def test_stream_is_subsampled_evenly(folder: Path) -> None:
    stream, whole = sources.stream(folder), sources.load(folder).train
    np.testing.assert_array_equal(stream.subsample_evenly(3).images, whole.images[[0, 5, 10]])
    assert len(stream.subsample_evenly(99).names) == 11


def test_first_block_of_a_file_holds_its_test_images(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype="uint8")
    np.savez(tmp_path / "both.npz", x_train=x[:3], x_test=x[3:])
    assert sources.stream(tmp_path / "both.npz").read(0).names == ("test/0", "test/1")


@pytest.fixture(params=["npy", "npz", "compressed", "columns first"])
def save(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., Path]:
    """Return a function that writes images, and labels if the format has them, to a file."""

    def write(images: Array, labels: Array | None = None) -> Path:
        path = tmp_path / f"images.{'npy' if request.param == 'npy' else 'npz'}"
        if request.param == "npy":
            np.save(path, images)
        elif request.param == "columns first":
            np.savez(path, images=np.asfortranarray(images))
        else:
            arrays = {"images": images} | ({} if labels is None else {"labels": labels})
            (np.savez_compressed if request.param == "compressed" else np.savez)(path, **arrays)
        return path

    return write


@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32", "bool"])
def test_blocks_of_a_file_equal_the_loaded_file(save: Callable[..., Path], dtype: str) -> None:
    rng = np.random.default_rng(0)
    images = (rng.random((11, 6, 5)) * {"float32": 1, "bool": 2}.get(dtype, 255)).astype(dtype)
    # The first two blocks alone look like images whose pixels are 0 and 1.
    images[:8] = np.asarray(images[:8] > images[:8].mean(), dtype)
    path = save(images, np.arange(11) % 3)
    stream, whole = sources.stream(path, color="rgb"), sources.load(path, color="rgb").train
    assert stream.sizes == (4, 4, 3)
    # The last read goes back to the start.
    for number in (0, 1, 2, 0):
        block = stream.read(number)
        np.testing.assert_array_equal(block.images, whole.images[4 * number : 4 * number + 4])
        if whole.labels is not None:
            np.testing.assert_array_equal(block.labels, whole.labels[4 * number : 4 * number + 4])
    assert stream.read(2).names == ("all/8", "all/9", "all/10")
    np.testing.assert_array_equal(stream.subset(np.array([10, 1])).images, whole.images[[10, 1]])


def test_labels_and_names_follow_the_split(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 6, 5), dtype="uint8")
    np.savez(tmp_path / "x.npz", x_train=images[:5], y_train=np.arange(5), x_test=images[5:], y_test=np.arange(4))
    stream = sources.stream(tmp_path / "x.npz")
    assert stream.sizes == (4, 4, 1)
    assert stream.read(0).names[0] == "test/0"
    np.testing.assert_array_equal(stream.read(0).images[..., 0], images[5:])
    assert stream.read(2).names == ("train/4",)


def test_pixels_of_dsprites_are_black_and_white(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 2, (9, 8, 8), dtype="uint8")
    np.savez(tmp_path / "x.npz", imgs=images, latents_classes=np.zeros((9, 6), int))
    np.testing.assert_array_equal(sources.stream(tmp_path / "x.npz").read(1).images[..., 0], 255 * images[4:8])


def test_invalid_images_are_rejected_with_file_and_block(save: Callable[..., Path]) -> None:
    images = np.zeros((9, 6, 5), "float32")
    images[5, 0, 0] = np.nan
    path = save(images)
    stream = sources.stream(path)
    stream.read(0)
    with pytest.raises(InputError, match=rf"{path.name}: from all/4 to all/7: images: NaN or infinite"):
        stream.read(1)
    with pytest.raises(InputError, match="all 0 or 1"):
        sources.stream(save(np.ones((9, 6, 5), "uint8")))
    with pytest.raises(InputError, match="2 channels"):
        sources.stream(save(np.zeros((9, 6, 5, 2), "uint8")))


def test_wrong_number_of_labels_is_rejected(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", images=np.full((9, 6, 5), 7, "uint8"), labels=np.arange(10))
    with pytest.raises(InputError, match=r"x\.npz: labels.shape = \(10,\): there are 9 images"):
        sources.stream(tmp_path / "x.npz")


def test_truncated_file_is_rejected(save: Callable[..., Path]) -> None:
    path = save(np.random.default_rng(0).integers(0, 256, (400, 6, 5), dtype="uint8"))
    path.write_bytes(path.read_bytes()[:-6000])
    with pytest.raises(InputError, match=r"cannot be read|no images"):
        sources.stream(path)


@pytest.mark.parametrize("suffix", ["npy", "npz"])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(streams, "BLOCK_SIZE", 512)
    path = tmp_path / f"x.{suffix}"
    images = np.zeros((20_000, 28, 28), "uint8")
    images[0] = 255
    np.save(path, images) if suffix == "npy" else np.savez_compressed(path, images=images)
    size = images.nbytes
    del images
    tracemalloc.start()
    stream = sources.stream(path)
    count = sum(len(stream.read(number).images) for number in range(len(stream.sizes)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert count == 20_000
    assert peak < size / 4


def same_time(first: Path, *others: Path) -> None:
    """Give files the size and time that identify them to tools which do not read them."""
    for other in others:
        assert other.stat().st_size == first.stat().st_size
        os.utime(other, ns=(first.stat().st_atime_ns, first.stat().st_mtime_ns))


def test_files_of_the_same_name_size_and_time_have_different_fingerprints(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 40, 6, 5), dtype="uint8")
    paths = [tmp_path / name / "x.npy" for name in "ab"]
    for path, pixels in zip(paths, images, strict=True):
        path.parent.mkdir()
        np.save(path, pixels)
    same_time(*paths)
    before = sources.stream(paths[0]).fingerprint
    assert sources.stream(paths[1]).fingerprint != before
    shutil.copy(paths[1], paths[0])
    same_time(paths[1], paths[0])
    assert sources.stream(paths[0]).fingerprint != before
    # Equal content in another place, too: the path is part of the fingerprint.
    assert sources.stream(paths[0]).fingerprint != sources.stream(paths[1]).fingerprint


def test_folders_of_the_same_names_sizes_and_times_have_different_fingerprints(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 30, 30), dtype="uint8")
    paths = [tmp_path / name / "photos" / "0.bmp" for name in "ab"]
    for path, image in zip(paths, pixels, strict=True):
        path.parent.mkdir(parents=True)
        Image.fromarray(image).save(path)
    same_time(*paths)
    before = sources.stream(paths[0].parent).fingerprint
    assert sources.stream(paths[1].parent).fingerprint != before
    shutil.copy(paths[1], paths[0])
    same_time(paths[1], paths[0])
    assert sources.stream(paths[0].parent).fingerprint != before


@pytest.mark.parametrize("option", [{"fit": "pad"}, {"scale": 255.0}, {"background": "red"}])
def test_fingerprint_depends_on_options(folder: Path, option: dict[str, object]) -> None:
    plain = sources.stream(folder, image_size=(5, 6))
    assert sources.stream(folder, image_size=(5, 6), **option).fingerprint != plain.fingerprint  # type: ignore[arg-type]


def test_fingerprint_depends_on_labels(tmp_path: Path) -> None:
    images, found = np.random.default_rng(0).integers(0, 256, (6000, 6, 5), dtype="uint8"), []
    for labels in (np.zeros(6000, int), np.arange(6000) == 3210):
        np.savez(tmp_path / "x.npz", images=images, labels=labels.astype(int))
        os.utime(tmp_path / "x.npz", ns=(0, 0))
        found.append(sources.stream(tmp_path / "x.npz").fingerprint)
    assert found[0] != found[1]


@pytest.mark.parametrize("dtype", ["uint8", "float32", "bool"])
def test_streams_have_the_notes_of_loaded_files(tmp_path: Path, dtype: str) -> None:
    images = (np.random.default_rng(0).integers(0, 2, (9, 6, 5)) * {"uint8": 9}.get(dtype, 1)).astype(dtype)
    np.savez(tmp_path / "x.npz", images=images, extra=np.zeros(3))
    options = {"image_size": (4, 4), "color": "rgb"}
    notes = sources.stream(tmp_path / "x.npz", **options).notes  # type: ignore[arg-type]
    assert notes == sources.load(tmp_path / "x.npz", **options).notes  # type: ignore[arg-type]
    assert len(notes) == 3 + (dtype != "uint8")


def test_streams_have_the_notes_of_loaded_folders(folder: Path) -> None:
    Image.fromarray(np.zeros((9, 9, 3), "uint8")).save(folder / "a" / "color.png")
    (folder / "a" / "notes.txt").touch()
    options = {"image_size": (6, 5), "color": "gray", "fit": "stretch"}
    notes = sources.stream(folder, **options).notes  # type: ignore[arg-type]
    assert notes == sources.load(folder, **options).notes  # type: ignore[arg-type]
    assert notes == (
        "ignored, not images: 1 (notes.txt)",
        "resized to 6x5 (H x W, fit = stretch): 1 of 12 images",
        "RGB converted to gray (luma): 1 of 12 images",
    )
