"""Distributions over latent codes: tensors in; log-probabilities, divergences and draws out.

They are short-lived views of tensors. They are built where they are used and never cross a Keras boundary:
neither `predict` nor JAX can carry them.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias, TypeVar

import keras
from keras import ops

from keras_vae.core.typing import Tensor
from keras_vae.distributions.bijectors import MaskedAffineBijector

Seed: TypeAlias = int | keras.random.SeedGenerator
"""An integer, which makes a draw repeatable, or the generator of the layer that draws."""

View = TypeVar("View")

_LOG_TWO_PI = math.log(2 * math.pi)


class SampleWithLogProb(NamedTuple):
    """Reparameterized draws from a distribution: a differentiable function of its parameters.

    Args:
        z: The draws, (…, D).
        log_prob: Their log-densities in nats, (…), as a function of the parameters through z as well.
    """

    z: Tensor
    log_prob: Tensor


class Density(Protocol):
    """What a distribution over codes (…, D) can do: everything that a prior needs."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log-densities in nats, (…), of codes (…, D)."""

    def sample(self, count: int, seed: Seed) -> Tensor:
        """Return `count` draws, (count, D); of a batch of `count` distributions, one each."""


class Posterior(Protocol):
    """What the distribution of a batch's codes can do: everything that an encoder's outputs are used for."""

    @property
    def mean(self) -> Tensor:
        """The code that stands for the image, (…, D)."""

    @property
    def log_var(self) -> Tensor:
        """The logarithm of the variance of each latent dimension, (…, D)."""

    def rsample(self, noise: Tensor) -> SampleWithLogProb:
        """Return the draws that standard normal noise (…, D) becomes."""

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log-densities in nats, (…), of codes (…, D)."""


@dataclass(frozen=True, eq=False)
class DiagonalNormal:
    r"""Normal with diagonal covariance over the last axis, \(N(\mu, \operatorname{diag} e^{\log\sigma^2})\).

    Args:
        mean: Means, (…, D).
        log_var: Logarithms of the variances, broadcastable to `mean`.
    """

    mean: Tensor
    log_var: Tensor

    def rsample(self, noise: Tensor) -> SampleWithLogProb:
        r"""Return \(z = \mu + \sigma\varepsilon\) (Kingma and Welling, arXiv 1312.6114).

        Args:
            noise: \(\varepsilon \sim N(0, I)\), broadcastable to `mean`.

        Returns:
            The draws and their log-densities, differentiable in both parameters.
        """
        z = noise * ops.exp(0.5 * self.log_var) + self.mean
        return SampleWithLogProb(z, -0.5 * ops.sum(ops.square(noise) + self.log_var + _LOG_TWO_PI, axis=-1))

    def sample(self, count: int, seed: Seed) -> Tensor:
        """Return `count` draws, (count, D)."""
        return self.rsample(keras.random.normal((count, self.mean.shape[-1]), dtype="float32", seed=seed)).z

    def log_prob(self, z: Tensor) -> Tensor:
        r"""Return \(\log N(z; \mu, \sigma^2)\), summed over the last axis, in nats, (…)."""
        return ops.sum(self.log_prob_per_dimension(z), axis=-1)

    def log_prob_per_dimension(self, z: Tensor) -> Tensor:
        r"""Return \(\log N(z_d; \mu_d, \sigma_d^2)\) in nats, (…, D)."""
        return -0.5 * (ops.square(z - self.mean) * ops.exp(-self.log_var) + self.log_var + _LOG_TWO_PI)

    def kl_divergence(self, other: "DiagonalNormal") -> Tensor:
        r"""Return the closed-form divergence from `self` to `other`, dimension by dimension.

        \(\tfrac12 \left[ e^{\lambda_d - \lambda'_d} + (\mu_d - \mu'_d)^2 e^{-\lambda'_d} - 1 - \lambda_d
        + \lambda'_d \right]\), with \(\lambda = \log\sigma^2\).

        Args:
            other: The distribution diverged to.

        Returns:
            Nats, (…, D); their sum is \(KL(\text{self} \| \text{other})\).
        """
        excess = self.log_var - other.log_var
        distance = ops.square(self.mean - other.mean) * ops.exp(-other.log_var)
        return 0.5 * (ops.exp(excess) + distance - 1.0 - excess)


@dataclass(frozen=True, eq=False)
class MultivariateNormalTriL:
    r"""Normal with any covariance over the last axis, \(N(\mu, LL^\top)\).

    Args:
        mean: Means, (…, D).
        scale: \(L\), lower triangular with a positive diagonal, (…, D, D).
    """

    mean: Tensor
    scale: Tensor

    @property
    def log_var(self) -> Tensor:
        """The logarithms of the covariance's diagonal, (…, D)."""
        return ops.log(ops.sum(ops.square(self.scale), axis=-1))

    def rsample(self, noise: Tensor) -> SampleWithLogProb:
        r"""Return \(z = \mu + L\varepsilon\) of standard normal noise (…, D)."""
        z = self.mean + ops.sum(self.scale * noise[..., None, :], axis=-1)
        return SampleWithLogProb(z, -0.5 * ops.sum(ops.square(noise) + _LOG_TWO_PI, axis=-1) - self._log_det())

    def log_prob(self, z: Tensor) -> Tensor:
        r"""Return \(\log N(z; \mu, LL^\top)\) in nats, (…), of codes (…, D)."""
        centered = z - self.mean
        scale = ops.broadcast_to(self.scale, (*ops.shape(centered), ops.shape(centered)[-1]))
        noise = ops.solve_triangular(scale, centered[..., None], lower=True)[..., 0]
        return -0.5 * ops.sum(ops.square(noise) + _LOG_TWO_PI, axis=-1) - self._log_det()

    def kl_divergence(self, other: DiagonalNormal) -> Tensor:
        r"""Return the closed-form divergence to a diagonal normal, in nats, (…, 1).

        \(\tfrac12 \left[ \sum_d \frac{(LL^\top)_{dd} + (\mu_d - \mu'_d)^2}{\sigma'^2_d} - D
        + \sum_d \log \sigma'^2_d \right] - \log \det L\)
        """
        spread = (ops.exp(self.log_var) + ops.square(self.mean - other.mean)) * ops.exp(-other.log_var)
        return (0.5 * ops.sum(spread - 1.0 + other.log_var, axis=-1) - self._log_det())[..., None]

    def _log_det(self) -> Tensor:
        return ops.sum(ops.log(ops.diagonal(self.scale, axis1=-2, axis2=-1)), axis=-1)


@dataclass(frozen=True, eq=False)
class Deterministic:
    """All the mass on one code: the limit of a normal without noise.

    It has no density. Its log-density counts as 0, so that its rate is −log p(z) and no bound on anything.

    Args:
        mean: The code, (…, D).
    """

    mean: Tensor

    @property
    def log_var(self) -> Tensor:
        """Minus infinity, (…, D)."""
        return ops.full_like(self.mean, -math.inf)

    def rsample(self, noise: Tensor) -> SampleWithLogProb:
        """Return the code itself, as often as there is noise (…, D) to ignore."""
        z = ops.broadcast_to(self.mean, ops.shape(noise))
        return SampleWithLogProb(z, self.log_prob(z))

    def log_prob(self, z: Tensor) -> Tensor:
        """Return zeros, (…)."""
        return ops.zeros_like(z[..., 0])


@dataclass(frozen=True, eq=False)
class Mixture:
    r"""Mixture of M distributions, \(p(z) = \sum_m w_m \, p_m(z)\).

    Args:
        logits: Logarithms of the weights, up to a constant, (M,).
        components: A posterior or density of batch shape (M, D).
    """

    logits: Tensor
    components: Any

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log-densities in nats, (…), of codes (…, D)."""
        return ops.logsumexp(ops.log_softmax(self.logits) + self.components.log_prob(z[..., None, :]), axis=-1)

    def sample(self, count: int, seed: Seed) -> Tensor:
        """Return `count` draws, (count, D)."""
        # One integer must not make the same noise twice.
        generator = keras.random.SeedGenerator(seed) if isinstance(seed, int) else seed
        chosen = keras.random.categorical(self.logits[None], count, seed=generator)[0]
        picked = tree_map(self.components, lambda tensor: ops.take(tensor, chosen, axis=0))
        shape = (count, self.components.mean.shape[-1])
        return picked.rsample(keras.random.normal(shape, dtype="float32", seed=generator)).z


@dataclass(frozen=True, eq=False)
class TransformedDistribution:
    r"""A normal seen through invertible steps: \(\log p(z) = \log N(u) + \log |\det \partial u / \partial z|\).

    Args:
        base: The distribution of u.
        steps: What u passes through, or, where `normalizing`, what z passes through to become u.
        normalizing: Which of the two directions takes one pass through a step; the other one takes as many as the
            step has degrees. Priors are asked for densities, posteriors for draws.
        context: What the steps depend on besides, (…, context_dim), or None.
        detach_weights: Whether the weights of the steps are constants to gradients.
    """

    base: DiagonalNormal
    steps: Sequence[MaskedAffineBijector]
    normalizing: bool
    context: Tensor = None
    detach_weights: bool = False

    @property
    def mean(self) -> Tensor:
        """Where the base's mean ends up, (…, D)."""
        return self._generate(self.base.mean)[0]

    @property
    def log_var(self) -> Tensor:
        """The base's log-variances with the steps' own scales at its mean added, (…, D)."""
        return self.base.log_var + 2.0 * self._generate(self.base.mean)[1]

    def rsample(self, noise: Tensor) -> SampleWithLogProb:
        """Return the draws that standard normal noise (…, D) becomes."""
        start = self.base.rsample(noise)
        z, log_scale = self._generate(start.z)
        return SampleWithLogProb(z, start.log_prob - ops.sum(log_scale, axis=-1))

    def sample(self, count: int, seed: Seed) -> Tensor:
        """Return `count` draws, (count, D)."""
        return self._generate(self.base.sample(count, seed))[0]

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log-densities in nats, (…), of codes (…, D)."""
        log_scale = ops.zeros_like(z)
        for step in self.steps if self.normalizing else reversed(self.steps):
            apply = step.transform if self.normalizing else step.inverse
            z, change = apply(z, self.context, self.detach_weights)
            log_scale = log_scale + change
        return self.base.log_prob(z) + ops.sum(log_scale, axis=-1)

    def _generate(self, u: Tensor) -> tuple[Tensor, Tensor]:
        log_scale = ops.zeros_like(u)
        for step in reversed(self.steps) if self.normalizing else self.steps:
            apply = step.inverse if self.normalizing else step.transform
            u, change = apply(u, self.context, self.detach_weights)
            log_scale = log_scale + change
        return u, log_scale


def kl_divergence(posterior: Any, prior: Any, draw: SampleWithLogProb) -> Tensor:
    r"""Return \(KL(q \| p)\) in closed form where there is one, else \(\log q(z) - \log p(z)\) of a draw \(z \sim q\).

    Args:
        posterior: q, of batch shape (…, D).
        prior: p, of a broadcastable batch shape.
        draw: Draws from q.

    Returns:
        Nats, (…, G), whose sum over the last axis is the divergence or its estimate: one for each of G = D dimensions
        where both are diagonal normals, else G = 1.
    """
    if isinstance(posterior, DiagonalNormal | MultivariateNormalTriL) and isinstance(prior, DiagonalNormal):
        return posterior.kl_divergence(prior)
    return (draw.log_prob - prior.log_prob(draw.z))[..., None]


def stop_gradient(distribution: View) -> View:
    """Return the distribution with parameters that are constants to gradients."""
    constant = tree_map(distribution, ops.stop_gradient)
    return (
        dataclasses.replace(constant, detach_weights=True)
        if isinstance(constant, TransformedDistribution)
        else constant
    )


def tree_map(distribution: View, function: Callable[[Tensor], Tensor]) -> View:
    """Return the distribution with a function applied to every tensor in it."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(distribution):  # type: ignore[arg-type]
        value = getattr(distribution, field.name)
        if dataclasses.is_dataclass(value):
            changed[field.name] = tree_map(value, function)
        elif ops.is_tensor(value) or isinstance(value, keras.KerasTensor):
            changed[field.name] = function(value)
    return dataclasses.replace(distribution, **changed)  # type: ignore[type-var]
