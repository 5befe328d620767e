"""Image quality: how closely the reconstructions of a model match the images."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.components.image_losses.feature_networks import (
    IMAGENET,
    MIN_SIDE,
    feature_maps,
    is_downloaded,
    load_feature_network,
    perceptual_distance,
)
from keras_vae.core import registry
from keras_vae.core.errors import RunError
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array, ImageShape, Tensor
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation.features import Features, load_features
from keras_vae.evaluation.likelihood import check_complete, provenance
from keras_vae.evaluation.per_image import StageResult, mean_and_error
from keras_vae.evaluation.samples import FEATURE_SEED
from keras_vae.evaluation.set_distances import frechet_distance, frechet_distance_error
from keras_vae.models.batching import fitting_batch_size, in_batches
from keras_vae.models.inputs import dataset_condition

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

SMALLEST_ERROR = 1 / (12 * 255**2)
"""Mean squared error of rounding to 8 bits, which limits the PSNR to 58.9 dB."""

WINDOW, SIGMA = 11, 1.5
"""Side and standard deviation of the Gaussian window of the SSIM, in pixels."""

PERCEPTUAL_NETWORK = "VGG16"

_K1, _K2 = 0.01, 0.03
_PERCEPTUAL_BATCH = 16


class _Reconstructions(NamedTuple):
    """Reconstructions in 8 bits, (N, H, W, C), and measures by name, (N,)."""

    images: NDArray[np.uint8]
    measures: dict[str, NDArray[np.float64]]


def measure_image_quality(
    model: "BaseVAE",
    splits: Splits,
    *,
    seed: int = 0,
    features: Features | str | None = None,
    progress: Progress = silent,
) -> StageResult:
    """Compare held-out images with their reconstructions.

    A reconstruction is the mean image p(x|z) of the posterior mean of z, without noise: `BaseVAE.reconstruct`. It is
    compared with the image as loaded, even if the likelihood binarizes images, as the mean images of `measure_samples`
    are. The Fréchet distance is that between the set of reconstructions and the set of images, in
    8 bits.

    Args:
        model: A trained model.
        splits: The images of its run. If none were held out, training images are measured and marked as such. Streamed
            images are represented by a sample.
        seed: Recorded with the numbers, which need no random draws.
        features: The features of the Fréchet distance; see `features.load_features`.
        progress: Shows the progress over the images.

    Returns:
        The section `image_quality` of `evaluation.json`: means and standard errors over images of the PSNR in decibels,
        of the SSIM, and of the perceptual distance in VGG16, if its weights need no download; the Fréchet distance; and
        the share of codes that the images use, for discrete codes. Numbers that cannot be computed are None, and
        `notes` explain why. The means are also returned per image.

    Raises:
        InputError: The features are unknown, or pixels are missing.
        RunError: Reconstructions are not finite, or the weights of InceptionV3 are not available.
    """
    whole = splits.held_out or splits.train
    check_complete(splits, "image-quality")
    measured = whole.sample()
    if not isinstance(features, Features):
        features = load_features(features, splits.sample(), seed=FEATURE_SEED, progress=progress)
    perceptual = _Perceptual.available(measured.image_shape)
    found = _reconstruct(model, measured, perceptual, progress)
    section = {
        **provenance(splits, measured, seed),
        "condition": model.condition and registry.describe(model.condition)["name"],
        "features": features.describe(),
        "psnr": mean_and_error(found.measures["psnr"]),
        **{name: _mean_or_none(found, name) for name in ("ssim", "perceptual_distance")},
        "perceptual_features": perceptual and {"name": PERCEPTUAL_NETWORK, "upsample": perceptual.upsample},
        "reconstruction_frechet_distance": _frechet_distance(features, found.images, measured.images, progress),
        **_code_usage(model, measured),
        "notes": [*features.notes, *_notes(whole, measured, found, features)],
    }
    return StageResult(section, found.measures)


@dataclass(frozen=True, eq=False)
class _Perceptual:
    """The perceptual distance of images: a network, and the factor by which they are enlarged."""

    network: keras.Model
    upsample: int

    @classmethod
    def available(cls, image_shape: ImageShape) -> Self | None:
        """Return the distance, if its weights need no download."""
        if not is_downloaded(PERCEPTUAL_NETWORK):
            return None
        network = load_feature_network(IMAGENET, network=PERCEPTUAL_NETWORK)
        return cls(network, math.ceil(MIN_SIDE / min(image_shape[:2])))

    def __call__(self, images: Array, others: Array) -> NDArray[np.float64]:
        """Return the distance of each pair of images in [0, 1], (N,)."""

        def distance(pair: tuple[Array, Array]) -> Tensor:
            maps = (feature_maps(self.network, ops.convert_to_tensor(batch), self.upsample) for batch in pair)
            return perceptual_distance(*maps)

        pair = images.astype("float32"), others.astype("float32")
        return np.asarray(in_batches(distance, pair, batch_size=_PERCEPTUAL_BATCH), np.float64)


def psnr(images: Array, others: Array) -> NDArray[np.float64]:
    r"""Return the peak signal-to-noise ratio of each pair of images, in decibels.

    \(-10 \log_{10} \overline{(x - y)^2}\), with the mean over pixels and channels. Errors below that of rounding to
    8 bits count as that error, so that the ratio is at most 58.9.

    Args:
        images: (N, H, W, C) in [0, 1].
        others: The same shape.

    Returns:
        (N,).

    Example:
        >>> psnr(np.zeros((1, 4, 4, 3)), np.full((1, 4, 4, 3), 0.1)).round(6)
        array([20.])
    """
    errors = np.square(images.astype("float64") - others).mean(axis=(1, 2, 3))
    return np.asarray(-10 * np.log10(np.maximum(errors, SMALLEST_ERROR)))


def ssim(images: Array, others: Array) -> NDArray[np.float64]:
    r"""Return the structural similarity of each pair of images (Wang et al. 2004, doi:10.1109/TIP.2003.819861).

    \(\frac{(2 \mu_x \mu_y + c_1)(2 \sigma_{xy} + c_2)}{(\mu_x^2 + \mu_y^2 + c_1)(\sigma_x^2 + \sigma_y^2 + c_2)}\),
    \(c_1 = 0.01^2, c_2 = 0.03^2\), averaged over channels and over all positions of a Gaussian window of 11×11 pixels,
    σ = 1.5, that lie inside the image.

    Args:
        images: (N, H, W, C) in [0, 1], H and W at least 11.
        others: The same shape.

    Returns:
        (N,), at most 1, the value of equal images.

    Example:
        >>> black, white = np.zeros((1, 11, 11, 1)), np.ones((1, 11, 11, 1))
        >>> ssim(np.concatenate([black, black]), np.concatenate([black, white])).round(4).tolist()
        [1.0, 0.0001]
    """
    # Variances are small differences of large numbers. Channels become a batch axis for the matrix products.
    x, y = (np.moveaxis(array, -1, 1).astype("float64") for array in (images, others))
    rows, columns = (_window_matrix(length) for length in x.shape[2:])

    def local_mean(maps: NDArray[np.float64]) -> NDArray[np.float64]:
        return rows @ maps @ columns.T

    mean_x, mean_y = local_mean(x), local_mean(y)
    variances = local_mean(x * x) + local_mean(y * y) - mean_x**2 - mean_y**2
    covariance = local_mean(x * y) - mean_x * mean_y
    c1, c2 = _K1**2, _K2**2
    similarity = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    similarity /= (mean_x**2 + mean_y**2 + c1) * (variances + c2)
    return np.asarray(similarity.mean(axis=(1, 2, 3)))


def code_usage(indices: Array, num_codes: int) -> dict[str, float | None]:
    r"""Return the share of the codes that a set of images uses, with its standard error over images.

    The error is the jackknife: without image i, \(u_i\) codes that only this image uses are no longer counted, and the
    variance of the count is \(\frac{N - 1}{N} \sum_i (u_i - \bar u)^2\). The share grows with the number of images.

    Args:
        indices: Code indices of each image, (N, …).
        num_codes: Number of codes.

    Returns:
        `mean` and `standard_error`; the error of a single image is None.

    Example:
        >>> code_usage(np.array([[0, 1], [0, 0]]), 4)
        {'mean': 0.5, 'standard_error': 0.125}
    """
    rows = indices.reshape(len(indices), -1).astype("int64")
    # Each code counts once per image.
    image, code = np.divmod(np.unique(np.arange(len(rows))[:, None] * num_codes + rows), num_codes)
    images_per_code = np.bincount(code, minlength=num_codes)
    only = np.bincount(image[images_per_code[code] == 1], minlength=len(rows))
    error = math.sqrt((len(rows) - 1) * only.var()) / num_codes if len(rows) > 1 else None
    return {"mean": float(np.count_nonzero(images_per_code) / num_codes), "standard_error": error}


def _window_matrix(length: int) -> NDArray[np.float64]:
    """Return the matrix whose rows are the shifted one-dimensional window, (length − 10, length)."""
    weights = np.exp(-np.square(np.arange(WINDOW) - WINDOW // 2) / (2 * SIGMA**2))
    matrix = np.zeros((length - WINDOW + 1, length))
    for start in range(len(matrix)):
        matrix[start, start : start + WINDOW] = weights / weights.sum()
    return matrix


def _mean_or_none(found: _Reconstructions, name: str) -> dict[str, float | None] | None:
    return mean_and_error(found.measures[name]) if name in found.measures else None


def _reconstruct(
    model: "BaseVAE", measured: Dataset, perceptual: _Perceptual | None, progress: Progress
) -> _Reconstructions:
    """Return the reconstructions of images and their measures, batch by batch because the measures need memory."""
    condition, size = dataset_condition(model, measured), fitting_batch_size(measured.image_shape)
    functions: dict[str, Callable[..., NDArray[np.float64]]] = {"psnr": psnr}
    if min(measured.image_shape[:2]) >= WINDOW:
        functions["ssim"] = ssim
    if perceptual is not None:
        functions["perceptual_distance"] = perceptual
    images = np.empty(measured.images.shape, np.uint8)
    measures = {name: np.empty(len(measured)) for name in functions}
    for start in progress(range(0, len(measured), size), "reconstructing images"):
        rows = slice(start, start + size)
        means = model.reconstruct(measured.images[rows], condition=None if condition is None else condition[rows])
        if not np.isfinite(means).all():
            raise RunError("image-quality: some reconstructions are NaN: the training diverged; run `vae doctor`")
        images[rows] = np.rint(np.multiply(means, 255))
        for name, function in functions.items():
            measures[name][rows] = function(measured.images[rows] / 255, means)
    return _Reconstructions(images, measures)


def _frechet_distance(
    features: Features, reconstructions: NDArray[np.uint8], images: NDArray[np.uint8], progress: Progress
) -> dict[str, float | None] | None:
    """Return the Fréchet distance between reconstructions and images; None for a single image."""
    if len(images) < 2:
        return None
    pairs = features(reconstructions, progress, "features of reconstructions"), features(images, progress)
    return {"mean": frechet_distance(*pairs), "standard_error": frechet_distance_error(*pairs, paired=True)}


def _code_usage(model: "BaseVAE", measured: Dataset) -> dict[str, Any]:
    """Return the share of codes that the images use, and the number of codes; nothing for continuous codes."""
    if model.num_codes is None:
        return {}
    numbers = model.number_codes(measured.images, condition=dataset_condition(model, measured))
    return {"num_codes": model.num_codes, "code_usage": code_usage(numbers, model.num_codes)}


def _notes(whole: Dataset, measured: Dataset, found: _Reconstructions, features: Features) -> Iterator[str]:
    """Yield the limitations of the numbers."""
    count, dimensions = len(measured), features.describe()["dimensions"]
    if count < len(whole):
        yield f"streamed: {count:,} of {len(whole):,} images represent all, evenly spaced"
    if "ssim" not in found.measures:
        yield f"ssim: images of less than {WINDOW} pixels are smaller than its window"
    if "perceptual_distance" not in found.measures:
        yield (
            "perceptual_distance: needs the weights of VGG16, which are not in the cache of Keras; "
            "`keras.applications.VGG16(include_top=False)` downloads them"
        )
    limit = -10 * math.log10(SMALLEST_ERROR)
    exact = int(np.isclose(found.measures["psnr"], limit).sum())
    if exact:
        yield f"psnr: {exact:,} reconstructions are exact to 8 bits, and count as {limit:.1f}"
    if count == 1:
        yield "the Fréchet distance needs more than 1 image"
    elif count <= dimensions:
        yield (
            f"{count:,} images for {dimensions:,} features: compare the Fréchet distance only with that of the same "
            "images"
        )
