"""Disentanglement: how far each dimension of the code stands for one factor of the data, and each factor for one."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import mutual_info_score
from sklearn.svm import LinearSVC

from keras_vae.core.errors import InputError
from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.likelihood import provenance
from keras_vae.models.base import BaseVAE
from keras_vae.models.inputs import dataset_condition

Codes = NDArray[np.floating[Any]]
Values = NDArray[np.integer[Any]]
Matrix = NDArray[np.float64]

BINS = 20
BATCH = 64
TRAIN, TEST = 10_000, 5_000
INACTIVE = 0.05
"""Codes of a smaller standard deviation are collapsed: FactorVAE's score leaves them out."""

_TREES, _LEAF = 20, 0.005
_GATHERED_AT_ONCE = 1 << 22


class DCI(NamedTuple):
    """What `dci` returns, each number 1 at best.

    Args:
        disentanglement: How far each code matters for one factor alone; 0 if all matter alike.
        completeness: How far each factor is found in one code alone; 0 if it is spread over all.
        informativeness: How many of a factor's values the codes tell, on points not trained on; mean over factors.
    """

    disentanglement: float
    completeness: float
    informativeness: float


def beta_vae_score(
    codes: Codes, factors: Values, *, batch_size: int = BATCH, train: int = TRAIN, test: int = TEST, seed: int = 0
) -> float:
    r"""Return how well a linear classifier tells which factor pairs of images share: the score of β-VAE.

    Each of its points is \(\frac1B \sum_b |z_b - z'_b|\) over B pairs that agree in factor k; k is what is to be told.

    Args:
        codes: (N, D).
        factors: Whole numbers (N, F); pairs are drawn from these points.
        batch_size: B.
        train: Points that the classifier learns from.
        test: Points that it is judged on.
        seed: Fixes the draws.

    Returns:
        Its accuracy: 1 at best, 1/F for codes that tell nothing.

    Raises:
        InputError: Nothing can be measured on such codes and factors.

    The definition: Higgins et al., 2017, "beta-VAE", appendix; draws as in google-research/disentanglement_lib.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 5, (1000, 2))
        >>> beta_vae_score(factors.astype(float), factors, train=100, test=100)
        1.0
    """
    codes, factors = _checked(codes, factors)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(factors.shape[1], size=train + test)
    points = np.empty((train + test, codes.shape[1]))
    for chosen, sharing in _by_factor(drawn, factors, codes.shape[1] * batch_size):
        first = rng.integers(len(codes), size=(len(chosen), batch_size))
        points[chosen] = np.abs(codes[first] - codes[sharing.others(first, rng)]).mean(1)
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
    r"""Return how well the code that varies least tells which factor images share: the score of FactorVAE.

    Each of its points is \(\arg\min_d \mathrm{Var}_b(z_{bd}) / \mathrm{Var}(z_d)\) over B images that agree in factor
    k; a majority vote tells k from it.

    Args:
        codes: (N, D).
        factors: Whole numbers (N, F); images are drawn from these points.
        batch_size: B, at least 2.
        train: Points that vote.
        test: Points that the vote is judged on.
        inactive: Codes whose standard deviation is smaller are left out.
        seed: Fixes the draws.

    Returns:
        The vote's accuracy: 1 at best, about 1/F for codes that tell nothing, 0 if no code is left.

    Raises:
        InputError: Nothing can be measured on such codes and factors.

    The definition: Kim and Mnih, arXiv 1802.05983; draws and `inactive` as in the study of
    google-research/disentanglement_lib.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 5, (1000, 2))
        >>> factor_vae_score(factors.astype(float), factors, train=100, test=100)
        1.0
    """
    codes, factors = _checked(codes, factors)
    codes = codes[:, codes.std(0, ddof=1) >= inactive]
    if not codes.shape[1]:
        return 0.0
    variances = codes.var(0, ddof=1)
    rng = np.random.default_rng(seed)
    drawn = rng.integers(factors.shape[1], size=train + test)
    least = np.empty(train + test, np.int64)
    for chosen, sharing in _by_factor(drawn, factors, codes.shape[1] * batch_size):
        first = sharing.among_several(len(chosen), rng)
        alike = sharing.any_of(np.broadcast_to(first[:, np.newaxis], (len(first), batch_size)), rng)
        least[chosen] = (codes[alike].var(1, ddof=1) / variances).argmin(1)
    votes = np.zeros((codes.shape[1], factors.shape[1]), np.int64)
    np.add.at(votes, (least[:train], drawn[:train]), 1)
    return float(np.mean(votes.argmax(1)[least[train:]] == drawn[train:]))


def mutual_information(codes: Codes, factors: Values, *, bins: int = BINS) -> Matrix:
    """Return the mutual information of every code, in equal bins over its range, with every factor.

    Args:
        codes: (N, D).
        factors: Whole numbers (N, F).
        bins: How many.

    Returns:
        Nats, (D, F).

    Raises:
        InputError: Nothing can be measured on such codes and factors.
    """
    codes, factors = _checked(codes, factors)
    low, span = codes.min(0), np.ptp(codes, axis=0)
    binned = np.minimum((codes - low) / np.where(span > 0, span, 1) * bins, bins - 1).astype(np.int64)
    return np.array([[mutual_info_score(factor, code) for factor in factors.T] for code in binned.T])


def mig(codes: Codes, factors: Values, *, bins: int = BINS) -> float:
    r"""Return the mutual information gap.

    \(\frac1F \sum_k \frac{1}{H(v_k)} (I(z_{(1)}; v_k) - I(z_{(2)}; v_k))\), with the two codes that know most of
    factor \(v_k\).

    Args:
        codes: (N, D).
        factors: Whole numbers (N, F).
        bins: Equal bins over the range of each code.

    Returns:
        1 if each factor is in one code, whole, and in no other; 0 if two codes know as much of it.

    Raises:
        InputError: Nothing can be measured on such codes and factors.

    The definition: Chen et al., arXiv 1802.04942; binned as in google-research/disentanglement_lib.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 5, (1000, 2))
        >>> round(mig(factors.astype(float), factors), 1)
        1.0
    """
    entropies = np.array([mutual_info_score(factor, factor) for factor in _checked(codes, factors)[1].T])
    return float((_gaps(mutual_information(codes, factors, bins=bins)) / entropies).mean())


def modularity(codes: Codes, factors: Values, *, bins: int = BINS) -> float:
    r"""Return how far each code knows of one factor alone.

    \(\frac1D \sum_d \left(1 - \frac{\sum_{k \ne k^*} I(z_d; v_k)^2}{(F - 1) I(z_d; v_{k^*})^2}\right)\), with
    \(v_{k^*}\) the factor that code d knows most of.

    Args:
        codes: (N, D).
        factors: Whole numbers (N, F).
        bins: Equal bins over the range of each code.

    Returns:
        1 if every code knows of one factor; codes that know of none count 0.

    Raises:
        InputError: Nothing can be measured on such codes and factors.

    The definition: Ridgeway and Mozer, arXiv 1802.05312; binned as in google-research/disentanglement_lib.

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

    From the importance \(R_{dk}\) of code d for telling factor k: one minus the entropy, to the base of their number,
    of a code's importance for the factors (of a factor's codes), the mean over codes (factors) weighted by their total.

    Args:
        codes: (N, D), at least two codes; a third of the points is held back to measure informativeness.
        factors: Whole numbers (N, F).
        seed: Fixes which points are held back, and the trees.

    Returns:
        The three numbers.

    Raises:
        InputError: Nothing can be measured on such codes and factors.

    The definition: Eastwood and Williams, ICLR 2018. google-research/disentanglement_lib takes importances from
    boosted trees, minutes for factors of 40 values; these come from a random forest that sees all codes at every node
    and whose leaves hold at least half a percent of the points, so that it does not learn noise. Numbers of one are
    not to be set beside numbers of the other.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 5, (1000, 2))
        >>> [round(score, 2) for score in dci(factors.astype(float), factors)]
        [1.0, 1.0, 1.0]
    """
    codes, factors = _checked(codes, factors)
    train, test = _held_back(len(codes), seed)
    importance, told = np.zeros((codes.shape[1], factors.shape[1])), []
    for k, values in enumerate(factors.T):
        forest = RandomForestClassifier(
            _TREES, min_samples_leaf=_LEAF, max_features=None, n_jobs=-1, random_state=seed
        ).fit(codes[train], values[train])
        importance[:, k] = forest.feature_importances_
        told.append(forest.score(codes[test], values[test]))
    return DCI(_concentration(importance), _concentration(importance.T), float(np.mean(told)))


def sap(codes: Codes, factors: Values, *, continuous: bool = False, seed: int = 0) -> float:
    """Return the separated attribute predictability: how much better one code tells a factor than the next best.

    Args:
        codes: (N, D).
        factors: Whole numbers (N, F).
        continuous: Whether codes are scored by the square of their correlation with the factor's value, instead of
            by the accuracy of a linear classifier of its values on the third of the points that is held back.
        seed: Fixes which points are held back.

    Returns:
        The mean over factors of the difference of the two best scores: 0 if two codes know as much. The best that
        can be reached is 1 with `continuous`; with the classifier it is 1 less the accuracy of guessing for factors
        of two values, and far lower for factors of many, which one linear function a value cannot part.

    Raises:
        InputError: Nothing can be measured on such codes and factors.

    The definition: Kumar et al., arXiv 1711.00848; classifier as in the study of google-research/disentanglement_lib,
    which treats every factor as discrete.

    Example:
        >>> factors = np.random.default_rng(0).integers(0, 2, (1000, 2))
        >>> round(sap(factors.astype(float), factors), 1)
        0.5
    """
    codes, factors = _checked(codes, factors)
    if continuous:
        deviations = codes.std(0)
        scaled = (codes - codes.mean(0)) / np.where(deviations > 1e-6, deviations, np.inf)
        told = ((factors - factors.mean(0)) / factors.std(0)).T @ scaled / len(codes)
        return float(_gaps(np.square(told.T)).mean())
    train, test = _held_back(len(codes), seed)
    scores = np.empty((codes.shape[1], factors.shape[1]))
    for d, k in np.ndindex(scores.shape):
        classifier = LinearSVC(C=0.01, class_weight="balanced", random_state=seed)
        classifier.fit(codes[train, d : d + 1], factors[train, k])
        scores[d, k] = classifier.score(codes[test, d : d + 1], factors[test, k])
    return float(_gaps(scores).mean())


def measure_disentanglement(
    model: BaseVAE,
    splits: Splits,
    *,
    points: int = 10_000,
    bins: int = BINS,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure how far the posterior means of a model separate the factors of a data set.

    Factors that have one value only in these images are left out.

    Args:
        model: A trained model whose code is one vector.
        splits: Images with factors. Where nothing was held out the training images are measured, and marked so.
        points: Images to use, drawn at random; all of them where there are fewer.
        bins: Bins for the mutual information.
        seed: Fixes the draws.
        progress: Shown over the scores.

    Returns:
        The section `disentanglement` of `evaluation.json`: the scores (the three of DCI as `dci_…`),
        `mutual_information` in nats as one row a code with one number a factor, and what is needed to measure them
        again.

    Raises:
        InputError: The data set has no factors, the model no vector, or there are too few images.
    """
    dataset = splits.held_out or splits.train
    if dataset.factors is None:
        raise InputError(
            f"data = {dataset.name}: its factors are not known, so that disentanglement cannot be measured; take "
            "'sprites', or a .npz with an array 'factors'"
        )
    if points < 2:
        raise InputError(f"points = {points}: must be at least 2")
    count = min(points, len(dataset))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count])
    used = dataset.subset(chosen, dataset.split)
    assert used.factors is not None
    moments = model.encode(used.images, condition=dataset_condition(model, used), seed=seed)
    codes = getattr(moments, "z_mean", None)
    if codes is None:
        raise InputError(
            f"model = {type(model).__name__}: its code is not one vector of one posterior, so that disentanglement "
            "cannot be measured; take a VAE"
        )
    kept = np.ptp(used.factors.values, axis=0) > 0
    factors = used.factors.values[:, kept]
    scores = {
        "beta_vae": lambda: beta_vae_score(codes, factors, seed=seed),
        "factor_vae": lambda: factor_vae_score(codes, factors, seed=seed),
        "mig": lambda: mig(codes, factors, bins=bins),
        "modularity": lambda: modularity(codes, factors, bins=bins),
        "sap": lambda: sap(codes, factors, seed=seed),
        "dci": lambda: dci(codes, factors, seed=seed),
        "mutual_information": lambda: mutual_information(codes, factors, bins=bins).tolist(),
    }
    found: dict[str, Any] = {name: scores[name]() for name in progress(list(scores), "measuring disentanglement")}
    found |= {f"dci_{name}": value for name, value in found.pop("dci")._asdict().items()}
    return {
        **provenance(splits, dataset, seed),
        "images": count,
        "bins": bins,
        "batch_size": BATCH,
        "train_points": TRAIN,
        "test_points": TEST,
        "factors": [name for name, keep in zip(used.factors.names, kept, strict=True) if keep],
        **found,
    }


class _Sharing:
    """Draws points that share a factor's value with given ones."""

    def __init__(self, values: Values) -> None:
        _, self._group, self._counts = np.unique(values, return_inverse=True, return_counts=True)
        self._order = np.argsort(self._group, kind="stable")
        self._starts = np.cumsum(self._counts) - self._counts
        self._rank = np.empty_like(self._order)
        self._rank[self._order] = np.arange(len(values)) - self._starts[self._group[self._order]]

    def others(self, points: Values, rng: np.random.Generator) -> Values:
        """Return another point for each, or the same where no other shares its value."""
        group = self._group[points]
        count = self._counts[group]
        step = 1 + (rng.random(points.shape) * (count - 1)).astype(np.int64)
        return self._order[self._starts[group] + (self._rank[points] + step) % count]

    def any_of(self, points: Values, rng: np.random.Generator) -> Values:
        """Return a point for each, which may be the same."""
        group = self._group[points]
        return self._order[self._starts[group] + (rng.random(points.shape) * self._counts[group]).astype(np.int64)]

    def among_several(self, count: int, rng: np.random.Generator) -> Values:
        """Return points that are not alone with their value: of a single point nothing varies."""
        return rng.choice(np.flatnonzero(self._counts[self._group] > 1), count)


def _by_factor(drawn: Values, factors: Values, size: int) -> Iterator[tuple[Values, _Sharing]]:
    """Yield which draws are of one factor, as many at a time as fit in little memory, with what draws their points."""
    for k, values in enumerate(factors.T):
        sharing, chosen = _Sharing(values), np.flatnonzero(drawn == k)
        at_once = max(1, _GATHERED_AT_ONCE // size)
        for start in range(0, len(chosen), at_once):
            yield chosen[start : start + at_once], sharing


def _gaps(scores: Matrix) -> Matrix:
    """Return by how much the best code exceeds the next, for each factor; one code alone exceeds nothing by all."""
    best = np.sort(np.concatenate([np.zeros_like(scores[:1]), scores]), axis=0)
    return best[-1] - best[-2]


def _concentration(importance: Matrix) -> float:
    """Return one minus the entropy of each row, to the base of its length, weighted by the rows' totals."""
    totals = importance.sum(1)
    shares = importance / np.where(totals > 0, totals, 1)[:, np.newaxis]
    entropies = -np.sum(shares * np.log(np.where(shares > 0, shares, 1)), axis=1) / np.log(max(2, importance.shape[1]))
    return float(totals @ (1 - entropies) / totals.sum()) if totals.any() else 0.0


def _held_back(count: int, seed: int) -> tuple[Values, Values]:
    """Return two thirds of the points to learn from, and the third to be judged on."""
    order = np.random.default_rng(seed).permutation(count)
    return order[count // 3 :], order[: count // 3]


def _checked(codes: Codes, factors: Values) -> tuple[Matrix, Values]:
    if codes.ndim != 2 or factors.ndim != 2 or len(codes) != len(factors) or codes.shape[1] < 1:
        raise InputError(f"codes {codes.shape}, factors {factors.shape}: accepted: N x D and N x F")
    if not np.isfinite(codes).all():
        raise InputError("codes: NaN or infinite; accepted: finite numbers")
    if factors.dtype.kind not in "iu":
        raise InputError(f"factors: an array of {factors.dtype}; accepted: integers")
    if len(codes) < 6 or factors.shape[1] < 2 or (np.ptp(factors, axis=0) == 0).any():
        raise InputError(
            f"factors: {factors.shape[1]} on {len(factors)} points; accepted: two or more that vary, six points or more"
        )
    if any(np.bincount(values).max() < 2 for values in factors.T):
        raise InputError("factors: one has no value that two points share; give more points")
    return codes.astype(np.float64), factors
