"""The encoder and the decoder of a model as separate Keras models, for transfer learning and for export."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Self

import keras

from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Tensor

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

THRESHOLD = 0.5
"""Gray level above which a pixel becomes white under stochastic binarization: these models are deterministic."""


class _ImageModel(keras.Model):
    """A Keras model that computes a part of a VAE and shares its weights.

    Args:
        vae: A built model.
        parts: The components of the VAE to use. Those with weights become layers of this model.
        name: Name of this model.
    """

    def __init__(self, vae: "BaseVAE", parts: Iterable[Any], name: str) -> None:
        super().__init__(autocast=False, name=name)
        # A closure, because Keras would track the VAE itself with weights that this model does not use.
        self._vae_config = lambda: keras.saving.serialize_keras_object(vae)
        self.parts = [part for part in parts if isinstance(part, keras.layers.Layer)]
        self.supports_jit = vae.supports_jit
        self.built = True

    def get_config(self) -> dict[str, Any]:
        """Return the serialized VAE without its compile configuration."""
        return {"vae": {key: value for key, value in self._vae_config().items() if key != "compile_config"}}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None) -> Self:
        """Build the model from the result of `get_config`."""
        return cls(keras.saving.deserialize_keras_object(config["vae"], custom_objects))  # type: ignore[call-arg]


@keras.saving.register_keras_serializable(PACKAGE)
class ImageEncoder(_ImageModel):
    """Keras model from images to the result of `encode`, as a dict of tensors; use it as `vae.image_encoder`.

    Args:
        vae: A built model.

    Example:
        >>> from keras_vae import VAE
        >>> images = keras.Input((28, 28, 1), dtype="uint8")
        >>> VAE(seed=0).image_encoder(images)["z_mean"].shape
        (None, 2)
    """

    def __init__(self, vae: "BaseVAE") -> None:
        super().__init__(vae, vae._encoding_parts, "image_encoder")
        self._encode = vae.encode_tensors

    def call(self, inputs: Any) -> dict[str, Tensor]:
        """Return the fields of the `Encoding` of images, by name.

        Args:
            inputs: Images (N, H, W, C), uint8 or floats in [0, 1]; for a conditional model, a dict with `images` and
                `condition`.
        """
        inputs = inputs if isinstance(inputs, dict) else {"images": inputs}
        return self._encode({"pixel_noise": THRESHOLD, **inputs})


@keras.saving.register_keras_serializable(PACKAGE)
class ImageDecoder(_ImageModel):
    """Keras model from codes to the mean images that `decode` returns, in [0, 1]; use it as `vae.image_decoder`.

    Args:
        vae: A built model.

    Example:
        >>> from keras_vae import VAE
        >>> VAE(seed=0).image_decoder(keras.Input((2,))).shape
        (None, 28, 28, 1)
    """

    def __init__(self, vae: "BaseVAE") -> None:
        super().__init__(vae, vae._decoding_parts, "image_decoder")
        self._decode, self._condition = vae.decode_tensors, vae.condition

    def call(self, inputs: Any) -> Tensor:
        """Return the mean images (N, H, W, C) of codes.

        Args:
            inputs: Codes, as for `decode`; for a conditional model, a dict with `codes` and `condition`.
        """
        if self._condition is None:
            return self._decode(inputs["codes"] if isinstance(inputs, dict) else inputs, None)
        return self._decode(inputs["codes"], self._condition.encode(inputs["condition"]))


def reconstruction_graph(vae: "BaseVAE") -> keras.Model:
    """Return the functional model from uint8 images, and their condition if any, to the mean images of their codes."""
    # These two properties raise an error if the model is not built.
    encoder, decoder = vae.image_encoder, vae.image_decoder
    images = keras.Input(vae.image_shape, dtype="uint8", name="images")
    if vae.condition is None:
        return keras.Model(images, decoder(next(iter(encoder(images).values()))), name="reconstruct")
    condition = keras.Input(vae.condition.value_shape, dtype=vae.condition.dtype, name="condition")
    inputs = {"images": images, "condition": condition}
    codes = next(iter(encoder(inputs).values()))
    return keras.Model(inputs, decoder({"codes": codes, "condition": condition}), name="reconstruct")
