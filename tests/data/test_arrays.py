import io
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.data.arrays import load_arrays
from keras_vae.data.config import DataConfig
from keras_vae.data.sources import load_splits, stream

RNG = np.random.default_rng(0)
X = RNG.integers(0, 256, (7, 6, 5), np.uint8)
X_TEST = RNG.integers(0, 256, (3, 6, 5), np.uint8)
Y = np.array([0, 1, 2, 0, 1, 2, 0], np.uint8)
F = np.array([[0, 4], [1, 0], [1, 1], [0, 2], [1, 3], [0, 1], [1, 0]], np.uint8)


def saved(path: Path, **arrays: NDArray[np.generic]) -> Path:
    np.savez_compressed(path / "things.npz", **arrays)  # type: ignore[arg-type]
    return path / "things.npz"


def test_layout_of_keras_is_read(tmp_path: Path) -> None:
    train, test, notes, _ = load_arrays(saved(tmp_path, x_train=X, y_train=Y, x_test=X_TEST, y_test=Y[:3]))
    assert test is not None
    np.testing.assert_array_equal(train.images[..., 0], X)
    np.testing.assert_array_equal(test.images[..., 0], X_TEST)
    assert train.labels is not None
    assert test.labels is not None
    assert (train.labels.tolist(), test.labels.tolist()) == (Y.tolist(), [0, 1, 2])
    assert (train.name, train.split, test.name, test.split) == ("things", "train", "things", "test")
    assert notes == ()


def test_labels_and_test_images_are_optional_in_the_layout_of_keras(tmp_path: Path) -> None:
    train, test, *_ = load_arrays(saved(tmp_path, x_train=X, x_test=X_TEST))
    assert test is not None
    assert train.labels is test.labels is None
    train, test, *_ = load_arrays(saved(tmp_path, x_train=X, y_train=Y))
    assert test is None
    assert train.labels is not None
    assert train.split == "all"


@pytest.mark.parametrize(
    ("images", "labels"), [("images", "labels"), ("x", "y"), ("data", "target"), ("arr_0", "arr_1"), ("X", "y")]
)
def test_images_and_labels_are_found_by_name(tmp_path: Path, images: str, labels: str) -> None:
    train, test, notes, _ = load_arrays(saved(tmp_path, **{images: X, labels: Y}))
    np.testing.assert_array_equal(train.images[..., 0], X)
    assert train.labels is not None
    assert train.labels.tolist() == Y.tolist()
    assert (train.split, test, notes) == ("all", None, ())


def test_known_names_are_preferred_and_unused_arrays_are_noted(tmp_path: Path) -> None:
    train, _, notes, _ = load_arrays(saved(tmp_path, other=X_TEST, images=X, ids=Y))
    np.testing.assert_array_equal(train.images[..., 0], X)
    assert notes == ("arrays of things.npz that were not used: ids, other",)


def test_factors_and_their_names_are_read(tmp_path: Path) -> None:
    train, _, notes, _ = load_arrays(saved(tmp_path, images=X, factors=F, factor_names=np.array(["side", "size"])))
    assert train.factors is not None
    assert (train.factors.names, train.factors.sizes, notes) == (("side", "size"), (2, 5), ())
    assert train.factors.values.dtype == np.int64
    np.testing.assert_array_equal(train.factors.values, F)


def test_factors_of_train_and_test_have_the_same_sizes(tmp_path: Path) -> None:
    train, test, notes, _ = load_arrays(
        saved(tmp_path, x_train=X, x_test=X_TEST, factors_train=F, factors_test=F[1:4] + np.uint8(1))
    )
    assert train.factors is not None
    assert test is not None
    assert test.factors is not None
    assert train.factors.sizes == test.factors.sizes == (3, 5)
    assert train.factors.names == test.factors.names == ("factor_0", "factor_1")
    np.testing.assert_array_equal(test.factors.values, F[1:4] + 1)
    assert notes == ()


def test_layout_of_dsprites_is_read(tmp_path: Path) -> None:
    classes = np.zeros((7, 6), np.int64)
    classes[:, 3] = np.arange(7)
    metadata = np.array({"title": "dSprites"}, object)
    path = saved(
        tmp_path, imgs=(X > 99).view(np.uint8), latents_classes=classes, latents_values=F / 2, metadata=metadata
    )
    train, _, notes, _ = load_arrays(path)
    np.testing.assert_array_equal(train.images[..., 0], np.where(X > 99, 255, 0))
    assert train.factors is not None
    assert train.factors.names == ("color", "shape", "scale", "orientation", "x", "y")
    assert train.factors.sizes == (1, 1, 1, 7, 1, 1)
    assert notes == ("arrays of things.npz that were not used: latents_values, metadata",)


def test_npy_file_holds_only_images(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", X)
    train, test, notes, _ = load_arrays(tmp_path / "a.npy")
    np.testing.assert_array_equal(train.images[..., 0], X)
    assert (train.name, train.labels, train.split, test, notes) == ("a", None, "all", None, ())


@pytest.mark.parametrize(
    ("images", "note"),
    [
        (X / 255, "float64 images were rounded to 256 levels"),
        (X > 9, "bool images became levels 0 and 255"),
    ],
)
def test_conversion_to_levels_is_noted(tmp_path: Path, images: NDArray[np.generic], note: str) -> None:
    assert load_arrays(saved(tmp_path, images=images)).notes == (note,)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y_train": Y, "ids": Y}, r"no images: the file contains y_train \(7,\), ids \(7,\); pass x_train"),
        ({}, "no images: the file contains no arrays"),
        ({"first": X, "second": X}, r"several arrays could be the images: the file contains first \(7, 6, 5\), second"),
        ({"images": X.reshape(7, 30)}, r"images.shape = \(7, 30\): not images; pass N x H x W"),
        ({"images": X / 100}, r"images: floats from 0 to 2\.\d+; pass"),
        ({"images": np.full((2, 2, 2), np.nan)}, "images: NaN"),
        ({"images": X[:0]}, "pass at least one image"),
        ({"images": X, "labels": Y[:4]}, r"labels.shape = \(4,\): there are 7 images"),
        ({"images": X, "labels": Y / 2}, "labels: an array of float64; pass integers"),
        ({"x_train": X, "y_train": Y, "x_test": X_TEST}, "only y_train is present"),
        ({"x_train": X, "y_test": Y[:3], "x_test": X_TEST}, "only y_test is present"),
        ({"x_train": X, "factors_train": F, "x_test": X_TEST}, "only factors_train is present; pass factors for train"),
        ({"images": X, "factors": F / 2}, r"factors: float64 of shape \(7, 2\); pass integers, N x F"),
        ({"images": X, "factors": Y}, r"factors: uint8 of shape \(7,\)"),
        ({"images": X, "factors": F.astype(int) - 1}, r"factors: values from \[-1, -1\]"),
        ({"images": X, "factors": F[:3]}, "factors: 3 rows for 7 images"),
        ({"images": X, "factors": F, "factor_names": np.array(["size"])}, "pass one unique name"),
        ({"images": np.array([X, None], object)}, "it contains Python objects"),
    ],
)
def test_invalid_arrays_are_rejected(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    path = saved(tmp_path, **arrays)
    with pytest.raises(InputError, match=message) as caught:
        load_arrays(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_unused_objects_are_never_unpickled(tmp_path: Path) -> None:
    train, _, notes, _ = load_arrays(saved(tmp_path, images=X, meta=np.array([{"a": 1}], object)))
    assert len(train) == 7
    assert notes == ("arrays of things.npz that were not used: meta",)


@pytest.mark.parametrize("name", ["a.npz", "a.npy"])
@pytest.mark.parametrize("content", [b"", b"not an array\n", b"\x93NUMPY", b"PK\x03\x04"])
def test_files_without_arrays_are_rejected(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(InputError, match=rf"{name}: cannot be read: .") as caught:
            load_arrays(tmp_path / name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["npz", "npy"])
def test_truncated_files_are_rejected(tmp_path: Path, kind: str) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, images=X) if kind == "npz" else np.save(buffer, X)
    path = tmp_path / f"a.{kind}"
    for end in range(0, len(buffer.getvalue()), 7):
        path.write_bytes(buffer.getvalue()[:end])
        with pytest.raises(InputError, match="cannot be read"):
            load_arrays(path)


def test_damaged_array_is_rejected(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, images=X)
    content = bytearray(buffer.getvalue())
    content[content.index(X[3].tobytes())] ^= 255
    path = tmp_path / "a.npz"
    path.write_bytes(content)
    with pytest.raises(InputError, match="cannot be read: Bad CRC"):
        load_arrays(path)


def test_other_members_of_the_archive_are_ignored(tmp_path: Path) -> None:
    path = saved(tmp_path, images=X)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("README.txt", "about these images")
    np.testing.assert_array_equal(load_arrays(path).train.images[..., 0], X)


@pytest.mark.parametrize("suffix", ["val", "valid", "validation", "dev"])
def test_validation_images_are_a_split_when_loaded_and_streamed(tmp_path: Path, suffix: str) -> None:
    arrays = {"x_train": X[:4], "y_train": Y[:4], f"x_{suffix}": X[4:6], f"y_{suffix}": Y[4:6]}
    path = saved(tmp_path, **arrays)
    train, test, notes, validation = load_arrays(path)
    assert test is None
    assert validation is not None
    assert (train.split, validation.split, notes) == ("train", "validation", ())
    np.testing.assert_array_equal(validation.images[..., 0], X[4:6])
    streamed = stream(path)
    assert streamed.read(0).names == ("validation/0", "validation/1")
    np.testing.assert_array_equal(streamed.read(0).images[..., 0], X[4:6])
    whole = stream(saved(tmp_path, **arrays, x_test=X[6:], y_test=Y[6:]))
    assert [whole.read(number).names[0] for number in range(3)] == ["test/0", "validation/0", "train/0"]
    splits, _ = load_splits(DataConfig(source=str(path)))
    assert splits.validation is not None
    np.testing.assert_array_equal(splits.validation.images[..., 0], X[4:6])


def test_labels_of_all_splits_are_required(tmp_path: Path) -> None:
    path = saved(tmp_path, x_train=X, y_train=Y, x_val=X, x_test=X, y_test=Y)
    for read in (load_arrays, stream):
        with pytest.raises(InputError, match=r"only y_train and y_test is present; pass labels for train, validation"):
            read(path)


def npy(shape: tuple[int, ...], dtype: str = "|u1", content: bytes = bytes(64)) -> bytes:
    """Return a `.npy` file whose header claims a shape."""
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": dtype, "fortran_order": False, "shape": shape})
    return header.getvalue() + content


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((10**11, 28, 28), "|u1"), ((10**11, 28, 28), "|V0"), ((10**11, 0, 28), "|u1"), ((-5, 28, 28), "<f8")],
)
@pytest.mark.parametrize("key", ["images", "labels", None])
def test_claims_of_headers_are_checked(tmp_path: Path, shape: tuple[int, ...], dtype: str, key: str | None) -> None:
    path = tmp_path / ("x.npz" if key else "x.npy")
    if key is None:
        path.write_bytes(npy(shape, dtype))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(f"{key}.npy", npy(shape, dtype))
            if key == "labels":
                archive.writestr("images.npy", npy((4, 4, 4)))
    for read in (load_arrays, stream):
        with pytest.raises(InputError, match=rf"^{path}: ") as caught:
            read(path)
        assert "\n" not in str(caught.value)


def test_arrays_larger_than_memory_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_vae.data.arrays.total_memory", lambda: 100)
    path = tmp_path / "x.npz"
    np.savez_compressed(path, images=np.full((9, 8, 8), 7, np.uint8))
    with pytest.raises(InputError, match=r"x\.npz: arrays of .* GiB, and this machine has .* use a part of them"):
        load_arrays(path)
    assert len(stream(path)) == 9


def test_values_of_factors_are_bounded(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"factors: sizes \(1000000001,\); number the values of each factor"):
        load_arrays(saved(tmp_path, images=X[:2], factors=[[10**9], [0]]))


def test_large_labels_are_as_many_classes_as_there_are_labels(tmp_path: Path) -> None:
    train = load_arrays(saved(tmp_path, images=X[:2], labels=[10**9, 5])).train
    assert train.classes == ("5", "1000000000")
