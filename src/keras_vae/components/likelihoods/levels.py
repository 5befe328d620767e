"""Likelihoods of the 256 levels: discretized logistics and categorical."""

import math
from dataclasses import dataclass

from keras import ops

from keras_vae.components.likelihoods.base import Likelihood, soft_clip
from keras_vae.core.errors import MAX_SIZE, check_count
from keras_vae.core.registry import Component, register
from keras_vae.core.typing import Tensor
from keras_vae.distributions import image

LEVEL_LOG_SCALE_RANGE = (-7.0, 2.0)
"""Range of the log-scales of discretized logistics, for images in [−1, 1]. The lower end is that of PixelCNN++."""


@register("discretized-logistic")
@dataclass(frozen=True)
class DiscretizedLogistic(Component, Likelihood):
    r"""Probabilities of the 256 levels: the mass of logistic distributions in the bin of each level.

    With one component, channels are independent (Kingma et al., arXiv 1606.04934). With M > 1 components, it is the
    mixture of PixelCNN++ (Salimans et al., arXiv 1701.05517): all channels of a pixel share one component, the location
    of green is linear in red, and that of blue in both. Locations and scales are in units where black is −1 and white
    is 1. Log-scales stay within `LEVEL_LOG_SCALE_RANGE`. The edge bins contain the tails.

    Args:
        num_components: Number of components M. With M = 1, the decoder returns C locations and C log-scales per pixel.
            With M > 1, it returns for each component a logit, C locations, C log-scales and C(C − 1)/2 coefficients:
            3M channels for gray images, 10M for RGB.

    Raises:
        InputError: `num_components` is below 1.

    Example:
        >>> DiscretizedLogistic(num_components=5).decoder_channels(3)
        50
    """

    num_components: int = 1

    def __post_init__(self) -> None:
        """Check the number of components."""
        check_count("num_components", self.num_components, maximum=MAX_SIZE)

    def __call__(self, outputs: Tensor) -> image.DiscretizedLogistic:
        """Return p(x|z), given the outputs of the decoder, (…, H, W, `decoder_channels`)."""
        channels_per_component = outputs.shape[-1] // self.num_components
        parameters = ops.reshape(outputs, (-1, *ops.shape(outputs)[1:-1], self.num_components, channels_per_component))
        if self.num_components == 1:
            channels, logits, coefficients = channels_per_component // 2, ops.zeros_like(parameters[..., 0]), None
        else:
            # Solve (C + 1)(C + 2) = 2 · channels_per_component for C: the product lies between (C + 1)² and (C + 2)².
            channels = math.isqrt(2 * channels_per_component) - 1
            logits, parameters = parameters[..., 0], parameters[..., 1:]
            coefficients = ops.tanh(parameters[..., 2 * channels :])
        log_scale = soft_clip(parameters[..., channels : 2 * channels], *LEVEL_LOG_SCALE_RANGE)
        return image.DiscretizedLogistic(logits, parameters[..., :channels], log_scale, coefficients)

    @property
    def has_independent_channels(self) -> bool:
        """Whether the channels of a pixel are independent: only with one component."""
        return self.num_components == 1

    def decoder_channels(self, image_channels: int) -> int:
        """Return 2C for one component, otherwise M(1 + 2C + C(C − 1)/2)."""
        if self.num_components == 1:
            return 2 * image_channels
        return self.num_components * (1 + 2 * image_channels + image_channels * (image_channels - 1) // 2)


@register("categorical")
@dataclass(frozen=True)
class Categorical(Component, Likelihood):
    """A softmax over the 256 levels of each pixel and channel, which ignores the order of the levels.

    The decoder returns 256 logits per channel, one channel after another (van den Oord et al., arXiv 1601.06759).

    Example:
        >>> distribution = Categorical()(ops.zeros((1, 2, 2, 256)))
        >>> round(float(distribution.log_prob(ops.ones((1, 2, 2, 1)))[0]), 2)  # −4·ln 256
        -22.18
    """

    def __call__(self, outputs: Tensor) -> image.Categorical:
        """Return p(x|z), given the outputs of the decoder, (…, H, W, 256·C)."""
        shape = (-1, *ops.shape(outputs)[1:-1], outputs.shape[-1] // 256, 256)
        return image.Categorical(ops.reshape(outputs, shape))

    @property
    def expects_logits(self) -> bool:
        """Whether the decoder returns logits: True."""
        return True

    def decoder_channels(self, image_channels: int) -> int:
        """Return 256 logits per channel."""
        return 256 * image_channels
