"""Disentanglement scores: whether each latent dimension represents one factor of the data, and vice versa.

The inputs are codes (N, D) and the factors of the same N images (N, F). All scores are at most 1.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC

from keras_vae.core.errors import InputError

Codes = NDArray[np.floating[Any]]
Values = NDArray[np.integer[Any]]
Matrix = NDArray[np.float64]

BINS = 20
BATCH = 64
TRAIN, TEST = 10_000, 5_000
INACTIVE = 0.05
"""Standard deviation below which a latent dimension is collapsed. The FactorVAE score ignores such dimensions."""

_TREES, _LEAF = 20, 0.005
_GATHERED_AT_ONCE = 1 << 22


class DCI(NamedTuple):
    """Disentanglement, completeness and informativeness.

    Args:
        disentanglement: Whether each dimension matters for a single factor; 0 if it matters equally for all.
        completeness: Whether each factor is represented by a single dimension; 0 if it is spread equally over all.
        informativeness: The test accuracy of predicting a factor from the codes, averaged over factors.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def beta_vae_score(
    codes: Codes, factors: Values, *, batch_size: int = BATCH, train: int = TRAIN, test: int = TEST, seed: int = 0
) -> float:
    r"""Return the β-VAE score: how well a linear classifier predicts which factor pairs of images share.

    Each point is \(\frac1B \sum_b |z_b - z'_b|\) over B pairs of images that agree in factor k; the classifier
    predicts k. Defined by Higgins et al., 2017, "beta-VAE", appendix; pairs are drawn as in
    google-research/disentanglement_lib.

    Args:
        codes: (N, D).
        factors: Integers (N, F). Pairs are drawn from these points.
        batch_size: B.
        train: Number of training points.
        test: Number of test points.
        seed: Fixes the draws.

    Returns:
        The test accuracy: at best 1, and 1/F for codes without information.

    Raises:
        InputError: The score is not defined for these codes and factors.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 5, (1000, 2))
        >>> beta_vae_score(factors.astype(float), factors, train=100, test=100)
        1.0
    """
    codes, factors = _validate(codes, factors)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(factors.shape[1], size=train + test)
    points = np.empty((train + test, codes.shape[1]))
    for chosen, sampler in _draws_by_factor(drawn, factors, codes.shape[1] * batch_size):
        first = rng.integers(len(codes), size=(len(chosen), batch_size))
        points[chosen] = np.abs(codes[first] - codes[sampler.draw_others(first, rng)]).mean(1)
    classifier = LogisticRegression(max_iter=1000).fit(points[:train], drawn[:train])
    return float(classifier.score(points[train:], drawn[train:]))


def factor_vae_score(
    codes: Codes,
    factors: Values,
    *,
    batch_size: int = BATCH,
    train: int = TRAIN,
    test: int = TEST,
    inactive: float = INACTIVE,
    seed: int = 0,
) -> float:
    r"""Return the FactorVAE score: how well the dimension with the least variance predicts which factor images share.

    Each point is \(\arg\min_d \mathrm{Var}_b(z_{bd}) / \mathrm{Var}(z_d)\) over B images that agree in factor k; a
    majority vote predicts k from it. Defined by Kim and Mnih, arXiv 1802.05983; draws and `inactive` follow the study
    of google-research/disentanglement_lib.

    Args:
        codes: (N, D).
        factors: Integers (N, F). Images are drawn from these points.
        batch_size: B, at least 2.
        train: Number of training points.
        test: Number of test points.
        inactive: Dimensions with a smaller standard deviation are ignored.
        seed: Fixes the draws.

    Returns:
        The test accuracy: at best 1, about 1/F for codes without information, and 0 if all dimensions are ignored.

    Raises:
        InputError: The score is not defined for these codes and factors.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 5, (1000, 2))
        >>> factor_vae_score(factors.astype(float), factors, train=100, test=100)
        1.0
    """
    codes, factors = _validate(codes, factors)
    codes = codes[:, codes.std(0, ddof=1) >= inactive]
    if not codes.shape[1]:
        return 0.0
    variances = codes.var(0, ddof=1)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(factors.shape[1], size=train + test)
    least = np.empty(train + test, np.int64)
    for chosen, sampler in _draws_by_factor(drawn, factors, codes.shape[1] * batch_size):
        first = sampler.draw_shared(len(chosen), rng)
        alike = sampler.draw_any(np.broadcast_to(first[:, np.newaxis], (len(first), batch_size)), rng)
        least[chosen] = (codes[alike].var(1, ddof=1) / variances).argmin(1)
    votes = np.zeros((codes.shape[1], factors.shape[1]), np.int64)
    np.add.at(votes, (least[:train], drawn[:train]), 1)
    return float(np.mean(votes.argmax(1)[least[train:]] == drawn[train:]))


def mutual_information(codes: Codes, factors: Values, *, bins: int = BINS) -> Matrix:
    """Return the mutual information between each latent dimension, binned equally over its range, and each factor.

    Args:
        codes: (N, D).
        factors: Integers (N, F).
        bins: Number of bins.

    Returns:
        (D, F), in nats.

    Raises:
        InputError: The mutual information is not defined for these codes and factors.
    """
    codes, factors = _validate(codes, factors)
    low, span = codes.min(0), np.ptp(codes, axis=0)
    binned = np.minimum((codes - low) / np.where(span > 0, span, 1) * bins, bins - 1).astype(np.int64)
    return np.array([[mutual_info_score(factor, code) for factor in factors.T] for code in binned.T])


def mig(codes: Codes, factors: Values, *, bins: int = BINS) -> float:
    r"""Return the mutual information gap.

    \(\frac1F \sum_k \frac{1}{H(v_k)} (I(z_{(1)}; v_k) - I(z_{(2)}; v_k))\), where \(z_{(1)}\) and \(z_{(2)}\) are the
    two dimensions with the most information about factor \(v_k\). Defined by Chen et al., arXiv 1802.04942; binned as
    in google-research/disentanglement_lib.

    Args:
        codes: (N, D).
        factors: Integers (N, F).
        bins: Number of equal bins over the range of each dimension.

    Returns:
        1 if each factor is fully represented by one dimension and by no other; 0 if two dimensions have the same
        information about it.

    Raises:
        InputError: The score is not defined for these codes and factors.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 5, (1000, 2))
        >>> round(mig(factors.astype(float), factors), 1)
        1.0
    """
    entropies = np.array([mutual_info_score(factor, factor) for factor in _validate(codes, factors)[1].T])
    return float((_gaps(mutual_information(codes, factors, bins=bins)) / entropies).mean())


def modularity(codes: Codes, factors: Values, *, bins: int = BINS) -> float:
    r"""Return the modularity: whether each latent dimension has information about a single factor.

    \(\frac1D \sum_d \left(1 - \frac{\sum_{k \ne k^*} I(z_d; v_k)^2}{(F - 1) I(z_d; v_{k^*})^2}\right)\), where
    \(v_{k^*}\) is the factor about which dimension d has the most information. Defined by Ridgeway and Mozer, arXiv
    1802.05312; binned as in google-research/disentanglement_lib.

    Args:
        codes: (N, D).
        factors: Integers (N, F).
        bins: Number of equal bins over the range of each dimension.

    Returns:
        1 if every dimension has information about a single factor. Dimensions without information count as 0.

    Raises:
        InputError: The score is not defined for these codes and factors.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 5, (1000, 2))
        >>> round(modularity(factors.astype(float), factors), 2)
        1.0
    """
    squares = mutual_information(codes, factors, bins=bins) ** 2
    best = squares.max(1)
    known = best > 0
    others = (squares.sum(1) - best) / np.where(known, best, 1) / (squares.shape[1] - 1)
    return float(np.where(known, 1 - others, 0).mean())


def dci(codes: Codes, factors: Values, *, seed: int = 0) -> DCI:
    r"""Return disentanglement, completeness and informativeness.

    Let \(R_{dk}\) be the importance of dimension d for predicting factor k. Disentanglement is one minus the normalized
    entropy of each row of R, averaged over dimensions with their total importance as weights; completeness is the same
    for the columns. Defined by Eastwood and Williams, ICLR 2018.

    The importances come from a random forest that considers all dimensions at every node; its leaves hold at least
    half a percent of the points, so that it does not fit noise. google-research/disentanglement_lib uses boosted trees,
    which take minutes for factors of 40 values. The numbers of the two are not comparable.

    Args:
        codes: (N, D). A third of the points is held out to measure informativeness.
        factors: Integers (N, F).
        seed: Fixes the held-out points and the trees.

    Returns:
        The three scores.

    Raises:
        InputError: The scores are not defined for these codes and factors.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 5, (1000, 2))
        >>> [round(score, 2) for score in dci(factors.astype(float), factors)]
        [1.0, 1.0, 1.0]
    """
    codes, factors = _validate(codes, factors)
    train, test = _train_and_test_points(len(codes), seed)
    importance, accuracies = np.zeros((codes.shape[1], factors.shape[1])), []
    for k, values in enumerate(factors.T):
        forest = RandomForestClassifier(
            _TREES, min_samples_leaf=_LEAF, max_features=None, n_jobs=-1, random_state=seed
        ).fit(codes[train], values[train])
        importance[:, k] = forest.feature_importances_
        accuracies.append(forest.score(codes[test], values[test]))
    return DCI(_concentration(importance), _concentration(importance.T), float(np.mean(accuracies)))


def sap(codes: Codes, factors: Values, *, continuous: bool = False, seed: int = 0) -> float:
    """Return the separated attribute predictability: how much better one dimension predicts a factor than the next.

    Defined by Kumar et al., arXiv 1711.00848; the classifier is that of the study of
    google-research/disentanglement_lib, which treats every factor as discrete.

    Args:
        codes: (N, D).
        factors: Integers (N, F).
        continuous: Whether to score a dimension by its squared correlation with the factor, instead of the accuracy of
            a linear classifier on a held-out third of the points.
        seed: Fixes the held-out points.

    Returns:
        The difference of the two best scores, averaged over factors: 0 if two dimensions predict equally well. The
        maximum is 1 if `continuous`. With the classifier, it is 1 minus the accuracy of guessing for factors of two
        values, and far lower for factors of many values, which are not linearly separable.

    Raises:
        InputError: The score is not defined for these codes and factors.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 2, (1000, 2))
        >>> round(sap(factors.astype(float), factors), 1)
        0.5
    """
    codes, factors = _validate(codes, factors)
    if continuous:
        deviations = codes.std(0)
        scaled = (codes - codes.mean(0)) / np.where(deviations > 1e-6, deviations, np.inf)
        correlations = ((factors - factors.mean(0)) / factors.std(0)).T @ scaled / len(codes)
        return float(_gaps(np.square(correlations.T)).mean())
    train, test = _train_and_test_points(len(codes), seed)
    scores = np.empty((codes.shape[1], factors.shape[1]))
    for d, k in np.ndindex(scores.shape):
        classifier = LinearSVC(C=0.01, class_weight="balanced", random_state=seed)
        classifier.fit(codes[train, d : d + 1], factors[train, k])
        scores[d, k] = classifier.score(codes[test, d : d + 1], factors[test, k])
    return float(_gaps(scores).mean())


class _FactorSampler:
    """Draws points that share the value of one factor."""

    def __init__(self, values: Values) -> None:
        _, self._group, self._counts = np.unique(values, return_inverse=True, return_counts=True)
        self._order = np.argsort(self._group, kind="stable")
        self._starts = np.cumsum(self._counts) - self._counts
        self._rank = np.empty_like(self._order)
        self._rank[self._order] = np.arange(len(values)) - self._starts[self._group[self._order]]

    def draw_others(self, points: Values, rng: np.random.Generator) -> Values:
        """Return a different point with the same value for each point, or the point itself if there is none."""
        group = self._group[points]
        count = self._counts[group]
        step = 1 + (rng.random(points.shape) * (count - 1)).astype(np.int64)
        return self._order[self._starts[group] + (self._rank[points] + step) % count]

    def draw_any(self, points: Values, rng: np.random.Generator) -> Values:
        """Return a point with the same value for each point, possibly the point itself."""
        group = self._group[points]
        return self._order[self._starts[group] + (rng.random(points.shape) * self._counts[group]).astype(np.int64)]

    def draw_shared(self, count: int, rng: np.random.Generator) -> Values:
        """Return points that share their value with other points: a single point has no variance."""
        return rng.choice(np.flatnonzero(self._counts[self._group] > 1), count)


def _draws_by_factor(drawn: Values, factors: Values, size: int) -> Iterator[tuple[Values, _FactorSampler]]:
    """Yield blocks of draws of the same factor, small enough for little memory, with the sampler of that factor."""
    for k, values in enumerate(factors.T):
        sampler, chosen = _FactorSampler(values), np.flatnonzero(drawn == k)
        at_once = max(1, _GATHERED_AT_ONCE // size)
        for start in range(0, len(chosen), at_once):
            yield chosen[start : start + at_once], sampler


def _gaps(scores: Matrix) -> Matrix:
    """Return the difference of the two best scores for each factor; a missing second score counts as 0."""
    best = np.sort(np.concatenate([np.zeros_like(scores[:1]), scores]), axis=0)
    return best[-1] - best[-2]


def _concentration(importance: Matrix) -> float:
    """Return one minus the normalized entropy of each row, averaged with the totals of the rows as weights."""
    totals = importance.sum(1)
    shares = importance / np.where(totals > 0, totals, 1)[:, np.newaxis]
    entropies = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1) / np.log(max(2, importance.shape[1]))
    return float(totals @ (1 - entropies) / totals.sum()) if totals.any() else 0.0


def _train_and_test_points(count: int, seed: int) -> tuple[Values, Values]:
    """Return the indices of two thirds of the points for training, and of one third for testing."""
    order = np.random.default_rng(seed).permutation(count)
    return order[count // 3 :], order[: count // 3]


def _validate(codes: Codes, factors: Values) -> tuple[Matrix, Values]:
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or codes.shape[1] < 1:
        raise InputError(
            f"codes, factors = arrays of shape {codes.shape}, {factors.shape}: do not match; pass (N, D) and (N, F)"
        )
    if not np.isfinite(codes).all():
        raise InputError("codes = array with NaN or infinite values: cannot be scored; pass finite numbers")
    if factors.dtype.kind not in "iu":
        raise InputError(f"factors = array of {factors.dtype}: not discrete; pass integers")
    if len(codes) < 6 or factors.shape[1] < 2 or (np.ptp(factors, axis=0) == 0).any():
        raise InputError(
            f"factors = array of shape {factors.shape}: too few; pass at least 6 points and 2 factors, all varying"
        )
    if any(np.bincount(values).max() < 2 for values in factors.T):
        raise InputError("factors = array whose points all differ in one factor: cannot be paired; pass more points")
    return codes.astype(np.float64), factors
