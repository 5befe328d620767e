"""Grids and interpolations in the latent space."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError


class Grid(NamedTuple):
    """A grid of latent vectors, in the order in which a figure shows their images.

    Args:
        z: Latent vectors, row by row from the top left, `(rows * columns, latent_dim)`.
        x: Coordinate of each column, increasing from left to right, `(columns,)`.
        y: Coordinate of each row, decreasing from top to bottom, `(rows,)`; empty for a one-dimensional latent space,
            whose grid is a single row.
    """

    z: NDArray[np.float32]
    x: NDArray[np.float32]
    y: NDArray[np.float32]


def grid_points(
    n: int = 30,
    *,
    bounds: tuple[float, float] | None = None,
    latent_dim: int = 2,
    dims: tuple[int, int] = (0, 1),
    center: Sequence[float] | None = None,
) -> Grid:
    """Return an n × n grid over two latent dimensions, with all other dimensions fixed.

    By default, coordinate i is the quantile `Φ⁻¹((i + ½) / n)` of the standard normal distribution, so that all images
    represent an equal share of the prior. With `bounds`, coordinates are evenly spaced. A one-dimensional latent space
    gives one row of n points.

    Args:
        n: Number of points along each side.
        bounds: Smallest and largest coordinate, both included; `n=1` uses the midpoint. None uses the quantiles.
        latent_dim: Size of the latent vectors.
        dims: Horizontal and vertical dimension; unused with `latent_dim=1`.
        center: Values of the dimensions that are not in `dims`, `(latent_dim,)`; zeros by default.

    Returns:
        The latent vectors and the coordinates along both sides.

    Raises:
        InputError: An argument is out of range.

    Example:
        >>> grid = grid_points(3, bounds=(-2.0, 2.0))
        >>> grid.z[:3].tolist()
        [[-2.0, 2.0], [0.0, 2.0], [2.0, 2.0]]
    """
    if n < 1:
        raise InputError(f"n = {n}: too small; pass at least 1 point per side")
    if latent_dim < 1:
        raise InputError(f"latent_dim = {latent_dim}: too small; pass at least 1")
    if bounds is not None and not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]):
        raise InputError(
            f"bounds = ({bounds[0]:g}, {bounds[1]:g}): not an interval; pass two finite numbers, the smaller first"
        )
    if latent_dim == 1 and tuple(dims) != (0, 1):
        raise InputError(f"dims = ({dims[0]}, {dims[1]}): the latent space has only 1 dimension; omit dims")
    if latent_dim > 1:
        check_dims(dims, latent_dim)
    origin = np.zeros(latent_dim, np.float32) if center is None else np.asarray(center, np.float32)
    if origin.shape != (latent_dim,) or not np.isfinite(origin).all():
        raise InputError(
            f"center.shape = {origin.shape}: invalid; pass {latent_dim} finite numbers, one per latent dimension"
        )

    coordinates = _quantiles(n) if bounds is None else _evenly_spaced(n, *bounds)
    return grid_over(coordinates, coordinates, dims=dims, center=origin)


def grid_over(
    horizontal: NDArray[np.floating[Any]],
    vertical: NDArray[np.floating[Any]],
    *,
    dims: tuple[int, int],
    center: NDArray[np.floating[Any]],
) -> Grid:
    """Return the grid of given coordinates in two latent dimensions, with all other dimensions fixed.

    Args:
        horizontal: Coordinates of the columns, increasing, (n,).
        vertical: Coordinates of the rows, increasing, (m,); unused in a one-dimensional latent space.
        dims: Horizontal and vertical dimension; unused in a one-dimensional latent space.
        center: Values of the other dimensions, (latent_dim,).

    Example:
        >>> grid_over(np.array([1.0, 2.0]), np.array([5.0, 6.0]), dims=(0, 2), center=np.full(3, 9.0)).z.tolist()
        [[1.0, 9.0, 6.0], [2.0, 9.0, 6.0], [1.0, 9.0, 5.0], [2.0, 9.0, 5.0]]
    """
    x, y = np.asarray(horizontal, np.float32), np.asarray(vertical, np.float32)[::-1]
    if len(center) == 1:
        return Grid(z=x[:, np.newaxis], x=x, y=np.empty(0, np.float32))
    z = np.tile(np.asarray(center, np.float32), (len(x) * len(y), 1))
    z[:, dims[0]] = np.tile(x, len(y))
    z[:, dims[1]] = np.repeat(y, len(x))
    return Grid(z, x, y)


def interpolate(
    start: NDArray[np.floating[Any]],
    end: NDArray[np.floating[Any]],
    n: int,
    *,
    spherical: bool = False,
    origin: NDArray[np.floating[Any]] | None = None,
) -> NDArray[np.float32]:
    r"""Interpolate between two latent vectors, both included.

    Linear interpolation follows a straight line. Spherical interpolation follows
    \((\sin((1-t)\theta)\,a + \sin(t\theta)\,b)/\sin\theta\) with the angle θ between the vectors. It keeps the
    length that vectors of many dimensions have under a normal prior (White, arXiv 1609.04468), measured from the mean
    of the codes.

    Args:
        start: First vector, (latent_dim,).
        end: Last vector, (latent_dim,).
        n: Number of points, at least 2.
        spherical: Whether to interpolate spherically.
        origin: Center of the sphere, (latent_dim,); the zero vector by default.

    Returns:
        (n, latent_dim).

    Raises:
        InputError: `n` is less than 2.

    Example:
        >>> interpolate(np.zeros(2), np.ones(2), 3).tolist()
        [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
    """
    if n < 2:
        raise InputError(f"n = {n}: too few; pass at least 2, for the two ends")
    t = np.linspace(0, 1, n)[:, None]
    weights = 1 - t, t
    center = np.zeros_like(start) if origin is None or not spherical else origin
    a, b = start - center, end - center
    lengths = float(np.linalg.norm(a) * np.linalg.norm(b))
    angle = math.acos(max(-1.0, min(1.0, float(a @ b) / lengths))) if lengths else 0.0
    # The great circle through parallel or opposite vectors is not unique: use the line.
    if spherical and math.sin(angle) > 1e-6:
        weights = np.sin((1 - t) * angle) / math.sin(angle), np.sin(t * angle) / math.sin(angle)
    return (center + weights[0] * a + weights[1] * b).astype("float32")


def check_dims(dims: tuple[int, int], latent_dim: int) -> None:
    """Reject a pair of latent dimensions that does not span a plane.

    Args:
        dims: Two dimensions, counted from 0.
        latent_dim: Number of dimensions.

    Raises:
        InputError: The dimensions are equal, or one of them does not exist.
    """
    if dims[0] == dims[1] or not all(0 <= dim < latent_dim for dim in dims):
        raise InputError(
            f"dims = ({dims[0]}, {dims[1]}): not a plane; pass two different dimensions from 0 to {latent_dim - 1}"
        )


def _evenly_spaced(n: int, low: float, high: float) -> NDArray[np.float32]:
    if n == 1:
        return np.array([(low + high) / 2], np.float32)
    return np.linspace(low, high, n, dtype=np.float32)


def _quantiles(n: int) -> NDArray[np.float32]:
    return np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)], np.float32)
