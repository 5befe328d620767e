"""Planes through a latent space, and the part of one that is looked at."""

from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from keras_vae.core.typing import Array
from keras_vae.report.latent_grid import check_dims, grid_points


class Plane(NamedTuple):
    """A plane of codes z = origin + u·basis[0] + v·basis[1].

    Args:
        origin: (latent_dim,).
        basis: Two orthonormal directions, (2, latent_dim).
        names: What u and v are called.
    """

    origin: NDArray[np.float32]
    basis: NDArray[np.float32]
    names: tuple[str, str]

    def codes(self, points: ArrayLike) -> NDArray[np.float32]:
        """Return the codes (N, latent_dim) of points (N, 2)."""
        return (self.origin + np.asarray(points, "float32") @ self.basis).astype("float32")

    def points(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Return where codes (N, latent_dim) fall when they are projected, (N, 2)."""
        return ((np.asarray(codes, "float32") - self.origin) @ self.basis.T).astype("float32")


class View(NamedTuple):
    """The square part of a plane that is looked at.

    Args:
        u: Its middle.
        v: Its middle.
        half: Half its side.
    """

    u: float = 0.0
    v: float = 0.0
    half: float = 3.0

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the point at a share of the way from the left and from the bottom."""
        return self.u + self.half * (2 * x - 1), self.v + self.half * (2 * y - 1)

    def region(self, x0: float, y0: float, x1: float, y1: float) -> "View":
        """Return the smallest square view of a box, given in shares of this one."""
        (left, low), (right, high) = self.at(min(x0, x1), min(y0, y1)), self.at(max(x0, x1), max(y0, y1))
        half = max(right - left, high - low, _LEAST) / 2
        return View((left + right) / 2, (low + high) / 2, half)

    def zoomed(self, factor: float, around: tuple[float, float] | None = None) -> "View":
        """Return a view of another size, about a point, else about the middle."""
        u, v = around or (self.u, self.v)
        return View(u, v, min(max(self.half * factor, _LEAST / 2), _MOST / 2))

    def lattice(self, n: int) -> NDArray[np.float32]:
        """Return the middles of n × n equal cells, row by row from the top left, (n², 2)."""
        edge = self.half * (1 - 1 / n)
        return grid_points(n, bounds=(-edge, edge)).z + np.array([self.u, self.v], "float32")


_LEAST, _MOST = 1e-3, 1e3
_DENSE = 2.5


def coordinate_plane(middle: ArrayLike, dims: tuple[int, int]) -> Plane:
    """Return the plane of two latent dimensions.

    Args:
        middle: The code where the others are held, (latent_dim,).
        dims: The two.

    Raises:
        InputError: They span no plane.

    Example:
        >>> coordinate_plane([2.0, 3.0, 4.0], (0, 2)).codes([[1.0, 5.0]]).tolist()
        [[1.0, 3.0, 5.0]]
    """
    origin = np.array(middle, "float32")
    check_dims(dims, len(origin))
    origin[list(dims)] = 0
    return Plane(
        origin,
        np.eye(len(origin), dtype="float32")[list(dims)],
        (f"z[{dims[0]}]", f"z[{dims[1]}]"),
    )


def principal_plane(codes: Array) -> Plane:
    """Return the plane through the mean of codes along which they vary most.

    Args:
        codes: (N, latent_dim), N ≥ 3.
    """
    mean = codes.mean(axis=0)
    _, _, directions = np.linalg.svd(codes - mean, full_matrices=False)
    basis = directions[:2]
    # A direction and its opposite are the same: the largest entry points upwards.
    signs = np.sign(basis[np.arange(2), np.abs(basis).argmax(axis=1)])
    return Plane(
        mean.astype("float32"), (signs[:, None] * basis).astype("float32"), ("first component", "second component")
    )


def around(points: Array) -> View:
    """Return the view that shows points, but for a few that lie far out, and at least where the prior is dense.

    Args:
        points: (N, 2).
    """
    if not len(points):
        return View()
    low, high = np.quantile(np.asarray(points, "float64"), (0.01, 0.99), axis=0)
    margin = 0.05 * (high - low)
    low, high = np.minimum(low - margin, -_DENSE), np.maximum(high + margin, _DENSE)
    (u, v), half = (low + high) / 2, float((high - low).max()) / 2
    return View(float(u), float(v), half)
