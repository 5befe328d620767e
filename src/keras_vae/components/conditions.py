"""Conditions: class labels or vectors on which a model is conditioned."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.registry import Component, register
from keras_vae.core.typing import Array, Tensor


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

    Args:
        classes: Number of classes. An experiment sets it from its data.

    Raises:
        InputError: `classes` is below 2.

    Example:
        >>> ClassLabel(classes=10).dim
        10
    """

    dtype: ClassVar[str] = "int32"

    classes: int = 10

    def __post_init__(self) -> None:
        """Check the number of classes."""
        if self.classes < 2:
            raise InputError(f"classes = {self.classes}: too few classes; pass an integer ≥ 2")

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

    def check(self, values: Array) -> Array:
        """Check labels, and return them as int32, (n,)."""
        if values.ndim != 1 or values.dtype.kind not in "iu":
            found = f"condition of type {values.dtype} and shape {values.shape}"
            raise InputError(f"{found}: not class labels; pass one integer per image, (n,)")
        unknown = values[np.less(values, 0) | np.greater_equal(values, self.classes)]
        if len(unknown):
            raise InputError(f"condition = {unknown[0]}: not a class label; pass labels from 0 to {self.classes - 1}")
        return values.astype(self.dtype)

    def encode(self, values: Tensor) -> Tensor:
        """Return one-hot vectors, (N, classes), float32."""
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
