"""Type aliases shared by all packages."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

Tensor: TypeAlias = Any
"""A tensor of the current backend. A precise type would require importing all three backends."""

Array: TypeAlias = NDArray[np.generic]
"""A NumPy array; docstrings state its dtype and shape."""

Floats: TypeAlias = NDArray[np.floating[Any]]
"""A NumPy array of floats, on which arithmetic is defined."""

ImageShape: TypeAlias = tuple[int, int, int]
"""Height, width and channels of one image."""

Shape: TypeAlias = tuple[Any, ...]
"""Shape of a tensor: integers, or None for a size that is not fixed."""

Seed: TypeAlias = "int | keras.random.SeedGenerator"
"""An integer, which makes samples reproducible, or the seed generator of a layer."""
