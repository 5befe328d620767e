"""The convolutional autoencoder of latent diffusion models, whose codes are maps."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras
from keras import layers, ops

from keras_vae.core.errors import InputError
from keras_vae.core.registry import PACKAGE, register
from keras_vae.core.typing import ImageShape, Shape, Tensor
from keras_vae.networks.base import (
    MapNetwork,
    check_image_shape,
    check_positive,
    checked_param_sizes,
    standardized_map,
    validate_widths,
)
from keras_vae.networks.convolutions import Conv2D
from keras_vae.networks.resnet import group_norm, normalize, residual_block

_EPSILON = 1e-6


@register("autoencoder")
@dataclass(frozen=True)
class Autoencoder(MapNetwork):
    """The autoencoder of latent diffusion (Rombach et al., arXiv 2112.10752), whose codes are maps.

    The encoder halves the image after each width except the last one, so that the code of an image (H, W, C) is a map
    (H/f, W/f, latent_channels), f = 2^(number of widths − 1). Both models are fully convolutional: their height and
    width are not fixed. Images are first rescaled to [−1, 1].

    The layers are those of `AutoencoderKL` in diffusers, whose weights `keras_vae.integrations.diffusers` converts.
    Their names are the same, with underscores instead of dots.

    Args:
        widths: Channels at each size, largest size first.
        blocks: Residual blocks per size of the encoder; the decoder has one more.
        attention: Whether to add single-head self-attention over the positions of the smallest map.
        latent_channels: Channels of the code.
        groups: Maximum number of groups of the group normalization; the actual number divides the width.
        quant_conv: Whether a 1×1 convolution follows the encoder.
        post_quant_conv: Whether a 1×1 convolution precedes the decoder.

    Raises:
        InputError: A size is below one, or `widths` is empty.

    Example:
        >>> network = Autoencoder(widths=(8, 16, 16))
        >>> network.latent_shape((64, 32, 3))
        (16, 8, 4)
        >>> network.encoder((64, 32, 3)).output_shape
        [(None, None, None, 4), (None, None, None, 4)]
    """

    widths: tuple[int, ...] = (32, 64, 64)
    blocks: int = 1
    attention: bool = True
    latent_channels: int = 4
    groups: int = 8
    quant_conv: bool = True
    post_quant_conv: bool = True

    def __post_init__(self) -> None:
        """Check the sizes."""
        object.__setattr__(self, "widths", validate_widths(self.widths))
        check_positive(blocks=self.blocks, latent_channels=self.latent_channels, groups=self.groups)

    @property
    def factor(self) -> int:
        """Quotient f of the sizes of image and code."""
        return 2 ** (len(self.widths) - 1)

    def map_size(self, image_shape: ImageShape) -> tuple[int, int]:
        """Return the rows and columns of the code of images (H, W, C).

        Raises:
            InputError: The factor does not divide the size, or all features of a 1×1 map would be normalized to zero.
        """
        check_image_shape(image_shape)
        height, width, _ = image_shape
        rows, columns = height // self.factor, width // self.factor
        if height % self.factor or width % self.factor:
            fitting = tuple(max(1, round(side / self.factor)) * self.factor for side in (height, width))
            raise InputError(
                f"image_shape = {tuple(image_shape)}: height and width are not multiples of {self.factor}, the factor "
                f"of {len(self.widths)} widths; resize the images to {fitting[0]}x{fitting[1]}, or choose fewer widths"
            )
        if rows * columns == 1 and self.widths[-1] <= self.groups:
            raise InputError(
                f"image_shape = {tuple(image_shape)}: the code is a 1×1 map, on which each of {self.groups} groups "
                f"would normalize a single channel to zero; choose groups below {self.widths[-1]}, or fewer widths"
            )
        return rows, columns

    def latent_shape(self, image_shape: ImageShape, latent_dim: int | None = None) -> tuple[int, ...]:
        """Return the shape (rows, columns, latent_channels) of the code of images (H, W, C).

        Args:
            image_shape: (H, W, C) of the images.
            latent_dim: None, or the product of the shape.

        Raises:
            InputError: The factor does not divide the size of the images, or `latent_dim` is another number.
        """
        shape = (*self.map_size(image_shape), self.latent_channels)
        if latent_dim not in (None, math.prod(shape)):
            raise InputError(
                f"latent_dim = {latent_dim}: the code of images of shape {tuple(image_shape)} is a map {shape}; leave "
                "out latent_dim, and choose latent_channels"
            )
        return shape

    def encoder(
        self, image_shape: ImageShape, latent_dim: int | None = None, param_sizes: Mapping[str, int] | None = None
    ) -> keras.Model:
        """Build the functional model `encoder`: images (N, H, W, C) → a list of maps, one per parameter.

        Args:
            image_shape: (H, W, C) of the images, floats in [0, 1]. The model accepts other sizes as well.
            latent_dim: None, or the product of `latent_shape`.
            param_sizes: Size of each output, by name, as number of values per image; None means `z_mean` and
                `z_log_var` with `latent_channels` each.

        Returns:
            The model. A model with a single output returns a tensor instead of a list, as usual in Keras.

        Raises:
            InputError: See `latent_shape`, or a size is not a number of channels times the size of the map.
        """
        rows, columns, _ = shape = self.latent_shape(image_shape, latent_dim)
        channels = {}
        for name, size in checked_param_sizes(param_sizes, math.prod(shape)).items():
            if size % (rows * columns):
                raise InputError(
                    f"param_sizes = {dict(param_sizes or {})}: {name} does not fit a map of {rows}×{columns}; use the "
                    "posterior 'normal' or 'deterministic'"
                )
            channels[name] = size // (rows * columns)
        images = keras.Input((None, None, image_shape[-1]), name="images")
        moments = self._encode(images, sum(channels.values()))
        ends = [sum(list(channels.values())[: index + 1]) for index in range(len(channels) - 1)]
        outputs = ops.split(moments, ends, axis=-1) if ends else [moments]
        named = [
            layers.Identity(name=name, dtype="float32")(output) for name, output in zip(channels, outputs, strict=True)
        ]
        return keras.Model(images, named, name="encoder")

    def decoder(self, latent_dim: int | None, image_shape: ImageShape, condition_dim: int = 0) -> keras.Model:
        """Build the functional model `decoder`: maps (N, h, w, latent_channels + condition_dim) → (N, H, W, C).

        Args:
            latent_dim: None, or the product of `latent_shape`.
            image_shape: (H, W, C) of the outputs; C is the number of channels that the likelihood needs. The model
                accepts other sizes as well.
            condition_dim: Number of further channels, which contain the encoded condition.

        Returns:
            The model. Its last layer has no activation.

        Raises:
            InputError: See `latent_shape`.
        """
        self.latent_shape(image_shape, latent_dim)
        z = keras.Input((None, None, self.latent_channels + condition_dim), name="z")
        return keras.Model(z, self._decode(z, image_shape[-1]), name="decoder")

    def map_encoder(self, image_shape: ImageShape, channels: int, *, deviation: float | None = None) -> keras.Model:
        """Build the functional model `encoder`: images (N, H, W, C) → a map (N, rows, columns, channels)."""
        self.map_size(image_shape)
        check_positive(channels=channels)
        images = keras.Input(image_shape, name="images")
        # Standardization would remove the bias.
        maps = self._encode(images, channels, use_bias=deviation is None)
        return keras.Model(images, maps if deviation is None else standardized_map(maps, deviation), name="encoder")

    def map_decoder(self, map_shape: tuple[int, int, int], image_shape: ImageShape) -> keras.Model:
        """Build the functional model `decoder`: a map (N, rows, columns, channels) → parameters (N, H, W, C)."""
        self._check_map(map_shape, image_shape)
        z = keras.Input(map_shape, name="z")
        return keras.Model(z, self._decode(z, image_shape[-1]), name="decoder")

    def _encode(self, images: Tensor, channels: int, use_bias: bool = True) -> Tensor:
        """Return the float32 map of images; `use_bias` is that of the last layers."""
        # The first convolution pads with zeros, which are gray. It could not contain the shift of this layer.
        features = layers.Rescaling(2.0, -1.0, name="rescaling", dtype="float32")(images)
        features = Conv2D(self.widths[0], 3, padding="same", name="conv_in")(features)
        for level, width in enumerate(self.widths):
            name = f"down_blocks_{level}"
            for block in range(self.blocks):
                features = self._residual_block(features, width, f"{name}_resnets_{block}")
            if level < len(self.widths) - 1:
                # On an even size, the padding "same" of stride 2 adds zeros only at the end, as diffusers does.
                downsample = Conv2D(width, 3, strides=2, padding="same", name=f"{name}_downsamplers_0_conv")
                features = downsample(features)
        features = self._normalize(self._middle_block(features), "conv_norm_out")
        last = functools.partial(Conv2D, channels, use_bias=use_bias, dtype="float32")
        moments = last(3, padding="same", name="conv_out")(features)
        return last(1, name="quant_conv")(moments) if self.quant_conv else moments

    def _decode(self, z: Tensor, channels: int) -> Tensor:
        """Return the float32 images of a map."""
        features = Conv2D(self.latent_channels, 1, name="post_quant_conv")(z) if self.post_quant_conv else z
        features = Conv2D(self.widths[-1], 3, padding="same", name="conv_in")(features)
        features = self._middle_block(features)
        for level, width in enumerate(reversed(self.widths)):
            name = f"up_blocks_{level}"
            for block in range(self.blocks + 1):
                features = self._residual_block(features, width, f"{name}_resnets_{block}")
            if level < len(self.widths) - 1:
                features = layers.UpSampling2D(data_format="channels_last", name=f"{name}_upsamplers_0")(features)
                features = Conv2D(width, 3, padding="same", name=f"{name}_upsamplers_0_conv")(features)
        features = self._normalize(features, "conv_norm_out")
        return Conv2D(channels, 3, padding="same", name="conv_out", dtype="float32")(features)

    def _middle_block(self, features: Tensor) -> Tensor:
        features = self._residual_block(features, self.widths[-1], "mid_block_resnets_0")
        if self.attention:
            name = "mid_block_attentions_0"
            normalized = group_norm(features, self.groups, **self._norm, name=f"{name}_group_norm")
            features = layers.Add()([features, SelfAttention(name=name)(normalized)])
        return self._residual_block(features, self.widths[-1], "mid_block_resnets_1")

    def _residual_block(self, features: Tensor, width: int, name: str) -> Tensor:
        return residual_block(features, width, self.groups, **self._norm, name=name)

    def _normalize(self, features: Tensor, name: str) -> Tensor:
        return normalize(features, self.groups, **self._norm, name=name)

    @property
    def _norm(self) -> dict[str, Any]:
        return {"epsilon": _EPSILON, "min_channels": 1}


@keras.saving.register_keras_serializable(PACKAGE)
class SelfAttention(layers.Layer):
    r"""Single-head self-attention over all positions of a map of any size (arXiv 1706.03762).

    \(\mathrm{softmax}(QK^\top / \sqrt{F})V\), followed by a linear layer. Queries, keys and values are linear in the
    features. The bias of the keys is not trained: the softmax cancels it, so that its gradient is zero.

    Args:
        **kwargs: Arguments of every Keras layer.

    Example:
        >>> tuple(SelfAttention()(ops.zeros((1, 3, 5, 8))).shape)
        (1, 3, 5, 8)
    """

    def build(self, input_shape: Shape) -> None:
        """Create the weights for maps (N, H, W, F)."""
        width = input_shape[-1]
        policy = self.dtype_policy
        self.to_q, self.to_v = (layers.Dense(width, name=name, dtype=policy) for name in ("to_q", "to_v"))
        self.to_k = layers.Dense(width, name="to_k", use_bias=False, dtype=policy)
        self.to_out = layers.Dense(width, name="to_out_0", dtype=policy)
        for layer in (self.to_q, self.to_k, self.to_v, self.to_out):
            layer.build((*input_shape[:-1], width))
        self.key_bias = self.add_weight(shape=(width,), initializer="zeros", trainable=False, name="to_k_bias")

    def call(self, features: Tensor) -> Tensor:
        """Return the map of the attended values of features (N, H, W, F)."""
        size, width = ops.shape(features)[1:3], features.shape[-1]
        keys = ops.add(self.to_k(features), ops.cast(self.key_bias, self.compute_dtype))
        positions = [
            ops.reshape(values, (-1, size[0] * size[1], 1, width))
            for values in (self.to_q(features), keys, self.to_v(features))
        ]
        attended = ops.dot_product_attention(*positions, scale=1 / math.sqrt(width))
        return self.to_out(ops.reshape(attended, (-1, *size, width)))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Return the shape of the inputs."""
        return input_shape
