"""The residual network, from 28×28 gray digits to 256×256 photographs."""

from dataclasses import dataclass
from typing import ClassVar

from keras import layers

from keras_vae.core.registry import register
from keras_vae.core.typing import Tensor
from keras_vae.networks.base import SpatialNetwork, check_counts, validate_widths
from keras_vae.networks.convolutions import Conv2D

_FLAT = 2048
_CHANNELS_A_GROUP = 4


@register("resnet")
@dataclass(frozen=True)
class ResNet(SpatialNetwork):
    """Pre-activation residual blocks with group normalization and swish (arXiv 1603.05027, 1803.08494).

    Each entry of `widths` halves the image by a strided convolution, then applies `blocks` residual blocks; the decoder
    mirrors that with nearest-neighbor upsampling and a convolution. Before it is flattened the map is reduced, by a
    1×1 convolution, to as many channels as keep the vector at 2048 values, and never below 4: a dense layer on
    the whole map of a 256×256 image would have thirty million weights. The decoder starts from a map of the same size.

    Args:
        widths: Channels after each halving, first to last.
        blocks: Residual blocks at each size.
        dense_units: Units of the dense layer between the map and the moments.
        attention: Adds single-head self-attention over the positions of the smallest map.
        groups: Groups of channels that are normalized together; fewer where a width has not 4 channels for each.

    Raises:
        InputError: A size is below one, or there is no halving.

    Example:
        >>> ResNet(widths=(8, 16)).decoder(2, (31, 45, 3)).output_shape
        (None, 31, 45, 3)
    """

    widths: tuple[int, ...] = (32, 64, 128)
    blocks: int = 1
    dense_units: int = 256
    attention: bool = False
    groups: int = 8
    activation: ClassVar[str] = "swish"

    def __post_init__(self) -> None:
        """Refuse sizes that no layer can have."""
        object.__setattr__(self, "widths", validate_widths(self.widths))
        check_counts(blocks=self.blocks, dense_units=self.dense_units, groups=self.groups)

    @property
    def halvings(self) -> int:
        """How often the image is halved."""
        return len(self.widths)

    def vector_channels(self, rows: int, columns: int) -> int:
        """Return the channels that keep the vector at 2048 values, and never below 4 nor above the last width."""
        return min(self.widths[-1], max(4, _FLAT // (rows * columns)))

    def downsample(self, images: Tensor) -> Tensor:
        """Return the feature map (N, rows, columns, F) of images (N, H, W, C)."""
        features = images
        for width in self.widths:
            features = Conv2D(width, 3, strides=2, padding="same")(features)
            features = self._blocks(features, width)
        if self.attention:
            features = self_attention(features, self.groups)
        return normalize(features, self.groups)

    def upsample(self, features: Tensor) -> Tensor:
        """Return features (N, rows·2^halvings, columns·2^halvings, F′) of a map (N, rows, columns, any)."""
        features = Conv2D(self.widths[-1], 3, padding="same")(features)
        if self.attention:
            features = self_attention(features, self.groups)
        for width, following in zip(self.widths[::-1], (*self.widths[-2::-1], self.widths[0]), strict=True):
            features = layers.UpSampling2D()(self._blocks(features, width))
            features = Conv2D(following, 3, padding="same")(features)
        return normalize(features, self.groups)

    def _blocks(self, features: Tensor, width: int) -> Tensor:
        for _ in range(self.blocks):
            features = residual_block(features, width, self.groups)
        return features


def residual_block(features: Tensor, width: int, groups: int = 8) -> Tensor:
    r"""Return \(h + f(h)\), \(f\) two 3×3 convolutions, each after normalization and swish (arXiv 1603.05027).

    The last convolution starts at zero and the block as the identity, so that deep stacks train from the first step.

    Args:
        features: Symbolic map (N, H, W, any).
        width: Channels to return; where they differ from those that come in, \(h\) passes through a 1×1 convolution.
        groups: As for `normalize`.

    Returns:
        Symbolic map (N, H, W, width).
    """
    update = Conv2D(width, 3, padding="same")(normalize(features, groups))
    update = Conv2D(width, 3, padding="same", kernel_initializer="zeros")(normalize(update, groups))
    if features.shape[-1] != width:
        features = Conv2D(width, 1)(features)
    return layers.Add()([features, update])


def self_attention(features: Tensor, groups: int = 8) -> Tensor:
    r"""Return \(h + \mathrm{attention}(\mathrm{norm}(h))\), with one head, over all positions of a map.

    Args:
        features: Symbolic map (N, H, W, F).
        groups: As for `normalize`.

    Returns:
        Symbolic map of the same shape.
    """
    rows, columns, width = features.shape[1:]
    positions = layers.Reshape((rows * columns, width))(_group_norm(features, groups))
    # A bias of the keys cancels in the softmax: it would be a weight without a gradient.
    update = layers.MultiHeadAttention(1, width, use_bias=False)(positions, positions)
    return layers.Add()([features, layers.Reshape((rows, columns, width))(update)])


def normalize(features: Tensor, groups: int = 8) -> Tensor:
    """Return features after group normalization (arXiv 1803.08494) and swish.

    Args:
        features: Symbolic map (N, H, W, F).
        groups: The most groups there may be; the number used divides F and leaves at least 4 channels in each, since
            a group of one value, as on a map of 1×1, would normalize to nothing.

    Returns:
        Symbolic map of the same shape.
    """
    return layers.Activation("swish")(_group_norm(features, groups))


def _group_norm(features: Tensor, groups: int) -> Tensor:
    width = features.shape[-1]
    most = max(1, min(groups, width // _CHANNELS_A_GROUP))
    return layers.GroupNormalization(next(count for count in range(most, 0, -1) if width % count == 0))(features)
