"""The sprites data set: white shapes on black with known factors of variation, drawn by this module."""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.progress import Progress
from keras_vae.data.dataset import Dataset, LoadedData
from keras_vae.data.factors import Factors

NAMES = ("shape", "scale", "orientation", "x", "y")
SIZES = (3, 6, 40, 32, 32)
SHAPES = ("square", "ellipse", "heart")
COUNT = 3 * 6 * 40 * 32 * 32
TRAIN, TEST = 60_000, 20_000

_SIDE = 64
# 33 pixels, so that a tile at the last of 32 positions ends at pixel 64.
_TILE = _SIDE - 31
_RADIUS = 14.9
# Number of 9-degree steps after which each shape looks the same again.
_PERIODS = (10, 20, 40)


def draw(factors: ArrayLike) -> NDArray[np.uint8]:
    """Draw the images of combinations of factors.

    The factors are those of dSprites: `shape` (square, ellipse, heart), `scale` (0.5 to 1 in six equal steps),
    `orientation` (40 equal steps of 9 degrees, clockwise), `x` and `y` (32 steps of one pixel to the right and
    downwards). Images that differ only in `x` and `y` are exact translations of each other, and no shape touches the
    border.

    A square looks the same after a quarter turn and an ellipse after a half turn: orientations 0, 10, 20 and 30 of a
    square give the same image, and so do 0 and 20 of an ellipse. The orientation therefore cannot be recovered from all
    images. The same holds for dSprites, in which orientations 0 and 39 are also the same angle.

    Args:
        factors: Integers (N, 5), each counted from 0 and below its entry of `SIZES`.

    Returns:
        Levels 0 and 255, (N, 64, 64, 1).

    Raises:
        InputError: The factors have another shape or dtype, or are out of range.

    Example:
        >>> images = draw([[0, 5, 0, 0, 0], [0, 5, 0, 3, 0]])
        >>> images.shape, bool((images[0, :, :-3] == images[1, :, 3:]).all())
        ((2, 64, 64, 1), True)
    """
    shape, scale, orientation, x, y = _validate_factors(factors).T
    images = np.zeros((len(x), _SIDE, _SIDE), np.uint8)
    windows = sliding_window_view(images, (_TILE, _TILE), axis=(1, 2), writeable=True)
    windows[np.arange(len(x)), y, x] = _tiles()[shape, scale, orientation]
    return images[..., np.newaxis]


def index_to_factors(index: ArrayLike) -> NDArray[np.int64]:
    """Return the factors of images by their position in the complete set, in which the last factor, y, varies fastest.

    Args:
        index: Integers (N,) from 0 to `COUNT` − 1.

    Returns:
        Factors (N, 5).

    Raises:
        InputError: The positions have another shape or dtype, or are out of range.

    Example:
        >>> index_to_factors([0, 33, COUNT - 1]).tolist()
        [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [2, 5, 39, 31, 31]]
    """
    positions = np.asarray(index)
    if positions.dtype.kind not in "iu" or positions.ndim != 1 or ((positions < 0) | (positions >= COUNT)).any():
        raise InputError(f"index: {positions.dtype} of shape {positions.shape}; pass N integers from 0 to {COUNT - 1}")
    return np.stack(np.unravel_index(positions, SIZES), axis=-1).astype(np.int64)


def factors_to_index(factors: ArrayLike) -> NDArray[np.int64]:
    """Return the positions of factors in the complete set: the inverse of `index_to_factors`.

    Args:
        factors: Integers (N, 5), as for `draw`.

    Returns:
        Positions (N,).

    Raises:
        InputError: The factors have another shape or dtype, or are out of range.
    """
    return np.ravel_multi_index(tuple(_validate_factors(factors).T), SIZES).astype(np.int64)


def load(progress: Progress) -> LoadedData:
    """Return 60,000 training and 20,000 test images, a fixed random selection without replacement.

    Args:
        progress: Unused, because drawing takes about a second.

    Returns:
        The images with their factors; the labels are the shapes.
    """
    # NumPy guarantees that the stream of this generator, and therefore the selection, never changes.
    selection = np.random.RandomState(0).permutation(COUNT)[: TRAIN + TEST]
    note = f"sprites: a fixed selection of {TRAIN + TEST:,} from all {COUNT:,} combinations of factors"
    return LoadedData(_part(selection[:TRAIN], "train"), _part(selection[TRAIN:], "test"), (note,))


def _part(index: NDArray[np.int64], split: str) -> Dataset:
    values = index_to_factors(index)
    return Dataset(draw(values), values[:, 0], "sprites", split, SHAPES, Factors(NAMES, SIZES, values))


def _validate_factors(factors: ArrayLike) -> NDArray[np.int64]:
    values = np.asarray(factors)
    if values.dtype.kind not in "iu" or values.ndim != 2 or values.shape[1] != len(SIZES):
        raise InputError(f"factors: {values.dtype} of shape {values.shape}; pass integers, N x {len(SIZES)}")
    if ((values < 0) | (values >= SIZES)).any():
        raise InputError(
            f"factors: from {values.min(0).tolist()} to {values.max(0).tolist()}; pass values from 0 to below {SIZES}"
        )
    return values.astype(np.int64)


@cache
def _tiles() -> NDArray[np.uint8]:
    """Return all shapes in all scales and orientations, (3, 6, 40, 33, 33), centered in the middle pixel."""
    offsets = np.arange(_TILE) - _TILE // 2
    column, row = np.meshgrid(offsets / _RADIUS, offsets / _RADIUS)
    scales = np.linspace(0.5, 1, SIZES[1])[:, np.newaxis, np.newaxis, np.newaxis]
    tiles = np.empty((*SIZES[:3], _TILE, _TILE), np.uint8)
    for number, (inside, period) in enumerate(zip((_square, _ellipse, _heart), _PERIODS, strict=True)):
        # Angles at which a shape looks the same are made equal, so that rounding cannot make their images differ.
        angles = (2 * np.pi / SIZES[2] * (np.arange(SIZES[2]) % period))[:, np.newaxis, np.newaxis]
        cos, sin = np.cos(angles), np.sin(angles)
        u, v = (column * cos + row * sin) / scales, (row * cos - column * sin) / scales
        tiles[number] = np.where(inside(u, v), np.uint8(255), np.uint8(0))
    tiles.setflags(write=False)
    return tiles


# Each shape lies in the unit disc around (0, 0); u points to the right, v downwards.


def _square(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.maximum(np.abs(u), np.abs(v)) <= np.sqrt(0.5)


def _ellipse(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    return u**2 + (2 * v) ** 2 <= 1


def _heart(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return whether x² + (1.2 y − 0.85 |x|)² ≤ 1, with y upwards, shifted and scaled into the disc."""
    x, y = 1.16 * u, 0.31 - 1.16 * v
    return x**2 + (1.2 * y - 0.85 * np.abs(x)) ** 2 <= 1
