"""Conditions: what a model is told about an image besides its pixels."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.registry import Component, register
from keras_vae.core.typing import Array, Tensor


class Condition(Component, abc.ABC):
    """What a condition can do."""

    kind: ClassVar[str] = "condition"
    dtype: ClassVar[str]
    """Of a value."""

    @property
    @abc.abstractmethod
    def value_shape(self) -> tuple[int, ...]:
        """The shape of one image's value."""

    @property
    @abc.abstractmethod
    def width(self) -> int:
        """The size of the vector that networks are shown."""

    @property
    @abc.abstractmethod
    def num_classes(self) -> int | None:
        """The number of classes; None for a condition that is not a class label."""

    @abc.abstractmethod
    def check(self, values: Array) -> Array:
        """Return the conditions of n images as the model takes them, after a look at them.

        Args:
            values: What the caller passed, (n, …).

        Raises:
            InputError: They are not of this condition's form.
        """

    @abc.abstractmethod
    def encode(self, values: Tensor) -> Tensor:
        """Return the vectors that networks are shown, (N, width), float32."""


@register("label")
@dataclass(frozen=True)
class ClassLabel(Condition):
    """One of several classes, shown as a one-hot vector (Kingma et al., arXiv 1406.5298).

    Args:
        classes: How many there are; an experiment takes the number from its data.

    Raises:
        InputError: There are fewer than two.

    Example:
        >>> ClassLabel(classes=10).width
        10
    """

    dtype: ClassVar[str] = "int32"

    classes: int = 10

    def __post_init__(self) -> None:
        """Refuse a choice that is none."""
        if self.classes < 2:
            raise InputError(f"condition label: classes = {self.classes}: there must be at least two")

    @property
    def value_shape(self) -> tuple[int, ...]:
        """A label is a number."""
        return ()

    @property
    def width(self) -> int:
        """The number of classes."""
        return self.classes

    @property
    def num_classes(self) -> int:
        """The number of classes."""
        return self.classes

    def check(self, values: Array) -> Array:
        """Return the labels as int32, (n,); refuse those that are no class."""
        if values.ndim != 1 or values.dtype.kind not in "iu":
            raise InputError(f"condition: {values.dtype} of shape {values.shape}: pass one integer label an image")
        if values.min() < 0 or values.max() >= self.classes:
            found = f"condition from {values.min()} to {values.max()}"
            raise InputError(f"{found}: labels run from 0 to {self.classes - 1}")
        return values.astype(self.dtype)

    def encode(self, values: Tensor) -> Tensor:
        """Return one-hot vectors, (N, classes), float32."""
        return ops.one_hot(ops.cast(values, "int32"), self.classes, dtype="float32")


@register("vector")
@dataclass(frozen=True)
class ContinuousCondition(Condition):
    """A vector of numbers, shown as it is.

    Args:
        size: How many numbers.

    Raises:
        InputError: There are none.
    """

    dtype: ClassVar[str] = "float32"

    size: int = 1

    def __post_init__(self) -> None:
        """Refuse a vector that is none."""
        if self.size < 1:
            raise InputError(f"condition vector: size = {self.size}: must be ≥ 1")

    @property
    def value_shape(self) -> tuple[int, ...]:
        """(size,)."""
        return (self.size,)

    @property
    def width(self) -> int:
        """The size."""
        return self.size

    @property
    def num_classes(self) -> None:
        """None: a vector is not a class label."""
        return None

    def check(self, values: Array) -> Array:
        """Return the vectors as float32, (n, size); refuse others."""
        if values.ndim != 2 or values.shape[1] != self.size or values.dtype.kind not in "biuf":
            raise InputError(f"condition: {values.dtype} of shape {values.shape}: pass numbers, (n, {self.size})")
        if not np.isfinite(values).all():
            raise InputError("condition: NaN or infinite numbers; pass finite ones")
        return values.astype(self.dtype)

    def encode(self, values: Tensor) -> Tensor:
        """Return the vectors, (N, size), float32."""
        return ops.cast(values, "float32")


def concat_condition(maps: Tensor, vectors: Tensor) -> Tensor:
    """Return maps with the numbers of a vector as further constant channels behind their own.

    Args:
        maps: Images or feature maps, (N, H, W, C).
        vectors: (N, width), or None, which returns the maps as they are.

    Returns:
        (N, H, W, C + width).

    Example:
        >>> concat_condition(ops.zeros((2, 7, 7, 1)), ops.ones((2, 10))).shape[-1]
        11
    """
    if vectors is None:
        return maps
    return ops.concatenate([maps, ops.add(ops.zeros_like(maps[..., :1]), vectors[:, None, None])], axis=-1)
