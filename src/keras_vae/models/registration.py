"""Import this module to register all models, components and optimizers with Keras."""

from keras_vae import networks
from keras_vae.components import optimizers
from keras_vae.models.architectures import Architecture
from keras_vae.models.base import BaseVAE

__all__ = ["Architecture", "BaseVAE", "networks", "optimizers"]
