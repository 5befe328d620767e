"""Variational autoencoders for Keras 3: trained, measured and shown in one command, on three backends."""

import importlib
import sys
from typing import TYPE_CHECKING

from keras_vae.core import startup

if TYPE_CHECKING:
    from keras_vae.components.conditions import Label, Vector
    from keras_vae.components.likelihoods import (
        Bernoulli,
        Categorical,
        ContinuousBernoulli,
        DiscretizedLogistic,
        Laplace,
        Normal,
    )
    from keras_vae.components.objectives import DIPVAE, ELBO, IWAE, BetaTC, InfoVAE, Terms
    from keras_vae.components.posteriors import (
        Deterministic,
        DiagonalNormal,
        FullCovarianceNormal,
        InverseAutoregressiveFlow,
        Sampler,
    )
    from keras_vae.components.priors import ConditionalNormal, MixtureOfNormals, RealNVP, StandardNormal, VampPrior
    from keras_vae.components.schedules import Constant, Cosine, Cyclical, Exponential, WarmUp
    from keras_vae.data.dataset import Dataset
    from keras_vae.integrations.sklearn import AnomalyDetector, VAETransformer
    from keras_vae.models.hierarchical import HierarchicalVAE
    from keras_vae.models.vae import VAE, Moments, Output
    from keras_vae.models.vq import VQVAE
    from keras_vae.networks.conv import Conv
    from keras_vae.networks.mlp import MLP
    from keras_vae.networks.resnet import ResNet
    from keras_vae.runs.experiment import Experiment
    from keras_vae.runs.run import Run, load

__version__ = "0.1.0"

_HOMES = {
    "AnomalyDetector": "integrations.sklearn",
    "Bernoulli": "components.likelihoods",
    "BetaTC": "components.objectives",
    "Categorical": "components.likelihoods",
    "ConditionalNormal": "components.priors",
    "Constant": "components.schedules",
    "ContinuousBernoulli": "components.likelihoods",
    "Conv": "networks.conv",
    "Cosine": "components.schedules",
    "Cyclical": "components.schedules",
    "DIPVAE": "components.objectives",
    "Dataset": "data.dataset",
    "Deterministic": "components.posteriors",
    "DiagonalNormal": "components.posteriors",
    "DiscretizedLogistic": "components.likelihoods",
    "ELBO": "components.objectives",
    "Experiment": "runs.experiment",
    "Exponential": "components.schedules",
    "FullCovarianceNormal": "components.posteriors",
    "HierarchicalVAE": "models.hierarchical",
    "IWAE": "components.objectives",
    "InfoVAE": "components.objectives",
    "InverseAutoregressiveFlow": "components.posteriors",
    "Label": "components.conditions",
    "Laplace": "components.likelihoods",
    "MLP": "networks.mlp",
    "MixtureOfNormals": "components.priors",
    "Moments": "models.vae",
    "Normal": "components.likelihoods",
    "Output": "models.vae",
    "RealNVP": "components.priors",
    "ResNet": "networks.resnet",
    "Run": "runs.run",
    "Sampler": "components.posteriors",
    "StandardNormal": "components.priors",
    "Terms": "components.objectives",
    "VAE": "models.vae",
    "VAETransformer": "integrations.sklearn",
    "VQVAE": "models.vq",
    "VampPrior": "components.priors",
    "Vector": "components.conditions",
    "WarmUp": "components.schedules",
    "load": "runs.run",
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
