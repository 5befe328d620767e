"""Likelihood: how well a model explains images that it has not seen."""

from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vae.data.dataset import Dataset, Splits
from keras_vae.types import Array

if TYPE_CHECKING:
    from keras_vae.models.vae import VAE

SCHEMA = 1
"""The version of `evaluation.json`'s keys."""


def held_out(splits: Splits) -> Dataset | None:
    """Return the images on which a model may be judged: the test split, else the validation split."""
    return splits.test if splits.test is not None else splits.validation


def evaluate(model: "VAE", splits: Splits, seed: int) -> dict[str, Any]:
    """Measure the terms of the ELBO, β = 1, with one draw of z an image.

    Args:
        model: A trained model.
        splits: The images of its run. Where nothing was held out the training images are measured, and marked so.
        seed: Fixes the draws.

    Returns:
        The content of `evaluation.json`: means and standard errors over images in nats per image, and what they
        were measured on.
    """
    dataset = held_out(splits)
    measured = splits.train if dataset is None else dataset
    terms = model.terms(measured.images, seed)
    values = {"negative_elbo": terms.negative_elbo, **terms._asdict()}
    return {
        "schema": SCHEMA,
        "split": measured.split,
        "held_out": dataset is not None,
        "images": len(measured),
        "checksum": measured.checksum,
        "seed": seed,
        "draws_per_image": 1,
        "normalised": model.likelihood.is_normalised_on(measured.images),
        **{name: _mean(value) for name, value in values.items()},
    }


def _mean(values: Array) -> dict[str, float | None]:
    doubles = values.astype("float64")
    error = float(doubles.std(ddof=1) / np.sqrt(len(doubles))) if len(doubles) > 1 else None
    return {"mean": float(doubles.mean()), "standard_error": error}
