from . import distributions, networks
from ._version import __version__
from .components import conditions, image_losses, likelihoods, objectives, posteriors, priors, quantizers, schedules
from .components.objectives import ELBO
from .core.errors import InputError, RunError
from .core.registry import Component, ComponentLayer, register
from .data.dataset import Dataset
from .evaluation.comparison import compare
from .evaluation.diagnostics import diagnose
from .evaluation.evaluate import EvaluationConfig, evaluate
from .integrations import trackers
from .integrations.sklearn import AnomalyDetector, VAETransformer
from .models.base import BaseVAE
from .models.hierarchical import HierarchicalVAE
from .models.vae import VAE
from .models.vq import VQVAE
from .report import plots
from .report.plots import plot
from .report.report import write_report
from .runs.experiment import Experiment
from .runs.loading import load
from .runs.run import Run
from .training.prior_fitting import fit_prior
from .training.trainer import resume, train

__all__ = [
    "ELBO",
    "VAE",
    "VQVAE",
    "AnomalyDetector",
    "BaseVAE",
    "Component",
    "ComponentLayer",
    "Dataset",
    "EvaluationConfig",
    "Experiment",
    "HierarchicalVAE",
    "InputError",
    "Run",
    "RunError",
    "VAETransformer",
    "__version__",
    "compare",
    "conditions",
    "diagnose",
    "distributions",
    "evaluate",
    "fit_prior",
    "image_losses",
    "likelihoods",
    "load",
    "networks",
    "objectives",
    "plot",
    "plots",
    "posteriors",
    "priors",
    "quantizers",
    "register",
    "resume",
    "schedules",
    "trackers",
    "train",
    "write_report",
]
