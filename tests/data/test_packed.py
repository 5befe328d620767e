"""Packed images are read with their labels, factors, names and splits."""

import json
from pathlib import Path

import numpy as np
import pytest

from keras_vae.core.errors import InputError
from keras_vae.data import packed, sources
from keras_vae.data.arrays import load_arrays


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file, folder = tmp_path / "photos.npy", tmp_path / "photos.pack"
    np.save(file, np.arange(5 * 4, dtype="uint8").reshape(5, 2, 2, 1))
    folder.mkdir()
    np.save(folder / "labels.npy", np.array([1, 0, 1, 0, 1]))
    np.save(folder / "factors.npy", np.array([[0], [1], [2], [0], [1]]))
    (folder / "names.txt").write_text("a.png\nb.png\nc.png\nd.png\ne.png\n")
    info = {
        "images": 5,
        "image_shape": [2, 2, 1],
        "splits": {"train": 3, "test": 2},
        "classes": ["cat", "dog"],
        "factors": {"shape": 3},
        "source": "pets",
        "notes": [],
        "fingerprint": packed.fingerprint(file),
    }
    (folder / "pack.json").write_text(json.dumps(info))
    return file


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_have_their_splits_labels_and_factors(path: Path, in_memory: bool) -> None:
    opened = packed.open_packed(path)
    assert opened is not None
    loaded = opened.load(in_memory=in_memory)
    assert loaded.test is not None
    assert loaded.test.images[:, 0, 0, 0].tolist() == [12, 16]
    assert loaded.train.labels is not None
    assert loaded.train.labels.tolist() == [1, 0, 1]
    assert loaded.test.classes == ("cat", "dog")
    assert loaded.test.factors is not None
    assert loaded.test.factors.values.ravel().tolist() == [0, 1]
    assert opened.names(1, 3) == ("b.png", "c.png")


def test_load_arrays_finds_the_description(path: Path) -> None:
    assert load_arrays(path).train.present_classes == ("cat", "dog")


def test_streamed_images_equal_those_in_memory(path: Path) -> None:
    streamed, loaded = sources.load(path, load="stream"), sources.load(path)
    for one, other in ((streamed.train, loaded.train), (streamed.test, loaded.test)):
        assert one is not None
        assert other is not None
        np.testing.assert_array_equal(one.images[np.arange(len(one))], other.images)
        np.testing.assert_array_equal(one.labels, other.labels)
        assert one.factors is not None
        assert other.factors is not None
        np.testing.assert_array_equal(one.factors.values, other.factors.values)
        assert (one.split, one.classes) == (other.split, other.classes)


@pytest.mark.parametrize("name", ["labels.npy", "factors.npy"])
def test_a_missing_file_is_named(path: Path, name: str) -> None:
    (path.with_suffix(".pack") / name).unlink()
    with pytest.raises(InputError, match=rf"photos\.pack: {name} or its names are missing; pack the source again"):
        load_arrays(path)


def test_another_array_is_rejected(path: Path) -> None:
    array = np.load(path)
    np.save(path, array[::-1])
    with pytest.raises(InputError, match=r"photos\.npy: changed since .*photos\.pack was written"):
        load_arrays(path)
    np.save(path, array[:4])
    with pytest.raises(InputError, match=r"uint8 \(4, 2, 2, 1\), but .*describes uint8 \(5, 2, 2, 1\)"):
        load_arrays(path)
