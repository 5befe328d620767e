"""Latent metrics: the information in the codes, their unused dimensions, and their distance from the prior."""

import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.components.posteriors import DiagonalNormal, InverseAutoregressiveFlow
from keras_vae.components.priors import ConditionalNormal, StandardNormal
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation.kl_decomposition import KL_PARTS, aggregate_densities, decompose_kl
from keras_vae.evaluation.likelihood import binarize_if_needed, provenance
from keras_vae.evaluation.per_image import StageResult, mean_and_error
from keras_vae.models.encoding import Encoding
from keras_vae.models.inputs import dataset_condition
from keras_vae.models.latent_maps import flat_codes
from keras_vae.models.vae import VAE

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

IMAGES = 10_000
"""Largest number of images to measure, and of codes to fit a probe to."""

ACTIVE_VARIANCE = 0.01
"""Variance over images of E[z|x] above which a dimension is active (Burda et al., arXiv 1509.00519)."""

NEIGHBORS = 10
"""Number of nearest codes that vote on a label."""

ONLY_SUM_KNOWN = "this posterior and prior give only the sum over dimensions, kl_loss"

Doubles = NDArray[np.float64]


def measure_latents(
    model: "BaseVAE", splits: Splits, *, seed: int = 0, images: int = IMAGES, progress: Progress = silent
) -> StageResult:
    r"""Measure the codes of a VAE: KL, active units, mutual information, moments, and accuracy of label probes.

    Maps are measured as vectors.

    `kl_loss` and `kl_per_dimension` are closed forms, if the posterior and prior have one. `kl_monte_carlo`, and the
    bounds on its parts `mutual_information` and `marginal_kl`, are estimated from one draw per image
    (`decompose_kl`).

    Args:
        model: A trained `VAE`.
        splits: The images of its run. If none were held out, training images are measured and marked as such; probes
            are then fitted to one half of them and scored on the other.
        seed: Fixes the draws, and the choice of images if there are more than `images`.
        images: Largest number of images to measure, and of training images to fit probes to.
        progress: Shows the progress.

    Returns:
        The section `latents` of `evaluation.json`, in nats, and whether each probe is correct for each image. Numbers
        that are not defined for this model are None, and `notes` explain why.

    Raises:
        InputError: The codes of the model are not vectors, or `images` is below one.
        RunError: The codes are not finite.
    """
    if not model.has_latent_vector:
        raise InputError(
            f"model = {type(model).__name__}: its codes are not vectors, so they have no latent metrics; evaluate only "
            "the stages likelihood and samples"
        )
    if images < 1:
        raise InputError(f"images = {images}: too few; use at least 1")
    measured = _subsample(binarize_if_needed(model, splits, splits.held_out or splits.train), images, seed).in_memory()
    condition, notes = dataset_condition(model, measured), list[str]()
    methods: list[Any] = [model.encode, model.sample_posterior, model.elbo_terms]
    moments, z, terms = (
        method(measured.images, seed=seed, condition=condition) for method in progress(methods, "encoding images")
    )
    moments, z = moments.flattened(), flat_codes(z)
    kl = ops.convert_to_numpy(terms.kl_per_group)
    log_prior = ops.convert_to_numpy(terms.log_prior)[:, 0].astype("float64")
    if not all(np.isfinite(values).all() for values in (moments.z_mean, z, kl)):
        raise RunError("latents: some codes are NaN or infinite: the training diverged; run `vae doctor`")
    if isinstance(model.posterior, InverseAutoregressiveFlow):
        notes.append("active_units: E[z|x] of an iaf posterior has no closed form; the transformed base mean is used")
    probes, hits = _probe_labels(model, splits, measured, moments.z_mean, seed, images, notes)
    section = {
        **provenance(splits, measured, seed),
        "latent_dim": model.latent_dim,
        "kl_loss": mean_and_error(kl.sum(axis=1, dtype="float64")),
        "kl_per_dimension": _sorted_kl(kl, model.latent_dim, notes),
        "active_units": active_units(moments.z_mean),
        **_decompose_kl(model, moments, z, log_prior, notes, progress),
        "aggregate_posterior": _aggregate_moments(model, z, notes),
        **probes,
        "notes": notes,
    }
    return StageResult(section, hits)


def kl_per_dimension(model: "BaseVAE", dataset: Dataset, *, seed: int = 0) -> Doubles | None:
    """Return the mean KL of each latent dimension over images, in nats.

    Args:
        model: A trained model whose codes are vectors.
        dataset: The images.
        seed: Fixes the draws of z.

    Returns:
        (D,), or None if the posterior and prior give only the sum over dimensions, or no KL.
    """
    if not model.is_stochastic or model.density != "direct":
        return None
    terms = model.elbo_terms(dataset.images, seed=seed, condition=dataset_condition(model, dataset))
    kl = ops.convert_to_numpy(terms.kl_per_group)
    return np.asarray(kl.mean(axis=0, dtype="float64")) if kl.shape[1] == model.latent_dim else None


def evaluated_kl_per_dimension(evaluation: Mapping[str, Any] | None) -> Doubles | None:
    """Return the mean KL of each latent dimension as stored in an evaluation, in nats.

    Args:
        evaluation: The content of an `evaluation.json`, if any.

    Returns:
        (D,), or None if the evaluation does not contain it.

    Example:
        >>> stored = [{"dimension": 1, "mean": 2.0}, {"dimension": 0, "mean": 0.5}]
        >>> evaluated_kl_per_dimension({"latents": {"kl_per_dimension": stored}})
        array([0.5, 2. ])
    """
    stored = ((evaluation or {}).get("latents") or {}).get("kl_per_dimension")
    if not stored:
        return None
    by_dimension = sorted(stored, key=lambda kl: kl["dimension"])
    return np.array([kl["mean"] for kl in by_dimension], np.float64)


def dimensions_by_kl(kl: Doubles | None, z_mean: Callable[[], Array]) -> NDArray[np.intp]:
    """Return the latent dimensions, most informative first: active ones before others, each by descending KL.

    A constant offset from the prior costs KL but carries no information, so inactive dimensions come last.

    Args:
        kl: The KL of each dimension, (D,); None orders the dimensions by the variance of their means.
        z_mean: Returns posterior means, (N, D).

    Example:
        >>> means = np.array([[1.0, 5.0, 0.0], [-1.0, 5.0, 2.0]])
        >>> dimensions_by_kl(np.array([0.1, 2.0, 0.5]), lambda: means)  # the second dimension is constant
        array([2, 0, 1])
    """
    variance = z_mean().var(axis=0, dtype="float64")
    return np.lexsort((-(variance if kl is None else kl), variance <= ACTIVE_VARIANCE))


def active_units(z_mean: Array) -> dict[str, Any]:
    """Return the active dimensions: those whose E[z|x] has a variance over images above 0.01 (arXiv 1509.00519).

    Args:
        z_mean: Means of the posteriors, (N, D).

    Returns:
        The `count` of active dimensions, the `dimensions`, counted from 0, and the `threshold`.

    Example:
        >>> active_units(np.array([[0.0, 1.0], [0.1, 3.0]]))
        {'count': 1, 'dimensions': [1], 'threshold': 0.01}
    """
    dimensions = np.flatnonzero(z_mean.var(axis=0, dtype="float64") > ACTIVE_VARIANCE).tolist()
    return {"count": len(dimensions), "dimensions": dimensions, "threshold": ACTIVE_VARIANCE}


def aggregate_moments(z: Array) -> dict[str, Any]:
    r"""Return the moments of codes, and their distance from the moments of a standard normal.

    Args:
        z: One posterior draw per image, (N, D).

    Returns:
        `mean` and `variance` of each dimension; `largest_correlation`, the largest |correlation| of two dimensions,
        None for a single dimension; and `squared_deviation` \(\|\mu\|^2 + \|\Sigma - I\|_F^2\).
    """
    codes = z.astype("float64")
    mean, centered = codes.mean(axis=0), codes - codes.mean(axis=0)
    covariance = centered.T @ centered / len(codes)
    scale = np.sqrt(np.diag(covariance))
    # A constant dimension has no correlation with any other.
    correlation = covariance / np.outer(*(2 * [np.where(scale > 0, scale, math.inf)]))
    above = np.abs(correlation[np.triu_indices(len(scale), 1)])
    return {
        "mean": mean.tolist(),
        "variance": np.diag(covariance).tolist(),
        "largest_correlation": float(above.max()) if len(above) else None,
        "squared_deviation": float(np.square(mean).sum() + np.square(covariance - np.eye(len(scale))).sum()),
    }


def probe_hits(codes: Array, labels: Array, test_codes: Array, test_labels: Array) -> dict[str, Array]:
    """Return whether simple classifiers predict each label from its code.

    Args:
        codes: Training codes, (N, D).
        labels: Their labels, (N,), of at least two classes.
        test_codes: Test codes, (M, D).
        test_labels: Their labels, (M,).

    Returns:
        `knn_accuracy` of a nearest-neighbor classifier, `linear_probe_accuracy` of a logistic regression on
        standardized codes, and `chance_accuracy` of always predicting the most frequent label; each is an array
        (M,) of booleans, whose mean is the accuracy.
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
    train, test = codes.astype("float64"), test_codes.astype("float64")
    return {
        name: np.asarray(classifier.fit(train, labels).predict(test) == test_labels)
        for name, classifier in classifiers.items()
    }


def _subsample(dataset: Dataset, count: int, seed: int) -> Dataset:
    if len(dataset) <= count:
        return dataset
    return dataset.subset(np.sort(np.random.default_rng([seed, 3]).permutation(len(dataset))[:count]), dataset.split)


def _sorted_kl(kl: Array, latent_dim: int, notes: list[str]) -> list[dict[str, Any]] | None:
    """Return the mean KL of each dimension, largest first."""
    if kl.shape[1] != latent_dim:
        notes.append(f"kl_per_dimension: {ONLY_SUM_KNOWN}")
        return None
    means = [{"dimension": dimension, **mean_and_error(kl[:, dimension])} for dimension in range(latent_dim)]
    return sorted(means, key=lambda mean: -mean["mean"])


def _decompose_kl(
    model: VAE, moments: Encoding, z: Array, log_prior: Doubles, notes: list[str], progress: Progress
) -> dict[str, Any]:
    """Return the Monte Carlo estimate of the KL, and bounds on its two parts."""
    if not isinstance(model.posterior, DiagonalNormal):
        reason = (
            "the aggregate posterior is only computed for diagonal normal posteriors"
            if model.is_stochastic
            else "the aggregate of a deterministic posterior has no density"
        )
        notes.append(f"mutual_information, marginal_kl: {reason}")
        return dict.fromkeys(KL_PARTS)
    is_conditional = isinstance(model.prior, ConditionalNormal)
    if is_conditional:
        notes.append("marginal_kl: a conditional prior has no single p(z) to compare with q(z)")
    densities = aggregate_densities(moments.z_mean, moments.z_log_var, z, progress)
    parts = decompose_kl(densities, z, None if is_conditional else log_prior)
    if parts["mutual_information"] is None:
        notes.append(
            "mutual_information, marginal_kl: only bounds are known; more images or fewer latent dimensions narrow them"
        )
    return parts


def _aggregate_moments(model: VAE, z: Array, notes: list[str]) -> dict[str, Any]:
    moments = aggregate_moments(z)
    if not isinstance(model.prior, StandardNormal):
        notes.append("aggregate_posterior: squared_deviation is defined for a standard normal prior only")
        moments["squared_deviation"] = None
    return moments


def _probe_labels(
    model: VAE, splits: Splits, measured: Dataset, z_mean: Array, seed: int, images: int, notes: list[str]
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Return the accuracies of probes fitted to training codes and scored on the measured codes, and their hits."""
    section: dict[str, Any] = dict.fromkeys(
        ("knn_accuracy", "linear_probe_accuracy", "chance_accuracy", "neighbors", "probe_images")
    )
    if measured.labels is None or splits.train.labels is None:
        return section, {}
    if splits.held_out is None:
        # The halves do not depend on the seed, so that hits of runs with different seeds are those of the same images.
        fit, test = np.array_split(np.random.default_rng(4).permutation(len(measured)), 2)
        codes, labels = z_mean[fit], measured.labels[fit]
        test_codes, test_labels = z_mean[test], measured.labels[test]
        notes.append("knn_accuracy, linear_probe_accuracy: fitted to one half of the images and scored on the other")
    else:
        train = binarize_if_needed(model, splits, _subsample(splits.train, images, seed).in_memory())
        encoding = model.encode(train.images, seed=seed, condition=dataset_condition(model, train))
        codes = encoding.flattened().z_mean
        # For the type checker: a subset of labeled images has labels.
        labels = np.asarray(train.labels)
        test_codes, test_labels = z_mean, measured.labels
    if len(np.unique(labels)) < 2:
        notes.append("knn_accuracy, linear_probe_accuracy: the training images have fewer than two classes")
        return section, {}
    if model.condition is not None:
        notes.append(
            "knn_accuracy, linear_probe_accuracy: the encoder receives the label, so its codes need not contain it"
        )
    section |= {"neighbors": min(NEIGHBORS, len(codes)), "probe_images": len(codes)}
    hits = probe_hits(codes, labels, test_codes, test_labels)
    section |= {name: mean_and_error(values) for name, values in hits.items()}
    return section, {name: hits[name] for name in ("knn_accuracy", "linear_probe_accuracy")}
