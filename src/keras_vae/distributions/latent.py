"""Distributions over latent codes: log-densities and samples as functions of tensors.

A distribution is a short-lived view of tensors. No Keras model takes or returns one, because neither `predict` nor JAX
could handle it.
"""

import abc
import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, final

import keras
from keras import ops

from keras_vae.core.typing import Seed, Tensor
from keras_vae.distributions.bijectors import MaskedAffineBijector

_LOG_TWO_PI = math.log(2 * math.pi)


class SampleWithLogProb(NamedTuple):
    """Reparameterized samples: a differentiable function of the distribution's parameters.

    Args:
        z: Samples, (…, D).
        log_prob: Log-densities of the samples in nats, (…). Their gradient includes the path through z.
    """

    z: Tensor
    log_prob: Tensor


class LatentDistribution(abc.ABC):
    """Base class of distributions over codes (…, D), the results of priors.

    Classes are either abstract or final. A subclass is a frozen dataclass whose fields are its parameters, so that
    `tree_map` and `stop_gradient` apply to it.
    """

    @abc.abstractmethod
    def log_prob(self, z: Tensor) -> Tensor:
        """Return log-densities in nats, (…), of codes (…, D)."""

    @abc.abstractmethod
    def sample(self, count: int, seed: Seed) -> Tensor:
        """Draw codes.

        Args:
            count: Number of codes n. For a batch of n distributions, draw one code from each.
            seed: An integer or a `keras.random.SeedGenerator`.

        Returns:
            Codes, (n, D).
        """


class PushforwardDistribution(LatentDistribution):
    """Base class of distributions whose samples are a function of normal noise."""

    @abc.abstractmethod
    def transform(self, noise: Tensor) -> Tensor:
        r"""Transform noise into samples, without their densities.

        Args:
            noise: \(\varepsilon \sim N(0, I)\), (…, D).

        Returns:
            Samples, (…, D).
        """


class ReparameterizedDistribution(PushforwardDistribution):
    """Base class of distributions whose samples are differentiable in their parameters, the results of posteriors.

    A subclass has `mean` and `log_var`, each either a field or a property.
    """

    # A dataclass field cannot implement an abstract property, so these two exist for the type checker only.
    if TYPE_CHECKING:

        @property
        def mean(self) -> Tensor:
            """Mean, or an approximation of it if there is no closed form, (…, D)."""

        @property
        def log_var(self) -> Tensor:
            """Logarithm of the variance of each dimension, or an approximation, (…, D)."""

    @abc.abstractmethod
    def rsample(self, noise: Tensor) -> SampleWithLogProb:
        r"""Transform noise into samples.

        Args:
            noise: \(\varepsilon \sim N(0, I)\), (…, D).

        Returns:
            The samples and their log-densities, differentiable in all parameters.
        """

    def transform(self, noise: Tensor) -> Tensor:
        """Transform noise into samples, both (…, D), without their densities."""
        return self.rsample(noise).z


DistributionType = TypeVar("DistributionType", bound=LatentDistribution)


@final
@dataclass(frozen=True, eq=False)
class DiagonalNormal(ReparameterizedDistribution):
    r"""Normal distribution with a diagonal covariance, \(N(\mu, \operatorname{diag} e^{\log\sigma^2})\).

    Args:
        mean: Means, (…, D).
        log_var: Logarithms of the variances, broadcastable to `mean`.

    Example:
        >>> standard = DiagonalNormal(ops.zeros((2,)), ops.zeros((2,)))
        >>> round(float(standard.log_prob(ops.zeros((2,)))), 4)  # −ln 2π
        -1.8379
    """

    mean: Tensor
    log_var: Tensor

    def rsample(self, noise: Tensor) -> SampleWithLogProb:
        r"""Return \(z = \mu + \sigma\varepsilon\) and its log-density (Kingma and Welling, arXiv 1312.6114)."""
        z = noise * ops.exp(0.5 * self.log_var) + self.mean
        return SampleWithLogProb(z, -0.5 * ops.sum(ops.square(noise) + self.log_var + _LOG_TWO_PI, axis=-1))

    def sample(self, count: int, seed: Seed) -> Tensor:
        """Draw codes, (count, D)."""
        return self.rsample(keras.random.normal((count, self.mean.shape[-1]), dtype="float32", seed=seed)).z

    def log_prob(self, z: Tensor) -> Tensor:
        r"""Return \(\log N(z; \mu, \sigma^2)\), summed over the last axis, in nats, (…)."""
        return ops.sum(self.log_prob_per_dimension(z), axis=-1)

    def log_prob_per_dimension(self, z: Tensor) -> Tensor:
        r"""Return \(\log N(z_d; \mu_d, \sigma_d^2)\) in nats, (…, D)."""
        return -0.5 * (ops.square(z - self.mean) * ops.exp(-self.log_var) + self.log_var + _LOG_TWO_PI)


@final
@dataclass(frozen=True, eq=False)
class MultivariateNormalTriL(ReparameterizedDistribution):
    r"""Normal distribution with a full covariance, \(N(\mu, LL^\top)\).

    Args:
        mean: Means, (…, D).
        scale: \(L\), lower triangular with a positive diagonal, (…, D, D).
    """

    mean: Tensor
    scale: Tensor

    @property
    def log_var(self) -> Tensor:
        """Logarithm of the diagonal of the covariance, (…, D)."""
        return ops.log(ops.sum(ops.square(self.scale), axis=-1))

    @property
    def log_det_scale(self) -> Tensor:
        r"""\(\log \det L\), (…)."""
        return ops.sum(ops.log(ops.diagonal(self.scale, axis1=-2, axis2=-1)), axis=-1)

    def rsample(self, noise: Tensor) -> SampleWithLogProb:
        r"""Return \(z = \mu + L\varepsilon\) and its log-density."""
        z = self.mean + ops.sum(self.scale * noise[..., None, :], axis=-1)
        return SampleWithLogProb(z, -0.5 * ops.sum(ops.square(noise) + _LOG_TWO_PI, axis=-1) - self.log_det_scale)

    def sample(self, count: int, seed: Seed) -> Tensor:
        """Draw codes, (count, D)."""
        return self.rsample(keras.random.normal((count, self.mean.shape[-1]), dtype="float32", seed=seed)).z

    def log_prob(self, z: Tensor) -> Tensor:
        r"""Return \(\log N(z; \mu, LL^\top)\) in nats, (…)."""
        centered = z - self.mean
        scale = ops.broadcast_to(self.scale, (*ops.shape(centered), ops.shape(centered)[-1]))
        noise = ops.solve_triangular(scale, centered[..., None], lower=True)[..., 0]
        return -0.5 * ops.sum(ops.square(noise) + _LOG_TWO_PI, axis=-1) - self.log_det_scale


@final
@dataclass(frozen=True, eq=False)
class Deterministic(ReparameterizedDistribution):
    """Point mass on one code: the limit of a normal distribution as its variance vanishes.

    It has no density. `log_prob` is defined as 0, so the rate is −log p(z), which is not a bound.

    Args:
        mean: The code, (…, D).
    """

    mean: Tensor

    @property
    def log_var(self) -> Tensor:
        """Minus infinity, (…, D)."""
        return ops.full_like(self.mean, -math.inf)

    def rsample(self, noise: Tensor) -> SampleWithLogProb:
        """Return the code, broadcast to the shape of the noise, and log-densities of zero."""
        z = ops.broadcast_to(self.mean, ops.shape(noise))
        return SampleWithLogProb(z, self.log_prob(z))

    def sample(self, count: int, seed: Seed) -> Tensor:
        """Return the code `count` times, (count, D); the seed has no effect."""
        return ops.broadcast_to(self.mean, (count, self.mean.shape[-1]))

    def log_prob(self, z: Tensor) -> Tensor:
        """Return zeros, (…)."""
        return ops.zeros_like(z[..., 0])


@final
@dataclass(frozen=True, eq=False)
class Mixture(LatentDistribution):
    r"""Mixture of M distributions, \(p(z) = \sum_m w_m \, p_m(z)\).

    Args:
        logits: Logarithms of the weights, up to a constant, (M,).
        components: A batch of M distributions, with parameters of shape (M, D).
    """

    logits: Tensor
    components: ReparameterizedDistribution

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log-densities in nats, (…)."""
        return ops.logsumexp(ops.log_softmax(self.logits) + self.components.log_prob(z[..., None, :]), axis=-1)

    def sample(self, count: int, seed: Seed) -> Tensor:
        """Draw codes, (count, D)."""
        # With the same integer seed, the choice of component and the noise would be dependent.
        generator = keras.random.SeedGenerator(seed) if isinstance(seed, int) else seed
        indices = keras.random.categorical(self.logits[None], count, seed=generator)[0]
        shape = (count, self.components.mean.shape[-1])
        return self.select(indices).rsample(keras.random.normal(shape, dtype="float32", seed=generator)).z

    def select(self, indices: Tensor) -> ReparameterizedDistribution:
        """Return the components at indices, integers of any shape, as a batch of distributions of this shape."""
        return tree_map(self.components, lambda tensor: ops.take(tensor, indices, axis=0))


@final
@dataclass(frozen=True, eq=False)
class TransformedDistribution(ReparameterizedDistribution):
    r"""Normalizing flow over a normal base: \(\log p(z) = \log N(u) + \log |\det \partial u / \partial z|\).

    A bijector needs a single pass in one direction and one pass per degree in the other. Training evaluates the density
    of a prior but samples from a posterior; `maps_to_base` selects which of the two is cheap.

    Args:
        base: The distribution of u.
        bijectors: The bijectors, in the order in which they are applied.
        maps_to_base: Whether the bijectors map z to u, which makes `log_prob` cheap. Otherwise they map u to z, which
            makes `rsample` cheap.
        context: Additional input of the bijectors, (…, context_dim), or None.
        detach_weights: Whether gradients treat the bijectors' weights as constants.
    """

    base: DiagonalNormal
    bijectors: Sequence[MaskedAffineBijector]
    maps_to_base: bool
    context: Tensor = None
    detach_weights: bool = False

    @property
    def mean(self) -> Tensor:
        """The mean of the base, mapped to z, (…, D)."""
        return self._generate(self.base.mean)[0]

    @property
    def log_var(self) -> Tensor:
        """Log-variances of the base plus twice the log-scales of the bijectors at its mean, (…, D)."""
        return self.base.log_var + 2.0 * self._generate(self.base.mean)[1]

    def rsample(self, noise: Tensor) -> SampleWithLogProb:
        """Transform noise (…, D) into samples and their log-densities."""
        u = self.base.rsample(noise)
        z, log_scale = self._generate(u.z)
        return SampleWithLogProb(z, u.log_prob - ops.sum(log_scale, axis=-1))

    def sample(self, count: int, seed: Seed) -> Tensor:
        """Draw codes, (count, D)."""
        return self._generate(self.base.sample(count, seed))[0]

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log-densities in nats, (…)."""
        log_scale = ops.zeros_like(z)
        for bijector in self.bijectors if self.maps_to_base else reversed(self.bijectors):
            apply = bijector.transform if self.maps_to_base else bijector.inverse
            z, change = apply(z, self.context, self.detach_weights)
            log_scale = log_scale + change
        return self.base.log_prob(z) + ops.sum(log_scale, axis=-1)

    def _generate(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Map u to z and the summed log-scales, both (…, D)."""
        log_scale = ops.zeros_like(u)
        for bijector in reversed(self.bijectors) if self.maps_to_base else self.bijectors:
            apply = bijector.inverse if self.maps_to_base else bijector.transform
            u, change = apply(u, self.context, self.detach_weights)
            log_scale = log_scale + change
        return u, log_scale


def stop_gradient(distribution: DistributionType) -> DistributionType:
    """Return the same distribution with constant parameters for gradients, including the weights of bijectors."""
    stopped = tree_map(distribution, ops.stop_gradient)
    if isinstance(stopped, TransformedDistribution):
        return dataclasses.replace(stopped, detach_weights=True)
    return stopped


def tree_map(distribution: DistributionType, function: Callable[[Tensor], Tensor]) -> DistributionType:
    """Apply a function to each tensor of a distribution and of its nested distributions, and return the result."""
    changed: dict[str, Any] = {}
    for field in dataclasses.fields(distribution):  # type: ignore[arg-type]
        value = getattr(distribution, field.name)
        if isinstance(value, LatentDistribution):
            changed[field.name] = tree_map(value, function)
        elif ops.is_tensor(value) or isinstance(value, keras.KerasTensor):
            changed[field.name] = function(value)
    return dataclasses.replace(distribution, **changed)  # type: ignore[type-var]
