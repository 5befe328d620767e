"""Images block by block: the same as all at once."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vae.data import sources, streams
from keras_vae.data.dataset import Dataset
from keras_vae.errors import InputError


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "BLOCK", 4)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for index in range(11):
        path = tmp_path / "photos" / ("b" if index % 3 else "a") / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (6, 5), dtype="uint8")).save(path)
    return tmp_path / "photos"


def test_a_folder_read_in_blocks_is_the_folder(folder: Path) -> None:
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


def test_a_block_opens_its_own_files_only(folder: Path) -> None:
    stream = sources.stream(folder)
    (folder / "b" / "10.png").write_bytes(b"damaged")
    stream.read(0)
    with pytest.raises(InputError, match=r"10\.png"):
        stream.read(2)


def test_images_are_brought_to_a_size(folder: Path) -> None:
    assert sources.stream(folder, image_size=(3, 2), color="rgb").read(0).images.shape == (4, 3, 2, 3)


def test_other_files_have_another_fingerprint(folder: Path) -> None:
    before = sources.stream(folder).fingerprint
    assert sources.stream(folder).fingerprint == before
    assert sources.stream(folder, color="rgb").fingerprint != before
    (folder / "b" / "10.png").unlink()
    assert sources.stream(folder).fingerprint != before


def test_arrays_follow_one_another_without_sharing_a_block() -> None:
    images = np.random.default_rng(0).integers(0, 256, (9, 3, 3, 1), dtype="uint8")
    stream = streams.of_datasets(
        [
            Dataset.from_arrays(images[:5], name="x", split="test"),
            Dataset.from_arrays(images[5:], name="x", split="train"),
        ]
    )
    assert stream.sizes == (4, 1, 4)
    assert stream.read(1).names == ("test/4",)
    assert stream.read(2).names[0] == "train/0"
    np.testing.assert_array_equal(stream.read(2).images, images[5:])


def test_images_are_taken_by_position_in_the_order_asked_for(folder: Path) -> None:
    stream, whole = sources.stream(folder), sources.load(folder).train
    positions = np.array([10, 0, 4, 3])
    chosen = stream.take(positions)
    np.testing.assert_array_equal(chosen.images, whole.images[positions])
    assert chosen.labels is not None
    assert whole.labels is not None
    np.testing.assert_array_equal(chosen.labels, whole.labels[positions])


def test_a_named_source_gives_its_test_images_first(tmp_path: Path) -> None:
    x = np.random.default_rng(0).integers(0, 256, (5, 4, 4), dtype="uint8")
    np.savez(tmp_path / "both.npz", x_train=x[:3], x_test=x[3:])
    assert sources.stream(tmp_path / "both.npz").read(0).names == ("test/0", "test/1")
