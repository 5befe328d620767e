"""Disentanglement of a model: scores of its codes on images with known factors."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_vae.core.errors import InputError
from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.disentanglement_scores import (
    BATCH,
    BINS,
    TEST,
    TRAIN,
    Codes,
    Values,
    beta_vae_score,
    dci_with_errors,
    factor_vae_score,
    mig,
    modularity,
    mutual_information,
    sap_with_error,
)
from keras_vae.evaluation.likelihood import provenance
from keras_vae.models.base import BaseVAE
from keras_vae.models.inputs import dataset_condition

REPLICATES, FEW_REPLICATES = 50, 10
"""Number of bootstrap samples for scores that take milliseconds, and for scores that take a second."""


def measure_disentanglement(
    model: BaseVAE,
    splits: Splits,
    *,
    points: int = 10_000,
    bins: int = BINS,
    seed: int = 0,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure how well the posterior means of a model separate the factors of a data set.

    Factors that are constant over the measured images are ignored.

    Args:
        model: A trained model whose codes are vectors.
        splits: Images with factors. If none were held out, training images are measured and marked as such.
        points: Number of images, drawn at random; all images if there are fewer.
        bins: Largest number of bins for the mutual information.
        seed: Fixes the draws.
        progress: Shows the progress over the scores.

    Returns:
        The section `disentanglement` of `evaluation.json`: the scores (those of DCI as `dci_…`) with bootstrap standard
        errors over images, the `mutual_information` of each dimension with each factor in nats, and the settings of
        the measurement.

    Raises:
        InputError: The data set has no factors, the codes of the model are not vectors, or there are too few images.
    """
    dataset = splits.held_out or splits.train
    if dataset.factors is None:
        raise InputError(
            f"data = {dataset.name}: has no factors to measure disentanglement with; use sprites, or a .npz file with "
            "an array 'factors'"
        )
    if not model.has_latent_vector:
        raise InputError(
            f"model = {type(model).__name__}: its codes are not vectors, so they have no disentanglement scores; use a "
            "VAE"
        )
    if points < 2:
        raise InputError(f"points = {points}: too few; use at least 2")
    count = min(points, len(dataset))
    chosen = np.sort(np.random.default_rng(seed).permutation(len(dataset))[:count])
    measured = dataset.subset(chosen, dataset.split).in_memory()
    assert measured.factors is not None
    codes = model.encode(measured.images, condition=dataset_condition(model, measured), seed=seed).flattened().z_mean
    varies = np.ptp(measured.factors.values, axis=0) > 0
    return {
        **provenance(splits, dataset, seed),
        "images": count,
        "bins": bins,
        "batch_size": BATCH,
        "train_points": TRAIN,
        "test_points": TEST,
        "factors": [name for name, keep in zip(measured.factors.names, varies, strict=True) if keep],
        **_score(codes, measured.factors.values[:, varies], bins, seed, progress),
    }


def bootstrap_error(
    score: Callable[[Codes, Values], float], codes: Codes, factors: Values, *, replicates: int, seed: int = 0
) -> float:
    """Return the standard deviation of a score over bootstrap samples of the images.

    Args:
        score: Returns the score of codes and factors.
        codes: (N, D).
        factors: Integers (N, F).
        replicates: Number of samples, at least 2.
        seed: Fixes the samples.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> codes, factors = rng.normal(size=(400, 1)), rng.integers(0, 2, (400, 2))
        >>> error = bootstrap_error(lambda z, _: float(z.mean()), codes, factors, replicates=500)
        >>> round(error, 2)  # 1 / √400
        0.05
    """
    rng, scores = np.random.default_rng(seed), list[float]()
    while len(scores) < replicates:
        points = rng.integers(len(codes), size=len(codes))
        # A sample in which a factor is constant has no score.
        if np.ptp(factors[points], axis=0).all():
            scores.append(score(codes[points], factors[points]))
    return float(np.std(scores, ddof=1))


def _score(codes: Codes, factors: Values, bins: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Return all scores of codes, with their standard errors, and the mutual information."""
    resampled: dict[str, tuple[Callable[[Codes, Values], float], int]] = {
        "beta_vae": (lambda z, v: beta_vae_score(z, v, seed=seed), FEW_REPLICATES),
        "factor_vae": (lambda z, v: factor_vae_score(z, v, seed=seed), FEW_REPLICATES),
        "mig": (lambda z, v: mig(z, v, bins=bins), REPLICATES),
        "modularity": (lambda z, v: modularity(z, v, bins=bins), REPLICATES),
    }
    found: dict[str, Any] = {}
    for name in progress([*resampled, "sap", "dci"], "measuring disentanglement"):
        if name in resampled:
            score, replicates = resampled[name]
            error = bootstrap_error(score, codes, factors, replicates=replicates, seed=seed)
            found[name] = _with_error(score(codes, factors), error)
        elif name == "sap":
            found[name] = _with_error(*sap_with_error(codes, factors, seed=seed))
        else:
            scores, errors = dci_with_errors(codes, factors, seed=seed)
            found |= {
                f"dci_{name}": _with_error(value, error)
                for name, value, error in zip(scores._fields, scores, errors, strict=True)
            }
    return found | {"mutual_information": mutual_information(codes, factors, bins=bins).tolist()}


def _with_error(mean: float, error: float) -> dict[str, float]:
    return {"mean": mean, "standard_error": error}
