"""Objectives for disentangled codes: β-TCVAE, DIP-VAE and InfoVAE."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal

from keras import ops

from keras_vae.components import posteriors
from keras_vae.components.objectives.base import ELBOTerms, Latents, Objective, check_weights
from keras_vae.components.posteriors import Posterior
from keras_vae.core.errors import InputError, unknown
from keras_vae.core.registry import register
from keras_vae.core.typing import Tensor
from keras_vae.distributions.latent import DiagonalNormal


@register("beta-tc")
@dataclass(frozen=True)
class BetaTC(Objective):
    r"""The β-TCVAE: distortion + α·mutual information + β·total correlation + γ·dimension-wise KL.

    Chen et al. (arXiv 1802.04942). The mutual information, the total correlation and the dimension-wise KL sum to the
    rate. The densities of the aggregate posterior are estimated from the batch; the smaller the batch, the larger the
    bias of their logarithms.

    The loss is in nats for either estimator. The weights of the weighted estimator, 1/NM for a batch of M from N
    images, do not sum to 1, which would add about \((\alpha + \beta (D - 1) - \gamma D) \log NM\). They determine only
    the gradient; the value uses 1/N for the image itself, and equal weights for the others.

    Args:
        beta: Weight of the total correlation \(KL(q(z) \| \prod_d q(z_d))\).
        alpha: Weight of the mutual information between image and code.
        gamma: Weight of the KL divergence of each dimension from its prior.
        sampling: Estimator of densities from a batch: `"weighted"` or `"stratified"` (appendix C of the paper).
        images: Number of training images. An experiment sets it from its data.

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
        """Check the weights and the other values."""
        check_weights(self, "beta", "alpha", "gamma")
        if self.sampling not in (accepted := ("weighted", "stratified")):
            raise unknown("sampling", self.sampling, accepted)
        if self.images is not None and self.images < 2:
            raise InputError(f"images = {self.images}: too few training images; pass an integer ≥ 2")

    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return distortion + weighted terms in nats per image, (N,)."""
        information, correlation, dimensions = self.decompose(terms, latents)
        rate = self.alpha * information + self.beta * correlation + self.gamma * dimensions
        return terms.reconstruction_loss + rate

    def decompose(self, terms: ELBOTerms, latents: Latents) -> tuple[Tensor, Tensor, Tensor]:
        """Return mutual information, total correlation and dimension-wise KL of one sample per image, each (N,)."""
        normal = DiagonalNormal(latents.z_mean[None], latents.z_log_var[None])
        # Entry (i, j, d): log-density of dimension d of sample i under the posterior of image j.
        log_q, log_q_product = self._log_densities(normal.log_prob_per_dimension(latents.z[:, None]))
        log_posterior, log_prior = terms.log_posterior[:, 0], terms.log_prior[:, 0]
        return log_posterior - log_q, log_q - log_q_product, log_q_product - log_prior

    def check_posterior(self, posterior: Posterior) -> None:
        """Require a diagonal normal, which has a density per dimension, and the number of training images.

        Raises:
            InputError: The posterior is of another class, or `images` is None.
        """
        _require_diagonal_normal("beta-tc", posterior)
        if self.images is None:
            raise InputError("images = None: the estimator needs the number of training images; pass BetaTC(images=…)")

    def _log_densities(self, pairs: Tensor) -> tuple[Tensor, Tensor]:
        """Return the log-densities of the aggregate posterior and of the product of its marginals, each (N,).

        Args:
            pairs: Log-densities of sample i under the posterior of image j in each dimension, (N, N, D).
        """
        batch = ops.cast(ops.shape(pairs)[0], "float32")
        # A validation batch can be larger than the training set.
        total = ops.maximum(float(self.images or 0), batch)
        others = ops.maximum(batch - 1.0, 1.0)
        same = ops.eye(ops.shape(pairs)[0], dtype="float32")
        if self.sampling == "stratified":
            # The sample's own image represents itself. One other image represents all images outside of the batch. The
            # rest have equal shares.
            other = ops.roll(same, 1, axis=1)
            share = 1.0 / others
            stratum = (total - batch + 1.0) / (total * others)
            return _log_mixtures(pairs, ops.log(same / total + other * stratum + (1.0 - same - other) * share))
        estimates = _log_mixtures(pairs, -ops.log(batch * total) * ops.ones_like(same))
        share = (total - 1.0) / (total * others)
        values = _log_mixtures(pairs, ops.log(same / total + (1.0 - same) * share))
        log_q, log_q_product = (
            estimate + ops.stop_gradient(value - estimate) for value, estimate in zip(values, estimates, strict=True)
        )
        return log_q, log_q_product


def _log_mixtures(pairs: Tensor, log_weights: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-densities of a mixture, and of the product of its marginals, at each sample, (N,).

    Args:
        pairs: Log-densities of sample i under component j in each dimension, (N, N, D).
        log_weights: Logarithms of the weights of component j for sample i, (N, N).
    """
    log_q = ops.logsumexp(ops.sum(pairs, axis=-1) + log_weights, axis=1)
    return log_q, ops.sum(ops.logsumexp(pairs + log_weights[..., None], axis=1), axis=-1)


@register("dip-vae")
@dataclass(frozen=True)
class DIPVAE(Objective):
    r"""The ELBO plus \(\lambda_{od} \sum_{i \ne j} C_{ij}^2 + \lambda_d \sum_i (C_{ii} - 1)^2\), C a covariance.

    Kumar et al. (arXiv 1711.00848). In variant I, C is the covariance of the posterior means. In variant II, it is the
    covariance of the codes: the mean posterior variances are added to its diagonal. C is estimated from the batch, and
    its squared errors add to the loss: for D uncorrelated means of variance v in a batch of M, about
    \(\lambda_{od} D (D - 1) v^2 / M\) nats. Compare losses at equal batch sizes.

    Args:
        variant: `"i"` or `"ii"`.
        off_diagonal: Weight \(\lambda_{od}\).
        diagonal: Weight \(\lambda_d\).

    Raises:
        InputError: A weight is negative or not finite, or the variant is unknown.
    """

    requires_batch: ClassVar[bool] = True

    variant: Literal["i", "ii"] = "ii"
    off_diagonal: float = 10.0
    diagonal: float = 10.0

    def __post_init__(self) -> None:
        """Check the weights and the variant."""
        check_weights(self, "off_diagonal", "diagonal")
        if self.variant not in (accepted := ("i", "ii")):
            raise unknown("variant", self.variant, accepted)

    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return −ELBO + penalty in nats per image, (N,)."""
        centered = latents.z_mean - ops.mean(latents.z_mean, axis=0)
        covariance = ops.matmul(ops.transpose(centered), centered) / ops.cast(ops.shape(centered)[0], "float32")
        variances = ops.diagonal(covariance)
        off_diagonal = ops.sum(ops.square(covariance)) - ops.sum(ops.square(variances))
        if self.variant == "ii":
            variances = variances + ops.mean(ops.exp(latents.z_log_var), axis=0)
        penalty = self.off_diagonal * off_diagonal + self.diagonal * ops.sum(ops.square(variances - 1.0))
        return terms.negative_elbo + penalty

    def check_posterior(self, posterior: Posterior) -> None:
        """Require a diagonal normal, whose covariance has a closed form.

        Raises:
            InputError: The posterior is of another class.
        """
        _require_diagonal_normal("dip-vae", posterior)


@register("info-vae")
@dataclass(frozen=True)
class InfoVAE(Objective):
    r"""Distortion + \((1 - \alpha)\)·rate + \((\alpha + \lambda - 1)\)·MMD between codes and prior.

    Zhao et al. (arXiv 1706.02262). With α = 1, the rate vanishes and the objective is the WAE-MMD of Tolstikhin et al.
    (arXiv 1711.01558) with weight λ. The estimate of the squared maximum mean discrepancy (MMD) is unbiased at every
    batch size and can be negative.

    Args:
        alpha: Weight α ≤ 1.
        weight: Weight λ ≥ 1 − α.
        kernel: `"imq"`, inverse multiquadrics \(C / (C + d^2)\), or `"rbf"`, \(e^{-d^2 / C}\). Either is averaged over
            seven widths C around the mean squared distance between two samples from the standard normal.

    Raises:
        InputError: A value is out of its range.
    """

    requires_prior_samples: ClassVar[bool] = True
    requires_batch: ClassVar[bool] = True

    alpha: float = 0.0
    weight: float = 100.0
    kernel: Literal["imq", "rbf"] = "imq"

    def __post_init__(self) -> None:
        """Check the weights and the other values."""
        if not (math.isfinite(self.alpha) and self.alpha <= 1):
            raise InputError(f"alpha = {self.alpha}: out of range; pass a finite number ≤ 1")
        if not (math.isfinite(self.weight) and self.weight >= 1 - self.alpha):
            raise InputError(
                f"weight = {self.weight}: out of range; pass a finite number ≥ 1 − alpha = {1 - self.alpha:g}"
            )
        if self.kernel not in (accepted := ("imq", "rbf")):
            raise unknown("kernel", self.kernel, accepted)

    @property
    def trains_prior(self) -> bool:
        """Whether the loss contains the rate; the discrepancy has no gradient in the prior."""
        return self.alpha < 1

    def __call__(self, terms: ELBOTerms, latents: Latents, step: Tensor) -> Tensor:
        """Return the sum of distortion, weighted rate and weighted discrepancy in nats per image, (N,)."""
        discrepancy = self.discrepancy(latents.z, ops.stop_gradient(latents.prior_samples))
        loss = terms.reconstruction_loss + (self.alpha + self.weight - 1.0) * discrepancy
        return loss + (1.0 - self.alpha) * terms.kl_loss if self.trains_prior else loss

    def discrepancy(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the squared maximum mean discrepancy between two sets of samples, (N, D) each, as a scalar."""
        count = ops.cast(ops.shape(one)[0], "float32")
        # A single image, as in the last batch of an epoch, has no pairs.
        pairs = count * ops.maximum(count - 1.0, 1.0)
        within = sum((ops.sum(self._kernel(z, z)) - count) / pairs for z in (one, other))
        return within - 2.0 * ops.mean(self._kernel(one, other))

    def _kernel(self, one: Tensor, other: Tensor) -> Tensor:
        """Return the kernel of all pairs, (N, N)."""
        distance = ops.sum(ops.square(one[:, None] - other[None]), axis=-1)[..., None]
        widths = 2.0 * one.shape[-1] * ops.convert_to_tensor([0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0], "float32")
        values = widths / (widths + distance) if self.kernel == "imq" else ops.exp(-distance / widths)
        return ops.mean(values, axis=-1)


def _require_diagonal_normal(objective: str, posterior: Posterior) -> None:
    if not isinstance(posterior, posteriors.DiagonalNormal):
        raise InputError(
            f"objective = {objective}: it has no formula for this posterior; set posterior = 'normal', or objective = "
            "'elbo'"
        )
