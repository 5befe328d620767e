"""Base classes of network families, with the layers that families with a feature map share."""

import abc
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import keras
from keras import layers

from keras_vae.core.errors import MAX_SIZE, InputError, check_count, is_integer, shown
from keras_vae.core.registry import Component
from keras_vae.core.typing import ImageShape, Tensor
from keras_vae.networks.convolutions import Conv2D

MAX_BLOCKS, MAX_PIXELS = 1000, 2**24
"""Largest numbers of blocks, and of values in an image: larger networks do not fit in memory."""


class Network(Component, abc.ABC):
    """Base class of network families, which build an encoder and a matching decoder.

    Subclass `VectorNetwork` for codes that are vectors. The last layers of both networks compute in float32 under every
    dtype policy.
    """

    kind: ClassVar[str] = "network"

    def latent_shape(self, image_shape: ImageShape, latent_dim: int | None) -> tuple[int, ...]:
        """Return the shape of the codes of images: `(latent_dim,)`, or (rows, columns, channels) of a map.

        Args:
            image_shape: (H, W, C) of the images.
            latent_dim: Number of latent dimensions. None is valid if the family determines it.

        Raises:
            InputError: The family does not have codes of this size for images of this size.
        """
        if latent_dim is None:
            raise InputError(f"latent_dim = None: {self} does not determine it; pass the number of latent dimensions")
        return (latent_dim,)

    @abc.abstractmethod
    def encoder(
        self, image_shape: ImageShape, latent_dim: int, param_sizes: Mapping[str, int] | None = None
    ) -> keras.Model:
        """Build the functional model `encoder`: images (N, H, W, C) → a list of tensors, one per parameter.

        Args:
            image_shape: (H, W, C) of the images, floats in [0, 1].
            latent_dim: Number of latent dimensions.
            param_sizes: Size of each output, by name; None means `z_mean` and `z_log_var`, each of size `latent_dim`.

        Returns:
            The model. A model with a single output returns a tensor instead of a list, as usual in Keras.

        Raises:
            InputError: A size is below one, or `param_sizes` is empty.
        """

    @abc.abstractmethod
    def decoder(self, latent_dim: int, image_shape: ImageShape, condition_dim: int = 0) -> keras.Model:
        """Build the functional model `decoder`: z → likelihood parameters (N, H, W, C).

        Args:
            latent_dim: Number of latent dimensions.
            image_shape: (H, W, C) of the outputs; C is the number of channels that the likelihood needs.
            condition_dim: Size of the encoded condition that follows z: further dimensions of a vector, or further
                channels of a map.

        Returns:
            The model. Its last layer has no activation.

        Raises:
            InputError: A size is below one.
        """


class MapNetwork(Network):
    """Base class of network families that also build models of latent maps, for a VQ-VAE."""

    @abc.abstractmethod
    def map_size(self, image_shape: ImageShape) -> tuple[int, int]:
        """Return the rows and columns of the map of images (H, W, C)."""

    @abc.abstractmethod
    def map_encoder(self, image_shape: ImageShape, channels: int, *, deviation: float | None = None) -> keras.Model:
        """Build the functional model `encoder`: images (N, H, W, C) → a map (N, rows, columns, channels).

        Args:
            image_shape: (H, W, C) of the images, floats in [0, 1].
            channels: Number of channels of the map, whose size is `map_size(image_shape)`.
            deviation: Standard deviation of standardized channels, see `standardized_map`; None to standardize nothing.

        Raises:
            InputError: A size is below one.
        """

    @abc.abstractmethod
    def map_decoder(self, map_shape: tuple[int, int, int], image_shape: ImageShape) -> keras.Model:
        """Build the functional model `decoder`: a map (N, rows, columns, channels) → parameters (N, H, W, C).

        Args:
            map_shape: (rows, columns, channels) of the map.
            image_shape: (H, W, C) of the outputs; C is the number of channels that the likelihood needs.

        Raises:
            InputError: A size is below one, or the map has another size than `map_size(image_shape)`.
        """

    def _check_map(self, map_shape: tuple[int, int, int], image_shape: ImageShape) -> None:
        check_positive(channels=map_shape[2])
        check_image_shape(image_shape)
        if tuple(map_shape[:2]) != self.map_size(image_shape):
            raise InputError(
                f"map_shape = {tuple(map_shape)}: does not fit images of shape {tuple(image_shape)}; use "
                f"{(*self.map_size(image_shape), map_shape[2])}"
            )


class VectorNetwork(Network):
    """Base class of network families whose codes are vectors, for images of any shape.

    A subclass implements `features`, from images to a vector, and `outputs`, from z to images.
    """

    def encoder(
        self, image_shape: ImageShape, latent_dim: int, param_sizes: Mapping[str, int] | None = None
    ) -> keras.Model:
        """Build the functional model `encoder`: images (N, H, W, C) → a list of tensors (N, size).

        Args:
            image_shape: (H, W, C) of the images, floats in [0, 1].
            latent_dim: Number of latent dimensions.
            param_sizes: Size of each output, by name; None means `z_mean` and `z_log_var`, each of size `latent_dim`.

        Returns:
            The model. Each output is a dense layer of that name, applied to the same features. A model with a single
            output returns a tensor instead of a list, as usual in Keras.

        Raises:
            InputError: A size is below one, or `param_sizes` is empty.
        """
        check_positive(latent_dim=latent_dim)
        param_sizes = checked_param_sizes(param_sizes, latent_dim)
        images = image_input(image_shape)
        features = self.features(images)
        outputs = [layers.Dense(size, name=name, dtype="float32")(features) for name, size in param_sizes.items()]
        return keras.Model(images, outputs, name="encoder")

    def decoder(self, latent_dim: int, image_shape: ImageShape, condition_dim: int = 0) -> keras.Model:
        """Build the functional model `decoder`: z (N, latent_dim + condition_dim) → parameters (N, H, W, C).

        Args:
            latent_dim: Number of latent dimensions.
            image_shape: (H, W, C) of the outputs; C is the number of channels that the likelihood needs.
            condition_dim: Size of the encoded condition that follows z.

        Returns:
            The model. Its last layer has no activation.

        Raises:
            InputError: A size is below one.
        """
        check_positive(latent_dim=latent_dim)
        check_image_shape(image_shape)
        z = keras.Input((latent_dim + condition_dim,), name="z")
        return keras.Model(z, self.outputs(z, image_shape), name="decoder")

    @abc.abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Return the features (N, F) of images (N, H, W, C); both are symbolic tensors."""

    @abc.abstractmethod
    def outputs(self, z: Tensor, image_shape: ImageShape) -> Tensor:
        """Return the float32 outputs (N, H, W, C) for z (N, D); both are symbolic tensors."""


class SpatialNetwork(VectorNetwork, MapNetwork):
    """Base class of network families with a feature map between image and vector.

    The encoder halves the image `halvings` times, rounding up; an image smaller than 2^halvings becomes a 1×1 map. The
    decoder doubles the map the same number of times and crops the excess, so that its outputs have the size of the
    images. A dense layer connects map and vector in each direction. `map_encoder` and `map_decoder` omit these layers,
    for models with latent maps such as a VQ-VAE.
    """

    dense_units: int

    @property
    @abc.abstractmethod
    def halvings(self) -> int:
        """Number of times the encoder halves the image."""

    @property
    @abc.abstractmethod
    def activation(self) -> str:
        """Activation of the dense layers between map and vector, by its Keras name."""

    @abc.abstractmethod
    def downsample(self, images: Tensor) -> Tensor:
        """Return the feature map (N, rows, columns, F) of images (N, H, W, C)."""

    @abc.abstractmethod
    def upsample(self, features: Tensor) -> Tensor:
        """Return a map (N, rows·2^halvings, columns·2^halvings, F) for a map (N, rows, columns, any)."""

    @abc.abstractmethod
    def bottleneck_channels(self, rows: int, columns: int) -> int:
        """Return the number of channels of the map (rows, columns) to which the dense layers connect."""

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

    def map_encoder(self, image_shape: ImageShape, channels: int, *, deviation: float | None = None) -> keras.Model:
        """Build the functional model `encoder`: images (N, H, W, C) → a map (N, rows, columns, channels).

        Args:
            image_shape: (H, W, C) of the images, floats in [0, 1].
            channels: Number of channels of the map, whose size is `map_size(image_shape)`.
            deviation: Standard deviation of standardized channels, see `standardized_map`; None to standardize nothing.

        Raises:
            InputError: A size is below one.
        """
        check_positive(channels=channels)
        images = image_input(image_shape)
        # Standardization would remove the bias.
        outputs = Conv2D(channels, 1, use_bias=deviation is None, dtype="float32")(self.downsample(images))
        return keras.Model(
            images, outputs if deviation is None else standardized_map(outputs, deviation), name="encoder"
        )

    def map_decoder(self, map_shape: tuple[int, int, int], image_shape: ImageShape) -> keras.Model:
        """Build the functional model `decoder`: a map (N, rows, columns, channels) → parameters (N, H, W, C).

        Args:
            map_shape: (rows, columns, channels) of the map.
            image_shape: (H, W, C) of the outputs; C is the number of channels that the likelihood needs.

        Raises:
            InputError: A size is below one, or the map has another size than `map_size(image_shape)`.
        """
        self._check_map(map_shape, image_shape)
        latent_map = keras.Input(map_shape, name="z")
        return keras.Model(latent_map, self._to_images(latent_map, image_shape), name="decoder")

    def features(self, images: Tensor) -> Tensor:
        """Return the features (N, dense_units) of images (N, H, W, C); both are symbolic tensors."""
        features = self.downsample(images)
        channels = self.bottleneck_channels(*features.shape[1:3])
        if channels != features.shape[-1]:
            features = Conv2D(channels, 1)(features)
        return layers.Dense(self.dense_units, activation=self.activation)(
            layers.Flatten(data_format="channels_last")(features)
        )

    def outputs(self, z: Tensor, image_shape: ImageShape) -> Tensor:
        """Return the float32 outputs (N, H, W, C) for z (N, latent_dim); both are symbolic tensors."""
        rows, columns = self.map_size(image_shape)
        channels = self.bottleneck_channels(rows, columns)
        features = layers.Dense(rows * columns * channels, activation=self.activation)(z)
        return self._to_images(layers.Reshape((rows, columns, channels))(features), image_shape)

    def _to_images(self, features: Tensor, image_shape: ImageShape) -> Tensor:
        """Upsample a map, then project and crop it to the shape of the images."""
        *target_size, channels = image_shape
        outputs = Conv2D(channels, 3, padding="same", dtype="float32")(self.upsample(features))
        excess = [size - target for size, target in zip(outputs.shape[1:3], target_size, strict=True)]
        if any(excess):
            cropping = tuple((pixels // 2, pixels - pixels // 2) for pixels in excess)
            outputs = layers.Cropping2D(cropping, data_format="channels_last", dtype="float32")(outputs)
        return outputs


def standardized_map(maps: Tensor, deviation: float) -> Tensor:
    """Return maps whose channels have mean 0 and a given deviation over all positions of a batch (arXiv 1502.03167).

    Outside of training, moving averages take the place of the mean and variance of the batch.

    Args:
        maps: Symbolic tensor (N, rows, columns, channels).
        deviation: Standard deviation of the result.
    """
    # Keras's momentum, 0.99, would need hundreds of steps to forget the initial averages.
    standardize = layers.BatchNormalization(
        axis=-1, momentum=0.9, epsilon=1e-6, center=False, scale=False, dtype="float32", name="standardized"
    )
    standardized = standardize(maps)
    if deviation == 1:
        return standardized
    return layers.Rescaling(deviation, dtype="float32", name="scaled")(standardized)


def validate_widths(widths: Iterable[int]) -> tuple[int, ...]:
    """Check the widths of a network, and return them as a tuple.

    Args:
        widths: Units or channels, one entry per layer or level.

    Raises:
        InputError: `widths` is not iterable, is empty, or has an entry below one.

    Example:
        >>> validate_widths([32, 64])
        (32, 64)
    """
    if not isinstance(widths, Iterable) or isinstance(widths, str):
        raise InputError(f"widths = {widths!r}: not a list; pass integers, such as [32, 64]")
    widths = tuple(widths)
    if not widths or not all(is_integer(width) and width >= 1 for width in widths):
        raise InputError(f"widths = {list(widths)}: empty or below 1; pass at least one width, each ≥ 1")
    check_count("widths", max(widths), maximum=MAX_SIZE)
    return widths


def check_positive(**sizes: int) -> None:
    """Raise an error unless every size is at least one.

    Args:
        **sizes: Sizes by argument name.

    Raises:
        InputError: A size is not an integer, is below one, or is so large that its weights would not fit in memory.

    Example:
        >>> check_positive(dense_units=16, blocks=1)
    """
    for name, size in sizes.items():
        check_count(name, size, maximum=MAX_BLOCKS if name == "blocks" else MAX_SIZE)


def check_image_shape(image_shape: ImageShape) -> None:
    """Raise an error unless an image shape consists of three positive integers.

    Raises:
        InputError: There are not three sizes, a size is not an integer ≥ 1, or an image would have too many values.
    """
    is_shape = isinstance(image_shape, Sequence) and not isinstance(image_shape, str) and len(image_shape) == 3
    if not is_shape or not all(is_integer(size) and size >= 1 for size in image_shape):
        raise InputError(f"image_shape = {shown(image_shape)}: not three integers ≥ 1; pass (height, width, channels)")
    if math.prod(map(int, image_shape)) > MAX_PIXELS:
        raise InputError(
            f"image_shape = {shown(image_shape)}: too large; pass a shape with at most {MAX_PIXELS} values per image"
        )


def checked_param_sizes(param_sizes: Mapping[str, int] | None, latent_dim: int) -> Mapping[str, int]:
    """Return the size of each output of an encoder by name, by default `z_mean` and `z_log_var`.

    Raises:
        InputError: A size is below one, or there are none.
    """
    param_sizes = {"z_mean": latent_dim, "z_log_var": latent_dim} if param_sizes is None else param_sizes
    if not param_sizes:
        raise InputError("param_sizes = {}: the encoder has no output; pass at least one, such as {'z_mean': 2}")
    for name, size in param_sizes.items():
        check_count(name, size)
    return param_sizes


def image_input(image_shape: ImageShape) -> Tensor:
    """Return the symbolic input `images` of an encoder.

    Raises:
        InputError: `image_shape` is not a shape of images.
    """
    check_image_shape(image_shape)
    return keras.Input(image_shape, name="images")
