"""Rows of images and their reconstructions, for the plots of reconstructions."""

from typing import NamedTuple

import numpy as np
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, evenly_spaced
from keras_vae.evaluation.image_quality import WINDOW, psnr, ssim
from keras_vae.models.inputs import dataset_condition
from keras_vae.report.context import ORDERING_IMAGES, PlotContext


class RankedRows(NamedTuple):
    """Images ranked by the quality of their reconstructions.

    Args:
        rows: The images, their reconstructions and the absolute differences, by name.
        captions: Two lines per image: the PSNR, and the SSIM if it is defined.
        title: Description of the images.
    """

    rows: dict[str, Array]
    captions: list[tuple[str, str]]
    title: str


def described(dataset: Dataset) -> str:
    """Return the kind of images of a data set, such as `"test images"`."""
    return {"train": "training images", "all": "images"}.get(dataset.split, f"{dataset.split} images")


def reconstruction_rows(context: PlotContext, dataset: Dataset) -> dict[str, Array]:
    """Return the images of a data set and their reconstructions, by name."""
    condition = dataset_condition(context.model, dataset)
    return {
        "original": dataset.images,
        "reconstruction": context.model.reconstruct(dataset.images, condition=condition),
    }


def worst_images(context: PlotContext, n: int) -> tuple[Dataset, str]:
    """Return the n images with the highest negative ELBO among at most 2,000, and their description.

    Raises:
        InputError: `n` is below one.
    """
    dataset = _ordering_images(context, n)
    condition = dataset_condition(context.model, dataset)
    losses = ops.convert_to_numpy(context.model.elbo_terms(dataset.images, condition=condition).negative_elbo)
    worst = dataset.subset(np.argsort(losses)[::-1][:n], dataset.split)
    return worst, f"the {len(worst)} of {len(dataset):,} {described(dataset)} with the highest negative ELBO"


def ranked_by_quality(context: PlotContext, n: int) -> RankedRows:
    """Return n images, evenly spaced from the lowest to the highest PSNR among at most 2,000.

    Raises:
        InputError: `n` is below one.
    """
    dataset = _ordering_images(context, n)
    rows = reconstruction_rows(context, dataset)
    images = np.divide(dataset.images, 255, dtype="float32")
    reconstructed = rows["reconstruction"]
    ratios = psnr(images, reconstructed)
    chosen = np.argsort(ratios, kind="stable")[evenly_spaced(len(ratios), n)]
    images, reconstructed = images[chosen], reconstructed[chosen]
    has_window = min(dataset.image_shape[:2]) >= WINDOW
    similarities = [f"SSIM {value:.2f}" for value in ssim(images, reconstructed)] if has_window else [""] * len(chosen)
    return RankedRows(
        {"original": images, "reconstruction": reconstructed, "difference": np.abs(np.subtract(images, reconstructed))},
        [(f"{ratio:.1f} dB", text) for ratio, text in zip(ratios[chosen], similarities, strict=True)],
        f"{described(dataset)}, ranked by PSNR among {len(dataset):,}",
    )


def _ordering_images(context: PlotContext, n: int) -> Dataset:
    if n < 1:
        raise InputError(f"n = {n}: nothing to show; pass 1 or more")
    return context.images(ORDERING_IMAGES)
