"""Networks of a ladder VAE: one bottom-up encoder, and a top-down prior, posterior and merge for each group."""

import math
from dataclasses import dataclass

import keras
from keras import layers

from keras_vae.core.errors import InputError, is_integer
from keras_vae.core.typing import ImageShape, Tensor
from keras_vae.networks.base import MAX_BLOCKS, check_image_shape, check_positive
from keras_vae.networks.convolutions import Conv2D
from keras_vae.networks.resnet import normalize, residual_block


@dataclass(frozen=True)
class LadderNetworks:
    """Builder of the networks of a ladder VAE, each a functional model.

    Level l is the size of the image after l halvings. Each level has zero or more groups of latent variables.

    Args:
        image_shape: (H, W, C).
        widths: Channels at levels 1, 2, …
        groups: Number of groups at levels 1, 2, …
        latent_channels: Channels of each group's latent map.
        blocks: Residual blocks per level of the bottom-up network, and per group of the top-down one.

    Raises:
        InputError: A setting is out of its range.
    """

    image_shape: ImageShape
    widths: tuple[int, ...]
    groups: tuple[int, ...]
    latent_channels: int
    blocks: int

    def __post_init__(self) -> None:
        """Check the settings."""
        object.__setattr__(self, "image_shape", tuple(self.image_shape))
        check_positive(latent_channels=self.latent_channels, blocks=self.blocks)
        check_image_shape(self.image_shape)
        are_counts = all(is_integer(groups) and 0 <= groups <= MAX_BLOCKS for groups in self.groups)
        if len(self.groups) != len(self.widths) or not are_counts:
            raise InputError(
                f"groups = {list(self.groups)}: needs one number from 0 to {MAX_BLOCKS} for each of the "
                f"{len(self.widths)} widths {list(self.widths)}; pass the number of groups after each halving"
            )
        if self.groups[-1] == 0:
            raise InputError(
                f"groups = {list(self.groups)}: the smallest size has no group, but the ladder starts there; add a "
                "group, or remove its width"
            )

    @property
    def levels(self) -> tuple[int, ...]:
        """Level of each group, coarsest first."""
        return tuple(level for level in range(len(self.widths), 0, -1) for _ in range(self.groups[level - 1]))

    def size(self, level: int) -> tuple[int, int]:
        """Return the rows and columns at a level; halves are rounded up."""
        height, width, _ = self.image_shape
        return -(-height // 2**level), -(-width // 2**level)

    def bottom_up(self, channels: int) -> keras.Model:
        """Build the encoder: images, with mask and condition in additional channels → one feature map per level."""
        images = features = keras.Input((*self.image_shape[:2], channels), name="images")
        features_per_level = []
        for width in self.widths:
            features = Conv2D(width, 3, strides=2, padding="same")(features)
            features = self._residual_blocks(features, width)
            features_per_level.append(features)
        return keras.Model(images, features_per_level, name="bottom_up")

    def initial_features(self, condition_dim: int) -> keras.Model:
        """Build the model of the first top-down features: (1, condition) → features at the coarsest level."""
        inputs = keras.Input((1 + condition_dim,), name="one_and_condition")
        shape = (*self.size(len(self.widths)), self.widths[-1])
        # The weights of the constant 1 act as a bias. A bias alone would not be a function of the inputs.
        features = layers.Dense(math.prod(shape), use_bias=False)(inputs)
        return keras.Model(inputs, layers.Reshape(shape)(features), name="initial_features")

    def prior(self, level: int) -> keras.Model:
        """Build the prior of a group: top-down features → a map of means and log-variances, in this order."""
        features = self._input(level)
        return keras.Model(features, self._moments(features))

    def posterior(self, level: int) -> keras.Model:
        """Build the residual posterior of a group: top-down and bottom-up features → difference to the prior's map."""
        inputs = [self._input(level), self._input(level)]
        features = residual_block(layers.Concatenate()(inputs), self.widths[level - 1])
        return keras.Model(inputs, self._moments(features))

    def merge(self, level: int, next_level: int) -> keras.Model:
        """Build the merge of a group: top-down features and z (N, D) → top-down features at the next group's level."""
        rows, columns = self.size(level)
        features = self._input(level)
        z = keras.Input((rows * columns * self.latent_channels,))
        update = layers.Reshape((rows, columns, self.latent_channels))(z)
        update = Conv2D(self.widths[level - 1], 1)(update)
        merged = self._residual_blocks(layers.Add()([features, update]), self.widths[level - 1])
        for finer_level in range(level - 1, next_level - 1, -1):
            merged = self._upsample(merged, finer_level)
        return keras.Model([features, z], merged)

    def head(self, channels: int) -> keras.Model:
        """Build the output head: top-down features at the size of the image → parameters of the likelihood."""
        features = self._input(0)
        outputs = Conv2D(channels, 3, padding="same", dtype="float32")(normalize(features))
        return keras.Model(features, outputs, name="head")

    def _input(self, level: int) -> Tensor:
        return keras.Input((*self.size(level), self._width(level)))

    def _width(self, level: int) -> int:
        """Return the channels of the top-down features at a level; level 0, the image size, has those of level 1."""
        return self.widths[max(level - 1, 0)]

    def _upsample(self, features: Tensor, level: int) -> Tensor:
        """Double a map and crop it to the size of a level."""
        features = layers.UpSampling2D(data_format="channels_last")(features)
        excess = [size - target for size, target in zip(features.shape[1:3], self.size(level), strict=True)]
        features = layers.Cropping2D(tuple((0, pixels) for pixels in excess), data_format="channels_last")(features)
        return Conv2D(self._width(level), 3, padding="same")(features)

    def _residual_blocks(self, features: Tensor, width: int) -> Tensor:
        for _ in range(self.blocks):
            features = residual_block(features, width)
        return features

    def _moments(self, features: Tensor) -> Tensor:
        # Initially near zero, so that training starts from a standard normal prior and an equal posterior.
        near_zero = keras.initializers.RandomNormal(stddev=1e-3)
        moments = Conv2D(2 * self.latent_channels, 3, padding="same", kernel_initializer=near_zero, dtype="float32")
        return moments(normalize(features))
