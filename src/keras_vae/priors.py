"""Priors p(z): where latent codes are expected to lie, and are drawn from."""

import abc
from dataclasses import dataclass
from typing import ClassVar

import keras
from keras import ops

from keras_vae.distributions import Normal
from keras_vae.parts import Part, part
from keras_vae.types import Tensor


class Prior(Part, abc.ABC):
    """What a prior can do."""

    kind: ClassVar[str] = "prior"

    @abc.abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return log p(z) in nats, (…), of codes (…, D)."""

    @abc.abstractmethod
    def kl(self, posterior: Normal, z: Tensor) -> Tensor:
        """Return KL(q(z|x) ‖ p(z)) in nats, (…).

        Args:
            posterior: q(z|x) over (…, D).
            z: A draw from it, (…, D), for the priors to which no closed form leads.
        """

    @abc.abstractmethod
    def sample(self, count: int, latent_dim: int, seed: int | keras.random.SeedGenerator) -> Tensor:
        """Return `count` draws, (count, latent_dim)."""


@part("standard-normal")
@dataclass(frozen=True)
class StandardNormal(Prior):
    """The standard normal N(0, I) of Kingma and Welling (arXiv 1312.6114).

    Example:
        >>> StandardNormal().sample(16, latent_dim=2, seed=0).shape
        TensorShape([16, 2])
    """

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log N(z; 0, I) in nats, (…), of codes (…, D)."""
        return self._normal(z).log_prob(z)

    def kl(self, posterior: Normal, z: Tensor) -> Tensor:
        r"""Return \(\tfrac12 \sum_d (\mu_d^2 + \sigma_d^2 - 1 - \log\sigma_d^2)\) in nats, (…)."""
        return posterior.kl(self._normal(posterior.mean))

    def sample(self, count: int, latent_dim: int, seed: int | keras.random.SeedGenerator) -> Tensor:
        """Return `count` draws, (count, latent_dim)."""
        return keras.random.normal((count, latent_dim), dtype="float32", seed=seed)

    def _normal(self, like: Tensor) -> Normal:
        return Normal(ops.zeros_like(like), ops.zeros_like(like))
