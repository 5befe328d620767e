"""Disentanglement scores: whether each latent dimension represents one factor of the data, and vice versa.

The inputs are codes (N, D) and the factors of the same N images (N, F). All scores are at most 1.
"""

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC

from keras_vae.core.errors import InputError
from keras_vae.evaluation.factor_sampler import draws_by_factor

Codes = NDArray[np.floating[Any]]
Values = NDArray[np.integer[Any]]
Matrix = NDArray[np.float64]

BINS = 20
BATCH = 64
TRAIN, TEST = 10_000, 5_000
INACTIVE = 0.05
"""Standard deviation below which a latent dimension is collapsed. The FactorVAE score ignores such dimensions."""

_TREES, _LEAF = 20, 0.005


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
    for chosen, sampler in draws_by_factor(drawn, factors, codes.shape[1] * batch_size):
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
    for chosen, sampler in draws_by_factor(drawn, factors, codes.shape[1] * batch_size):
        first = sampler.draw_shared(len(chosen), rng)
        alike = sampler.draw_any(np.broadcast_to(first[:, np.newaxis], (len(first), batch_size)), rng)
        least[chosen] = (codes[alike].var(1, ddof=1) / variances).argmin(1)
    votes = np.zeros((codes.shape[1], factors.shape[1]), np.int64)
    np.add.at(votes, (least[:train], drawn[:train]), 1)
    return float(np.mean(votes.argmax(1)[least[train:]] == drawn[train:]))


def mutual_information(codes: Codes, factors: Values, *, bins: int = BINS) -> Matrix:
    """Return the mutual information between each latent dimension, in bins of equally many codes, and each factor.

    Bins of equal width, as in google-research/disentanglement_lib, depend on the largest code: one outlier puts all
    others into a few bins. A dimension with at most `bins` values has one bin per value.

    Args:
        codes: (N, D).
        factors: Integers (N, F).
        bins: Largest number of bins.

    Returns:
        (D, F), in nats.

    Raises:
        InputError: The mutual information is not defined for these codes and factors.
    """
    codes, factors = _validate(codes, factors)
    binned = [_discretize(code, bins) for code in codes.T]
    return np.array([[mutual_info_score(factor, code) for factor in factors.T] for code in binned])


def mig(codes: Codes, factors: Values, *, bins: int = BINS) -> float:
    r"""Return the mutual information gap.

    \(\frac1F \sum_k \frac{1}{H(v_k)} (I(z_{(1)}; v_k) - I(z_{(2)}; v_k))\), where \(z_{(1)}\) and \(z_{(2)}\) are the
    two dimensions with the most information about factor \(v_k\). Defined by Chen et al., arXiv 1802.04942; binned by
    `mutual_information`.

    Args:
        codes: (N, D).
        factors: Integers (N, F).
        bins: Largest number of bins of each dimension.

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
    1802.05312; binned by `mutual_information`.

    Args:
        codes: (N, D).
        factors: Integers (N, F).
        bins: Largest number of bins of each dimension.

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
    return dci_with_errors(codes, factors, seed=seed)[0]


def dci_with_errors(codes: Codes, factors: Values, *, seed: int = 0) -> tuple[DCI, DCI]:
    """Return the three scores of `dci`, and their standard errors.

    Each tree is fitted to a bootstrap sample of the images, the same for all factors. The errors of disentanglement and
    completeness are the standard deviations of the scores of single trees; that of a forest is smaller. The error of
    informativeness is that of a mean over held-out points.
    """
    codes, factors = _validate(codes, factors)
    train, test = _train_and_test_points(len(codes), seed)
    shape = codes.shape[1], factors.shape[1]
    importance, by_tree = np.zeros(shape), np.zeros((_TREES, *shape))
    hits = np.empty((len(test), shape[1]))
    for k, values in enumerate(factors.T):
        forest = RandomForestClassifier(
            _TREES, min_samples_leaf=_LEAF, max_features=None, n_jobs=-1, random_state=seed
        ).fit(codes[train], values[train])
        importance[:, k] = forest.feature_importances_
        by_tree[:, :, k] = [tree.feature_importances_ for tree in forest.estimators_]
        hits[:, k] = forest.predict(codes[test]) == values[test]
    accuracies = hits.mean(1)
    return (
        DCI(_concentration(importance), _concentration(importance.T), float(accuracies.mean())),
        DCI(
            float(np.std([_concentration(tree) for tree in by_tree], ddof=1)),
            float(np.std([_concentration(tree.T) for tree in by_tree], ddof=1)),
            float(accuracies.std(ddof=1) / np.sqrt(len(test))),
        ),
    )


def sap(codes: Codes, factors: Values, *, continuous: bool = False, seed: int = 0) -> float:
    """Return the separated attribute predictability: how much better one dimension predicts a factor than the next.

    Defined by Kumar et al., arXiv 1711.00848; the classifier is that of the study of
    google-research/disentanglement_lib, which treats every factor as discrete. The study trains it on 10,000 draws of
    images and tests it on 5,000 others from the same set. Here all N points are both: a linear classifier of one
    dimension has two parameters per value, so it cannot fit thousands of points by heart.

    Args:
        codes: (N, D).
        factors: Integers (N, F).
        continuous: Whether to score a dimension by its squared correlation with the factor, instead of the accuracy of
            a linear classifier.
        seed: Fixes the optimization of the classifier.

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
    if not continuous:
        return sap_with_error(codes, factors, seed=seed)[0]
    codes, factors = _validate(codes, factors)
    deviations = codes.std(0)
    scaled = (codes - codes.mean(0)) / np.where(deviations > 1e-6, deviations, np.inf)
    correlations = ((factors - factors.mean(0)) / factors.std(0)).T @ scaled / len(codes)
    return float(_gaps(np.square(correlations.T)).mean())


def sap_with_error(codes: Codes, factors: Values, *, seed: int = 0, replicates: int = 200) -> tuple[float, float]:
    """Return `sap` and its standard error, by a bootstrap over the points with fixed classifiers."""
    codes, factors = _validate(codes, factors)
    hits = np.empty((len(codes), codes.shape[1], factors.shape[1]), bool)
    for d, k in np.ndindex(hits.shape[1:]):
        classifier = LinearSVC(C=0.01, class_weight="balanced", random_state=seed)
        hits[:, d, k] = classifier.fit(codes[:, d : d + 1], factors[:, k]).predict(codes[:, d : d + 1]) == factors[:, k]
    flat, rng = hits.reshape(len(hits), -1).astype(np.float64), np.random.default_rng(seed)
    scores = [
        _gaps(accuracies.reshape(hits.shape[1:])).mean()
        for accuracies in rng.multinomial(len(flat), np.full(len(flat), 1 / len(flat)), replicates) @ flat / len(flat)
    ]
    return float(_gaps(hits.mean(0)).mean()), float(np.std(scores, ddof=1))


def _discretize(code: Matrix, bins: int) -> Values:
    """Return the bin of each code: one per value if there are few, else bins of equally many codes."""
    values, index = np.unique(code, return_inverse=True)
    if len(values) <= bins:
        return index
    edges = np.quantile(code, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(np.unique(edges), code, side="right")


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
