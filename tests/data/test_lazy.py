"""Images that are read on demand equal loaded images, and nothing reads them without need."""

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data import dataset as dataset_module
from keras_vae.data import validation
from keras_vae.data.config import DataConfig
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.data.lazy import LazyImages
from keras_vae.data.sources import load, load_splits


def pixels(count: int = 30, side: int = 6) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, side, side, 1), "uint8")


@pytest.fixture(params=["npy", "folder", "splits"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A file, a folder with classes, and a folder with splits."""
    if request.param == "npy":
        np.save(tmp_path / "x.npy", pixels())
        return tmp_path / "x.npy"
    for index, image in enumerate(pixels()):
        split = ("train", "test", "val")[index % 3] if request.param == "splits" else "."
        path = tmp_path / "photos" / split / "ab"[index % 2] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    return tmp_path / "photos"


def splits_of(source: Path, load: str, **options: object) -> Splits:
    return load_splits(DataConfig(source=str(source), load=load, **options), seed=3)[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("options", [{}, {"holdout": False}, {"image_size": [3, 4], "color": "rgb"}])
def test_streamed_splits_equal_loaded_splits(source: Path, options: dict[str, object]) -> None:
    streamed, loaded = (splits_of(source, load, **options) for load in ("stream", "memory"))
    for lazy, held in zip(streamed, loaded, strict=True):
        assert (lazy is None) == (held is None)
        if lazy is None or held is None:
            continue
        assert lazy.is_streamed
        assert not held.is_streamed
        assert (lazy.name, lazy.split, lazy.classes, len(lazy)) == (held.name, held.split, held.classes, len(held))
        np.testing.assert_array_equal(np.asarray(lazy.images), held.images)
        np.testing.assert_array_equal(lazy.images[[2, 0, 2]], held.images[[2, 0, 2]])
        np.testing.assert_array_equal(lazy.images[1], held.images[1])
        np.testing.assert_array_equal(lazy.images[1:3], held.images[1:3])
        if held.labels is not None:
            np.testing.assert_array_equal(lazy.labels, held.labels)


def test_splitting_reads_no_images(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = load(source, load="stream").train
    monkeypatch.setattr(LazyImages, "__getitem__", lambda self, key: pytest.fail("read"))
    parts = dataset_module.split(opened, None, validation=0.2, test_size=0.2, holdout=True, seed=0)
    assert parts.checksum
    assert parts.train.subset(np.array([1, 0]), "train").images.shape[0] == 2


@pytest.mark.parametrize("dtype", ["float32", "bool", "int64"])
def test_levels_of_other_types_equal_loaded_levels(tmp_path: Path, dtype: str) -> None:
    images = pixels()[..., 0]
    np.save(tmp_path / "x.npy", (images / 255).astype(dtype) if dtype == "float32" else images.astype(dtype))
    lazy, held = (load(tmp_path / "x.npy", load=kind).train.images for kind in ("stream", "memory"))  # type: ignore[arg-type]
    order = np.random.default_rng(1).permutation(30)
    np.testing.assert_array_equal(lazy[order], held[order])


def test_checksums_are_those_of_files_and_rows(source: Path) -> None:
    before = splits_of(source, "stream").checksum
    assert splits_of(source, "stream").checksum == before
    assert splits_of(source, "stream", image_size=[4, 4]).checksum != before
    file = source if source.is_file() else sorted(source.rglob("*.png"))[7]
    moved = source.with_name("moved" + source.suffix)
    source.rename(moved)
    assert splits_of(moved, "stream").checksum == before
    moved.rename(source)
    os.utime(file, ns=(0, 0))
    assert splits_of(source, "stream").checksum != before


def test_changed_and_removed_files_are_one_line(source: Path) -> None:
    images = load(source, load="stream").train.images
    file = source if source.is_file() else source / min(source.rglob("00.png"))
    content = file.read_bytes()
    file.write_bytes(content[:-20])
    with pytest.raises(InputError, match=r"changed while it was in use; restore it$") as caught:
        images[:]
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value)
    file.unlink()
    with pytest.raises(InputError, match=r"no longer exists; restore it$"):
        images[:]


def test_auto_streams_what_exceeds_a_quarter_of_the_memory(source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not load(source).train.is_streamed
    shape = (len(load(source).train), 6, 6, 1)
    size = max(np.prod(shape), source.stat().st_size if source.is_file() else 30 * 36)
    for limit, is_streamed in ((4 * size, False), (4 * size - 1, True)):
        monkeypatch.setattr(validation, "total_memory", lambda limit=limit: int(limit))
        loaded = load(source)
        assert loaded.train.is_streamed == is_streamed
        assert any("a quarter of the" in note for note in loaded.notes) == is_streamed


def test_limits_of_control_groups_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validation, "_GROUPS", tmp_path)
    assert validation.memory_limit() == validation.total_memory()
    (tmp_path / "memory").mkdir()
    for path in (tmp_path / "memory.max", tmp_path / "memory" / "memory.limit_in_bytes"):
        path.write_text("12345\n")
    assert validation.memory_limit() == 12345


@pytest.mark.parametrize("source", ["digits", "sprites", "x.npz"])
def test_sources_without_random_access_are_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez_compressed("x.npz", images=pixels())
    command = f"vae data pack {source} {Path(source).stem}.npy"
    with pytest.raises(InputError, match=rf"^load = 'stream': {source} is .*`{command}`"):
        load(source, load="stream")


def test_large_streamed_sets_are_represented_by_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.save(tmp_path / "x.npy", pixels())
    lazy, held = (load(tmp_path / "x.npy", load=kind).train for kind in ("stream", "memory"))  # type: ignore[arg-type]
    monkeypatch.setattr(dataset_module, "SAMPLE_BYTES", 4 * 36)
    assert held.sample() is held
    np.testing.assert_array_equal(lazy.sample().images, held.images[[0, 10, 19, 29]])
    assert not lazy.sample().is_streamed
    assert isinstance(Splits(lazy, None, lazy).sample().held_out, Dataset)
