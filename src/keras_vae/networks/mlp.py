"""The multilayer perceptron."""

from dataclasses import dataclass

import keras
from keras import layers

from keras_vae.core.errors import InputError, suggestion
from keras_vae.core.registry import register
from keras_vae.core.typing import ImageShape, Tensor
from keras_vae.networks.base import VectorNetwork, validate_widths


@register("mlp")
@dataclass(frozen=True)
class MLP(VectorNetwork):
    r"""Dense layers; the decoder has the widths of the encoder in reverse order (Burda et al., arXiv 1509.00519).

    With `residual`, every layer after the first is a block \(h + W_2\,\phi(W_1\,\mathrm{norm}(h))\) with layer
    normalization. \(W_2\) starts at zero, so that deep stacks train.

    Args:
        widths: Units of each layer, from the image to the encoder's outputs.
        activation: \(\phi\), by its Keras name.
        residual: Whether to use residual blocks instead of plain layers; requires equal widths.

    Raises:
        InputError: A width is below one, `widths` is empty, the activation is unknown, or residual widths differ.

    Example:
        >>> MLP().encoder((28, 28, 1), latent_dim=50).count_params()
        217300
    """

    widths: tuple[int, ...] = (200, 200)
    activation: str = "tanh"
    residual: bool = False

    def __post_init__(self) -> None:
        """Check the widths and the name of the activation."""
        object.__setattr__(self, "widths", validate_widths(self.widths))
        try:
            keras.activations.get(self.activation)
        except (ValueError, TypeError):
            names = [name for name in dir(keras.activations) if name.islower() and not name.startswith("_")]
            hint = suggestion(self.activation, names)
            raise InputError(
                f"activation = {self.activation!r}: unknown; {hint}pass one of keras.activations, such as 'tanh'"
            ) from None
        if self.residual and (len(self.widths) < 2 or len(set(self.widths)) > 1):
            raise InputError(
                f"widths = {list(self.widths)}: residual blocks need equal widths; pass two or more, such as [512, 512]"
            )

    def features(self, images: Tensor) -> Tensor:
        """Return the features (N, widths[-1]) of images (N, H, W, C); both are symbolic tensors."""
        return self._dense_stack(layers.Flatten(data_format="channels_last")(images), self.widths)

    def outputs(self, z: Tensor, image_shape: ImageShape) -> Tensor:
        """Return the float32 outputs (N, H, W, C) for z (N, latent_dim); both are symbolic tensors."""
        height, width, channels = image_shape
        features = self._dense_stack(z, self.widths[::-1])
        outputs = layers.Dense(height * width * channels, dtype="float32")(features)
        return layers.Reshape(image_shape, dtype="float32")(outputs)

    def _dense_stack(self, features: Tensor, widths: tuple[int, ...]) -> Tensor:
        for index, width in enumerate(widths):
            if self.residual and index > 0:
                update = layers.Dense(width, activation=self.activation)(layers.LayerNormalization()(features))
                features = layers.Add()([features, layers.Dense(width, kernel_initializer="zeros")(update)])
            else:
                features = layers.Dense(width, activation=self.activation)(features)
        return features
