"""Priors p(z): distributions over latent codes that do not depend on an image."""

# Importing the package registers all priors.
from keras_vae.components.priors.base import Density, Prior, PriorInputs
from keras_vae.components.priors.closed_form import (
    ConditionalNormal,
    MixtureOfNormals,
    RealNVP,
    StandardNormal,
    VampPrior,
)
from keras_vae.components.priors.flow_matching import FlowMatching

__all__ = [
    "ConditionalNormal",
    "Density",
    "FlowMatching",
    "MixtureOfNormals",
    "Prior",
    "PriorInputs",
    "RealNVP",
    "StandardNormal",
    "VampPrior",
]
