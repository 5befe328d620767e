"""Planes through a latent space, and views of them."""

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
        names: The names of the two axes.
    """

    origin: NDArray[np.float32]
    basis: NDArray[np.float32]
    names: tuple[str, str]

    def codes(self, points: ArrayLike) -> NDArray[np.float32]:
        """Return the codes (N, latent_dim) at points (N, 2) of the plane."""
        return (self.origin + np.asarray(points, "float32") @ self.basis).astype("float32")

    def points(self, codes: ArrayLike) -> NDArray[np.float32]:
        """Return the projections (N, 2) of codes (N, latent_dim) onto the plane."""
        return ((np.asarray(codes, "float32") - self.origin) @ self.basis.T).astype("float32")


class View(NamedTuple):
    """A square part of a plane.

    Args:
        u: First coordinate of its center.
        v: Second coordinate of its center.
        half: Half its side length.
    """

    u: float
    v: float
    half: float

    @property
    def center(self) -> tuple[float, float]:
        """The center of the view."""
        return self.u, self.v

    @classmethod
    def around(cls, u0: float, v0: float, u1: float, v1: float) -> "View":
        """Return the smallest square view around a box, given by two opposite corners."""
        half = min(max(abs(u1 - u0), abs(v1 - v0), MIN_SIDE), _MAX_SIDE) / 2
        return cls((u0 + u1) / 2, (v0 + v1) / 2, half)

    def zoom(self, factor: float, center: tuple[float, float] | None = None) -> "View":
        """Return a view whose side is `factor` times as long, centered on a point; by default on this view's center."""
        u, v = center or self.center
        return View(u, v, min(max(self.half * factor, MIN_SIDE / 2), _MAX_SIDE / 2))

    def cell_centers(self, n: int) -> NDArray[np.float32]:
        """Return the centers of n × n equal cells, row by row from the top left, (n², 2)."""
        edge = self.half * (1 - 1 / n)
        return grid_points(n, bounds=(-edge, edge)).z + np.array(self.center, "float32")


MIN_SIDE, _MAX_SIDE = 1e-3, 1e3
"""Shortest and longest side of a view."""


def coordinate_plane(center: ArrayLike, dims: tuple[int, int]) -> Plane:
    """Return the plane of two latent dimensions.

    Args:
        center: The values at which all other dimensions are held, (latent_dim,).
        dims: The two dimensions.

    Raises:
        InputError: The two dimensions are equal, or one does not exist.

    Example:
        >>> coordinate_plane([2.0, 3.0, 4.0], (0, 2)).codes([[1.0, 5.0]]).tolist()
        [[1.0, 3.0, 5.0]]
    """
    origin = np.array(center, "float32")
    check_dims(dims, len(origin))
    origin[list(dims)] = 0
    return Plane(
        origin,
        np.eye(len(origin), dtype="float32")[list(dims)],
        (f"z[{dims[0]}]", f"z[{dims[1]}]"),
    )


def principal_plane(codes: Array) -> Plane:
    """Return the plane of the first two principal components of codes.

    Args:
        codes: (N, latent_dim), N ≥ 3.
    """
    mean = codes.mean(axis=0)
    _, _, directions = np.linalg.svd(codes - mean, full_matrices=False)
    basis = directions[:2]
    # The sign of a component is arbitrary: make its largest entry positive.
    signs = np.sign(basis[np.arange(2), np.abs(basis).argmax(axis=1)])
    return Plane(
        mean.astype("float32"),
        (signs[:, None] * basis).astype("float32"),
        ("first principal component", "second principal component"),
    )


def fit_view(points: Array) -> View:
    """Return the view that shows all points but extreme outliers.

    Args:
        points: (N, 2), N ≥ 1.
    """
    low, high = np.quantile(np.asarray(points, "float64"), (0.01, 0.99), axis=0)
    margin = 0.05 * (high - low)
    (u, v), side = (low + high) / 2, float((high - low + 2 * margin).max())
    return View(float(u), float(v), max(side, MIN_SIDE) / 2)
