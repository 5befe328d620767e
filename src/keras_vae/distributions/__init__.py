"""Distributions over latent codes and over images, their KL divergences, and the bijectors of normalizing flows.

The distributions over images are in `keras_vae.distributions.image`, because `Normal` alone would be ambiguous.
"""

from keras_vae.core.typing import Seed
from keras_vae.distributions import image
from keras_vae.distributions.bijectors import MaskedAffineBijector
from keras_vae.distributions.continuous_flow import ContinuousFlow, VelocityField
from keras_vae.distributions.image import ImageDistribution
from keras_vae.distributions.kl import kl_divergence, register_kl
from keras_vae.distributions.latent import (
    Deterministic,
    DiagonalNormal,
    LatentDistribution,
    Mixture,
    MultivariateNormalTriL,
    PushforwardDistribution,
    ReparameterizedDistribution,
    SampleWithLogProb,
    TransformedDistribution,
    stop_gradient,
    tree_map,
)

__all__ = [
    "ContinuousFlow",
    "Deterministic",
    "DiagonalNormal",
    "ImageDistribution",
    "LatentDistribution",
    "MaskedAffineBijector",
    "Mixture",
    "MultivariateNormalTriL",
    "PushforwardDistribution",
    "ReparameterizedDistribution",
    "SampleWithLogProb",
    "Seed",
    "TransformedDistribution",
    "VelocityField",
    "image",
    "kl_divergence",
    "register_kl",
    "stop_gradient",
    "tree_map",
]
