"""What a family of networks offers."""

import abc
from typing import ClassVar

import keras

from keras_vae.parts import Part
from keras_vae.types import ImageShape


class Network(Part, abc.ABC):
    """A family of networks: an encoder, and the decoder that mirrors it."""

    kind: ClassVar[str] = "network"

    @abc.abstractmethod
    def encoder(self, image_shape: ImageShape, latent_dim: int) -> keras.Model:
        """Return the model named `encoder`: images (N, H, W, C) → `z_mean`, `z_log_var`, each (N, latent_dim)."""

    @abc.abstractmethod
    def decoder(self, latent_dim: int, image_shape: ImageShape) -> keras.Model:
        """Return the model named `decoder`: z (N, latent_dim) → likelihood parameters (N, H, W, C)."""
