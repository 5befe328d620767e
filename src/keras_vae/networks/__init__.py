"""Networks: families of encoders and decoders for images of any size."""

# Importing any module of the package registers all families.
from keras_vae.networks.autoencoder import Autoencoder
from keras_vae.networks.base import MapNetwork, Network, VectorNetwork
from keras_vae.networks.conv import Conv
from keras_vae.networks.mlp import MLP
from keras_vae.networks.resnet import ResNet

__all__ = ["MLP", "Autoencoder", "Conv", "MapNetwork", "Network", "ResNet", "VectorNetwork"]
