"""Variational autoencoders for Keras 3: trained, measured and shown in one command, on three backends."""

import importlib
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vae.data.dataset import Dataset
    from keras_vae.experiment import Experiment
    from keras_vae.likelihoods import Bernoulli
    from keras_vae.models.base import Output
    from keras_vae.models.vae import VAE, Moments
    from keras_vae.networks.conv import Conv
    from keras_vae.objectives import ELBO, Terms
    from keras_vae.posteriors import Sampler
    from keras_vae.priors import StandardNormal
    from keras_vae.run import Run, load

__version__ = "0.1.0"

_HOMES = {
    "Bernoulli": "likelihoods",
    "Conv": "networks.conv",
    "Dataset": "data.dataset",
    "ELBO": "objectives",
    "Experiment": "experiment",
    "Moments": "models.vae",
    "Output": "models.base",
    "Run": "run",
    "Sampler": "posteriors",
    "StandardNormal": "priors",
    "Terms": "objectives",
    "VAE": "models.vae",
    "load": "run",
}

__all__ = [
    "ELBO",
    "VAE",
    "Bernoulli",
    "Conv",
    "Dataset",
    "Experiment",
    "Moments",
    "Output",
    "Run",
    "Sampler",
    "StandardNormal",
    "Terms",
    "load",
]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: Keras and its backend take seconds, `vae --help` must not."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


# `keras.saving.load_model` finds the classes of this package among those registered, which importing them does.
if "keras" in sys.modules:
    importlib.import_module(f"{__name__}.models.vae")
