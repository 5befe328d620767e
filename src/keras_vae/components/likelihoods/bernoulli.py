"""Bernoulli likelihoods, and the binarization of gray images."""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from keras import ops

from keras_vae.components.likelihoods.base import Likelihood
from keras_vae.core.errors import InputError, unknown
from keras_vae.core.registry import Component, register
from keras_vae.core.typing import Array, ImageShape, Tensor
from keras_vae.distributions import image

Binarize = Literal["none", "threshold", "static", "dynamic"]


@register("bernoulli")
@dataclass(frozen=True)
class Bernoulli(Component, Likelihood):
    """Independent Bernoulli pixels: binary cross-entropy, summed over the image.

    On gray levels it is the loss of the classic VAE, but not a normalized likelihood (Loaiza-Ganem and Cunningham,
    arXiv 1907.06845). On binarized images it is one (Salakhutdinov and Murray 2008).

    Args:
        from_logits: Whether the decoder returns logits, as in Keras's losses. Otherwise it ends in a sigmoid, and its
            probabilities are clipped to [1e-7, 1 − 1e-7] as in Keras, so that their logarithms are finite.
        binarize: Treatment of gray: `"none"` keeps it; `"threshold"` makes pixels ≥ ½ white; `"dynamic"` samples black
            and white, with the gray value as the probability of white and new noise each time (Burda et al., arXiv
            1509.00519); `"static"` does the same with fixed noise per image, a hash of its pixels.
        seed: Seed of the static binarization.

    Raises:
        InputError: `binarize` is unknown.

    Example:
        >>> distribution = Bernoulli()(ops.zeros((1, 28, 28, 1)))
        >>> round(float(distribution.log_prob(ops.ones((1, 28, 28, 1)))[0]), 2)  # 784·ln ½
        -543.43
    """

    from_logits: bool = True
    binarize: Binarize = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the binarization."""
        if self.binarize not in get_args(Binarize):
            raise unknown("binarize", self.binarize, get_args(Binarize))

    def __call__(self, outputs: Tensor) -> image.Bernoulli:
        """Return p(x|z), given the outputs of the decoder, (…, H, W, C)."""
        if self.from_logits:
            return image.Bernoulli(outputs)
        probabilities = ops.clip(outputs, 1e-7, 1.0 - 1e-7)
        return image.Bernoulli(ops.log(probabilities) - ops.log1p(-probabilities))

    def decoder_channels(self, image_channels: int) -> int:
        """Return `image_channels`: one number per pixel and channel."""
        return image_channels

    @property
    def requires_noise(self) -> bool:
        """Whether the binarization is dynamic."""
        return self.binarize == "dynamic"

    @property
    def stochastic_binarization(self) -> bool:
        """Whether the binarization is dynamic or static."""
        return self.binarize in ("dynamic", "static")

    def preprocess(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Return the binarized images, (N, H, W, C), in {0, 1} unless `binarize` is `"none"`."""
        if self.binarize == "none":
            return images
        if self.binarize == "threshold":
            return ops.cast(images >= 0.5, "float32")
        return ops.cast(images > (hash_noise(images, self.seed) if uniform is None else uniform), "float32")

    def is_normalized_on(self, images: Array) -> bool:
        """Return whether all pixels are black or white: a Bernoulli distribution is not normalized on gray."""
        return self.binarize != "none" or bool(np.isin(images, (0, 255)).all())

    def check_images(self, image_shape: ImageShape) -> None:
        """Reject color images, unless they are binarized.

        Raises:
            InputError: The images have colors and `binarize` is `"none"`.
        """
        if self.binarize == "none" and image_shape[-1] == 3:
            raise InputError(
                'likelihood = bernoulli: it cannot describe images with 3 channels; set binarize = "dynamic", or '
                'likelihood = "discretized-logistic"'
            )

    @property
    def expects_logits(self) -> bool:
        """Whether the decoder returns logits: `from_logits`."""
        return self.from_logits


@register("continuous-bernoulli")
@dataclass(frozen=True)
class ContinuousBernoulli(Component, Likelihood):
    r"""Independent pixels with density \(\propto \lambda^x (1 - \lambda)^{1 - x}\) on [0, 1].

    The loss of the classic VAE on gray levels plus its missing normalizer (Loaiza-Ganem and Cunningham, arXiv
    1907.06845). The decoder returns the logits of λ.

    Example:
        >>> distribution = ContinuousBernoulli()(ops.zeros((1, 28, 28, 1)))
        >>> round(float(distribution.log_prob(ops.ones((1, 28, 28, 1)))[0]), 2)  # uniform
        0.0
    """

    def __call__(self, outputs: Tensor) -> image.ContinuousBernoulli:
        """Return p(x|z), given the outputs of the decoder, (…, H, W, C)."""
        return image.ContinuousBernoulli(outputs)

    @property
    def expects_logits(self) -> bool:
        """Whether the decoder returns logits: True."""
        return True

    def decoder_channels(self, image_channels: int) -> int:
        """Return `image_channels`: one logit per pixel and channel."""
        return image_channels

    @property
    def is_density(self) -> bool:
        """Whether p(x|z) is a density: True."""
        return True


def hash_noise(images: Tensor, seed: int) -> Tensor:
    """Return noise in [0, 1), (N, H, W, C), computed as a hash of each image and the seed.

    Integers overflow in the same way on all backends, so the noise of an image depends on neither backend nor batch.
    """
    levels = ops.reshape(ops.cast(ops.round(255.0 * images), "int32"), (ops.shape(images)[0], -1))
    positions = _mix(_mix(ops.arange(1, 1 + ops.shape(levels)[1], dtype="int32")) + _to_int32(seed))
    # With odd weights, a change of any single pixel changes the sum.
    image = ops.cast(ops.sum(levels * ops.bitwise_or(positions, 1), axis=1, keepdims=True), "int32")
    bits = _mix(_mix(image) + _mix(positions))
    return ops.reshape(ops.cast(_shift_right(bits, 8), "float32") * 2.0**-24, ops.shape(images))


def _mix(bits: Tensor) -> Tensor:
    """Mix the bits of int32 numbers with the finalizer of MurmurHash3 (Austin Appleby)."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = ops.bitwise_xor(bits, _shift_right(bits, shift)) * _to_int32(factor)
    return ops.bitwise_xor(bits, _shift_right(bits, 16))


def _shift_right(bits: Tensor, by: int) -> Tensor:
    """Shift int32 numbers right logically; Keras's shift is arithmetic."""
    return ops.bitwise_and(ops.right_shift(bits, by), (1 << (32 - by)) - 1)


def _to_int32(number: int) -> int:
    """Return the signed integer with the same 32 lowest bits."""
    return (number + 2**31) % 2**32 - 2**31
