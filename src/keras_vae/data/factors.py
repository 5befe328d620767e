"""Known factors of variation of images."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vae.core.errors import InputError
from keras_vae.data.validation import numeric_array

MAX_SIZE = 65_536
"""Largest number of values of a factor."""


@dataclass(frozen=True, eq=False)
class Factors:
    """Known factors of variation of images, such as shape and position, as integers.

    Args:
        names: Name of each factor.
        sizes: Number of values that each factor can take.
        values: int64 (N, F), one row per image; each value is at least 0 and below the size of its factor.

    Raises:
        InputError: A field is invalid; `from_array` accepts more types.
    """

    names: tuple[str, ...]
    sizes: tuple[int, ...]
    values: NDArray[np.int64] = field(repr=False)

    def __post_init__(self) -> None:
        """Check the fields."""
        values, count = self.values, len(self.names)
        if values.dtype != np.int64 or values.ndim != 2 or 0 in values.shape:
            raise InputError(
                f"factors: {values.dtype} of shape {values.shape}; pass int64, N x F, with N and F at least 1"
            )
        if values.shape[1] != count or len(self.sizes) != count or len(set(self.names)) != count:
            raise InputError(
                f"factors: {values.shape[1]} columns, names {self.names}, sizes {self.sizes}; "
                "pass one unique name and one size per column"
            )
        if max(self.sizes) > MAX_SIZE:
            raise InputError(f"factors: sizes {self.sizes}; number the values of each factor 0, 1, …, below {MAX_SIZE}")
        low, high = values.min(0), values.max(0)
        if (low < 0).any() or (high >= self.sizes).any():
            raise InputError(
                f"factors: values from {low.tolist()} to {high.tolist()} for sizes {self.sizes}; "
                "pass integers from 0 to size - 1"
            )

    @classmethod
    def from_array(cls, values: ArrayLike, names: Sequence[str] = (), sizes: Sequence[int] = ()) -> "Factors":
        """Return factors from an array of any integer dtype.

        Args:
            values: Integers (N, F), counted from 0.
            names: Names of the factors; `factor_0` and so on by default.
            sizes: Number of values of each factor; by default, one more than the largest value in its column.

        Raises:
            InputError: The shape, dtype or range is invalid.

        Example:
            >>> Factors.from_array([[0, 3], [1, 0]]).sizes
            (2, 4)
        """
        numbers = numeric_array("factors", values)
        if numbers.dtype.kind not in "iu" or numbers.ndim != 2 or 0 in numbers.shape:
            raise InputError(f"factors: {numbers.dtype} of shape {numbers.shape}; pass integers, N x F")
        return cls(
            tuple(names) or tuple(f"factor_{column}" for column in range(numbers.shape[1])),
            tuple(map(int, sizes)) or tuple((numbers.max(0) + 1).tolist()),
            numbers.astype(np.int64, copy=False),
        )

    def subset(self, indices: NDArray[np.integer]) -> "Factors":
        """Return the factors of the images at the given positions, in that order."""
        return replace(self, values=self.values[indices])
