"""Checks of the images, and of the likelihood chosen for them."""

import math

from keras_vae.evaluation.diagnostics.finding import Finding
from keras_vae.evaluation.diagnostics.run_diagnostics import Numbers, RunDiagnostics
from keras_vae.evaluation.diagnostics.thresholds import (
    BRIGHTNESS_GAP,
    BRIGHTNESS_STANDARD_ERRORS,
    GRAY_RANGE,
    GRAY_SHARE,
    MIN_CONTRAST,
)


def low_contrast(diagnostics: RunDiagnostics) -> Finding | None:
    """Find pixels that hardly differ, because their range is not 0 to 255."""
    if diagnostics.train_images is None:
        return None
    low, high = int(diagnostics.train_images.min()), int(diagnostics.train_images.max())
    if high - low >= MIN_CONTRAST:
        return None
    return Finding(
        "low contrast",
        f"All pixels of the training images lie between {low} and {high} on the scale from 0 to 255.",
        "Images that all look alike teach the model nothing. Typical causes are pixels saved as 0 and 1, and images "
        "divided by 255 twice.",
        "Save the images of data.source with values from 0 to 255, or as floats from 0 to 1.",
    )


def held_out_images_differ(diagnostics: RunDiagnostics) -> Finding | None:
    """Find held-out images that are inverted, brighter or darker compared with the training images."""
    if diagnostics.train_images is None or diagnostics.held_out_images is None:
        return None
    train, train_error = _brightness(diagnostics.train_images)
    held_out, held_out_error = _brightness(diagnostics.held_out_images)
    gap = abs(train - held_out)
    if gap < max(BRIGHTNESS_GAP, BRIGHTNESS_STANDARD_ERRORS * math.hypot(train_error, held_out_error)):
        return None
    inverted = abs(1 - train - held_out) < gap / 2
    return Finding(
        "inverted images" if inverted else "held-out images differ",
        f"The mean pixel is {train:.2f} in the training images and {held_out:.2f} in the held-out images (0 is black, "
        "1 is white).",
        "The model is evaluated on images unlike its training images, so all held-out numbers are meaningless.",
        "In data.source, invert either the training images or the held-out images: one set is white on black, the "
        "other black on white."
        if inverted
        else "Prepare both parts of data.source in the same way, or remove the test part and let data.test hold out "
        "images at random.",
    )


def unsuitable_likelihood(diagnostics: RunDiagnostics) -> Finding | None:
    """Find color images, or images with many gray pixels, under a Bernoulli likelihood."""
    likelihood = diagnostics.experiment.model.likelihood
    images = diagnostics.train_images
    if images is None or likelihood["name"] != "bernoulli":
        return None
    has_colors = images.shape[-1] == 3
    gray = float(((images > GRAY_RANGE[0] * 255) & (images < GRAY_RANGE[1] * 255)).mean())
    if not has_colors and (gray < GRAY_SHARE or likelihood.get("binarize", "none") != "none"):
        return None
    return Finding(
        "unsuitable likelihood",
        "The images have 3 channels."
        if has_colors
        else f"{gray:.0%} of the pixels are gray: between {GRAY_RANGE[0]} and {GRAY_RANGE[1]}, where 0 is black and 1 "
        "is white.",
        "A Bernoulli pixel is either black or white. On other images its loss is not a likelihood, and mean images "
        "look flat.",
        'Set model.likelihood = { name = "discretized-logistic", num_components = 5 }.'
        if has_colors
        else "Set model.likelihood to continuous-bernoulli or discretized-logistic.",
    )


def _brightness(images: Numbers) -> tuple[float, float]:
    """Return the mean pixel from 0 to 1, and its standard error over images."""
    means = images.reshape(len(images), -1).mean(axis=1) / 255
    return float(means.mean()), float(means.std() / math.sqrt(len(means)))
