"""The convolutional network of the classic VAE, for images of any height, width and number of channels."""

import math
from dataclasses import dataclass

import keras
from keras import layers

from keras_vae.errors import InputError
from keras_vae.networks.base import Network
from keras_vae.parts import part
from keras_vae.types import ImageShape


@part("conv")
@dataclass(frozen=True)
class Conv(Network):
    """Strided convolutions down, transposed convolutions up, as in the classic VAE.

    Each entry of `widths` halves the image, rounding up; the decoder doubles as often and crops what the rounding
    added, so that images of any size come back at exactly that size. The defaults at 28×28×1 are the classic model.

    Args:
        widths: Channels after each halving, first to last.
        dense: Units of the dense layer between the convolutions and the moments.

    Raises:
        InputError: A size is below one, or there is no halving.

    Example:
        >>> Conv().encoder((28, 28, 1), latent_dim=2).count_params()
        69076
    """

    widths: tuple[int, ...] = (32, 64)
    dense: int = 16

    def __post_init__(self) -> None:
        """Refuse sizes that no layer can have."""
        object.__setattr__(self, "widths", tuple(self.widths))
        if not self.widths or min(self.widths) < 1:
            raise InputError(f"widths = {list(self.widths)}: give at least one width, each ≥ 1")
        if self.dense < 1:
            raise InputError(f"dense = {self.dense}: must be ≥ 1")

    def encoder(self, image_shape: ImageShape, latent_dim: int) -> keras.Model:
        """Return the model named `encoder`: images (N, H, W, C) → `z_mean`, `z_log_var`, each (N, latent_dim)."""
        images = keras.Input(image_shape, name="images")
        features = images
        for width in self.widths:
            features = layers.Conv2D(width, 3, strides=2, padding="same", activation="relu")(features)
        features = layers.Dense(self.dense, activation="relu")(layers.Flatten()(features))
        # Moments and likelihood parameters are float32 under every precision.
        z_mean = layers.Dense(latent_dim, name="z_mean", dtype="float32")(features)
        z_log_var = layers.Dense(latent_dim, name="z_log_var", dtype="float32")(features)
        return keras.Model(images, [z_mean, z_log_var], name="encoder")

    def decoder(self, latent_dim: int, image_shape: ImageShape) -> keras.Model:
        """Return the model named `decoder`: z (N, latent_dim) → likelihood parameters (N, H, W, C)."""
        height, width, channels = image_shape
        stride = 2 ** len(self.widths)
        rows, columns = math.ceil(height / stride), math.ceil(width / stride)
        z = keras.Input((latent_dim,), name="z")
        features = layers.Dense(rows * columns * self.widths[-1], activation="relu")(z)
        features = layers.Reshape((rows, columns, self.widths[-1]))(features)
        for filters in reversed(self.widths):
            features = layers.Conv2DTranspose(filters, 3, strides=2, padding="same", activation="relu")(features)
        outputs = layers.Conv2D(channels, 3, padding="same", dtype="float32")(features)
        spare_rows, spare_columns = rows * stride - height, columns * stride - width
        if spare_rows or spare_columns:
            outputs = layers.Cropping2D(
                (
                    (spare_rows // 2, spare_rows - spare_rows // 2),
                    (spare_columns // 2, spare_columns - spare_columns // 2),
                )
            )(outputs)
        return keras.Model(z, outputs, name="decoder")
