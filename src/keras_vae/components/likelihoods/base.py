"""Base class of likelihoods."""

import abc
from typing import ClassVar

import keras
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, ImageShape, Tensor
from keras_vae.distributions.image import ImageDistribution


class Likelihood(abc.ABC):
    """Base class of likelihoods: functions from the outputs of a decoder to a distribution over images.

    Subclasses also inherit from `Component`, or from `ComponentLayer` if they have weights. All members except
    `__call__` and `decoder_channels` have defaults that a subclass may replace.
    """

    kind: ClassVar[str] = "likelihood"

    @abc.abstractmethod
    def __call__(self, outputs: Tensor) -> ImageDistribution:
        """Return p(x|z), given the float32 outputs of the decoder, (…, H, W, `decoder_channels`)."""

    @abc.abstractmethod
    def decoder_channels(self, image_channels: int) -> int:
        """Return the number of output channels of a decoder of images with `image_channels`."""

    @property
    def requires_noise(self) -> bool:
        """Whether `preprocess` uses new noise in each call, as dynamic binarization does."""
        return False

    @property
    def stochastic_binarization(self) -> bool:
        """Whether `preprocess` samples black and white pixels, with the gray value as the probability of white."""
        return False

    @property
    def is_density(self) -> bool:
        """Whether p(x|z) is a density over gray values instead of a probability of levels.

        Bits per dimension of a density depend on the unit of the gray values, so they are not comparable.
        """
        return False

    def preprocess(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Return the images that the model encodes and scores, for example binarized.

        Args:
            images: (N, H, W, C) in [0, 1], float32.
            uniform: Uniform noise in [0, 1), broadcastable to the images. Required if `requires_noise`; otherwise, it
                replaces the noise of static binarization, if any.

        Returns:
            Images of the same shape and range.
        """
        return images

    @property
    def has_independent_channels(self) -> bool:
        """Whether the channels of a pixel are independent given z, so that some may be missing and others observed."""
        return True

    def is_normalized_on(self, images: Array) -> bool:
        """Return whether p(x|z) sums or integrates to 1 over the values that occur in uint8 images."""
        return True

    def check_images(self, image_shape: ImageShape) -> None:  # noqa: B027
        """Reject images that the likelihood cannot describe. By default, accept all.

        Args:
            image_shape: (H, W, C).

        Raises:
            InputError: The likelihood cannot describe images of this shape.
        """

    @property
    def expects_logits(self) -> bool | None:
        """True if the decoder returns logits, False if it returns probabilities, None if neither."""
        return None

    def check_decoder(self, decoder: keras.Model) -> None:
        """Reject a decoder that ends in a sigmoid if logits are expected, and the reverse.

        Raises:
            InputError: The decoder's last activation contradicts `expects_logits`.
        """
        activation = None if self.expects_logits is None else _last_activation(decoder)
        if self.expects_logits and activation == "sigmoid":
            raise InputError(
                f"likelihood = {self}: it expects logits, but the decoder ends in a sigmoid; remove it, or use "
                "Bernoulli(from_logits=False)"
            )
        if not self.expects_logits and activation == "linear":
            raise InputError(
                f"likelihood = {self}: it expects probabilities, but the decoder ends without an activation; add a "
                "sigmoid, or use Bernoulli(from_logits=True)"
            )


def soft_clip(x: Tensor, low: float, high: float) -> Tensor:
    """Clip x softly: unchanged at distances of at least 1 from the bounds, and approaching them beyond.

    Outside of the unchanged range, the slope decays quadratically. It is never zero, so that gradients can lead back,
    and it is small, so that the scale of pixels that are black in all images does not diverge.
    """
    inner = ops.clip(x, low + 1.0, high - 1.0)
    excess = x - inner
    return inner + excess / (1.0 + ops.abs(excess))


def _last_activation(decoder: keras.Model) -> str | None:
    """Return the name of a decoder's last activation, or None if the decoder is not a functional model."""
    outputs = getattr(decoder, "outputs", None)
    if not outputs:
        return None
    operation = outputs[0]._keras_history.operation
    while isinstance(operation, keras.layers.Reshape | keras.layers.Cropping2D):
        operation = operation.input._keras_history.operation
    activation = getattr(operation, "activation", None)
    return getattr(activation, "__name__", type(operation).__name__.lower())
