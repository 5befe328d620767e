"""Conditions: valid values, their encodings, and error messages."""

from collections.abc import Callable

import numpy as np
import pytest
from keras import ops

from helpers import to_numpy
from keras_vae.components.conditions import ClassLabel, Condition, ContinuousCondition
from keras_vae.core.errors import InputError


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_labels_are_encoded_as_rows_of_the_identity(dtype: str) -> None:
    label, values = ClassLabel(classes=4), np.array([3, 0, 1, 1], dtype)
    checked = label.check(values)
    assert (checked.dtype, label.value_shape, label.dim) == (np.int32, (), 4)
    encoded = label.encode(ops.convert_to_tensor(checked))
    assert "float32" in str(encoded.dtype)
    np.testing.assert_array_equal(to_numpy(encoded), np.eye(4)[values])


@pytest.mark.parametrize("dtype", ["bool", "int64", "float64", "float16"])
def test_vectors_encode_themselves(dtype: str) -> None:
    vector, values = ContinuousCondition(size=3), np.array([[1, 0, 2], [0, 0, 1]]).astype(dtype)
    checked = vector.check(values)
    assert (checked.dtype, vector.value_shape, vector.dim) == (np.float32, (3,), 3)
    np.testing.assert_array_equal(to_numpy(vector.encode(checked)), values.astype("float32"))


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: ClassLabel(classes=1), "classes = 1: too few classes; pass an integer ≥ 2"),
        (
            lambda: ClassLabel().check(np.zeros((3, 10), "int32")),
            r"int32 and shape \(3, 10\): not class labels; pass one integer per image",
        ),
        (
            lambda: ClassLabel().check(np.zeros(3)),
            r"float64 and shape \(3,\): not class labels; pass one integer per image",
        ),
        (
            lambda: ClassLabel().check(np.array([0, 10])),
            "condition = 10: not a class label; pass labels from 0 to 9",
        ),
        (
            lambda: ClassLabel().check(np.array([-1, 3])),
            "condition = -1: not a class label; pass labels from 0 to 9",
        ),
        (lambda: ContinuousCondition(size=0), "size = 0: not a positive integer; pass an integer ≥ 1"),
        (
            lambda: ContinuousCondition(size=2).check(np.zeros((4, 3))),
            r"shape \(4, 3\): not vectors of size 2; pass numbers, \(n, 2\)",
        ),
        (
            lambda: ContinuousCondition(size=2).check(np.zeros(2)),
            r"shape \(2,\): not vectors of size 2; pass numbers, \(n, 2\)",
        ),
        (lambda: ContinuousCondition(size=1).check(np.array([["a"]])), r"pass numbers, \(n, 1\)"),
        (
            lambda: ContinuousCondition(size=1).check(np.array([[np.nan]])),
            "NaN or infinite values: not finite; pass finite numbers",
        ),
    ],
)
def test_invalid_condition_is_rejected(act: Callable[[], Condition], message: str) -> None:
    with pytest.raises(InputError, match=message):
        act()
