"""The residual network, for images from 28×28 digits to 256×256 photographs."""

from dataclasses import dataclass
from typing import Any, ClassVar

from keras import layers

from keras_vae.core.convolution import num_groups
from keras_vae.core.registry import register
from keras_vae.core.typing import Tensor
from keras_vae.networks.base import SpatialNetwork, check_positive, validate_widths
from keras_vae.networks.convolutions import Conv2D

_MAX_FLATTENED_SIZE = 2048
_MIN_CHANNELS = 4
_MIN_CHANNELS_PER_GROUP = 4


@register("resnet")
@dataclass(frozen=True)
class ResNet(SpatialNetwork):
    """Pre-activation residual blocks with group normalization and swish (arXiv 1603.05027, 1803.08494).

    For each entry of `widths`, the encoder halves the image with a strided convolution and applies `blocks` residual
    blocks. The decoder mirrors the encoder with nearest-neighbor upsampling and convolutions.

    A dense layer on the whole map of a 256×256 image would have thirty million weights. Therefore, a 1×1 convolution
    first reduces the map to at most 2048 values, but not to fewer than 4 channels. The decoder starts from a map of
    the same size.

    Args:
        widths: Channels after each halving of the image, first to last.
        blocks: Residual blocks per size.
        dense_units: Units of the dense layer between the map and the encoder's outputs.
        attention: Whether to add single-head self-attention over the positions of the smallest map.
        groups: Maximum number of groups of the group normalization; each has at least 4 channels.

    Raises:
        InputError: A size is below one, or `widths` is empty.

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
        """Check the sizes."""
        object.__setattr__(self, "widths", validate_widths(self.widths))
        check_positive(blocks=self.blocks, dense_units=self.dense_units, groups=self.groups)

    @property
    def halvings(self) -> int:
        """Number of times the encoder halves the image."""
        return len(self.widths)

    def bottleneck_channels(self, rows: int, columns: int) -> int:
        """Return the channels that keep the flattened map at 2048 values: at least 4, at most the last width."""
        return min(self.widths[-1], max(_MIN_CHANNELS, _MAX_FLATTENED_SIZE // (rows * columns)))

    def downsample(self, images: Tensor) -> Tensor:
        """Return the feature map (N, rows, columns, F) of images (N, H, W, C)."""
        features = images
        for width in self.widths:
            features = Conv2D(width, 3, strides=2, padding="same")(features)
            features = self._residual_blocks(features, width)
        if self.attention:
            features = self_attention(features, self.groups)
        return normalize(features, self.groups)

    def upsample(self, features: Tensor) -> Tensor:
        """Return a map (N, rows·2^halvings, columns·2^halvings, F) for a map (N, rows, columns, any)."""
        features = Conv2D(self.widths[-1], 3, padding="same")(features)
        if self.attention:
            features = self_attention(features, self.groups)
        for width, next_width in zip(self.widths[::-1], (*self.widths[-2::-1], self.widths[0]), strict=True):
            features = layers.UpSampling2D(data_format="channels_last")(self._residual_blocks(features, width))
            features = Conv2D(next_width, 3, padding="same")(features)
        return normalize(features, self.groups)

    def _residual_blocks(self, features: Tensor, width: int) -> Tensor:
        for _ in range(self.blocks):
            features = residual_block(features, width, self.groups)
        return features


def residual_block(
    features: Tensor,
    width: int,
    groups: int = 8,
    *,
    epsilon: float = 1e-3,
    min_channels: int = _MIN_CHANNELS_PER_GROUP,
    name: str | None = None,
) -> Tensor:
    r"""Apply \(h + f(h)\), where \(f\) is normalization, swish and a 3×3 convolution, twice (arXiv 1603.05027).

    The second convolution is initialized with zeros, so the block starts as the identity and deep stacks train well.

    Args:
        features: Symbolic map \(h\), (N, H, W, any).
        width: Channels of the result. If \(h\) has a different number, a 1×1 convolution projects it.
        groups: See `normalize`.
        epsilon: See `group_norm`.
        min_channels: See `group_norm`.
        name: Prefix of the names of the layers: `norm1`, `conv1`, `norm2`, `conv2` and `conv_shortcut`. None lets
            Keras choose names.

    Returns:
        Symbolic map (N, H, W, width).
    """

    def named(layer: str) -> str | None:
        return None if name is None else f"{name}_{layer}"

    def normalized(features: Tensor, layer: str) -> Tensor:
        return normalize(features, groups, epsilon=epsilon, min_channels=min_channels, name=named(layer))

    update = Conv2D(width, 3, padding="same", name=named("conv1"))(normalized(features, "norm1"))
    last = Conv2D(width, 3, padding="same", kernel_initializer="zeros", name=named("conv2"))
    update = last(normalized(update, "norm2"))
    if features.shape[-1] != width:
        features = Conv2D(width, 1, name=named("conv_shortcut"))(features)
    return layers.Add()([features, update])


def self_attention(features: Tensor, groups: int = 8) -> Tensor:
    r"""Apply \(h + \mathrm{attention}(\mathrm{norm}(h))\) over all positions of a map, with one head.

    Args:
        features: Symbolic map \(h\), (N, H, W, F).
        groups: See `normalize`.

    Returns:
        Symbolic map of the same shape.
    """
    rows, columns, width = features.shape[1:]
    positions = layers.Reshape((rows * columns, width))(group_norm(features, groups))
    # Without biases: the softmax would cancel that of the keys, a weight without a gradient.
    update = layers.MultiHeadAttention(1, width, use_bias=False)(positions, positions)
    return layers.Add()([features, layers.Reshape((rows, columns, width))(update)])


def normalize(features: Tensor, groups: int = 8, **options: Any) -> Tensor:
    """Apply group normalization (arXiv 1803.08494) and swish.

    Args:
        features: Symbolic map (N, H, W, F).
        groups: Maximum number of groups; see `group_norm`.
        **options: Further arguments of `group_norm`.

    Returns:
        Symbolic map of the same shape.
    """
    return layers.Activation("swish")(group_norm(features, groups, **options))


def group_norm(
    features: Tensor,
    groups: int,
    *,
    epsilon: float = 1e-3,
    min_channels: int = _MIN_CHANNELS_PER_GROUP,
    name: str | None = None,
) -> Tensor:
    """Apply group normalization (arXiv 1803.08494).

    Args:
        features: Symbolic map (N, H, W, F).
        groups: Maximum number of groups. The actual number divides F.
        epsilon: Constant that is added to the variance.
        min_channels: Minimum number of channels per group: a group of one channel would have a variance of zero on a
            1×1 map.
        name: Name of the layer. None lets Keras choose one.

    Returns:
        Symbolic map of the same shape.
    """
    count = num_groups(features.shape[-1], groups, min_channels)
    return layers.GroupNormalization(count, epsilon=epsilon, name=name)(features)
