"""The convolutional network of the classic VAE, for images of any height, width and number of channels."""

from dataclasses import dataclass
from typing import ClassVar

from keras_vae.core.registry import register
from keras_vae.core.typing import Tensor
from keras_vae.networks.base import SpatialNetwork, check_counts, validate_widths
from keras_vae.networks.convolutions import Conv2D, Conv2DTranspose


@register("conv")
@dataclass(frozen=True)
class Conv(SpatialNetwork):
    """Strided convolutions down, transposed convolutions up, as in the classic VAE.

    Each entry of `widths` halves the image, rounding up; the decoder doubles as often and crops what the rounding
    added, so that images of any size come back at exactly that size. The defaults at 28×28×1 are the classic model.

    Args:
        widths: Channels after each halving, first to last.
        dense_units: Units of the dense layer between the convolutions and the moments.

    Raises:
        InputError: A size is below one, or there is no halving.

    Example:
        >>> Conv().encoder((28, 28, 1), latent_dim=2).count_params()
        69076
    """

    widths: tuple[int, ...] = (32, 64)
    dense_units: int = 16
    activation: ClassVar[str] = "relu"

    def __post_init__(self) -> None:
        """Refuse sizes that no layer can have."""
        object.__setattr__(self, "widths", validate_widths(self.widths))
        check_counts(dense_units=self.dense_units)

    @property
    def halvings(self) -> int:
        """How often the image is halved."""
        return len(self.widths)

    def vector_channels(self, rows: int, columns: int) -> int:
        """Return the last width: the map is flattened as it is."""
        return self.widths[-1]

    def downsample(self, images: Tensor) -> Tensor:
        """Return the feature map (N, rows, columns, F) of images (N, H, W, C)."""
        features = images
        for width in self.widths:
            features = Conv2D(width, 3, strides=2, padding="same", activation=self.activation)(features)
        return features

    def upsample(self, features: Tensor) -> Tensor:
        """Return features (N, rows·2^halvings, columns·2^halvings, F′) of a map (N, rows, columns, any)."""
        for width in reversed(self.widths):
            features = Conv2DTranspose(width, 3, strides=2, padding="same", activation=self.activation)(features)
        return features
