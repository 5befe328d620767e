"""Conditions: class labels or vectors on which a model is conditioned."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.registry import Component, register
from keras_vae.core.typing import Array, Tensor
from keras_vae.data.labels import class_index, encode_labels

MAX_CLASSES = 65_536
"""Largest number of classes, whose one-hot vectors a model can hold."""


class Condition(Component, abc.ABC):
    """Base class of conditions."""

    kind: ClassVar[str] = "condition"
    dtype: ClassVar[str]
    """Data type of the values."""

    @property
    @abc.abstractmethod
    def value_shape(self) -> tuple[int, ...]:
        """Shape of the value of one image."""

    @property
    @abc.abstractmethod
    def dim(self) -> int:
        """Size of the vector that encodes a value."""

    @property
    @abc.abstractmethod
    def num_classes(self) -> int | None:
        """Number of classes; None for a condition that is not a class label."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, numbers by default; empty for a condition that is not a class label."""
        return ()

    def check_one(self, value: Array) -> Array:
        """Check the value of all images, and return it in the data type of the condition.

        Args:
            value: One value, (…).

        Raises:
            InputError: The value has an invalid shape or type, or is out of range.
        """
        checked: Array = self.check(value[None])[0]
        return checked

    @abc.abstractmethod
    def check(self, values: Array) -> Array:
        """Check values, and return them in the data type of the condition.

        Args:
            values: One value per image, (n, …).

        Raises:
            InputError: The values have an invalid shape or type, or are out of range.
        """

    @abc.abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """Return the encoded values, (N, dim), float32."""


@register("label")
@dataclass(frozen=True)
class ClassLabel(Condition):
    """A class label, encoded as a one-hot vector (Kingma et al., arXiv 1406.5298).

    Labels are class numbers, names as text, or one-hot vectors. One label for all images follows the rule of
    `data.labels.class_index`: text is a name.

    Args:
        classes: Number of classes. An experiment sets it from its data.
        names: Names of the classes 0, 1, …; their numbers if empty. An experiment sets them from its data.

    Raises:
        InputError: `classes` is below 2 or very large, or `names` are not as many unique names.

    Example:
        >>> ClassLabel(classes=10).dim
        10
        >>> ClassLabel(classes=2, names=("cat", "dog")).check(np.array(["dog", "cat"])).tolist()
        [1, 0]
    """

    dtype: ClassVar[str] = "int32"

    classes: int = 10
    names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Check the number of classes and their names."""
        if self.classes < 2:
            raise InputError(f"classes = {self.classes}: too few classes; pass an integer ≥ 2")
        if self.classes > MAX_CLASSES:
            raise InputError(f"classes = {self.classes}: too many classes; pass at most {MAX_CLASSES}")
        if self.names and len(set(self.names)) != self.classes:
            raise InputError(f"names = {self.names}: not {self.classes} unique names; pass one name per class")

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of a scalar, ()."""
        return ()

    @property
    def dim(self) -> int:
        """Number of classes."""
        return self.classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 0, 1, …."""
        return self.names or tuple(map(str, range(self.classes)))

    def check_one(self, value: Array) -> Array:
        """Check one label, a name or a number, and return its class number as int32, ()."""
        if value.dtype.kind not in "iuU":
            return super().check_one(value)
        return np.array(class_index(self.class_names, value.item(), argument="condition"), self.dtype)

    def check(self, values: Array) -> Array:
        """Check labels, and return their class numbers as int32, (n,)."""
        is_text = values.dtype.kind in "US" or isinstance(next(iter(values.flat), None), str)
        is_one_hot = values.shape[1:] == (self.classes,) and bool(
            np.isin(values, (0, 1)).all() and (np.sum(values, axis=1) == 1).all()
        )
        if len(values) and (is_text or is_one_hot):
            numbers, _ = encode_labels(values, len(values), self.class_names, argument="condition")
            return numbers.astype(self.dtype)
        if values.ndim != 1 or values.dtype.kind not in "iu":
            found = f"condition of type {values.dtype} and shape {values.shape}"
            raise InputError(f"{found}: not class labels; pass one integer per image, (n,), names or one-hot vectors")
        unknown = values[np.less(values, 0) | np.greater_equal(values, self.classes)]
        if len(unknown):
            raise InputError(f"condition = {unknown[0]}: not a class label; pass labels from 0 to {self.classes - 1}")
        return values.astype(self.dtype)

    def encode(self, values: Tensor) -> Tensor:
        """Return one-hot vectors, (N, classes), float32, of class numbers or of one-hot vectors."""
        if len(values.shape) == 2:
            return ops.cast(values, "float32")
        return ops.one_hot(ops.cast(values, "int32"), self.classes, dtype="float32")


@register("vector")
@dataclass(frozen=True)
class ContinuousCondition(Condition):
    """A vector of numbers, used as its own encoding.

    Args:
        size: Number of entries.

    Raises:
        InputError: `size` is below 1.
    """

    dtype: ClassVar[str] = "float32"

    size: int = 1

    def __post_init__(self) -> None:
        """Check the size."""
        if self.size < 1:
            raise InputError(f"size = {self.size}: not positive; pass an integer ≥ 1")

    @property
    def value_shape(self) -> tuple[int, ...]:
        """The shape of a vector, (size,)."""
        return (self.size,)

    @property
    def dim(self) -> int:
        """Number of entries."""
        return self.size

    @property
    def num_classes(self) -> None:
        """None: a vector is not a class label."""
        return None

    def check(self, values: Array) -> Array:
        """Check vectors, and return them as float32, (n, size)."""
        if values.ndim != 2 or values.shape[1] != self.size or values.dtype.kind not in "biuf":
            found = f"condition of type {values.dtype} and shape {values.shape}"
            raise InputError(f"{found}: not vectors of size {self.size}; pass numbers, (n, {self.size})")
        if not np.isfinite(values).all():
            raise InputError("condition with NaN or infinite values: not finite; pass finite numbers")
        return values.astype(self.dtype)

    def encode(self, values: Tensor) -> Tensor:
        """Return the vectors, (N, size), float32."""
        return ops.cast(values, "float32")


def concat_condition(maps: Tensor, condition: Tensor) -> Tensor:
    """Append the entries of a condition to images or feature maps, as constant channels.

    Args:
        maps: Images or feature maps, (N, H, W, C).
        condition: Encoded conditions, (N, dim), or None to return the maps unchanged.

    Returns:
        (N, H, W, C + dim).

    Example:
        >>> concat_condition(ops.zeros((2, 7, 7, 1)), ops.ones((2, 10))).shape[-1]
        11
    """
    if condition is None:
        return maps
    return ops.concatenate([maps, ops.add(ops.zeros_like(maps[..., :1]), condition[:, None, None])], axis=-1)
