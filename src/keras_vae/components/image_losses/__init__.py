"""Image losses: functions of images and their reconstructions that any objective can add."""

# Importing the package registers all image losses.
from keras_vae.components.image_losses.adversarial import Adversarial
from keras_vae.components.image_losses.base import WEIGHT_PREFIX, Decoding, ImageLoss, ImageLossTerms
from keras_vae.components.image_losses.equivariance import Equivariance
from keras_vae.components.image_losses.perceptual import Perceptual

__all__ = ["WEIGHT_PREFIX", "Adversarial", "Decoding", "Equivariance", "ImageLoss", "ImageLossTerms", "Perceptual"]
