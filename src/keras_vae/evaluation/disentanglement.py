"""Disentanglement of a model: scores of its codes on images with known factors."""

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
    dci,
    factor_vae_score,
    mig,
    modularity,
    mutual_information,
    sap,
)
from keras_vae.evaluation.likelihood import provenance
from keras_vae.models.base import BaseVAE
from keras_vae.models.inputs import dataset_condition


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
        bins: Number of bins for the mutual information.
        seed: Fixes the draws.
        progress: Shows the progress over the scores.

    Returns:
        The section `disentanglement` of `evaluation.json`: the scores (those of DCI as `dci_…`), the
        `mutual_information` of each dimension with each factor in nats, and the settings of the measurement.

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
    measured = dataset.subset(chosen, dataset.split)
    assert measured.factors is not None
    codes = model.encode(measured.images, condition=dataset_condition(model, measured), seed=seed).z_mean
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


def _score(codes: Codes, factors: Values, bins: int, seed: int, progress: Progress) -> dict[str, Any]:
    """Return all scores of codes."""
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
    return found | {f"dci_{name}": value for name, value in found.pop("dci")._asdict().items()}
