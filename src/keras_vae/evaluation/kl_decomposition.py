"""Bounds on the two parts of the KL: the mutual information of images and codes, and the KL of the aggregate posterior.

The KL decomposes as E_x KL(q(z|x) ‖ p(z)) = I(x; z) + KL(q(z) ‖ p(z)) (Hoffman and Johnson 2016, "ELBO surgery").
"""

import math
import warnings
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array

Doubles = NDArray[np.float64]

KL_PARTS = (
    "kl_monte_carlo",
    "mutual_information",
    "mutual_information_bounds",
    "marginal_kl",
    "marginal_kl_bounds",
)
"""Keys of the result of `decompose_kl`."""

TIGHT = 2.0
"""Number of standard errors within which two bounds must agree for a number between them to be reported."""

FOLDS, COMPONENTS = 3, 10
"""Number of folds for fitting densities of codes, and number of components of the normal mixture."""

_PAIRS_AT_ONCE = 2**22
_STACKING_STEPS = 100


class AggregateDensities(NamedTuple):
    """Log-densities of one code per image, in nats.

    Args:
        log_posterior: log q(z|x) under the posterior of the code's own image, (N,), float64.
        log_aggregate: log q(z), the mean over the posteriors of all images, (N,), float64.
        log_others: log q(z), the mean over the posteriors of all other images, (N,), float64; −∞ for a single image.
        influence: Sum over codes of the posterior probability q(z|x) / Σ q(z|x') of each image, (N,), float64.
        influence_on_others: The same sum over the codes of all other images, without their own posteriors.
    """

    log_posterior: Doubles
    log_aggregate: Doubles
    log_others: Doubles
    influence: Doubles
    influence_on_others: Doubles


def aggregate_densities(z_mean: Array, z_log_var: Array, z: Array, progress: Progress = silent) -> AggregateDensities:
    r"""Return the log-densities of codes under their own posteriors and under the aggregate posterior.

    `log_aggregate` is \(\log \tfrac1N \sum_j q(z_i|x_j)\) over all N images, and `log_others` is
    \(\log \tfrac1{N-1} \sum_{j \ne i} q(z_i|x_j)\).

    Args:
        z_mean: Means of diagonal normal posteriors, (N, D).
        z_log_var: Log-variances of these posteriors, (N, D).
        z: One draw from each posterior, (N, D).
        progress: Shows the progress over blocks of codes.

    Returns:
        The log-densities of each code, in nats, and the influence of each image on their sums.

    Example:
        >>> moments = np.array([[0.0], [0.0], [90.0]]), np.zeros((3, 1))
        >>> own, mixed, *_ = aggregate_densities(*moments, moments[0])
        >>> (own - mixed).round(4).tolist()  # log 3/2 twice, and log 3
        [0.4055, 0.4055, 1.0986]
    """
    # With the square expanded, all pairs are two matrix products. Centering limits the cancellation.
    center = z_mean.mean(axis=0, dtype="float64")
    mean, log_var, codes = z_mean - center, z_log_var.astype("float64"), z - center
    precision = np.exp(-log_var)
    constants = -0.5 * np.sum(np.square(mean) * precision + log_var + math.log(2 * math.pi), axis=1)
    count = len(codes)
    own, mixed, others = np.empty(count), np.empty(count), np.full(count, -math.inf)
    influence, on_others = np.zeros(count), np.zeros(count)
    rows = max(1, _PAIRS_AT_ONCE // count)
    for start in progress(range(0, count, rows), "comparing posteriors"):
        block = codes[start : start + rows]
        pairs = constants + block @ (mean * precision).T - 0.5 * np.square(block) @ precision.T
        indices = np.arange(start, start + len(block))
        diagonal = np.arange(len(block)), indices
        own[indices] = pairs[diagonal]
        mixed[indices] = _accumulate(pairs, influence) - math.log(count)
        if count > 1:
            pairs[diagonal] = -math.inf
            others[indices] = _accumulate(pairs, on_others) - math.log(count - 1)
    return AggregateDensities(own, mixed, others, influence, on_others)


def decompose_kl(densities: AggregateDensities, z: Array, log_prior: Doubles | None) -> dict[str, Any]:
    r"""Return the Monte Carlo estimate of the KL, and bounds on its parts I(x; z) and KL(q(z) ‖ p(z)).

    The expectations are over images of the distribution that the N images were drawn from, and over their codes.

    * Lower bound of \(I(x; z)\): the mean of \(\log q(z_i|x_i) - \log \tfrac1N \sum_j q(z_i|x_j)\). It never exceeds
      log N (van den Oord et al., arXiv 1807.03748; Poole et al., arXiv 1905.06922).
    * Upper bound: the mean of \(\log q(z_i|x_i) - \log r(z_i)\), for any density r that does not depend on image i
      (Barber and Agakov 2003). Here r is a mixture of p(z), of a normal distribution and a normal mixture fitted to the
      codes of other images, and of the posteriors of the other images. Its weights maximize the density of the codes
      of other images (Smyth and Wolpert 1999, "Linearly combining density estimators via stacking").

    The bounds of KL(q(z) ‖ p(z)) follow by subtraction from `kl_monte_carlo`. The number itself is reported only if the
    bounds agree within two standard errors. It is their mean; its standard error includes half their distance. The
    standard errors are infinitesimal jackknife estimates, because images share the mixture of posteriors.

    Args:
        densities: The result of `aggregate_densities`.
        z: The codes, (N, D).
        log_prior: log p(z) of each code, (N,), or None if the prior is conditional.

    Returns:
        `kl_monte_carlo`, `mutual_information`, `marginal_kl`, each with `mean` and `standard_error` in nats, or None
        if not known; and `mutual_information_bounds` and `marginal_kl_bounds` with `lower` and `upper`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> mean = np.sqrt(0.9) * rng.normal(size=(500, 16))
        >>> z = mean + np.sqrt(0.1) * rng.normal(size=mean.shape)
        >>> log_prior = -0.5 * np.sum(z**2 + np.log(2 * np.pi), axis=1)
        >>> found = decompose_kl(aggregate_densities(mean, np.full_like(mean, np.log(0.1)), z), z, log_prior)
        >>> [round(bound["mean"], 1) for bound in found["mutual_information_bounds"].values()]  # the truth is 18.42
        [6.2, 18.5]
    """
    section: dict[str, Any] = dict.fromkeys(KL_PARTS)
    own, mixed, others, influence, on_others = densities
    if len(z) < 2:
        if log_prior is not None:
            section["kl_monte_carlo"] = _mean(own - log_prior, own - log_prior)
        return section
    log_r, share = _log_density(z, others, log_prior)
    # Derivatives with respect to the weight of each image: directly, and through the mixture of posteriors.
    mixed_influence = mixed + influence
    r_influence = log_r + share * on_others
    section["mutual_information_bounds"] = _bounds(own - mixed, own - mixed_influence, own - log_r, own - r_influence)
    section["mutual_information"] = _number_between(section["mutual_information_bounds"])
    if log_prior is not None:
        section["kl_monte_carlo"] = _mean(own - log_prior, own - log_prior)
        section["marginal_kl_bounds"] = _bounds(
            log_r - log_prior, r_influence - log_prior, mixed - log_prior, mixed_influence - log_prior
        )
        section["marginal_kl"] = _number_between(section["marginal_kl_bounds"])
    return section


def _accumulate(pairs: Doubles, influence: Doubles) -> Doubles:
    """Return the log of the sum of each row of densities, and add the share of each column to its influence."""
    largest = pairs.max(axis=1, keepdims=True)
    shares = np.exp(pairs - largest)
    sums = shares.sum(axis=1)
    influence += (1 / sums) @ shares
    return np.asarray(largest[:, 0] + np.log(sums))


def _mean(values: Doubles, influence: Doubles) -> dict[str, float | None]:
    count = len(values)
    error = float(influence.std(ddof=1) / math.sqrt(count)) if count > 1 else None
    return {"mean": float(values.mean()), "standard_error": error}


def _bounds(lower: Doubles, lower_influence: Doubles, upper: Doubles, upper_influence: Doubles) -> dict[str, Any]:
    return {"lower": _mean(lower, lower_influence), "upper": _mean(upper, upper_influence)}


def _number_between(bounds: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the mean of two bounds if they agree, with a standard error that includes half their distance."""
    lower, upper = bounds["lower"], bounds["upper"]
    error, distance = max(lower["standard_error"], upper["standard_error"]), abs(upper["mean"] - lower["mean"])
    if distance > TIGHT * error:
        return None
    return {"mean": (lower["mean"] + upper["mean"]) / 2, "standard_error": math.hypot(error, distance / 2)}


def _log_density(z: Array, log_others: Doubles, log_prior: Doubles | None) -> tuple[Doubles, Doubles]:
    """Return log r(z) of each code, (N,), and the share of the posteriors of other images in it, (N,)."""
    count = len(z)
    folds = np.random.default_rng(0).permutation(count) % FOLDS
    candidates = [log_others, *([] if log_prior is None else [log_prior]), *_fitted_densities(z, folds)]
    table = np.stack(candidates, axis=1)
    log_r, share = np.empty(count), np.empty(count)
    for fold in range(FOLDS):
        held_out = folds == fold
        weighted = table[held_out] + np.log(_stacking_weights(table[~held_out]))
        log_r[held_out] = np.logaddexp.reduce(weighted, axis=1)
        share[held_out] = np.exp(weighted[:, 0] - log_r[held_out])
    return log_r, share


def _fitted_densities(z: Array, folds: NDArray[np.int64]) -> list[Doubles]:
    """Return the log-densities of normal mixtures that were fitted to the other folds, each (N,)."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    codes, found = z.astype("float64"), []
    for components in (1, COMPONENTS):
        # Each component needs more points than dimensions for its covariance.
        if len(codes) * (FOLDS - 1) / FOLDS < 2 * components * (codes.shape[1] + 1):
            continue
        log_density = np.empty(len(codes))
        for fold in range(FOLDS):
            train, held_out = codes[folds != fold], codes[folds == fold]
            scale = np.maximum(train.std(axis=0), 1e-12)
            mixture = GaussianMixture(components, max_iter=50, reg_covar=1e-6, random_state=0)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)
                mixture.fit((train - train.mean(axis=0)) / scale)
            scores = mixture.score_samples((held_out - train.mean(axis=0)) / scale)
            log_density[folds == fold] = scores - np.log(scale).sum()
        found.append(log_density)
    return found


def _stacking_weights(table: Doubles) -> Doubles:
    """Return the weights of the mixture of densities that maximize the mean log-density, by expectation maximization.

    Weights are at least 1e-6, so that no code has a density of zero under the mixture.
    """
    weights = np.full(table.shape[1], 1 / table.shape[1])
    if not len(table):
        return weights
    for _ in range(_STACKING_STEPS):
        weighted = table + np.log(weights)
        shares = np.exp(weighted - np.logaddexp.reduce(weighted, axis=1)[:, np.newaxis])
        weights = np.maximum(shares.mean(axis=0), 1e-6)
        weights /= weights.sum()
    return weights
