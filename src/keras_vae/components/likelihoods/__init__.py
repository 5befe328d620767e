"""Likelihoods p(x|z): from the outputs of the decoder to a distribution over images."""

# Importing the package registers all likelihoods.
from keras_vae.components.likelihoods.base import Likelihood
from keras_vae.components.likelihoods.bernoulli import Bernoulli, ContinuousBernoulli
from keras_vae.components.likelihoods.levels import LEVEL_LOG_SCALE_RANGE, Categorical, DiscretizedLogistic
from keras_vae.components.likelihoods.location_scale import SCALE_RANGE, Laplace, Normal, bounded_log_scale

__all__ = [
    "LEVEL_LOG_SCALE_RANGE",
    "SCALE_RANGE",
    "Bernoulli",
    "Categorical",
    "ContinuousBernoulli",
    "DiscretizedLogistic",
    "Laplace",
    "Likelihood",
    "Normal",
    "bounded_log_scale",
]
