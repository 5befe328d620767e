"""Sprites: white shapes on black whose factors of variation are known, drawn here."""

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import ArrayLike, NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.progress import Progress
from keras_vae.data.dataset import Dataset, Factors, LoadedData

NAMES = ("shape", "scale", "orientation", "x", "y")
SIZES = (3, 6, 40, 32, 32)
SHAPES = ("square", "ellipse", "heart")
COUNT = 3 * 6 * 40 * 32 * 32
TRAIN, TEST = 60_000, 20_000

_SIDE = 64
# One more than the steps a tile can go: the last place of a 33-pixel tile ends at pixel 64.
_TILE = _SIDE - 31
_RADIUS = 14.9
# After how many steps of 9 degrees each shape looks the same again.
_PERIODS = (10, 20, 40)


def draw(factors: ArrayLike) -> NDArray[np.uint8]:
    """Return the images of combinations of factors.

    The layout is that of dSprites: `shape` (square, ellipse, heart), `scale` (0.5 to 1 in six equal steps),
    `orientation` (40 equal steps of 9 degrees, clockwise), `x` and `y` (32 steps of one pixel to the right and
    downwards). Images that differ in `x` and `y` alone are exact translations of each other, and no shape reaches
    the border.

    A square looks the same after a quarter turn and an ellipse after a half: orientations 0, 10, 20 and 30 of a square
    are one image, and 0 and 20 of an ellipse. So no code can tell the orientation of all images, here as in dSprites
    (where moreover orientations 0 and 39 are one angle).

    Args:
        factors: Integers (N, 5), each counted from 0 and below its entry of `SIZES`.

    Returns:
        Levels 0 and 255, (N, 64, 64, 1).

    Raises:
        InputError: When there are no such factors.

    Example:
        >>> images = draw([[0, 5, 0, 0, 0], [0, 5, 0, 3, 0]])
        >>> images.shape, bool((images[0, :, :-3] == images[1, :, 3:]).all())
        ((2, 64, 64, 1), True)
    """
    shape, scale, orientation, x, y = _checked(factors).T
    images = np.zeros((len(x), _SIDE, _SIDE), np.uint8)
    places = sliding_window_view(images, (_TILE, _TILE), axis=(1, 2), writeable=True)
    places[np.arange(len(x)), y, x] = _tiles()[shape, scale, orientation]
    return images[..., np.newaxis]


def factors_of(index: ArrayLike) -> NDArray[np.int64]:
    """Return the factors of the images at positions in the whole set, whose last factor, y, changes fastest.

    Args:
        index: Integers (N,) from 0 to `COUNT` − 1.

    Returns:
        Factors (N, 5).

    Raises:
        InputError: When there is no such position.

    Example:
        >>> factors_of([0, 33, COUNT - 1]).tolist()
        [[0, 0, 0, 0, 0], [0, 0, 0, 1, 1], [2, 5, 39, 31, 31]]
    """
    positions = np.asarray(index)
    if positions.dtype.kind not in "iu" or positions.ndim != 1 or ((positions < 0) | (positions >= COUNT)).any():
        raise InputError(
            f"index: {positions.dtype} of shape {positions.shape}; accepted: N integers from 0 to {COUNT - 1}"
        )
    return np.stack(np.unravel_index(positions, SIZES), axis=-1).astype(np.int64)


def index_of(factors: ArrayLike) -> NDArray[np.int64]:
    """Return the positions in the whole set of the images that have these factors: the inverse of `factors_of`.

    Args:
        factors: Integers (N, 5), as `draw` takes them.

    Returns:
        Positions (N,).

    Raises:
        InputError: When there are no such factors.
    """
    return np.ravel_multi_index(tuple(_checked(factors).T), SIZES).astype(np.int64)


def load(progress: Progress) -> LoadedData:
    """Return 60,000 training and 20,000 test images, always the same ones, drawn at random without replacement.

    Args:
        progress: Not needed: drawing takes about a second.

    Returns:
        The images with their factors; their labels are the shapes.
    """
    # NumPy promises that the stream of this generator never changes, and so neither do the images.
    chosen = np.random.RandomState(0).permutation(COUNT)[: TRAIN + TEST]
    note = f"sprites: {TRAIN + TEST:,} of all {COUNT:,} combinations of factors, the same at every loading"
    return LoadedData(_part(chosen[:TRAIN], "train"), _part(chosen[TRAIN:], "test"), (note,))


def _part(index: NDArray[np.int64], split: str) -> Dataset:
    values = factors_of(index)
    return Dataset(draw(values), values[:, 0], "sprites", split, SHAPES, Factors(NAMES, SIZES, values))


def _checked(factors: ArrayLike) -> NDArray[np.int64]:
    values = np.asarray(factors)
    if values.dtype.kind not in "iu" or values.ndim != 2 or values.shape[1] != len(SIZES):
        raise InputError(f"factors: {values.dtype} of shape {values.shape}; accepted: integers, N x {len(SIZES)}")
    if ((values < 0) | (values >= SIZES)).any():
        raise InputError(
            f"factors: from {values.min(0).tolist()} to {values.max(0).tolist()}; accepted: from 0 to below {SIZES}"
        )
    return values.astype(np.int64)


@cache
def _tiles() -> NDArray[np.uint8]:
    """Return every shape in every scale and orientation, (3, 6, 40, 33, 33), its center in the middle pixel."""
    offsets = np.arange(_TILE) - _TILE // 2
    column, row = np.meshgrid(offsets / _RADIUS, offsets / _RADIUS)
    scales = np.linspace(0.5, 1, SIZES[1])[:, np.newaxis, np.newaxis, np.newaxis]
    tiles = np.empty((*SIZES[:3], _TILE, _TILE), np.uint8)
    for number, (inside, period) in enumerate(zip((_square, _ellipse, _heart), _PERIODS, strict=True)):
        # Angles that look alike are made equal, so that rounding does not tell them apart.
        angles = (2 * np.pi / SIZES[2] * (np.arange(SIZES[2]) % period))[:, np.newaxis, np.newaxis]
        cos, sin = np.cos(angles), np.sin(angles)
        u, v = (column * cos + row * sin) / scales, (row * cos - column * sin) / scales
        tiles[number] = np.where(inside(u, v), np.uint8(255), np.uint8(0))
    tiles.setflags(write=False)
    return tiles


# Each shape lies in the unit disc around (0, 0): u runs to the right, v downwards.


def _square(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.maximum(np.abs(u), np.abs(v)) <= np.sqrt(0.5)


def _ellipse(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    return u**2 + (2 * v) ** 2 <= 1


def _heart(u: NDArray[np.float64], v: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return where x² + (1.2 y − 0.85 |x|)² ≤ 1, y upwards, moved and shrunk into the disc."""
    x, y = 1.16 * u, 0.31 - 1.16 * v
    return x**2 + (1.2 * y - 0.85 * np.abs(x)) ** 2 <= 1
