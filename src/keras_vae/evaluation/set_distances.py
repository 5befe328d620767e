"""Distances between two sets of feature vectors (FID, KID, precision, recall, density, coverage) and their errors."""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.typing import Array
from keras_vae.evaluation.neighbors import blocks

NEIGHBORS = 5
"""The k of precision, recall, density and coverage."""

_MAX_SUBSETS, _MAX_SUBSET_SIZE = 10, 1000
_PARTITIONS = 4


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
        `frechet_distance`, `kid` and the fields of `PRDC`, each as a `mean` with its `standard_error` over new samples
        and new real images; None instead of errors that need larger sets.
    """
    count = min(len(samples), len(real))
    found: dict[str, Any] = dict.fromkeys(("frechet_distance", "kid", *PRDC._fields))
    if count > 1:
        distance, error = frechet_distance(samples, real), frechet_distance_error(samples, real)
        found |= {"frechet_distance": {"mean": distance, "standard_error": error}, "kid": kid(samples, real)}
    if count > NEIGHBORS:
        values, errors = prdc(samples, real), prdc_errors(samples, real)
        for name, value, error in zip(PRDC._fields, values, errors or [None] * len(values), strict=True):
            found[name] = {"mean": value, "standard_error": error}
    return found


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


def frechet_distance_error(first: Array, second: Array, *, paired: bool = False) -> float | None:
    r"""Return the standard error of `frechet_distance`, by the infinitesimal jackknife (Efron 1982, chapter 6).

    The distance is a smooth function of the weights of the vectors. Its derivative with respect to the weight of a
    vector x of the first set is, up to a constant,

    \(2 (\mu_1 - \mu_2) \cdot (x - \mu_1) + (x - \mu_1)^T (I - T) (x - \mu_1)\),

    where T is the optimal transport from the first normal distribution to the second. The squared error is the sum
    over both sets of the variance of the derivatives over the size of the set. A bootstrap estimates the same number,
    but every resampled set has fewer distinct vectors, which adds to the bias of the distance and to the spread: its
    error is up to twice as large for sets from one distribution.

    Args:
        first: (N, F), N ≥ 2.
        second: (M, F), M ≥ 2.
        paired: Whether the vectors of the two sets form pairs, such as images and their reconstructions, which are
            drawn together. The derivatives of a pair are then added before their variance is computed.

    Returns:
        The error, which does not include the bias; None if a set has fewer than three vectors.
    """
    if min(len(first), len(second)) < 3:
        return None
    centered = [rows - rows.mean(axis=0) for rows in (first.astype(np.float64), second.astype(np.float64))]
    shift = first.mean(axis=0, dtype=np.float64) - second.mean(axis=0, dtype=np.float64)
    (basis, root), (other_basis, other_root) = (np.linalg.qr(rows) for rows in centered)
    left, _, right = np.linalg.svd(root @ other_root.T, full_matrices=False)
    # Rows of these products are T(x − μ), up to the ratio of the two sizes.
    transported = basis @ (left @ (right @ other_root)), other_basis @ (right.T @ (left.T @ root))
    ratio = math.sqrt((len(first) - 1) / (len(second) - 1))
    derivatives = [
        2 * rows @ direction + np.einsum("ij,ij->i", rows, rows - scale * moved)
        for rows, moved, scale, direction in zip(
            centered, transported, (ratio, 1 / ratio), (shift, -shift), strict=True
        )
    ]
    independent = [sum(derivatives)] if paired else derivatives
    return math.sqrt(sum(float(np.var(values, ddof=1)) / len(values) for values in independent))


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


def prdc_errors(samples: Array, real: Array, k: int = NEIGHBORS) -> PRDC | None:
    """Return the standard errors of precision, recall, density and coverage, by subsampling.

    Both sets are divided at random into ten disjoint subsets. The spread of the numbers over subsets of a tenth of the
    size, divided by √10, estimates the error (Politis and Romano 1994); its square is averaged over four divisions.
    Balls are larger in smaller sets, so the error is approximate: within a factor of two for 300 vectors.
    A bootstrap would be wrong here: the copies of a vector in a resampled set are its nearest neighbors at distance 0
    (Abadie and Imbens 2008).

    Args:
        samples: (N, F).
        real: (M, F).
        k: The neighbor that defines the radius of a ball.

    Returns:
        The errors; None if a tenth of a set has no more than k vectors.
    """
    if min(len(samples), len(real)) // _MAX_SUBSETS <= k:
        return None
    rng = np.random.default_rng(0)
    variances = []
    for _ in range(_PARTITIONS):
        divided = (np.array_split(rows[rng.permutation(len(rows))], _MAX_SUBSETS) for rows in (samples, real))
        values = [prdc(first, second, k) for first, second in zip(*divided, strict=True)]
        variances.append(np.var(values, axis=0, ddof=1))
    return PRDC(*(float(error) for error in np.sqrt(np.mean(variances, axis=0) / _MAX_SUBSETS)))


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
    from sklearn.metrics import euclidean_distances

    radii = np.empty(len(rows))
    for start, stop in blocks(len(rows), len(rows)):
        distances = euclidean_distances(rows[start:stop], rows)
        # Rounding errors must not make another vector appear closer than the vector itself.
        distances[np.arange(stop - start), np.arange(start, stop)] = 0
        radii[start:stop] = np.partition(distances, k, axis=1)[:, k]
    return radii
