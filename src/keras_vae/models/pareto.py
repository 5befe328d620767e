"""The Pareto diagnostic of importance weights."""

import math

import numpy as np

from keras_vae.core.typing import Floats

_SMALLEST_TAIL = 5


def pareto_shape(log_weights: Floats) -> Floats:
    r"""Return the shape \(\hat k\) of the generalized Pareto distribution of the largest weights of each image.

    The mean of K weights is reliable if \(\hat k < \min(1 - 1/\log_{10} K, 0.7)\); above, it converges so slowly that
    it typically lies below its expectation (Vehtari et al., arXiv 1507.02646). The \(\min(K/5, 3\sqrt K)\) largest
    weights are fitted with the estimator of Zhang and Stephens (Technometrics, 2009), shrunk toward ½ by ten draws.

    Args:
        log_weights: Logarithms of K weights per image, (N, K).

    Returns:
        (N,), float64, at least −1, the shape of a uniform tail; NaN if K < 25.

    Example:
        >>> pareto = -np.log(np.random.default_rng(0).random((1, 100_000)))  # P(w > t) = 1/t, so k = 1
        >>> bool(abs(pareto_shape(pareto)[0] - 1) < 0.1)
        True
    """
    count = log_weights.shape[1]
    tail = math.ceil(min(count / 5, 3 * math.sqrt(count)))
    if tail < _SMALLEST_TAIL or tail >= count:
        return np.full(len(log_weights), np.nan)
    ordered = np.sort(log_weights, axis=1)[:, -tail - 1 :]
    weights = np.exp(ordered - ordered[:, -1:])
    return np.array([_fit(row[1:] - row[0]) for row in weights])


def reliable_shape(samples: int) -> float:
    """Return the largest shape with which the mean of so many weights is reliable, at most 0.7."""
    return min(1 - 1 / math.log10(samples), 0.7) if samples > 1 else -math.inf


def _fit(excesses: Floats) -> float:
    """Return the shape of sorted excesses over a threshold, the profile posterior mean of Zhang and Stephens."""
    # The largest weight is at most one. Rounding errors of equal weights have no meaningful tail.
    if excesses[-1] <= 0.01:
        return -1.0
    count = len(excesses)
    points = 30 + int(math.sqrt(count))
    quartile = max(excesses[int(count / 4 + 0.5) - 1], 1e-12 * excesses[-1])
    thetas = 1 / excesses[-1] + (1 - np.sqrt(points / (np.arange(1, points + 1) - 0.5))) / (3 * quartile)
    shapes = np.log1p(-thetas[:, None] * excesses).mean(axis=1)
    profile = count * (np.log(-thetas / shapes) - shapes - 1)
    weights = np.exp(profile - profile.max())
    theta = (thetas * weights).sum() / weights.sum()
    shape = np.log1p(-theta * excesses).mean()
    return max(-1.0, float((count * shape + 10 * 0.5) / (count + 10)))
