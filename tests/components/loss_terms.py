"""Helpers of the tests of objectives: random loss terms, and the values of an objective as NumPy arrays."""

import numpy as np
from keras import ops

from helpers import tensor, to_numpy
from keras_vae.components.objectives import ELBOTerms, Latents, Objective
from keras_vae.core.typing import Array


def make_terms(rng: np.random.Generator, images: int = 6, draws: int = 1, groups: int = 3) -> ELBOTerms:
    log_likelihood, log_prior, log_posterior = (rng.normal(-5, 2, (images, draws)) for _ in range(3))
    kl_per_group = rng.gamma(1.0, 1.0, (images, groups))
    return ELBOTerms(*map(tensor, (log_likelihood, log_prior, log_posterior, kl_per_group, np.zeros(images))))


def values(objective: Objective, terms: ELBOTerms, latents: Latents | None = None, step: int = 0) -> Array:
    """Return the loss of each image, (N,)."""
    return to_numpy(objective(terms, latents, ops.convert_to_tensor(step, "int32"))).astype("float64")


def distortion_and_kl(terms: ELBOTerms) -> tuple[Array, Array]:
    """Return the distortion (N,) and the KL per group (N, G)."""
    return -to_numpy(terms.log_likelihood).mean(-1), to_numpy(terms.kl_per_group)
