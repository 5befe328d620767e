"""Variational autoencoders for Keras 3: trained, measured and shown in one command, on three backends."""

import importlib
import sys
from typing import TYPE_CHECKING

from keras_vae.core import startup

if TYPE_CHECKING:
    from keras_vae.conditions import Label, Vector
    from keras_vae.data.dataset import Dataset
    from keras_vae.estimators import AnomalyDetector, VAETransformer
    from keras_vae.experiment import Experiment
    from keras_vae.likelihoods import Bernoulli, Categorical, ContinuousBernoulli, DiscretizedLogistic, Laplace, Normal
    from keras_vae.models.hierarchical import HierarchicalVAE
    from keras_vae.models.vae import VAE, Moments, Output
    from keras_vae.models.vq import VQVAE
    from keras_vae.networks.conv import Conv
    from keras_vae.networks.mlp import MLP
    from keras_vae.networks.resnet import ResNet
    from keras_vae.objectives import DIPVAE, ELBO, IWAE, BetaTC, InfoVAE, Terms
    from keras_vae.posteriors import (
        Deterministic,
        DiagonalNormal,
        FullCovarianceNormal,
        InverseAutoregressiveFlow,
        Sampler,
    )
    from keras_vae.priors import ConditionalNormal, MixtureOfNormals, RealNVP, StandardNormal, VampPrior
    from keras_vae.run import Run, load
    from keras_vae.schedules import Constant, Cosine, Cyclical, Exponential, WarmUp

__version__ = "0.1.0"

_HOMES = {
    "AnomalyDetector": "estimators",
    "Bernoulli": "likelihoods",
    "BetaTC": "objectives",
    "Categorical": "likelihoods",
    "ConditionalNormal": "priors",
    "Constant": "schedules",
    "ContinuousBernoulli": "likelihoods",
    "Conv": "networks.conv",
    "Cosine": "schedules",
    "Cyclical": "schedules",
    "DIPVAE": "objectives",
    "Dataset": "data.dataset",
    "Deterministic": "posteriors",
    "DiagonalNormal": "posteriors",
    "DiscretizedLogistic": "likelihoods",
    "ELBO": "objectives",
    "Experiment": "experiment",
    "Exponential": "schedules",
    "FullCovarianceNormal": "posteriors",
    "HierarchicalVAE": "models.hierarchical",
    "IWAE": "objectives",
    "InfoVAE": "objectives",
    "InverseAutoregressiveFlow": "posteriors",
    "Label": "conditions",
    "Laplace": "likelihoods",
    "MLP": "networks.mlp",
    "MixtureOfNormals": "priors",
    "Moments": "models.vae",
    "Normal": "likelihoods",
    "Output": "models.vae",
    "RealNVP": "priors",
    "ResNet": "networks.resnet",
    "Run": "run",
    "Sampler": "posteriors",
    "StandardNormal": "priors",
    "Terms": "objectives",
    "VAE": "models.vae",
    "VAETransformer": "estimators",
    "VQVAE": "models.vq",
    "VampPrior": "priors",
    "Vector": "conditions",
    "WarmUp": "schedules",
    "load": "run",
}

__all__ = [
    "DIPVAE",
    "ELBO",
    "IWAE",
    "MLP",
    "VAE",
    "VQVAE",
    "AnomalyDetector",
    "Bernoulli",
    "BetaTC",
    "Categorical",
    "ConditionalNormal",
    "Constant",
    "ContinuousBernoulli",
    "Conv",
    "Cosine",
    "Cyclical",
    "Dataset",
    "Deterministic",
    "DiagonalNormal",
    "DiscretizedLogistic",
    "Experiment",
    "Exponential",
    "FullCovarianceNormal",
    "HierarchicalVAE",
    "InfoVAE",
    "InverseAutoregressiveFlow",
    "Label",
    "Laplace",
    "MixtureOfNormals",
    "Moments",
    "Normal",
    "Output",
    "RealNVP",
    "ResNet",
    "Run",
    "Sampler",
    "StandardNormal",
    "Terms",
    "VAETransformer",
    "VampPrior",
    "Vector",
    "WarmUp",
    "load",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: Keras and its backend take seconds, `vae --help` must not."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


startup.prepare()

# `keras.saving.load_model` finds the classes of this package among those registered, which importing them does.
if "keras" in sys.modules:
    importlib.import_module(f"{__name__}.models.registration")
