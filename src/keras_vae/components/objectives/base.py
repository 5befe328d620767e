"""Loss terms of a batch, and the base class of the objectives that combine them."""

import abc
import math
from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from keras import ops

from keras_vae.components.posteriors import Posterior
from keras_vae.core.errors import InputError
from keras_vae.core.registry import Component
from keras_vae.core.typing import Tensor
from keras_vae.distributions.latent import ReparameterizedDistribution, SampleWithLogProb


class ELBOTerms(NamedTuple):
    """Loss terms of a batch, in nats per image: summed over each image, not yet averaged over images.

    Args:
        log_likelihood: log p(x|z) of K samples of z per image, (N, K).
        log_prior: log p(z), (N, K).
        log_posterior: log q(z|x), (N, K).
        kl_per_group: KL(q(z|x) ‖ p(z)) per group, (N, G), in closed form if known. Groups are latent dimensions or
            groups of a hierarchy; G = 1 if the divergence is not a sum over them.
        penalty: Additional loss of the model, (N,). It is not part of the bound.
    """

    log_likelihood: Tensor
    log_prior: Tensor
    log_posterior: Tensor
    kl_per_group: Tensor
    penalty: Tensor

    @property
    def reconstruction_loss(self) -> Tensor:
        """Distortion −log p(x|z), averaged over the samples, (N,)."""
        return -ops.mean(self.log_likelihood, axis=-1)

    @property
    def kl_loss(self) -> Tensor:
        """Rate KL(q(z|x) ‖ p(z)), (N,)."""
        return ops.sum(self.kl_per_group, axis=-1)

    @property
    def negative_elbo(self) -> Tensor:
        """Distortion + rate, (N,), by which models are compared: in expectation over z, a bound on −log p(x)."""
        return self.reconstruction_loss + self.kl_loss

    @property
    def log_weight(self) -> Tensor:
        """Log importance weights log p(x|z) + log p(z) − log q(z|x), (N, K). The weights average to p(x)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


class Latents(NamedTuple):
    """Codes of a batch, for objectives that compare images with one another.

    Args:
        z: One sample per image, (N, D).
        z_mean: Means of q(z|x), (N, D).
        z_log_var: Logarithms of the variances of q(z|x), (N, D).
        prior_samples: Samples from the prior, (N, D), for objectives with `requires_prior_samples`; else None.
    """

    z: Tensor
    z_mean: Tensor
    z_log_var: Tensor
    prior_samples: Tensor = None


class Objective(Component, abc.ABC):
    """Base class of objectives: functions of loss terms that return the loss to minimize.

    `num_samples`, `trains_prior`, `gradient_estimator` and `check_posterior` have defaults that a subclass may replace.
    """

    kind: ClassVar[str] = "objective"
    requires_prior_samples: ClassVar[bool] = False
    """Whether the objective uses `Latents.prior_samples`."""
    requires_batch: ClassVar[bool] = False
    """Whether the objective compares the codes of a batch, which must hold at least two images."""

    @property
    def num_samples(self) -> int:
        """Number of samples of z per image."""
        return 1

    @property
    def trains_prior(self) -> bool:
        """Whether the loss has a gradient in the weights of the prior."""
        return True

    @abc.abstractmethod
    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return the loss in nats per image, (N,).

        Args:
            terms: Loss terms of the batch.
            latents: Codes of the batch.
            step: Training step, counted from 0.
        """

    def gradient_estimator(
        self,
        posterior: ReparameterizedDistribution,
        draw: SampleWithLogProb,
        log_weight: Callable[[SampleWithLogProb], Tensor],
    ) -> SampleWithLogProb:
        """Return the same samples with the gradients of the objective's estimator. By default, return `draw`.

        Args:
            posterior: q(z|x), of batch shape (N, 1, D).
            draw: Samples from q(z|x), (N, K, D).
            log_weight: Function that returns the log importance weights (N, K) of samples.
        """
        return draw

    def check_posterior(self, posterior: Posterior) -> None:
        """Reject posteriors for which the objective has no formula. By default, accept all.

        Raises:
            InputError: The objective and the posterior are incompatible.
        """


def check_weights(objective: Any, *names: str) -> None:
    """Reject weights of an objective that are not finite numbers ≥ 0.

    Args:
        objective: The objective.
        *names: Names of its weights. A weight may be None.

    Raises:
        InputError: A weight is negative or not finite.
    """
    for name in names:
        value = getattr(objective, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} = {value}: not a valid weight; pass a finite number ≥ 0")
