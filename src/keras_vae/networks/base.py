"""What a family of networks offers, and what families share."""

import abc
from collections.abc import Iterable, Mapping
from typing import ClassVar

import keras
from keras import layers

from keras_vae.core.errors import InputError
from keras_vae.core.registry import Component
from keras_vae.core.typing import ImageShape, Tensor
from keras_vae.networks.convolutions import Conv2D


class Network(Component, abc.ABC):
    """A family of networks: an encoder, and the decoder that mirrors it.

    A family says how features come from images and how outputs come from z. Heads and outputs are float32 under every
    precision.
    """

    kind: ClassVar[str] = "network"

    def encoder(
        self, image_shape: ImageShape, latent_dim: int, param_sizes: Mapping[str, int] | None = None
    ) -> keras.Model:
        """Return the model named `encoder`: images (N, H, W, C) → a list of tensors (N, size), one for each head.

        Args:
            image_shape: (H, W, C) of the images, floats in [0, 1].
            latent_dim: The number of latent dimensions.
            param_sizes: Sizes of the outputs by name; None stands for `z_mean` and `z_log_var`, each of `latent_dim`.

        Returns:
            The model. Every head is a dense layer of its name on the same features; Keras returns the tensor itself
            where there is only one.

        Raises:
            InputError: A size is below one, or there is no head.
        """
        check_counts(latent_dim=latent_dim)
        param_sizes = {"z_mean": latent_dim, "z_log_var": latent_dim} if param_sizes is None else param_sizes
        if not param_sizes:
            raise InputError("heads = {}: name at least one, such as {'z_mean': 2}")
        check_counts(**param_sizes)
        images = _images(image_shape)
        features = self.features(images)
        outputs = [layers.Dense(size, name=name, dtype="float32")(features) for name, size in param_sizes.items()]
        return keras.Model(images, outputs, name="encoder")

    def decoder(self, latent_dim: int, image_shape: ImageShape) -> keras.Model:
        """Return the model named `decoder`: z (N, latent_dim) → likelihood parameters (N, H, W, C).

        Args:
            latent_dim: The number of latent dimensions.
            image_shape: (H, W, C): the size of the images, and as many channels as the likelihood asks for.

        Returns:
            The model, linear in its last layer.

        Raises:
            InputError: A size is below one.
        """
        check_counts(latent_dim=latent_dim, **_named(image_shape))
        z = keras.Input((latent_dim,), name="z")
        return keras.Model(z, self.outputs(z, image_shape), name="decoder")

    @abc.abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Return features (N, F) of images (N, H, W, C), both symbolic."""

    @abc.abstractmethod
    def outputs(self, z: Tensor, image_shape: ImageShape) -> Tensor:
        """Return float32 outputs (N, H, W, C) of z (N, latent_dim), both symbolic."""


class SpatialNetwork(Network):
    """A family with a feature map, each of whose `halvings` halves the image, rounding up.

    The decoder doubles as often and crops what the rounding added, so images of any size come back at exactly that
    size; images smaller than the halvings end in a map of 1×1. Between map and vector stands a dense layer each way.
    Models with codes on a map, as a VQ-VAE has them, take `map_encoder` and `map_decoder`.
    """

    dense_units: int

    @property
    @abc.abstractmethod
    def halvings(self) -> int:
        """How often the image is halved."""

    @property
    @abc.abstractmethod
    def activation(self) -> str:
        """The activation of the dense layers between map and vector, by Keras's name."""

    @abc.abstractmethod
    def downsample(self, images: Tensor) -> Tensor:
        """Return the feature map (N, rows, columns, F) of images (N, H, W, C)."""

    @abc.abstractmethod
    def upsample(self, features: Tensor) -> Tensor:
        """Return features (N, rows·2^halvings, columns·2^halvings, F′) of a map (N, rows, columns, any)."""

    @abc.abstractmethod
    def vector_channels(self, rows: int, columns: int) -> int:
        """Return the channels of the map that is flattened into the vector, or made from it."""

    def map_size(self, image_shape: ImageShape) -> tuple[int, int]:
        """Return the rows and columns of the feature map.

        Args:
            image_shape: (H, W, C).

        Example:
            >>> from keras_vae.networks import Conv
            >>> Conv(widths=(32, 64)).map_size((31, 45, 3))
            (8, 12)
        """
        height, width, _ = image_shape
        stride = 2**self.halvings
        return -(-height // stride), -(-width // stride)

    def map_encoder(self, image_shape: ImageShape, channels: int) -> keras.Model:
        """Return the model named `encoder`: images (N, H, W, C) → a map (N, rows, columns, channels).

        Args:
            image_shape: (H, W, C) of the images, floats in [0, 1].
            channels: Channels of the map, whose size is `map_size(image_shape)`.

        Raises:
            InputError: A size is below one.
        """
        check_counts(channels=channels)
        images = _images(image_shape)
        outputs = Conv2D(channels, 1, dtype="float32")(self.downsample(images))
        return keras.Model(images, outputs, name="encoder")

    def map_decoder(self, map_shape: tuple[int, int, int], image_shape: ImageShape) -> keras.Model:
        """Return the model named `decoder`: a map (N, rows, columns, channels) → likelihood parameters (N, H, W, C).

        Args:
            map_shape: (rows, columns, channels) of the map.
            image_shape: (H, W, C): the size of the images, and as many channels as the likelihood asks for.

        Raises:
            InputError: A size is below one, or the map is not that of such images.
        """
        check_counts(channels=map_shape[2], **_named(image_shape))
        if tuple(map_shape[:2]) != self.map_size(image_shape):
            raise InputError(
                f"map_shape = {tuple(map_shape)}: for images of {tuple(image_shape)} and {self.halvings} halvings the "
                f"map must be {(*self.map_size(image_shape), map_shape[2])}"
            )
        codes = keras.Input(map_shape, name="z")
        return keras.Model(codes, self._to_images(codes, image_shape), name="decoder")

    def features(self, images: Tensor) -> Tensor:
        """Return features (N, dense) of images (N, H, W, C), both symbolic."""
        features = self.downsample(images)
        channels = self.vector_channels(*features.shape[1:3])
        if channels != features.shape[-1]:
            features = Conv2D(channels, 1)(features)
        return layers.Dense(self.dense_units, activation=self.activation)(layers.Flatten()(features))

    def outputs(self, z: Tensor, image_shape: ImageShape) -> Tensor:
        """Return float32 outputs (N, H, W, C) of z (N, latent_dim), both symbolic."""
        rows, columns = self.map_size(image_shape)
        channels = self.vector_channels(rows, columns)
        features = layers.Dense(rows * columns * channels, activation=self.activation)(z)
        return self._to_images(layers.Reshape((rows, columns, channels))(features), image_shape)

    def _to_images(self, features: Tensor, image_shape: ImageShape) -> Tensor:
        *size, channels = image_shape
        outputs = Conv2D(channels, 3, padding="same", dtype="float32")(self.upsample(features))
        spare = [got - wanted for got, wanted in zip(outputs.shape[1:3], size, strict=True)]
        if any(spare):
            crop = tuple((extra // 2, extra - extra // 2) for extra in spare)
            outputs = layers.Cropping2D(crop, dtype="float32")(outputs)
        return outputs


def validate_widths(widths: Iterable[int]) -> tuple[int, ...]:
    """Return widths as a tuple, whatever sequence a file or a caller has them in.

    Args:
        widths: Units or channels, one entry a layer or level.

    Raises:
        InputError: There is none, or one is below one.

    Example:
        >>> validate_widths([32, 64])
        (32, 64)
    """
    if not isinstance(widths, Iterable) or isinstance(widths, str):
        raise InputError(f"widths = {widths!r}: give a list of whole numbers, such as [32, 64]")
    widths = tuple(widths)
    if not widths or min(widths) < 1:
        raise InputError(f"widths = {list(widths)}: give at least one width, each ≥ 1")
    return widths


def check_counts(**counts: int) -> None:
    """Refuse a count below one.

    Args:
        **counts: The counts by the name that the error uses.

    Raises:
        InputError: One of them is below one.

    Example:
        >>> check_counts(dense_units=16, blocks=1)
    """
    for name, count in counts.items():
        if count < 1:
            raise InputError(f"{name} = {count}: must be ≥ 1")


def _images(image_shape: ImageShape) -> Tensor:
    check_counts(**_named(image_shape))
    return keras.Input(image_shape, name="images")


def _named(image_shape: ImageShape) -> dict[str, int]:
    return dict(zip(("image height", "image width", "image channels"), image_shape, strict=True))
