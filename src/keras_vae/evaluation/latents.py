"""Latents: what codes hold, how many of their dimensions are used, and how far they lie from the prior."""

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.components.posteriors import DiagonalNormal, InverseAutoregressiveFlow
from keras_vae.components.priors import ConditionalNormal, StandardNormal
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation.likelihood import binarize_if_needed, mean_and_error, provenance
from keras_vae.models.inference import Encoding
from keras_vae.models.inputs import dataset_condition
from keras_vae.models.vae import VAE

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

IMAGES = 10_000
"""How many images are measured, and on how many codes a probe is fitted, at most."""

ACTIVE_VARIANCE = 0.01
"""The variance of E[z|x] over images above which a dimension counts as used (Burda et al., arXiv 1509.00519)."""

NEIGHBORS = 10
"""How many of the nearest codes vote on a label."""

_PAIRS_AT_ONCE = 2**22

Doubles = NDArray[np.float64]


class Aggregate(NamedTuple):
    """The densities of one code an image, in nats.

    Args:
        log_posterior: log q(z|x) of the image's own posterior, (N,), float64.
        log_aggregate: log q(z), the mean over all posteriors, (N,), float64.
    """

    log_posterior: Doubles
    log_aggregate: Doubles


def measure_latents(
    model: "BaseVAE", splits: Splits, *, seed: int = 0, images: int = IMAGES, progress: Progress = silent
) -> dict[str, Any]:
    r"""Measure the codes of a VAE: rates, active units, mutual information, moments, and what labels they tell.

    The rate is taken apart as \(E_x KL(q(z|x) \| p(z)) = I(x; z) + KL(q(z) \| p(z))\) (Hoffman and Johnson 2016, "ELBO
    surgery"), all three by one draw an image: `kl_monte_carlo = mutual_information + marginal_kl`, while `kl_loss` and
    `rates` are in closed form, where there is one. With \(q(z) = \tfrac1N \sum_j q(z|x_j)\) over the N measured images
    the mutual information cannot exceed log N, the `mutual_information_cap`: near it, it is an underestimate.

    Args:
        model: A trained `VAE`.
        splits: The images of its run. Where nothing was held out training images are measured, and marked so; probes
            are then fitted to one half of them and scored on the other.
        seed: Fixes the images, where there are more than `images`, and the draws.
        images: How many are measured, and how many training images probes are fitted to, at most.
        progress: Shown over the work.

    Returns:
        The section `latents` of `evaluation.json`, in nats. What cannot be said of this model is null, and `notes`
        say why.

    Raises:
        InputError: The model has no vector of codes, or `images` is below one.
        RunError: The codes are not finite.
    """
    if not model.has_latent_vector:
        raise InputError(
            f"latents: a {type(model).__name__} has no vector of codes to measure; take --only likelihood,samples"
        )
    if images < 1:
        raise InputError(f"images = {images}: must be ≥ 1")
    measured = _chosen(binarize_if_needed(model, splits, splits.held_out or splits.train), images, seed)
    told, notes = dataset_condition(model, measured), list[str]()
    verbs: list[Any] = [model.encode, model.sample_posterior, model.elbo_terms]
    moments, z, terms = (
        verb(measured.images, seed=seed, condition=told) for verb in progress(verbs, "encoding images")
    )
    rates = ops.convert_to_numpy(terms.kl_per_group)
    log_prior = ops.convert_to_numpy(terms.log_prior)[:, 0].astype("float64")
    if not all(np.isfinite(values).all() for values in (moments.z_mean, z, rates)):
        raise RunError("latents: codes or rates are not finite: the training diverged; see `vae doctor`")
    if isinstance(model.posterior, InverseAutoregressiveFlow):
        notes.append(
            "active_units: E[z|x] of an iaf has no closed form; the code that its base's mean becomes is taken"
        )
    return {
        **provenance(splits, measured, seed),
        "latent_dim": model.latent_dim,
        "kl_loss": mean_and_error(rates.sum(axis=1, dtype="float64")),
        "rates": _by_dimension(rates, model.latent_dim, notes),
        "active_units": active_units(moments.z_mean),
        **_surgery(model, moments, z, log_prior, notes, progress),
        "aggregate_posterior": _moments_beside_prior(model, z, notes),
        **_probed(model, splits, measured, moments.z_mean, seed, images, notes),
        "notes": notes,
    }


def aggregate(z_mean: Array, z_log_var: Array, z: Array, progress: Progress = silent) -> Aggregate:
    r"""Return the densities of codes under their own and under the aggregate posterior.

    \(\log q(z_i) = \log \tfrac1N \sum_j q(z_i|x_j)\) over all N images, the code's own one among them.

    Args:
        z_mean: Means of diagonal normal posteriors, (N, D).
        z_log_var: Logarithms of their variances, (N, D).
        z: A draw from each, (N, D).
        progress: Shown over blocks of codes.

    Returns:
        Both, in nats, of every code. The mean of their difference estimates I(x; z).

    Example:
        >>> moments = np.array([[0.0], [0.0], [90.0]]), np.zeros((3, 1))
        >>> own, mixed = aggregate(*moments, moments[0])
        >>> (own - mixed).round(4).tolist()  # log 3/2 twice, and log 3
        [0.4055, 0.4055, 1.0986]
    """
    # Multiplied out, all pairs are two matrix products; centered, little is lost to cancellation.
    center = z_mean.mean(axis=0, dtype="float64")
    mean, log_var, codes = z_mean - center, z_log_var.astype("float64"), z - center
    precision = np.exp(-log_var)
    constants = -0.5 * np.sum(np.square(mean) * precision + log_var + math.log(2 * math.pi), axis=1)
    count = len(codes)
    own, mixed = np.empty(count), np.empty(count)
    rows = max(1, _PAIRS_AT_ONCE // count)
    for start in progress(range(0, count, rows), "comparing posteriors"):
        block = codes[start : start + rows]
        pairs = constants + block @ (mean * precision).T - 0.5 * np.square(block) @ precision.T
        highest = pairs.max(axis=1, keepdims=True)
        at = np.arange(start, start + len(block))
        own[at] = pairs[np.arange(len(block)), at]
        mixed[at] = highest[:, 0] + np.log(np.exp(pairs - highest).mean(axis=1))
    return Aggregate(own, mixed)


def active_units(z_mean: Array) -> dict[str, Any]:
    """Return which dimensions are used: the variance over images of E[z|x] is above 0.01 (arXiv 1509.00519).

    Args:
        z_mean: Means of the posteriors, (N, D).

    Returns:
        Their `count`, the `dimensions`, counted from 0, and the `threshold`.

    Example:
        >>> active_units(np.array([[0.0, 1.0], [0.1, 3.0]]))
        {'count': 1, 'dimensions': [1], 'threshold': 0.01}
    """
    dimensions = np.flatnonzero(z_mean.var(axis=0, dtype="float64") > ACTIVE_VARIANCE).tolist()
    return {"count": len(dimensions), "dimensions": dimensions, "threshold": ACTIVE_VARIANCE}


def aggregate_moments(z: Array) -> dict[str, Any]:
    r"""Return the moments of codes, and how far they are from those of a standard normal.

    Args:
        z: A draw from the posterior of each image, (N, D).

    Returns:
        `mean` and `variance` of each dimension; `largest_correlation`, the largest |correlation| of two dimensions,
        null where there is one; and `squared_deviation` \(\|\mu\|^2 + \|\Sigma - I\|_F^2\).
    """
    codes = z.astype("float64")
    mean, centered = codes.mean(axis=0), codes - codes.mean(axis=0)
    covariance = centered.T @ centered / len(codes)
    scale = np.sqrt(np.diag(covariance))
    # A dimension that never moves goes with no other.
    correlation = covariance / np.outer(*(2 * [np.where(scale > 0, scale, math.inf)]))
    above = np.abs(correlation[np.triu_indices(len(scale), 1)])
    return {
        "mean": mean.tolist(),
        "variance": np.diag(covariance).tolist(),
        "largest_correlation": float(above.max()) if len(above) else None,
        "squared_deviation": float(np.square(mean).sum() + np.square(covariance - np.eye(len(scale))).sum()),
    }


def probe(codes: Array, labels: Array, test_codes: Array, test_labels: Array) -> dict[str, Any]:
    """Return how well codes tell labels: of their neighbors' votes, of a linear classifier, and of no code at all.

    Args:
        codes: Codes to learn from, (N, D).
        labels: Their labels, (N,), of two classes at least.
        test_codes: Codes to be scored on, (M, D).
        test_labels: Their labels, (M,).

    Returns:
        `knn_accuracy`, `linear_probe_accuracy` of a logistic regression on standardized codes, and `chance_accuracy` of
        always saying the most frequent label; each a mean with its standard error.
    """
    from sklearn.dummy import DummyClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifiers = {
        "knn_accuracy": KNeighborsClassifier(min(NEIGHBORS, len(codes))),
        "linear_probe_accuracy": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
        "chance_accuracy": DummyClassifier(),
    }
    known, unseen = codes.astype("float64"), test_codes.astype("float64")
    return {
        name: mean_and_error(classifier.fit(known, labels).predict(unseen) == test_labels)
        for name, classifier in classifiers.items()
    }


def _chosen(dataset: Dataset, count: int, seed: int) -> Dataset:
    if len(dataset) <= count:
        return dataset
    return dataset.take(np.sort(np.random.default_rng([seed, 3]).permutation(len(dataset))[:count]), dataset.split)


def _by_dimension(rates: Array, latent_dim: int, notes: list[str]) -> list[dict[str, Any]] | None:
    """Return the mean rate of each dimension, the largest first."""
    if rates.shape[1] != latent_dim:
        notes.append("rates: of this posterior and prior only the sum over dimensions is known, kl_loss")
        return None
    found = [{"dimension": dimension, **mean_and_error(rates[:, dimension])} for dimension in range(latent_dim)]
    return sorted(found, key=lambda rate: -rate["mean"])


def _surgery(
    model: VAE, moments: Encoding, z: Array, log_prior: Doubles, notes: list[str], progress: Progress
) -> dict[str, Any]:
    """Return the rate of one draw an image, and the two parts of it."""
    section: dict[str, Any] = dict.fromkeys(
        ("kl_monte_carlo", "mutual_information", "mutual_information_cap", "marginal_kl")
    )
    if not isinstance(model.posterior, DiagonalNormal):
        reason = "is known for the posterior normal alone" if model.is_stochastic else "has no density without noise"
        notes.append(f"mutual_information, marginal_kl: the aggregate posterior {reason}")
        return section
    own, mixed = aggregate(moments.z_mean, moments.z_log_var, z, progress)
    section |= {"mutual_information": mean_and_error(own - mixed), "mutual_information_cap": math.log(len(z))}
    if isinstance(model.prior, ConditionalNormal):
        notes.append("marginal_kl: under a conditional prior there is no one p(z) to compare q(z) with")
    else:
        section |= {"kl_monte_carlo": mean_and_error(own - log_prior), "marginal_kl": mean_and_error(mixed - log_prior)}
    return section


def _moments_beside_prior(model: VAE, z: Array, notes: list[str]) -> dict[str, Any]:
    moments = aggregate_moments(z)
    if not isinstance(model.prior, StandardNormal):
        notes.append("aggregate_posterior: squared_deviation is from a standard normal, which this prior is not")
        moments["squared_deviation"] = None
    return moments


def _probed(
    model: VAE, splits: Splits, measured: Dataset, z_mean: Array, seed: int, images: int, notes: list[str]
) -> dict[str, Any]:
    """Return the accuracies of probes fitted to training codes and scored on the measured ones."""
    section: dict[str, Any] = dict.fromkeys(
        ("knn_accuracy", "linear_probe_accuracy", "chance_accuracy", "neighbors", "probe_images")
    )
    if measured.labels is None or splits.train.labels is None:
        return section
    if splits.held_out is None:
        fitted, scored = np.array_split(np.random.default_rng([seed, 4]).permutation(len(measured)), 2)
        codes, labels = z_mean[fitted], measured.labels[fitted]
        test_codes, test_labels = z_mean[scored], measured.labels[scored]
        notes.append("knn_accuracy, linear_probe_accuracy: fitted to one half of the images, scored on the other")
    else:
        train = binarize_if_needed(model, splits, _chosen(splits.train, images, seed))
        codes = model.encode(train.images, seed=seed, condition=dataset_condition(model, train)).z_mean
        # `take` keeps labels where there are some, which a type cannot say.
        labels = np.asarray(train.labels)
        test_codes, test_labels = z_mean, measured.labels
    if len(np.unique(labels)) < 2:
        notes.append("knn_accuracy, linear_probe_accuracy: the images learnt from do not have two labels to tell apart")
        return section
    if model.condition is not None:
        notes.append("knn_accuracy, linear_probe_accuracy: the encoder is told the label, which codes need not repeat")
    section |= {"neighbors": min(NEIGHBORS, len(codes)), "probe_images": len(codes)}
    return section | probe(codes, labels, test_codes, test_labels)
