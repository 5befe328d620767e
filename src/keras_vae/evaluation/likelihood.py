"""Likelihood: how well a model explains images that it has not seen."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import replacing
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.models.inputs import dataset_condition

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

BINARIZATION_SEED = 777
"""That of the published numbers on dynamically binarized MNIST."""

TRUSTED_SAMPLE_SIZE = 5.0
"""The least effective sample size, of 95 images in 100, for which an importance-weighted estimate is trusted."""

_IMAGES_BETWEEN_SAVES = 200


def provenance(splits: Splits, measured: Dataset, seed: int) -> dict[str, Any]:
    """Return what every section says of its numbers: which images, whether those were held out, and the seed."""
    return {
        "data": measured.name,
        "split": measured.split,
        "held_out": splits.held_out is not None and not _are_training_images(splits),
        "images": len(measured),
        "checksum": measured.checksum,
        "seed": seed,
    }


def _are_training_images(splits: Splits) -> bool:
    """Return whether half or more of the images "held out" are among the training images: the file of these, say."""
    images = splits.held_out
    known = {hash(image.tobytes()) for image in splits.train.images}
    return images is not None and 2 * sum(hash(image.tobytes()) in known for image in images.images) >= len(images)


def binarized(splits: Splits, dataset: Dataset) -> Dataset:
    """Return one of the splits in black and white, each pixel drawn once with its gray value as the probability.

    The draws are those of the protocol that published numbers follow (Tomczak and Welling, arXiv 1705.07120, in their
    code): NumPy's legacy generator with seed 777. Where the source has test images of its own and more training images
    than those, as MNIST has, as many of its last training images are drawn first, and then the test images.

    Args:
        splits: The images of a run.
        dataset: The one of them that is drawn.

    Returns:
        Images of the levels 0 and 255.
    """
    generator = np.random.RandomState(BINARIZATION_SEED)
    if dataset is splits.test and dataset.positions is None:
        _draw(_last_of_source(splits, len(dataset)), generator)
    return replace(dataset, images=_draw(dataset.images, generator) * np.uint8(255))


def mean_and_error(values: Array) -> dict[str, float | None]:
    """Return the mean of values, one an image, and its standard error; a single value has none."""
    doubles = values.astype("float64")
    error = float(doubles.std(ddof=1) / np.sqrt(len(doubles))) if len(doubles) > 1 else None
    return {"mean": float(doubles.mean()), "standard_error": error}


def binarize_if_needed(model: "BaseVAE", splits: Splits, dataset: Dataset) -> Dataset:
    """Return one of the splits as a model is measured on it: drawn once, where its likelihood binarizes at random."""
    return binarized(splits, dataset) if model.likelihood.binarizes_at_random else dataset


def measure_likelihood(
    model: "BaseVAE",
    splits: Splits,
    *,
    seed: int,
    samples: int = 0,
    progress: Progress = silent,
    partial: Path | None = None,
) -> dict[str, Any]:
    r"""Measure the terms of the ELBO at β = 1, and −log p(x) by importance sampling.

    `bits_per_dim` is \(\mathrm{nll} / (H W C \ln 2)\).

    Args:
        model: A trained model.
        splits: The images of its run. Where nothing was held out the training images are measured, and marked so.
        seed: Fixes the draws of z: one an image for the ELBO, `samples` for −log p(x).
        samples: K; 0 leaves out −log p(x), and so does a model that has none: without noise, or with discrete codes.
        progress: Shown over the images.
        partial: A file in which the estimates so far are kept: interrupted, the same measurement goes on from it.

    Returns:
        The section `likelihood` of `evaluation.json`: means and standard errors over images in nats per image, how
        they were measured, and whether the estimate is to be trusted.

    Raises:
        InputError: `samples` is negative.
    """
    from keras import ops

    from keras_vae.core import registry

    if samples < 0:
        raise InputError(f"samples = {samples}: must be ≥ 1, or 0 to leave out the importance-weighted estimate")
    measured = binarize_if_needed(model, splits, splits.held_out or splits.train)
    told = dataset_condition(model, measured)
    terms = model.elbo_terms(measured.images, seed=seed, condition=told)
    section: dict[str, Any] = {
        **provenance(splits, measured, seed),
        "likelihood": registry.spec("likelihood", model.likelihood)["name"],
        "binarization": getattr(model.likelihood, "binarize", "none"),
        "binarization_seed": BINARIZATION_SEED if model.likelihood.binarizes_at_random else None,
        "condition": None if model.condition is None else registry.spec("condition", model.condition)["name"],
        "normalized": model.likelihood.is_normalized_on(measured.images),
        "density": model.likelihood.is_density,
        "bound": model.has_bound,
        **{
            name: mean_and_error(ops.convert_to_numpy(getattr(terms, name)))
            for name in ("negative_elbo", "reconstruction_loss", "kl_loss")
        },
        **model.describe_codes(measured.images, terms=terms, condition=told),
    }
    if samples and model.is_stochastic:
        section |= _importance_weighted(model, measured, samples, seed, progress, partial)
    return section


def _importance_weighted(
    model: "BaseVAE", measured: Dataset, samples: int, seed: int, progress: Progress, partial: Path | None
) -> dict[str, Any]:
    sampling = model.importance_sampling(
        measured.images, samples=samples, seed=seed, condition=dataset_condition(model, measured)
    )
    estimates = _resumed(partial, len(measured))
    saved = done = int(np.isfinite(estimates).all(axis=0).sum())
    blocks = [block for block in sampling.blocks if block.stop > done]
    shown = progress(blocks, f"−log p(x), K = {samples:,}")
    for block, estimate in zip(shown, sampling.over(blocks), strict=True):
        estimates[:, block] = estimate
        if partial is not None and block.stop - saved >= _IMAGES_BETWEEN_SAVES:
            with replacing(partial) as temporary:
                np.save(temporary, estimates, allow_pickle=False)
            saved = block.stop
    log_likelihood, sample_size = estimates
    nll = mean_and_error(-log_likelihood)
    percentile = float(np.percentile(sample_size, 5))
    comparable = model.likelihood.is_normalized_on(measured.images) and not model.likelihood.is_density
    bits = math.log(2) * math.prod(measured.image_shape)
    return {
        "samples": samples,
        "nll": nll,
        "bits_per_dim": {key: value and value / bits for key, value in nll.items()} if comparable else None,
        "effective_sample_size": {"median": float(np.median(sample_size)), "percentile_5": percentile},
        "trusted": percentile >= TRUSTED_SAMPLE_SIZE,
    }


def _resumed(partial: Path | None, count: int) -> Array:
    """Return the estimates kept so far, NaN where there is none yet, (2, count)."""
    if partial is not None and partial.is_file():
        try:
            kept: Array = np.load(partial, allow_pickle=False)
        except (ValueError, EOFError, OSError):
            kept = np.empty(0)
        if kept.shape == (2, count):
            return kept
    return np.full((2, count), np.nan)


def _last_of_source(splits: Splits, count: int) -> NDArray[np.uint8]:
    """Return the last images of the source's training part, if it holds more than so many."""
    parts = [part for part in (splits.train, splits.validation) if part is not None]
    total = sum(map(len, parts))
    images = np.empty((count if total > count else 0, *splits.train.image_shape), np.uint8)
    for part in parts:
        at = (np.arange(len(part)) if part.positions is None else part.positions) - (total - len(images))
        images[at[at >= 0]] = part.images[at >= 0]
    return images


def _draw(images: NDArray[np.uint8], generator: np.random.RandomState) -> NDArray[np.uint8]:
    """Return 0 or 1 for every pixel, in parts: the generator wants the probabilities in float64."""
    parts = [
        np.asarray(generator.binomial(1, images[start : start + 1000] / 255.0), np.uint8)
        for start in range(0, len(images), 1000)
    ]
    return np.concatenate(parts) if parts else images
