"""Distances between two sets of feature vectors: FID, KID, precision, recall, density and coverage."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.typing import Array
from keras_vae.evaluation.neighbors import blocks

NEIGHBORS = 5
"""The k of precision, recall, density and coverage."""

_MAX_SUBSETS, _MAX_SUBSET_SIZE = 10, 1000


class PRDC(NamedTuple):
    """Overlap of two sets of vectors, each set represented by a union of balls.

    Each ball is centered at a vector and reaches its k-th nearest neighbor in the same set.

    Args:
        precision: The share of samples inside a ball of the real vectors (Kynkäänniemi et al., arXiv 1904.06991).
        recall: The share of real vectors inside a ball of the samples.
        density: The mean number of real balls that contain a sample, over k (Naeem et al., arXiv 2002.09797). It may
            exceed 1.
        coverage: The share of real balls that contain a sample.
    """

    precision: float
    recall: float
    density: float
    coverage: float


def compare_sets(samples: Array, real: Array) -> dict[str, Any]:
    """Return all distances between two sets of feature vectors; None for those that need larger sets.

    Args:
        samples: (N, F), in an order that does not depend on the values.
        real: (M, F), in an order that does not depend on the values.

    Returns:
        `frechet_distance`, `kid` with its standard error, and the fields of `PRDC`.
    """
    count = min(len(samples), len(real))
    overlap = prdc(samples, real)._asdict() if count > NEIGHBORS else dict.fromkeys(PRDC._fields)
    return {
        "frechet_distance": frechet_distance(samples, real) if count > 1 else None,
        "kid": kid(samples, real) if count > 1 else None,
        **overlap,
    }


def frechet_distance(first: Array, second: Array) -> float:
    r"""Return the squared Fréchet distance between normal distributions fitted to two sets of vectors.

    \(\|\mu_1 - \mu_2\|^2 + \operatorname{tr}(C_1 + C_2 - 2 (C_1^{1/2} C_2 C_1^{1/2})^{1/2})\), Heusel et al., arXiv
    1706.08500. With \(C_i = R_i^T R_i\), the last trace is the sum of the singular values of \(R_1 R_2^T\). This needs
    no matrix square root, which would amplify rounding errors of a singular covariance.

    Args:
        first: (N, F), N ≥ 2.
        second: (M, F), M ≥ 2.

    Returns:
        The distance. It is biased upward by an amount that falls as 1/N.

    Example:
        >>> square = np.array([[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]])
        >>> round(frechet_distance(square, square + 3.0), 6)
        18.0
    """
    (mean, root), (other_mean, other_root) = _mean_and_covariance_root(first), _mean_and_covariance_root(second)
    squares = (mean - other_mean) @ (mean - other_mean) + np.sum(root**2) + np.sum(other_root**2)
    return max(0.0, float(squares - 2 * np.linalg.svdvals(root @ other_root.T).sum()))


def kid(first: Array, second: Array) -> dict[str, float | None]:
    r"""Return the kernel Inception distance, an unbiased squared maximum mean discrepancy, with its standard error.

    The kernel is \(k(x, y) = (x \cdot y / F + 1)^3\), Bińkowski et al., arXiv 1801.01401. The distance is averaged over
    at most ten disjoint subsets of at most 1000 vectors of each set. The subsets are independent, so their spread gives
    the standard error. Fewer than twenty vectors form a single subset, without an error.

    Args:
        first: (N, F), N ≥ 2, in an order that does not depend on the values.
        second: (M, F), M ≥ 2, in an order that does not depend on the values.

    Returns:
        `mean`, whose expectation is zero for two sets from one distribution, so that it may be negative, and
        `standard_error`.
    """
    count = min(len(first), len(second))
    size = min(_MAX_SUBSET_SIZE, count // _MAX_SUBSETS) if count >= 2 * _MAX_SUBSETS else count
    subsets = min(_MAX_SUBSETS, count // size)
    values = np.array(
        [
            _mmd(*(np.asarray(rows[index * size : (index + 1) * size], np.float64) for rows in (first, second)))
            for index in range(subsets)
        ]
    )
    error = float(values.std(ddof=1) / math.sqrt(subsets)) if subsets > 1 else None
    return {"mean": float(values.mean()), "standard_error": error}


def prdc(samples: Array, real: Array, k: int = NEIGHBORS) -> PRDC:
    """Return precision, recall, density and coverage of samples.

    Distances are computed block by block, so that memory does not grow with N·M.

    Args:
        samples: (N, F), N > k.
        real: (M, F), M > k.
        k: The neighbor that defines the radius of a ball.

    Returns:
        The four numbers. For two equal sets all are 1 except the density.
    """
    from sklearn.metrics import euclidean_distances

    sample_radii, real_radii = _radii(samples, k), _radii(real, k)
    nearest_sample = np.full(len(real), np.inf)
    real_balls = np.empty(len(samples))
    is_recalled = np.zeros(len(real), bool)
    for start, stop in blocks(len(samples), len(real)):
        distances = euclidean_distances(samples[start:stop], real)
        real_balls[start:stop] = (distances <= real_radii).sum(axis=1)
        is_recalled |= (distances <= sample_radii[start:stop, None]).any(axis=0)
        nearest_sample = np.minimum(nearest_sample, distances.min(axis=0))
    return PRDC(
        precision=float((real_balls > 0).mean()),
        recall=float(is_recalled.mean()),
        density=float(real_balls.mean() / k),
        coverage=float((nearest_sample <= real_radii).mean()),
    )


def _mean_and_covariance_root(rows: Array) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean of vectors, and a matrix R such that RᵀR is their covariance."""
    values = rows.astype(np.float64)
    mean = values.mean(axis=0)
    root = np.linalg.qr((values - mean) / math.sqrt(len(rows) - 1), mode="r")
    return mean, np.asarray(root, np.float64)


def _mmd(first: NDArray[np.float64], second: NDArray[np.float64]) -> float:
    """Return the unbiased squared maximum mean discrepancy under the cubic kernel."""

    def kernel(left: NDArray[np.float64], right: NDArray[np.float64]) -> NDArray[np.float64]:
        return (left @ right.T / left.shape[1] + 1) ** 3

    def mean_within(rows: NDArray[np.float64]) -> float:
        matrix = kernel(rows, rows)
        return float((matrix.sum() - np.trace(matrix)) / (len(rows) * (len(rows) - 1)))

    return mean_within(first) + mean_within(second) - 2 * float(kernel(first, second).mean())


def _radii(rows: Array, k: int) -> NDArray[np.floating]:
    """Return the distance of each vector to its k-th nearest neighbor."""
    from sklearn.neighbors import NearestNeighbors

    return NearestNeighbors(n_neighbors=k, algorithm="brute").fit(rows).kneighbors()[0][:, -1]
