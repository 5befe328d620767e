"""Points of the latent space worth decoding."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError


class Grid(NamedTuple):
    """A lattice of latent vectors, in the order in which a figure shows their images.

    Args:
        z: Latent vectors, row by row from the top left, `(rows * columns, latent_dim)`.
        x: First chosen coordinate of each column, from the left, increasing, `(columns,)`.
        y: Second chosen coordinate of each row, from the top, decreasing, `(rows,)`; empty for the one row of a
            one-dimensional latent space, which has no second coordinate.
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
    """Return an n × n lattice over two latent dimensions, the others held at a center.

    Coordinates lie at the standard normal's quantiles, coordinate i at `Φ⁻¹((i + ½) / n)`, so that every image stands
    for an equal share of the prior; or they are evenly spaced over `bounds`. A one-dimensional latent space gives one
    row of n points.

    Args:
        n: Points along each side.
        bounds: Smallest and largest coordinate, both included; `n=1` takes the midpoint. None takes the quantiles.
        latent_dim: Size of the latent vectors.
        dims: The dimension that runs to the right and the one that runs upwards; left alone with `latent_dim=1`.
        center: Value of every latent dimension that is not in `dims`, `(latent_dim,)`; zeros by default.

    Returns:
        The latent vectors and the coordinates along the two sides.

    Raises:
        InputError: If an argument is out of its range.

    Example:
        >>> grid = grid_points(3, bounds=(-2.0, 2.0))
        >>> grid.z[:3].tolist()
        [[-2.0, 2.0], [0.0, 2.0], [2.0, 2.0]]
    """
    if n < 1:
        raise InputError(f"n is {n}: a grid needs at least 1 point a side")
    if latent_dim < 1:
        raise InputError(f"latent_dim is {latent_dim}: a latent space has at least 1 dimension")
    if bounds is not None and not (math.isfinite(bounds[0]) and math.isfinite(bounds[1]) and bounds[0] < bounds[1]):
        raise InputError(f"bounds are {bounds[0]:g}, {bounds[1]:g}: pass two finite numbers, the smaller one first")
    if latent_dim == 1 and tuple(dims) != (0, 1):
        raise InputError(f"dims are {dims[0]}, {dims[1]}: a latent space of 1 dimension has no others, leave dims out")
    if latent_dim > 1:
        check_dims(dims, latent_dim)
    origin = np.zeros(latent_dim, np.float32) if center is None else np.asarray(center, np.float32)
    if origin.shape != (latent_dim,) or not np.isfinite(origin).all():
        raise InputError(f"center has shape {origin.shape}: pass {latent_dim} finite numbers, one a latent dimension")

    x = _quantiles(n) if bounds is None else _even(n, *bounds)
    if latent_dim == 1:
        return Grid(z=x[:, np.newaxis], x=x, y=np.empty(0, np.float32))
    y = x[::-1]
    z = np.tile(origin, (n * n, 1))
    z[:, dims[0]] = np.tile(x, n)
    z[:, dims[1]] = np.repeat(y, n)
    return Grid(z, x, y)


def interpolate(
    start: NDArray[np.floating[Any]], end: NDArray[np.floating[Any]], n: int, *, spherical: bool = False
) -> NDArray[np.float32]:
    r"""Return points on the way from one latent vector to another, both included.

    On a straight line, or, spherically, at \((\sin((1-t)\theta)\,a + \sin(t\theta)\,b)/\sin\theta\), θ the angle
    between them: that keeps the length that vectors of many dimensions have under a normal prior (White, arXiv
    1609.04468).

    Args:
        start: (latent_dim,).
        end: (latent_dim,).
        n: Points, at least 2.
        spherical: On the great circle instead of the line.

    Returns:
        (n, latent_dim).

    Raises:
        InputError: There are fewer than two points.

    Example:
        >>> interpolate(np.zeros(2), np.ones(2), 3).tolist()
        [[0.0, 0.0], [0.5, 0.5], [1.0, 1.0]]
    """
    if n < 2:
        raise InputError(f"n = {n}: an interpolation has at least its two ends")
    t = np.linspace(0, 1, n)[:, None]
    weights = 1 - t, t
    lengths = float(np.linalg.norm(start) * np.linalg.norm(end))
    angle = math.acos(max(-1.0, min(1.0, float(start @ end) / lengths))) if lengths else 0.0
    # Between parallel vectors every great circle is the line, and between opposite ones there is none to choose.
    if spherical and math.sin(angle) > 1e-6:
        weights = np.sin((1 - t) * angle) / math.sin(angle), np.sin(t * angle) / math.sin(angle)
    return (weights[0] * start + weights[1] * end).astype("float32")


def check_dims(dims: tuple[int, int], latent_dim: int) -> None:
    """Refuse a pair of latent dimensions that does not span a plane.

    Args:
        dims: The two dimensions, counted from 0.
        latent_dim: How many there are.

    Raises:
        InputError: If they are equal, or one of them does not exist.
    """
    if dims[0] == dims[1] or not all(0 <= dim < latent_dim for dim in dims):
        raise InputError(f"dims are {dims[0]}, {dims[1]}: pass two different dimensions from 0 to {latent_dim - 1}")


def _even(n: int, low: float, high: float) -> NDArray[np.float32]:
    if n == 1:
        return np.array([(low + high) / 2], np.float32)
    return np.linspace(low, high, n, dtype=np.float32)


def _quantiles(n: int) -> NDArray[np.float32]:
    return np.array([NormalDist().inv_cdf((i + 0.5) / n) for i in range(n)], np.float32)
