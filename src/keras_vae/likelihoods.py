"""Likelihoods p(x|z): what the decoder's outputs say about an image."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import keras
import numpy as np
from keras import ops

from keras_vae.distributions import Bernoulli as BernoulliPixels
from keras_vae.distributions import ImageDistribution
from keras_vae.errors import InputError
from keras_vae.parts import Part, part
from keras_vae.types import Array, Tensor


class Likelihood(Part, abc.ABC):
    """What a likelihood can do."""

    kind: ClassVar[str] = "likelihood"

    @abc.abstractmethod
    def __call__(self, outputs: Tensor) -> ImageDistribution:
        """Return p(x|z), a view of the decoder's outputs (…, H, W, `decoder_channels`)."""

    @abc.abstractmethod
    def decoder_channels(self, image_channels: int) -> int:
        """Return how many channels the decoder puts out for images of `image_channels`."""

    @abc.abstractmethod
    def is_normalised_on(self, images: Array) -> bool:
        """Return whether the probabilities of all images like these uint8 ones sum or integrate to 1."""

    @abc.abstractmethod
    def check_decoder(self, decoder: keras.Model) -> None:
        """Refuse a decoder whose outputs this likelihood would misread.

        Raises:
            InputError: The decoder's last layer does not go with the likelihood.
        """


@part("bernoulli")
@dataclass(frozen=True)
class Bernoulli(Likelihood):
    """Independent Bernoulli pixels: binary cross-entropy, summed over the image.

    On grey levels it is the classic VAE's loss, but not a normalised likelihood (Loaiza-Ganem and Cunningham,
    arXiv 1907.06845).

    Args:
        from_logits: As in Keras's losses: whether the decoder puts out logits, or probabilities because it ends in
            a sigmoid. Probabilities are kept within 1e-7 of 0 and 1, as Keras does, for their logarithm to exist.

    Example:
        >>> Bernoulli()(keras.ops.zeros((1, 28, 28, 1))).log_prob(keras.ops.ones((1, 28, 28, 1)))  # 784·ln ½
        <tf.Tensor: shape=(1,), dtype=float32, numpy=array([-543.4273], dtype=float32)>
    """

    from_logits: bool = True

    def __call__(self, outputs: Tensor) -> BernoulliPixels:
        """Return p(x|z), a view of the decoder's outputs (…, H, W, C)."""
        if self.from_logits:
            return BernoulliPixels(outputs)
        probabilities = ops.clip(outputs, 1e-7, 1.0 - 1e-7)
        return BernoulliPixels(ops.log(probabilities) - ops.log1p(-probabilities))

    def decoder_channels(self, image_channels: int) -> int:
        """Return `image_channels`: one number a pixel and channel."""
        return image_channels

    def is_normalised_on(self, images: Array) -> bool:
        """Return whether the uint8 images are black and white: a Bernoulli knows no grey."""
        return bool(np.isin(images, (0, 255)).all())

    def check_decoder(self, decoder: keras.Model) -> None:
        """Refuse a sigmoid taken for logits, and the reverse of it.

        Raises:
            InputError: The decoder visibly ends in the other one.
        """
        function = _last_function(decoder)
        if self.from_logits and function == "sigmoid":
            raise InputError(
                "decoder ends in a sigmoid, but likelihood=Bernoulli(from_logits=True) expects logits: pass "
                "Bernoulli(from_logits=False), or end the decoder without an activation"
            )
        if not self.from_logits and function == "linear":
            raise InputError(
                "decoder ends without an activation, but likelihood=Bernoulli(from_logits=False) expects "
                "probabilities: pass Bernoulli(from_logits=True), or end the decoder in a sigmoid"
            )


def _last_function(decoder: keras.Model) -> str | None:
    """Return the name of the function that the values of a decoder's output come from; None where it cannot be told."""
    outputs = getattr(decoder, "outputs", None)
    if not outputs:
        return None
    operation = outputs[0]._keras_history.operation
    while isinstance(operation, keras.layers.Reshape | keras.layers.Cropping2D):
        operation = operation.input._keras_history.operation
    activation = getattr(operation, "activation", None)
    return getattr(activation, "__name__", type(operation).__name__.lower())
