"""Type aliases shared by all packages."""

from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import keras

Tensor: TypeAlias = Any
"""A tensor of whichever backend runs; naming the classes would import all three."""

Array: TypeAlias = NDArray[np.generic]
"""A NumPy array, whose dtype and shape the docstring gives."""

ImageShape: TypeAlias = tuple[int, int, int]
"""Height, width and channels of one image."""

Shape: TypeAlias = tuple[Any, ...]
"""The shape of a tensor: integers, and None where a size is open."""

Seed: TypeAlias = "int | keras.random.SeedGenerator"
"""An integer, which makes a draw reproducible, or the generator of the layer that draws."""
