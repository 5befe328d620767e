"""Objectives: the terms of one image in, the loss that is minimized out. Each class is one family of papers."""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

from keras import ops

from keras_vae.components.posteriors import Deterministic, DiagonalNormal, Posterior
from keras_vae.components.schedules import Constant, Schedule
from keras_vae.core.errors import InputError
from keras_vae.core.math import scale_gradient
from keras_vae.core.registry import Component, register
from keras_vae.core.typing import Tensor
from keras_vae.distributions import latent
from keras_vae.distributions.latent import SampleWithLogProb, stop_gradient


class ELBOTerms(NamedTuple):
    """What every objective is made of, in nats per image: summed over the image, not yet averaged over images.

    Args:
        log_likelihood: log p(x|z) of each of K draws of z, (N, K).
        log_prior: log p(z), (N, K).
        log_posterior: log q(z|x), (N, K).
        kl_per_group: KL(q(z|x) ‖ p(z)) by group, (N, G): by latent dimension or by level of a hierarchy, where the
            divergence is a sum over those; in closed form, where there is one.
        penalty: What the model adds to any objective, (N,); no part of the bound.
    """

    log_likelihood: Tensor
    log_prior: Tensor
    log_posterior: Tensor
    kl_per_group: Tensor
    penalty: Tensor

    @property
    def reconstruction_loss(self) -> Tensor:
        """The distortion −log p(x|z), the mean over the draws, (N,)."""
        return -ops.mean(self.log_likelihood, axis=-1)

    @property
    def kl_loss(self) -> Tensor:
        """The rate KL(q(z|x) ‖ p(z)), (N,)."""
        return ops.sum(self.kl_per_group, axis=-1)

    @property
    def negative_elbo(self) -> Tensor:
        """Distortion + rate, the bound on −log p(x) by which models are compared, (N,)."""
        return self.reconstruction_loss + self.kl_loss

    @property
    def log_weight(self) -> Tensor:
        """The importance weights log p(x|z) + log p(z) − log q(z|x), (N, K): their mean estimates p(x)."""
        return self.log_likelihood + self.log_prior - self.log_posterior


class Latents(NamedTuple):
    """The codes of a batch, for the objectives that compare them with one another.

    Args:
        z: One draw an image, (N, D).
        z_mean: Means of q(z|x), (N, D).
        z_log_var: Logarithms of its variances, (N, D).
        prior: As many draws from the prior, (N, D), for objectives with `needs_prior_draws`; else None.
    """

    z: Tensor
    z_mean: Tensor
    z_log_var: Tensor
    prior: Tensor = None


class Objective(Component, abc.ABC):
    """What an objective can do."""

    kind: ClassVar[str] = "objective"
    needs_prior_draws: ClassVar[bool] = False
    """Whether `Latents.prior` is looked at."""
    requires_batch: ClassVar[bool] = False
    """Whether a batch must hold two images and their codes, for one to be compared with the other."""

    @property
    def num_samples(self) -> int:
        """How many draws of z an image takes."""
        return 1

    @property
    def trains_prior(self) -> bool:
        """Whether the loss depends on the weights that a prior may have."""
        return True

    @abc.abstractmethod
    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return what is minimized, in nats per image, (N,), at a step counted from 0."""

    def gradient_estimator(
        self, posterior: Any, draw: SampleWithLogProb, log_weight: Callable[[SampleWithLogProb], Tensor]
    ) -> SampleWithLogProb:
        """Return equal draws through which gradients flow as the objective wants them to: here, as they are.

        Args:
            posterior: q(z|x), of batch shape (N, 1, D).
            draw: Draws from it, (N, K, D).
            log_weight: Returns the log-weights (N, K) of draws.
        """
        return draw

    def check_posterior(self, posterior: Posterior) -> None:
        """Refuse a posterior that the objective has no formula for; here, none.

        Raises:
            InputError: The two do not go together.
        """


@register("elbo")
@dataclass(frozen=True)
class ELBO(Objective):
    r"""The negative evidence lower bound, \(-\log p(x|z) + \beta \, KL(q(z|x) \| p(z))\).

    β = 1 is the bound itself (Kingma and Welling, arXiv 1312.6114); other weights are the β-VAE's (Higgins et al.,
    ICLR 2017). A KL averaged over D latent dimensions, as many tutorials have it, is β = 1/D.

    Args:
        beta: The weight β ≥ 0 of the rate. It never depends on the size of the image.
        schedule: A factor of β at each step, or of the capacity where there is one.
        free_bits: λ ≥ 0, nats that each group of the rate may cost for free, on the mean over the batch:
            \(\sum_g \max(\lambda, \overline{KL_g})\) (Kingma et al., arXiv 1606.04934).
        capacity: C ≥ 0, nats; if given, the rate is held there: \(\beta \, |\overline{KL} - C|\) (Burgess et al.,
            arXiv 1804.03599).

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
        """Refuse weights that no bound has."""
        _check_weights(self, "beta", "free_bits", "capacity")
        if self.free_bits and self.capacity is not None:
            raise InputError(f"free_bits = {self.free_bits}, capacity = {self.capacity}: give one of the two")

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
    r"""The importance-weighted bound, \(-\log \tfrac1K \sum_k p(x|z_k) p(z_k) / q(z_k|x)\), and its kin.

    Burda et al. (arXiv 1509.00519). With `groups` M > 1 it is the mean of M such bounds, the MIWAE, and with
    `elbo_weight` w the mixture of w·ELBO and (1 − w)·IWAE, the CIWAE (Rainforth et al., arXiv 1802.04537).

    Args:
        samples: K ≥ 1, draws of z a bound.
        groups: M ≥ 1; an image takes K·M draws.
        elbo_weight: w in [0, 1].
        gradient: `"plain"`; `"stl"`, which leaves out the score of q (sticking the landing; Roeder et al., arXiv
            1703.09194); or `"dreg"`, doubly reparameterized (Tucker et al., arXiv 1810.04152), which is unbiased, and
            costs one more pass through the decoder.

    Raises:
        InputError: A value is out of its range.
    """

    samples: int = 5
    groups: int = 1
    elbo_weight: float = 0.0
    gradient: Literal["plain", "stl", "dreg"] = "plain"

    def __post_init__(self) -> None:
        """Refuse numbers that no bound has."""
        if min(self.samples, self.groups) < 1:
            raise InputError(f"iwae: samples = {self.samples}, groups = {self.groups}: each must be ≥ 1")
        if not 0 <= self.elbo_weight <= 1:
            raise InputError(f"iwae: elbo_weight = {self.elbo_weight}: must lie in [0, 1]")
        if self.gradient not in ("plain", "stl", "dreg"):
            raise InputError(f"iwae: gradient = {self.gradient!r}: plain, stl or dreg")

    @property
    def num_samples(self) -> int:
        """K·M."""
        return self.samples * self.groups

    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return minus the bound in nats per image, (N,)."""
        grouped = self._grouped(terms.log_weight)
        bound = ops.mean(ops.logsumexp(grouped, axis=-1) - math.log(self.samples), axis=-1)
        bound = (1.0 - self.elbo_weight) * bound + self.elbo_weight * ops.mean(terms.log_weight, axis=-1)
        if self.gradient == "dreg":
            # The bound's own value, with the gradient of the weighted sum that the estimator prepared.
            weighted = ops.sum(ops.stop_gradient(self._weights(terms.log_weight)) * terms.log_weight, axis=-1)
            bound = ops.stop_gradient(bound - weighted) + weighted
        return -bound

    def gradient_estimator(
        self, posterior: Any, draw: SampleWithLogProb, log_weight: Callable[[SampleWithLogProb], Tensor]
    ) -> SampleWithLogProb:
        """Return equal draws whose density is constant in q's parameters but through z, and for DReG z scaled.

        Along z, DReG weighs a draw by the square of its normalized weight, where the decoder weighs it once.
        """
        if self.gradient == "plain":
            return draw
        z = draw.z
        if self.gradient == "dreg":
            log_weights = ops.stop_gradient(log_weight(draw))
            z = scale_gradient(z, (self._weights(log_weights, power=2) / self._weights(log_weights))[..., None])
        return SampleWithLogProb(z, stop_gradient(posterior).log_prob(z))

    def check_posterior(self, posterior: Posterior) -> None:
        """Refuse a posterior without a density to weigh draws by.

        Raises:
            InputError: The posterior is deterministic.
        """
        if isinstance(posterior, Deterministic):
            raise InputError(
                "objective = iwae, posterior = deterministic: draws without noise have no weights; take posterior = "
                "'normal', or objective = 'elbo'"
            )

    def _weights(self, log_weight: Tensor, power: int = 1) -> Tensor:
        # Keras's softmax warns about a single draw.
        normalized = ops.exp(power * ops.log_softmax(self._grouped(log_weight), axis=-1))
        weights = ops.reshape(normalized, ops.shape(log_weight))
        # Draws of no weight at all would be divided by it.
        return (1.0 - self.elbo_weight) * ops.maximum(
            weights, 1e-30
        ) / self.groups + self.elbo_weight / self.num_samples

    def _grouped(self, log_weight: Tensor) -> Tensor:
        return ops.reshape(log_weight, (-1, self.groups, self.samples))


@register("beta-tc")
@dataclass(frozen=True)
class BetaTC(Objective):
    r"""The β-TCVAE: distortion + α·mutual information + β·total correlation + γ·dimension-wise KL.

    Chen et al. (arXiv 1802.04942). The three terms sum to the rate; the densities of the aggregate posterior in them
    are estimated from the batch. The weighted estimate of the total correlation is off by a constant, which depends on
    the numbers of images and dimensions and which no gradient sees.

    Args:
        beta: Weight of the total correlation \(KL(q(z) \| \prod_d q(z_d))\).
        alpha: Weight of the mutual information of image and code.
        gamma: Weight of the divergence of each dimension from its prior.
        sampling: `"weighted"` or `"stratified"`, how a batch stands for all images (the paper's appendix C).
        images: How many images there are to train on; an experiment takes the number from its data.

    Raises:
        InputError: A weight is negative or not finite, or a value is unknown.
    """

    requires_batch: ClassVar[bool] = True

    beta: float = 6.0
    alpha: float = 1.0
    gamma: float = 1.0
    sampling: Literal["weighted", "stratified"] = "weighted"
    images: int | None = None

    def __post_init__(self) -> None:
        """Refuse weights that no divergence has."""
        _check_weights(self, "beta", "alpha", "gamma")
        if self.sampling not in ("weighted", "stratified"):
            raise InputError(f"beta-tc: sampling = {self.sampling!r}: weighted or stratified")
        if self.images is not None and self.images < 2:
            raise InputError(f"beta-tc: images = {self.images}: the number of training images, at least 2")

    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return distortion and weighted terms in nats per image, (N,)."""
        information, correlation, dimensions = self.decompose(terms, latents)
        rate = self.alpha * information + self.beta * correlation + self.gamma * dimensions
        return terms.reconstruction_loss + rate

    def decompose(self, terms: ELBOTerms, latents: Latents) -> tuple[Tensor, Tensor, Tensor]:
        """Return mutual information, total correlation and dimension-wise KL of one draw an image, each (N,)."""
        normal = latent.DiagonalNormal(latents.z_mean[None], latents.z_log_var[None])
        # Entry (i, j, d): the density of draw i under the posterior of image j.
        pairs = normal.log_prob_per_dimension(latents.z[:, None])
        log_weights = self._log_sampling_weights(latents.z)
        log_q = ops.logsumexp(ops.sum(pairs, axis=-1) + log_weights, axis=1)
        log_q_product = ops.sum(ops.logsumexp(pairs + log_weights[..., None], axis=1), axis=-1)
        log_posterior, log_prior = terms.log_posterior[:, 0], terms.log_prior[:, 0]
        return log_posterior - log_q, log_q - log_q_product, log_q_product - log_prior

    def check_posterior(self, posterior: Posterior) -> None:
        """Refuse all but diagonal normals: their densities by dimension are what is estimated.

        Raises:
            InputError: The posterior is another one, or the number of images is not known.
        """
        _require_diagonal("beta-tc", posterior)
        if self.images is None:
            raise InputError("beta-tc: images = None: pass the number of training images, BetaTC(images=…)")

    def _log_sampling_weights(self, z: Tensor) -> Tensor:
        """Return the logarithm of how much of the data the posterior of image j stands for at draw i, (N, N)."""
        batch = ops.cast(ops.shape(z)[0], "float32")
        # Images that are validated may be more than those that are trained on.
        total = ops.maximum(float(self.images or 0), batch)
        same = ops.eye(ops.shape(z)[0], dtype="float32")
        if self.sampling == "weighted":
            return -ops.log(batch * total) * ops.ones_like(same)
        # A draw's own image stands for itself, one other for all those not in the batch, the rest for their share.
        other = ops.roll(same, 1, axis=1)
        others = ops.maximum(batch - 1.0, 1.0)
        share = 1.0 / others
        stratum = (total - batch + 1.0) / (total * others)
        return ops.log(same / total + other * stratum + (1.0 - same - other) * share)


@register("dip-vae")
@dataclass(frozen=True)
class DIPVAE(Objective):
    r"""The ELBO plus \(\lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2\), C a covariance.

    Kumar et al. (arXiv 1711.00848). In variant I, C is the covariance of the posterior means; in variant II it is that
    of the codes, the mean posterior variances added to its diagonal.

    Args:
        variant: `"i"` or `"ii"`.
        off_diagonal: \(\lambda_{od}\).
        diagonal: \(\lambda_d\).

    Raises:
        InputError: A weight is negative or not finite, or the variant is unknown.
    """

    requires_batch: ClassVar[bool] = True

    variant: Literal["i", "ii"] = "ii"
    off_diagonal: float = 10.0
    diagonal: float = 10.0

    def __post_init__(self) -> None:
        """Refuse weights that no penalty has."""
        _check_weights(self, "off_diagonal", "diagonal")
        if self.variant not in ("i", "ii"):
            raise InputError(f"dip-vae: variant = {self.variant!r}: i or ii")

    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return −ELBO and penalty in nats per image, (N,)."""
        centered = latents.z_mean - ops.mean(latents.z_mean, axis=0)
        covariance = ops.matmul(ops.transpose(centered), centered) / ops.cast(ops.shape(centered)[0], "float32")
        variances = ops.diagonal(covariance)
        off_diagonal = ops.sum(ops.square(covariance)) - ops.sum(ops.square(variances))
        if self.variant == "ii":
            variances = variances + ops.mean(ops.exp(latents.z_log_var), axis=0)
        penalty = self.off_diagonal * off_diagonal + self.diagonal * ops.sum(ops.square(variances - 1.0))
        return terms.negative_elbo + penalty

    def check_posterior(self, posterior: Posterior) -> None:
        """Refuse all but diagonal normals, whose covariances are what is penalized.

        Raises:
            InputError: The posterior is another one.
        """
        _require_diagonal("dip-vae", posterior)


@register("info-vae")
@dataclass(frozen=True)
class InfoVAE(Objective):
    r"""Distortion + \((1 - \alpha)\)·rate + \((\alpha + \lambda - 1)\)·MMD of codes and prior.

    Zhao et al. (arXiv 1706.02262). α = 1 leaves no rate and is the WAE-MMD of Tolstikhin et al. (arXiv 1711.01558),
    whose weight is λ. The squared maximum mean discrepancy is estimated without bias, and may be below zero.

    Args:
        alpha: α ≤ 1.
        weight: λ ≥ 1 − α.
        kernel: `"imq"`, inverse multiquadrics \(C / (C + d^2)\), or `"rbf"`, \(e^{-d^2 / C}\); each the mean over seven
            widths C around the mean squared distance of two draws from the standard normal.

    Raises:
        InputError: A value is out of its range.
    """

    needs_prior_draws: ClassVar[bool] = True
    requires_batch: ClassVar[bool] = True

    alpha: float = 0.0
    weight: float = 100.0
    kernel: Literal["imq", "rbf"] = "imq"

    def __post_init__(self) -> None:
        """Refuse weights that no divergence has."""
        if not (math.isfinite(self.alpha) and self.alpha <= 1):
            raise InputError(f"info-vae: alpha = {self.alpha}: must be ≤ 1")
        if not (math.isfinite(self.weight) and self.weight >= 1 - self.alpha):
            raise InputError(f"info-vae: weight = {self.weight}: must be ≥ 1 − alpha = {1 - self.alpha:g}")
        if self.kernel not in ("imq", "rbf"):
            raise InputError(f"info-vae: kernel = {self.kernel!r}: imq or rbf")

    @property
    def trains_prior(self) -> bool:
        """Whether the rate is in the loss: the discrepancy takes the prior as it is."""
        return self.alpha < 1

    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return distortion, rate and discrepancy, (N,)."""
        discrepancy = self.discrepancy(latents.z, ops.stop_gradient(latents.prior))
        loss = terms.reconstruction_loss + (self.alpha + self.weight - 1.0) * discrepancy
        return loss + (1.0 - self.alpha) * terms.kl_loss if self.trains_prior else loss

    def discrepancy(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the squared maximum mean discrepancy of two samples, (N, D) each: a scalar."""
        count = ops.cast(ops.shape(one)[0], "float32")
        # A single image, the last of its epoch, has no pairs.
        pairs = count * ops.maximum(count - 1.0, 1.0)
        within = sum((ops.sum(self._kernel(z, z)) - count) / pairs for z in (one, other))
        return within - 2.0 * ops.mean(self._kernel(one, other))

    def _kernel(self, one: Tensor, other: Tensor) -> Tensor:
        distance = ops.sum(ops.square(one[:, None] - other[None]), axis=-1)[..., None]
        widths = 2.0 * one.shape[-1] * ops.convert_to_tensor([0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0], "float32")
        values = widths / (widths + distance) if self.kernel == "imq" else ops.exp(-distance / widths)
        return ops.mean(values, axis=-1)


def _check_weights(objective: Objective, *names: str) -> None:
    for name in names:
        value = getattr(objective, name)
        if value is not None and not (math.isfinite(value) and value >= 0):
            raise InputError(f"{name} = {value}: must be a finite number ≥ 0")


def _require_diagonal(objective: str, posterior: Posterior) -> None:
    if not isinstance(posterior, DiagonalNormal):
        raise InputError(
            f"objective = {objective}: it has a formula for the diagonal normal posterior only; set posterior = "
            "'normal', or take objective = 'elbo'"
        )
