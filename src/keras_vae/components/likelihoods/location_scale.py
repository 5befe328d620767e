"""Likelihoods of location-scale families: normal and Laplace."""

import math
from typing import Any, ClassVar, Literal

import keras
from keras import ops

from keras_vae.components.likelihoods.base import Likelihood, soft_clip
from keras_vae.core.errors import InputError
from keras_vae.core.registry import ComponentLayer, register
from keras_vae.core.typing import Tensor
from keras_vae.distributions import image
from keras_vae.distributions.image import ImageDistribution

SCALE_RANGE = (1e-3, math.exp(2.0))
"""Range of learned scales, for images in [0, 1]."""


class _LocationScale(ComponentLayer, Likelihood):
    """Independent pixels with density σ⁻¹ f((x − μ)/σ). The decoder returns μ."""

    distribution: ClassVar[type[image.Normal | image.Laplace]]

    def __init__(self, scale: Literal["learned", "pixel"] | float = "learned", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (0 < scale < math.inf if isinstance(scale, int | float) else scale in ("learned", "pixel")):
            raise InputError(f'scale = {scale!r}: not a valid scale; pass a number above 0, "learned" or "pixel"')
        self.scale = scale
        if scale == "learned":
            # e⁻¹ is about the standard deviation of pixels. Starting at σ = 1 would cost hundreds of training steps.
            self.log_scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(-1.0), name="log_scale")
        self.built = True

    def __call__(self, outputs: Tensor) -> ImageDistribution:
        """Return p(x|z), given locations (…, H, W, C), or locations and log-scales (…, H, W, 2C)."""
        if self.scale == "pixel":
            location, log_scale = ops.split(outputs, 2, axis=-1)
            return self.distribution(location, bounded_log_scale(log_scale))
        if self.scale == "learned":
            return self.distribution(outputs, bounded_log_scale(ops.convert_to_tensor(self.log_scale)))
        return self.distribution(outputs, ops.log(ops.convert_to_tensor(self.scale, "float32")))

    def decoder_channels(self, image_channels: int) -> int:
        """Return `image_channels`, or twice that number if the scale is `"pixel"`."""
        return 2 * image_channels if self.scale == "pixel" else image_channels

    @property
    def is_density(self) -> bool:
        """Whether p(x|z) is a density: True."""
        return True


@register("normal")
class Normal(_LocationScale):
    r"""Independent normal pixels, \(N(x; \mu, \sigma^2)\): squared error over \(2\sigma^2\), summed over the image.

    One learned σ is the σ-VAE of Rybkin et al. (arXiv 2006.13202). The density extends beyond [0, 1], and so do its
    means and samples. Models clip the means, which are the locations, to images in [0, 1].

    Args:
        scale: σ, in units where white is 1: a number; `"learned"`, one weight of the model; or `"pixel"`, from the
            decoder, which then returns C locations and C log-scales. Learned scales stay within `SCALE_RANGE`.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: `scale` is invalid.

    Example:
        >>> distribution = Normal(scale=0.1)(ops.zeros((1, 28, 28, 1)))
        >>> round(float(distribution.log_prob(ops.zeros((1, 28, 28, 1)))[0]), 1)  # −784·(½ ln 2π + ln 0.1)
        1084.8
    """

    distribution = image.Normal


@register("laplace")
class Laplace(_LocationScale):
    r"""Independent Laplace pixels, \(e^{-|x - \mu| / \sigma} / 2\sigma\): absolute error over σ, summed over the image.

    The location is a median, which keeps edges sharper than a mean (a location-scale family of Kingma and Welling,
    arXiv 1312.6114). The density extends beyond [0, 1]; models clip the locations to images in [0, 1].

    Args:
        scale: σ, in units where white is 1: a number; `"learned"`, one weight of the model; or `"pixel"`, from the
            decoder, which then returns C locations and C log-scales. Learned scales stay within `SCALE_RANGE`.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: `scale` is invalid.

    Example:
        >>> distribution = Laplace(scale=0.5)(ops.zeros((1, 28, 28, 1)))
        >>> round(float(distribution.log_prob(ops.zeros((1, 28, 28, 1)))[0]), 2)
        0.0
    """

    distribution = image.Laplace


def bounded_log_scale(log_scale: Tensor) -> Tensor:
    """Return learned log-scales, bounded so that the scales stay within `SCALE_RANGE`."""
    return soft_clip(log_scale, *map(math.log, SCALE_RANGE))
