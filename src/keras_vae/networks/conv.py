"""The convolutional network of the classic VAE."""

from dataclasses import dataclass
from typing import ClassVar

from keras_vae.core.registry import register
from keras_vae.core.typing import Tensor
from keras_vae.networks.base import SpatialNetwork, check_positive, validate_widths
from keras_vae.networks.convolutions import Conv2D, Conv2DTranspose


@register("conv")
@dataclass(frozen=True)
class Conv(SpatialNetwork):
    """Strided convolutions in the encoder, transposed convolutions in the decoder.

    For 28×28×1 images, the defaults are the classic convolutional VAE. See `SpatialNetwork` for images of other sizes.

    Args:
        widths: Channels after each halving of the image, first to last.
        dense_units: Units of the dense layer between the convolutions and the encoder's outputs.

    Raises:
        InputError: A size is below one, or `widths` is empty.

    Example:
        >>> Conv().encoder((28, 28, 1), latent_dim=2).count_params()
        69076
    """

    widths: tuple[int, ...] = (32, 64)
    dense_units: int = 16
    activation: ClassVar[str] = "relu"

    def __post_init__(self) -> None:
        """Check the sizes."""
        object.__setattr__(self, "widths", validate_widths(self.widths))
        check_positive(dense_units=self.dense_units)

    @property
    def halvings(self) -> int:
        """Number of times the encoder halves the image."""
        return len(self.widths)

    def bottleneck_channels(self, rows: int, columns: int) -> int:
        """Return the last width: the map is flattened without a projection."""
        return self.widths[-1]

    def downsample(self, images: Tensor) -> Tensor:
        """Return the feature map (N, rows, columns, F) of images (N, H, W, C)."""
        features = images
        for width in self.widths:
            features = Conv2D(width, 3, strides=2, padding="same", activation=self.activation)(features)
        return features

    def upsample(self, features: Tensor) -> Tensor:
        """Return a map (N, rows·2^halvings, columns·2^halvings, F) for a map (N, rows, columns, any)."""
        for width in reversed(self.widths):
            features = Conv2DTranspose(width, 3, strides=2, padding="same", activation=self.activation)(features)
        return features
