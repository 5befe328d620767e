"""Distributions over latent codes and over images, their KL divergences, and the bijectors of normalizing flows.

The distributions over images are in `keras_vae.distributions.image`, because `Normal` alone would be ambiguous.
"""

from keras_vae.core.typing import Seed
from keras_vae.distributions import image
from keras_vae.distributions.bijectors import MaskedAffineBijector
from keras_vae.distributions.image import ImageDistribution
from keras_vae.distributions.kl import kl_divergence, register_kl
from keras_vae.distributions.latent import (
    Deterministic,
    DiagonalNormal,
    LatentDistribution,
    Mixture,
    MultivariateNormalTriL,
    ReparameterizedDistribution,
    SampleWithLogProb,
    TransformedDistribution,
    stop_gradient,
    tree_map,
)

__all__ = [
    "Deterministic",
    "DiagonalNormal",
    "ImageDistribution",
    "LatentDistribution",
    "MaskedAffineBijector",
    "Mixture",
    "MultivariateNormalTriL",
    "ReparameterizedDistribution",
    "SampleWithLogProb",
    "Seed",
    "TransformedDistribution",
    "image",
    "kl_divergence",
    "register_kl",
    "stop_gradient",
    "tree_map",
]
