"""Likelihoods p(x|z): what the decoder's outputs say about an image."""

import abc
import math
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import keras
import numpy as np
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.registry import Component, ComponentLayer, register
from keras_vae.core.typing import Array, ImageShape, Tensor
from keras_vae.distributions import image
from keras_vae.distributions.image import ImageDistribution

Binarize = Literal["none", "threshold", "static", "dynamic"]

SCALE_RANGE = (1e-3, math.exp(2.0))
"""Where a σ that is learned stays, for images in [0, 1]."""

LOG_SCALE_RANGE_OF_LEVELS = (-7.0, 2.0)
"""Where the log-scales of discretized logistics stay, for images in [−1, 1]; the lower end is that of PixelCNN++."""


class Likelihood(abc.ABC):
    """What a likelihood can do."""

    kind: ClassVar[str] = "likelihood"

    @abc.abstractmethod
    def __call__(self, outputs: Tensor) -> ImageDistribution:
        """Return p(x|z), a view of the decoder's float32 outputs (…, H, W, `decoder_channels`)."""

    @abc.abstractmethod
    def decoder_channels(self, image_channels: int) -> int:
        """Return how many channels the decoder puts out for images of `image_channels`."""

    @property
    def draws_pixels(self) -> bool:
        """Whether `preprocess` needs noise."""
        return False

    @property
    def binarizes_at_random(self) -> bool:
        """Whether `preprocess` makes pixels black or white with gray as the probability, each time or once for all."""
        return False

    @property
    def is_density(self) -> bool:
        """Whether p(x|z) is a density on gray values rather than a probability of levels.

        The bits per dimension of a density depend on the unit of the gray values and compare with nothing.
        """
        return False

    def preprocess(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Return what the model takes for the images.

        Args:
            images: (N, H, W, C) in [0, 1], float32.
            uniform: Uniform noise in [0, 1), broadcastable to them, where `draws_pixels`; else None, or what takes the
                place of the likelihood's own.

        Returns:
            The same shape and range.
        """
        return images

    def is_normalized_on(self, images: Array) -> bool:
        """Return whether the probabilities of all images like these uint8 ones sum or integrate to 1."""
        return True

    def check_images(self, image_shape: ImageShape) -> None:  # noqa: B027
        """Refuse images that this likelihood cannot describe.

        Args:
            image_shape: (H, W, C).

        Raises:
            InputError: It cannot.
        """

    @property
    def expects_logits(self) -> bool | None:
        """Whether the decoder's outputs are logits, or probabilities; None where they are neither."""
        return None

    def check_decoder(self, decoder: keras.Model) -> None:
        """Refuse a sigmoid taken for logits, and the reverse of it.

        Raises:
            InputError: The decoder visibly ends in the other one.
        """
        function = None if self.expects_logits is None else _last_function(decoder)
        if self.expects_logits and function == "sigmoid":
            raise InputError(
                f"decoder ends in a sigmoid, but {self} expects logits: end the decoder without an activation, or take "
                "Bernoulli(from_logits=False)"
            )
        if not self.expects_logits and function == "linear":
            raise InputError(
                f"decoder ends without an activation, but {self} expects probabilities: end the decoder in a sigmoid, "
                "or take Bernoulli(from_logits=True)"
            )


@register("bernoulli")
@dataclass(frozen=True)
class Bernoulli(Component, Likelihood):
    """Independent Bernoulli pixels: binary cross-entropy, summed over the image.

    On gray levels it is the classic VAE's loss, but not a normalized likelihood (Loaiza-Ganem and Cunningham,
    arXiv 1907.06845); binarized, images are black and white, and it is one (Salakhutdinov and Murray 2008).

    Args:
        from_logits: As in Keras's losses: whether the decoder puts out logits, or probabilities because it ends in
            a sigmoid. Probabilities are kept within 1e-7 of 0 and 1, as Keras does, for their logarithm to exist.
        binarize: What becomes of gray: `"none"` keeps it; `"threshold"` makes pixels from ½ on white; `"dynamic"`
            makes a pixel white with its gray value as the probability, drawn anew each time (Burda et al.,
            arXiv 1509.00519); `"static"` does so once for all, by a hash of the image's own pixels.
        seed: Which of the static binarizations.

    Raises:
        InputError: `binarize` is none of these.

    Example:
        >>> view = Bernoulli()(ops.zeros((1, 28, 28, 1)))
        >>> round(float(view.log_prob(ops.ones((1, 28, 28, 1)))[0]), 2)  # 784·ln ½
        -543.43
    """

    from_logits: bool = True
    binarize: Binarize = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse an unknown binarization."""
        if self.binarize not in get_args(Binarize):
            raise InputError(f"binarize = {self.binarize!r}: pass one of {', '.join(get_args(Binarize))}")

    def __call__(self, outputs: Tensor) -> image.Bernoulli:
        """Return p(x|z), a view of the decoder's outputs (…, H, W, C)."""
        if self.from_logits:
            return image.Bernoulli(outputs)
        probabilities = ops.clip(outputs, 1e-7, 1.0 - 1e-7)
        return image.Bernoulli(ops.log(probabilities) - ops.log1p(-probabilities))

    def decoder_channels(self, image_channels: int) -> int:
        """Return `image_channels`: one number a pixel and channel."""
        return image_channels

    @property
    def draws_pixels(self) -> bool:
        """Whether the binarization is dynamic."""
        return self.binarize == "dynamic"

    @property
    def binarizes_at_random(self) -> bool:
        """Whether the binarization is dynamic or static."""
        return self.binarize in ("dynamic", "static")

    def preprocess(self, images: Tensor, uniform: Tensor | None = None) -> Tensor:
        """Return the images binarized, (N, H, W, C), of {0, 1} unless `binarize` is `"none"`."""
        if self.binarize == "none":
            return images
        if self.binarize == "threshold":
            return ops.cast(images >= 0.5, "float32")
        return ops.cast(images > (_own_noise(images, self.seed) if uniform is None else uniform), "float32")

    def is_normalized_on(self, images: Array) -> bool:
        """Return whether the model sees the uint8 images in black and white: a Bernoulli knows no gray."""
        return self.binarize != "none" or bool(np.isin(images, (0, 255)).all())

    def check_images(self, image_shape: ImageShape) -> None:
        """Refuse colors that are not binarized.

        Raises:
            InputError: They are not.
        """
        if self.binarize == "none" and image_shape[-1] == 3:
            raise InputError(
                'images of 3 channels: the likelihood bernoulli knows black and white only; pass binarize = "dynamic", '
                "or use the likelihood discretized-logistic"
            )

    @property
    def expects_logits(self) -> bool:
        """As the user says."""
        return self.from_logits


@register("continuous-bernoulli")
@dataclass(frozen=True)
class ContinuousBernoulli(Component, Likelihood):
    r"""Independent pixels of density \(\propto \lambda^x (1 - \lambda)^{1 - x}\) on [0, 1].

    Loaiza-Ganem and Cunningham, arXiv 1907.06845: the classic VAE's loss on gray levels, with the normalizer it lacks.
    The decoder puts out the logits of λ.

    Example:
        >>> view = ContinuousBernoulli()(ops.zeros((1, 28, 28, 1)))
        >>> round(float(view.log_prob(ops.ones((1, 28, 28, 1)))[0]), 2)  # uniform
        0.0
    """

    def __call__(self, outputs: Tensor) -> image.ContinuousBernoulli:
        """Return p(x|z), a view of the decoder's outputs (…, H, W, C)."""
        return image.ContinuousBernoulli(outputs)

    @property
    def expects_logits(self) -> bool:
        """True."""
        return True

    def decoder_channels(self, image_channels: int) -> int:
        """Return `image_channels`: one logit a pixel and channel."""
        return image_channels

    @property
    def is_density(self) -> bool:
        """True."""
        return True


class _LocationScale(ComponentLayer, Likelihood):
    """Pixels of density σ⁻¹ f((x − μ)/σ), μ from the decoder; a σ that is learned bends off within `SCALE_RANGE`."""

    view: ClassVar[type[image.Normal | image.Laplace]]

    def __init__(self, scale: Literal["learned", "pixel"] | float = "learned", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not (0 < scale < math.inf if isinstance(scale, int | float) else scale in ("learned", "pixel")):
            raise InputError(f'scale = {scale!r}: pass a number above 0, "learned" or "pixel"')
        self.scale = scale
        if scale == "learned":
            # About the spread of an image's pixels; from σ = 1 it would take hundreds of steps to get there.
            self.log_scale = self.add_weight(shape=(), initializer=keras.initializers.Constant(-1.0), name="log_scale")
        self.built = True

    def __call__(self, outputs: Tensor) -> ImageDistribution:
        """Return p(x|z), a view of the decoder's outputs (…, H, W, C) or, locations first, (…, H, W, 2C)."""
        if self.scale == "pixel":
            location, log_scale = ops.split(outputs, 2, axis=-1)
            return self.view(location, bounded_log_scale(log_scale))
        if self.scale == "learned":
            return self.view(outputs, bounded_log_scale(ops.convert_to_tensor(self.log_scale)))
        return self.view(outputs, ops.log(ops.convert_to_tensor(self.scale, "float32")))

    def decoder_channels(self, image_channels: int) -> int:
        """Return `image_channels`, or twice as many where each pixel and channel has its σ."""
        return 2 * image_channels if self.scale == "pixel" else image_channels

    @property
    def is_density(self) -> bool:
        """True."""
        return True


@register("normal")
class Normal(_LocationScale):
    r"""Independent normal pixels, \(N(x; \mu, \sigma^2)\): squared error over \(2\sigma^2\), summed over the image.

    One learned σ is the σ-VAE of Rybkin et al. (arXiv 2006.13202). Gray values lie in [0, 1] and the density does not:
    means and draws are clipped.

    Args:
        scale: σ, in units where white is 1: a number; `"learned"`, one weight of the model; or `"pixel"`, from the
            decoder, whose outputs are then C locations and C values of log σ. What is learned stays within
            `SCALE_RANGE`.
        **kwargs: As for every Keras layer.

    Raises:
        InputError: `scale` is none of these.

    Example:
        >>> view = Normal(scale=0.1)(ops.zeros((1, 28, 28, 1)))
        >>> round(float(view.log_prob(ops.zeros((1, 28, 28, 1)))[0]), 1)  # −784·(½ ln 2π + ln 0.1)
        1084.8
    """

    view = image.Normal


@register("laplace")
class Laplace(_LocationScale):
    r"""Independent Laplace pixels, \(e^{-|x - \mu| / \sigma} / 2\sigma\): absolute error over σ, summed over the image.

    Its location is a median, which leaves edges sharper than a mean (Kingma and Welling, arXiv 1312.6114, name it among
    the location-scale families). Means and draws are clipped to [0, 1].

    Args:
        scale: σ, in units where white is 1: a number; `"learned"`, one weight of the model; or `"pixel"`, from the
            decoder, whose outputs are then C locations and C values of log σ. What is learned stays within
            `SCALE_RANGE`.
        **kwargs: As for every Keras layer.

    Raises:
        InputError: `scale` is none of these.

    Example:
        >>> view = Laplace(scale=0.5)(ops.zeros((1, 28, 28, 1)))
        >>> round(float(view.log_prob(ops.zeros((1, 28, 28, 1)))[0]), 2)
        0.0
    """

    view = image.Laplace


@register("discretized-logistic")
@dataclass(frozen=True)
class DiscretizedLogistic(Component, Likelihood):
    r"""Probabilities of the 256 levels: the mass of logistic distributions on each level's bin, tails in the edge bins.

    One component is that of Kingma et al. (arXiv 1606.04934), channels independent. M > 1 are PixelCNN++'s mixture
    (Salimans et al., arXiv 1701.05517): one choice of component a pixel, green's location linear in red's value and
    blue's in both. Locations and scales are in units where black is −1 and white is 1; log-scales stay within
    `LOG_SCALE_RANGE_OF_LEVELS`.

    Args:
        num_components: M. The decoder puts out, of each pixel, C locations and C log-scales; of M > 1, for one
            component after another, a logit, C locations, C log-scales and C(C − 1)/2 coefficients: 3M channels for
            gray images, 10M for RGB.

    Raises:
        InputError: `components` < 1.

    Example:
        >>> DiscretizedLogistic(num_components=5).decoder_channels(3)
        50
    """

    num_components: int = 1

    def __post_init__(self) -> None:
        """Refuse a mixture of nothing."""
        if self.num_components < 1:
            raise InputError(f"num_components = {self.num_components}: pass at least 1")

    def __call__(self, outputs: Tensor) -> image.DiscretizedLogistic:
        """Return p(x|z), a view of the decoder's outputs (…, H, W, `decoder_channels`)."""
        each = outputs.shape[-1] // self.num_components
        parameters = ops.reshape(outputs, (-1, *ops.shape(outputs)[1:-1], self.num_components, each))
        if self.num_components == 1:
            channels, logits, coefficients = each // 2, ops.zeros_like(parameters[..., 0]), None
        else:
            # (C + 1)(C + 2) = 2·each lies between two squares.
            channels = math.isqrt(2 * each) - 1
            logits, parameters = parameters[..., 0], parameters[..., 1:]
            coefficients = ops.tanh(parameters[..., 2 * channels :])
        log_scale = _soft_clip(parameters[..., channels : 2 * channels], *LOG_SCALE_RANGE_OF_LEVELS)
        return image.DiscretizedLogistic(logits, parameters[..., :channels], log_scale, coefficients)

    def decoder_channels(self, image_channels: int) -> int:
        """Return 2C for one component, else M(1 + 2C + C(C − 1)/2)."""
        if self.num_components == 1:
            return 2 * image_channels
        return self.num_components * (1 + 2 * image_channels + image_channels * (image_channels - 1) // 2)


@register("categorical")
@dataclass(frozen=True)
class Categorical(Component, Likelihood):
    """A probability for each of the 256 levels of each pixel and channel: a softmax that knows no order of levels.

    van den Oord et al., arXiv 1601.06759. The decoder puts out 256 logits for each channel, one channel after another.

    Example:
        >>> view = Categorical()(ops.zeros((1, 2, 2, 256)))
        >>> round(float(view.log_prob(ops.ones((1, 2, 2, 1)))[0]), 2)  # −4·ln 256
        -22.18
    """

    def __call__(self, outputs: Tensor) -> image.Categorical:
        """Return p(x|z), a view of the decoder's outputs (…, H, W, 256·C)."""
        shape = (-1, *ops.shape(outputs)[1:-1], outputs.shape[-1] // 256, 256)
        return image.Categorical(ops.reshape(outputs, shape))

    @property
    def expects_logits(self) -> bool:
        """True."""
        return True

    def decoder_channels(self, image_channels: int) -> int:
        """Return 256 logits a channel."""
        return 256 * image_channels


def bounded_log_scale(log_scale: Tensor) -> Tensor:
    """Return the logarithm of σ that a learned number stands for, within that of `SCALE_RANGE`."""
    return _soft_clip(log_scale, *map(math.log, SCALE_RANGE))


def _soft_clip(x: Tensor, low: float, high: float) -> Tensor:
    """Return x itself up to 1 from the bounds, from there on bent toward them.

    The slope falls as one over the square of the way beyond: never zero, and small where a scale would run away, as on
    pixels that are black in every image.
    """
    straight = ops.clip(x, low + 1.0, high - 1.0)
    beyond = x - straight
    return straight + beyond / (1.0 + ops.abs(beyond))


def _own_noise(images: Tensor, seed: int) -> Tensor:
    """Return noise in [0, 1), (N, H, W, C), that each image's own levels and the seed alone decide.

    Products and sums of int32 wrap alike on every backend, so an image has the same noise on all of them and in any
    batch.
    """
    levels = ops.reshape(ops.cast(ops.round(255.0 * images), "int32"), (ops.shape(images)[0], -1))
    places = _scrambled(_scrambled(ops.arange(1, 1 + ops.shape(levels)[1], dtype="int32")) + _wrapped(seed))
    # Odd weights: no change of a single pixel leaves the sum as it was.
    image = ops.cast(ops.sum(levels * ops.bitwise_or(places, 1), axis=1, keepdims=True), "int32")
    bits = _scrambled(_scrambled(image) + _scrambled(places))
    return ops.reshape(ops.cast(_shifted(bits, 8), "float32") * 2.0**-24, ops.shape(images))


def _scrambled(bits: Tensor) -> Tensor:
    """Return int32 numbers through MurmurHash3's finalizer (Austin Appleby), which avalanches and is one to one."""
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = ops.bitwise_xor(bits, _shifted(bits, shift)) * _wrapped(factor)
    return ops.bitwise_xor(bits, _shifted(bits, 16))


def _shifted(bits: Tensor, by: int) -> Tensor:
    """Return int32 numbers shifted right with zeros coming in, where Keras's shift lets the sign come in."""
    return ops.bitwise_and(ops.right_shift(bits, by), (1 << (32 - by)) - 1)


def _wrapped(number: int) -> int:
    """Return the signed number of the same last 32 bits."""
    return (number + 2**31) % 2**32 - 2**31


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
