from . import distributions, networks
from ._version import __version__
from .components import conditions, likelihoods, objectives, posteriors, priors, schedules
from .components.objectives import ELBO
from .core.errors import InputError, RunError
from .core.registry import Component, ComponentLayer, register
from .data.dataset import Dataset
from .integrations.sklearn import AnomalyDetector, VAETransformer
from .models.base import BaseVAE
from .models.hierarchical import HierarchicalVAE
from .models.vae import VAE
from .models.vq import VQVAE
from .runs.experiment import Experiment
from .runs.run import Run, load

__all__ = [
    "ELBO",
    "VAE",
    "VQVAE",
    "AnomalyDetector",
    "BaseVAE",
    "Component",
    "ComponentLayer",
    "Dataset",
    "Experiment",
    "HierarchicalVAE",
    "InputError",
    "Run",
    "RunError",
    "VAETransformer",
    "__version__",
    "conditions",
    "distributions",
    "likelihoods",
    "load",
    "networks",
    "objectives",
    "posteriors",
    "priors",
    "register",
    "schedules",
]
