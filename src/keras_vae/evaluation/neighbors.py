"""Exact nearest neighbors among images or vectors."""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array

_VALUES_AT_ONCE = 2**24


class Neighbors(NamedTuple):
    """The nearest neighbor of each of n images.

    Args:
        indices: The index of the neighbor, (n,).
        distances: The Euclidean distance to the neighbor, (n,). uint8 images are scaled to [0, 1] first.
    """

    indices: NDArray[np.intp]
    distances: NDArray[np.float64]


class NeighborIndex:
    """A set of images or vectors, prepared for many searches.

    Args:
        among: uint8 images (m, H, W, C), scaled to [0, 1] here; or floats (m, …), searched as they are.

    Example:
        >>> NeighborIndex(np.array([[9.0, 9.0], [0.0, 1.0]])).query(np.array([[0.0, 3.0]]))
        Neighbors(indices=array([1]), distances=array([2.]))
    """

    def __init__(self, among: Array) -> None:
        self._vectors = _as_vectors(among)
        self._half_squares = np.einsum("ij,ij->i", self._vectors, self._vectors) / 2

    def query(self, images: Array) -> Neighbors:
        """Return the nearest neighbor of each image.

        Args:
            images: uint8 images (n, H, W, C), scaled to [0, 1] here; or floats (n, …).
        """
        queries = _as_vectors(images)
        # |a − b|² is smallest where a·b − |b|²/2 is largest.
        indices = (queries @ self._vectors.T - self._half_squares).argmax(axis=1)
        differences = (queries - self._vectors[indices]).astype(np.float64)
        return Neighbors(indices, np.linalg.norm(differences, axis=1))


def nearest_neighbors(
    images: Array, among: Array, *, progress: Progress = silent, label: str = "nearest neighbors"
) -> Neighbors:
    """Return the nearest neighbor of each image, in memory that does not grow with the set.

    Args:
        images: uint8 images (n, H, W, C), or vectors (n, F).
        among: The set to search, (m, …), of the same type and size.
        progress: Shows the progress over the set.
        label: The label of the progress.

    Raises:
        InputError: The two sets differ in type or size, or one of them is empty.

    Example:
        >>> nearest_neighbors(np.array([[0.0, 3.0]]), np.array([[9.0, 9.0], [0.0, 1.0]]))
        Neighbors(indices=array([1]), distances=array([2.]))
    """
    if images.shape[1:] != among.shape[1:] or images.dtype != among.dtype or not (len(images) and len(among)):
        given = " and ".join(f"{array.dtype} {array.shape}" for array in (images, among))
        raise InputError(
            f"images, among = {given}: cannot be compared; pass images or vectors of one type and size, at least one "
            "of each"
        )
    indices, distances = np.zeros(len(images), np.intp), np.full(len(images), np.inf)
    queries = _as_vectors(images)
    for start, stop in progress(blocks(len(among), max(queries.shape)), label):
        found = NeighborIndex(among[start:stop]).query(queries)
        closer = found.distances < distances
        indices[closer], distances[closer] = found.indices[closer] + start, found.distances[closer]
    return Neighbors(indices, distances)


def blocks(count: int, width: int) -> list[tuple[int, int]]:
    """Return the ends of successive blocks of rows, so that a block of `width` values per row stays small.

    Args:
        count: Number of rows.
        width: Values per row.

    Example:
        >>> blocks(5, 2**23)
        [(0, 2), (2, 4), (4, 5)]
    """
    size = max(1, _VALUES_AT_ONCE // width)
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def _as_vectors(images: Array) -> NDArray[np.floating[Any]]:
    """Return images, scaled to [0, 1] if they are uint8, as rows."""
    rows: NDArray[Any] = images.reshape(len(images), -1)
    return rows.astype(np.float32) / 255 if images.dtype == np.uint8 else rows
