"""Bounds on the log-likelihood: the ELBO and the importance-weighted bounds."""

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from keras import ops

from keras_vae.components.objectives.base import ELBOTerms, Latents, Objective, check_weights
from keras_vae.components.posteriors import Deterministic, Posterior
from keras_vae.components.schedules import Constant, Schedule
from keras_vae.core.errors import InputError, unknown
from keras_vae.core.math import scale_gradient
from keras_vae.core.registry import register
from keras_vae.core.typing import Tensor
from keras_vae.distributions.latent import ReparameterizedDistribution, SampleWithLogProb, stop_gradient


@register("elbo")
@dataclass(frozen=True)
class ELBO(Objective):
    r"""The negative evidence lower bound, \(-\log p(x|z) + \beta \, \mathrm{KL}(q(z|x) \| p(z))\).

    β = 1 is the bound itself (Kingma and Welling, arXiv 1312.6114); other weights give the β-VAE (Higgins et al.,
    ICLR 2017). Averaging the KL over D latent dimensions, as in many tutorials, is β = 1/D.

    Args:
        beta: Weight β ≥ 0 of the rate. It does not depend on the image size.
        schedule: Factor of β at each step; if `capacity` is set, factor of the capacity instead.
        free_bits: Nats λ ≥ 0 per group below which the rate, averaged over the batch, is not reduced further:
            \(\sum_g \max(\lambda, \overline{\mathrm{KL}_g})\) (Kingma et al., arXiv 1606.04934).
        capacity: Target C ≥ 0 of the rate in nats, or None. With a target, the loss is distortion plus
            \(\beta \, |\overline{\mathrm{KL}} - C|\) (Burgess et al., arXiv 1804.03599). Like the maximum of
            `free_bits`, it is biased upward in small batches.

    Raises:
        InputError: A value is negative or not finite, or both `free_bits` and `capacity` are given.

    Example:
        >>> nats = lambda *values: ops.convert_to_tensor([values], "float32")
        >>> terms = ELBOTerms(nats(-100.0), nats(-8.0), nats(-3.0), kl_per_group=nats(2.0, 3.0), penalty=0.0)
        >>> float(ELBO(beta=4.0)(terms, latents=None, step=0)[0])
        120.0
    """

    beta: float = 1.0
    schedule: Schedule = field(default_factory=Constant)
    free_bits: float = 0.0
    capacity: float | None = None

    def __post_init__(self) -> None:
        """Check the weights."""
        check_weights(self, "beta", "free_bits", "capacity")
        if self.free_bits and self.capacity is not None:
            raise InputError(
                f"free_bits = {self.free_bits}, capacity = {self.capacity}: they exclude each other; set one of the two"
            )

    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return distortion + β·rate in nats per image, (N,)."""
        weight, rate = self.beta * self.schedule(step), terms.kl_loss
        if self.capacity is not None:
            target = self.capacity * self.schedule(step)
            weight, rate = self.beta, ops.abs(ops.mean(rate) - target)
        elif self.free_bits:
            rate = ops.sum(ops.maximum(ops.mean(terms.kl_per_group, axis=0), self.free_bits))
        return terms.reconstruction_loss + weight * rate


@register("iwae")
@dataclass(frozen=True)
class IWAE(Objective):
    r"""The importance-weighted bound, \(-\log \tfrac1K \sum_k p(x|z_k) p(z_k) / q(z_k|x)\), and its relatives.

    Burda et al. (arXiv 1509.00519). It is a bound on −log p(x) in expectation over the samples. With `groups` M > 1, it
    is the mean of M such bounds, the MIWAE. With `elbo_weight` w, it is w·ELBO + (1 − w)·IWAE, the CIWAE (Rainforth et
    al., arXiv 1802.04537).

    Args:
        samples: Number of samples of z per bound, K ≥ 1.
        groups: Number of bounds per image, M ≥ 1. Each image needs K·M samples.
        elbo_weight: Weight w of the ELBO, in [0, 1].
        gradient: Gradient estimator: `"plain"`; `"stl"`, sticking the landing, without the score of q (Roeder et al.,
            arXiv 1703.09194), which is biased for K > 1 (near the exact posterior, K times the true gradient of the
            encoder) and then causes a warning; or `"dreg"`, doubly reparameterized, which is unbiased but takes a
            second pass through the decoder (Tucker et al., arXiv 1810.04152).

    Raises:
        InputError: A value is out of its range.
    """

    samples: int = 5
    groups: int = 1
    elbo_weight: float = 0.0
    gradient: Literal["plain", "stl", "dreg"] = "plain"

    def __post_init__(self) -> None:
        """Check the values."""
        if min(self.samples, self.groups) < 1:
            raise InputError(f"samples = {self.samples}, groups = {self.groups}: not both positive; pass integers ≥ 1")
        if not 0 <= self.elbo_weight <= 1:
            raise InputError(f"elbo_weight = {self.elbo_weight}: out of range; pass a number in [0, 1]")
        if self.gradient not in (accepted := ("plain", "stl", "dreg")):
            raise unknown("gradient", self.gradient, accepted)
        if self.gradient == "stl" and self.samples > 1 and self.elbo_weight < 1:
            # For K > 1, the score of q does not vanish in expectation.
            warnings.warn(
                f"gradient = 'stl', samples = {self.samples}: the gradient of the encoder is biased for more than one "
                "sample; use gradient = 'dreg'",
                stacklevel=3,
            )

    @property
    def num_samples(self) -> int:
        """Number of samples of z per image, K·M."""
        return self.samples * self.groups

    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return the negative bound in nats per image, (N,)."""
        grouped = self._grouped(terms.log_weight)
        bound = ops.mean(ops.logsumexp(grouped, axis=-1) - math.log(self.samples), axis=-1)
        bound = (1.0 - self.elbo_weight) * bound + self.elbo_weight * ops.mean(terms.log_weight, axis=-1)
        if self.gradient == "dreg":
            # The value is the bound. The gradient is that of a weighted sum, as `gradient_estimator` assumes.
            weighted = ops.sum(ops.stop_gradient(self._weights(terms.log_weight)) * terms.log_weight, axis=-1)
            bound = ops.stop_gradient(bound - weighted) + weighted
        return -bound

    def gradient_estimator(
        self,
        posterior: ReparameterizedDistribution,
        draw: SampleWithLogProb,
        log_weight: Callable[[SampleWithLogProb], Tensor],
    ) -> SampleWithLogProb:
        """Return the same samples, with a density that depends on the parameters of q only through z.

        DReG also rescales the gradient of z, so that each sample has the square of its normalized weight.
        """
        if self.gradient == "plain":
            return draw
        z = draw.z
        if self.gradient == "dreg":
            log_weights = ops.stop_gradient(log_weight(draw))
            z = scale_gradient(z, (self._weights(log_weights, power=2) / self._weights(log_weights))[..., None])
        return SampleWithLogProb(z, stop_gradient(posterior).log_prob(z))

    def check_posterior(self, posterior: Posterior) -> None:
        """Reject a posterior without a density.

        Raises:
            InputError: The posterior is deterministic.
        """
        if isinstance(posterior, Deterministic):
            raise InputError(
                "objective = iwae, posterior = deterministic: a point mass has no importance weights; set posterior = "
                "'normal', or objective = 'elbo'"
            )

    def _weights(self, log_weight: Tensor, power: int = 1) -> Tensor:
        """Return normalized importance weights to a power, mixed with those of the ELBO, (N, K·M)."""
        # `exp(log_softmax)`, because Keras's `softmax` warns about a single sample.
        normalized = ops.exp(power * ops.log_softmax(self._grouped(log_weight), axis=-1))
        weights = ops.reshape(normalized, ops.shape(log_weight))
        # `gradient_estimator` divides by the weights, which may underflow to 0.
        weights = ops.maximum(weights, 1e-30)
        return (1.0 - self.elbo_weight) * weights / self.groups + self.elbo_weight / self.num_samples

    def _grouped(self, log_weight: Tensor) -> Tensor:
        return ops.reshape(log_weight, (-1, self.groups, self.samples))
