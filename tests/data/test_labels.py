import re
from pathlib import Path

import numpy as np
import pytest

from keras_vae.components.conditions import ClassLabel
from keras_vae.core.errors import InputError
from keras_vae.data.arrays import load_arrays
from keras_vae.data.dataset import Dataset, split
from keras_vae.data.labels import class_index, encode_labels
from keras_vae.models.inputs import ModelInputs

IMAGES = np.arange(4 * 2 * 4, dtype="uint8").reshape(4, 2, 4) + 9


@pytest.mark.parametrize(
    ("names", "label", "number"),
    [
        (("1", "2", "3"), "1", 0),
        (("1", "2", "3"), "3", 2),
        (("3", "7", "250"), "7", 1),
        (("0", "1", "2"), 2, 2),
        (("cat", "dog"), "dog", 1),
        (("cat", "dog"), "1", 1),
        (("cat", "dog"), np.int64(1), 1),
    ],
)
def test_names_take_precedence(names: tuple[str, ...], label: str | int, number: int) -> None:
    assert class_index(names, label) == number


@pytest.mark.parametrize(
    ("names", "label", "message"),
    [
        (("1", "2", "3"), 1, "label = 1: ambiguous"),
        (("3", "7", "250"), 250, "label = 250: ambiguous"),
        (("1", "2", "3"), "0", "label = '0': unknown; accepted: 1, 2, 3"),
        (("cat", "dog"), 2, "label = 2: unknown; accepted: cat, dog"),
        (("cat", "dog"), "-1", "label = '-1': unknown; accepted: cat, dog"),
        (("cat", "dog"), "dgo", "did you mean 'dog'?"),
    ],
)
def test_unknown_and_ambiguous_labels_are_rejected(names: tuple[str, ...], label: str | int, message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        class_index(names, label)


@pytest.mark.parametrize(
    ("labels", "numbers", "classes"),
    [
        ([250, 3, 7, 3], [2, 0, 1, 0], ("3", "7", "250")),
        ([10**9, 0, 0, 5], [2, 0, 0, 1], ("0", "5", "1000000000")),
        ([10, 9, 2, 9], [2, 1, 0, 1], ("2", "9", "10")),
        (["b", "a", "c", "b"], [1, 0, 2, 1], ("a", "b", "c")),
        (np.array([b"u", b"v", b"u", b"u"]), [0, 1, 0, 0], ("u", "v")),
        (np.array(["v", "u", "u", "u"], object), [1, 0, 0, 0], ("u", "v")),
        (np.eye(3)[[2, 0, 0, 2]], [2, 0, 0, 2], ("0", "1", "2")),
        (np.eye(3, dtype=bool)[[2, 0, 0, 2]], [2, 0, 0, 2], ("0", "1", "2")),
    ],
)
def test_distinct_labels_are_the_classes(labels: object, numbers: list[int], classes: tuple[str, ...]) -> None:
    dataset = Dataset.from_arrays(IMAGES, labels, name="four")  # type: ignore[arg-type]
    assert dataset.labels is not None
    assert (dataset.labels.tolist(), dataset.classes) == (numbers, classes)


@pytest.mark.parametrize(
    "labels", [[0.5, 1, 2, 3], [-1, 0, 1, 2], np.ones((4, 3)), np.zeros((4, 2)), np.eye(4) * 0.5, [["a", "b"]] * 4]
)
def test_other_labels_are_rejected(labels: object) -> None:
    with pytest.raises(InputError, match=r"^labels"):
        encode_labels(labels, 4)  # type: ignore[arg-type]


def test_splits_of_a_file_share_their_classes(tmp_path: Path) -> None:
    x = np.concatenate([IMAGES, IMAGES])
    np.savez(tmp_path / "x.npz", x_train=x, y_train=[7, 3, 250, 3] * 2, x_test=x[:3], y_test=[250, 7, 5])
    train, test, *_ = load_arrays(tmp_path / "x.npz")
    assert test is not None
    assert train.labels is not None
    assert test.labels is not None
    # The class that only test images have comes last.
    assert train.classes == test.classes == ("3", "7", "250", "5")
    assert (train.labels[:4].tolist(), test.labels.tolist()) == ([1, 0, 2, 0], [2, 1, 3])


def test_given_test_images_are_numbered_by_name() -> None:
    train = Dataset.from_arrays(IMAGES, ["a", "b", "c", "c"], name="train")
    test = Dataset.from_arrays(IMAGES, ["c", "a", "c", "a"], name="test")
    held_out = split(train, test, validation=1, test_size=0, holdout=True, seed=0).test
    assert held_out is not None
    assert held_out.labels is not None
    assert held_out.labels.tolist() == [2, 0, 2, 0]
    with pytest.raises(InputError, match=r"data = train: unknown labels b; accepted labels: a, c"):
        train.with_classes(("a", "c"))


@pytest.mark.parametrize(
    ("condition", "numbers"),
    [
        ("1", [0, 0, 0]),
        (["3", "1", "2"], [2, 0, 1]),
        (np.array([2, 0, 1]), [2, 0, 1]),
        (np.eye(3)[[2, 0, 1]], [2, 0, 1]),
    ],
)
def test_models_accept_names_numbers_and_one_hot_labels(condition: object, numbers: list[int]) -> None:
    inputs = ModelInputs((2, 3, 1), ClassLabel(3, ("1", "2", "3")))
    found = inputs.conditions(condition, 3)
    assert found is not None
    assert (found.tolist(), found.dtype) == (numbers, np.int32)


@pytest.mark.parametrize(
    ("condition", "message"),
    [(1, "ambiguous"), ("4", "unknown; accepted: 1, 2, 3"), (["1", "4", "9"], "unknown labels 4, 9; accepted labels")],
)
def test_models_reject_unknown_and_ambiguous_labels(condition: object, message: str) -> None:
    with pytest.raises(InputError, match=message):
        ModelInputs((2, 3, 1), ClassLabel(3, ("1", "2", "3"))).conditions(condition, 3)


def test_one_hot_labels_are_their_own_encoding() -> None:
    label, one_hot = ClassLabel(3), np.eye(3, dtype="float32")[[2, 0]]
    np.testing.assert_array_equal(np.asarray(label.encode(np.array([2, 0]))), one_hot)
    np.testing.assert_array_equal(np.asarray(label.encode(one_hot)), one_hot)


def test_bytes_that_are_not_utf_8_are_escaped() -> None:
    numbers, classes = encode_labels(np.array([b"caf\xc3\xa9", b"caf\xe9"]), 2)
    assert numbers.tolist() == [1, 0]
    assert classes == ("caf\\xe9", "café")
