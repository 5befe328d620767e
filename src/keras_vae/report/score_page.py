"""The HTML page of anomaly scores: the images with the highest scores, with reconstructions and heat maps."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.typing import Array
from keras_vae.report.figures.heat_maps import heat_colors
from keras_vae.report.figures.image_grids import tile_images
from keras_vae.report.pages import load_template, png_uri

MEANINGS = {
    "nll": "an importance-weighted estimate of −log p(x)",
    "negative_elbo": "distortion + rate, averaged over draws of z",
    "reconstruction_loss": "−log p(x|z), averaged over draws of z",
    "kl_loss": "an estimate of the divergence of q(z|x) from the prior",
    "typicality": "the distance of the score from its mean over the training images",
}
"""Meaning of each score."""

_BINS = 48
_SMALL = 96


class ScoredImage(NamedTuple):
    """An image with its score and what explains it.

    Args:
        name: Name of the image, in one line.
        label: Its label, or None.
        score: Its score, in nats.
        percentile: Percentage of the training images with a lower score.
        image: (H, W, C), uint8.
        reconstruction: The same shape, floats in [0, 1].
        error: Errors per pixel, (H, W, 1), floats in [0, 1].
    """

    name: str
    label: str | None
    score: float
    percentile: float
    image: Array
    reconstruction: Array
    error: Array


class Histogram(NamedTuple):
    """Bars of two sets of scores, as percentages of the width and height of a chart.

    Args:
        low: Score at the left side.
        high: Score at the right side.
        reference: Height of each bar of the training images.
        scores: Height of each bar of the scored images.
        limit: Position of the threshold from the left, or None.
        beyond: Number of scored images beyond the right side, counted in the last bar.
    """

    low: float
    high: float
    reference: list[float]
    scores: list[float]
    limit: float | None
    beyond: int


def render_scores(
    *,
    title: str,
    source: str,
    score: str,
    images: Sequence[ScoredImage],
    scores: NDArray[np.float64],
    reference: NDArray[np.float64],
    limit: float | None,
    rate: float | None,
) -> str:
    """Return a self-contained HTML page about anomaly scores, which needs no network and no scripts.

    Args:
        title: Title of the page.
        source: Source of the scored images.
        score: Name of the score.
        images: The images with the highest scores, highest first.
        scores: Scores of all images, (N,), in nats.
        reference: Scores of training images, (M,), in nats.
        limit: Score above which an image is an anomaly, or None.
        rate: Fraction of the training images above the limit, or None.
    """
    above = None if limit is None else int((scores > limit).sum())
    return load_template("scores.html").render(
        title=title,
        source=source,
        score=score,
        meaning=MEANINGS[score],
        images=[(image, _pictures(image)) for image in images],
        shown_above=None if limit is None else sum(image.score > limit for image in images),
        total=len(scores),
        num_reference=len(reference),
        above=above,
        limit=limit,
        rate=rate,
        histogram=histogram(scores, reference, limit),
        pixelated=bool(images) and max(images[0].image.shape[:2]) < _SMALL,
        colors=[f"rgb({red} {green} {blue})" for red, green, blue in _color_scale()],
    )


def histogram(scores: NDArray[np.float64], reference: NDArray[np.float64], limit: float | None) -> Histogram:
    """Return the bars of scored images and training images over a common range.

    The range contains all training images, the threshold, and scored images up to as far again above the training
    images; the last bar counts those beyond.

    Args:
        scores: Scores of images, (N,).
        reference: Scores of training images, (M,).
        limit: The threshold, or None.
    """
    finite = scores[np.isfinite(scores)]
    known = reference[np.isfinite(reference)]
    low = float(min([*known, *finite], default=0.0))
    top = float(max([*known, *([] if limit is None else [limit])], default=low + 1))
    high = float(min(max([top, *finite]), top + (top - float(min(known, default=low)))))
    high = high if high > low else low + 1
    beyond = int((finite > high).sum())
    bars = [
        np.histogram(np.clip(values, low, high), bins=_BINS, range=(low, high))[0] / max(1, len(values))
        for values in (known, finite)
    ]
    tallest = max(float(bar.max()) for bar in bars) or 1.0
    known_bars, scored_bars = ((100 * bar / tallest).round(2).tolist() for bar in bars)
    position = None if limit is None else 100 * (limit - low) / (high - low)
    return Histogram(low, high, known_bars, scored_bars, position, beyond)


def _pictures(image: ScoredImage) -> dict[str, str]:
    """Return data URLs of an image, its reconstruction and its heat map, by caption."""
    pictures = {
        "image": image.image,
        "reconstruction": image.reconstruction,
        "error": heat_colors(image.error[None])[0],
    }
    return {caption: png_uri(tile_images(pixels[None])) for caption, pixels in pictures.items()}


def _color_scale() -> Array:
    return heat_colors(np.linspace(0, 1, 9, dtype="float32").reshape(1, 1, 9, 1))[0, 0]
