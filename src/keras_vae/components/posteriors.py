"""Posteriors q(z|x): from the outputs of the encoder to a distribution over codes."""

import abc
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.math import clip_keeping_gradients
from keras_vae.core.registry import PACKAGE, Component, ComponentLayer, register
from keras_vae.core.typing import Shape, Tensor
from keras_vae.distributions import latent
from keras_vae.distributions.bijectors import MaskedAffineBijector
from keras_vae.distributions.latent import MultivariateNormalTriL, TransformedDistribution

LOG_VAR_RANGE = (-20.0, 20.0)
"""Range of log-variances: standard deviations from 5e-5 to 2e4."""


@keras.saving.register_keras_serializable(PACKAGE)
class Sampler(keras.layers.Layer):
    r"""Layer that samples \(z = \mu + e^{\frac12 \log\sigma^2} \varepsilon\), \(\varepsilon \sim N(0, I)\).

    The reparameterization trick of Kingma and Welling (arXiv 1312.6114). The state of the layer's random generator is
    saved with the model, so a loaded model draws the same samples as the saved model would have drawn next.

    Args:
        seed: Seed of the noise; None chooses one at random.
        **kwargs: Arguments of every Keras layer.

    Call arguments:
        moments: `z_mean` and `z_log_var`, each (N, latent_dim).

    Example:
        >>> z = Sampler(seed=0)([keras.ops.zeros((8, 2)), keras.ops.zeros((8, 2))])
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # If a layer of a model were not built, Keras would run each batch twice, and on JAX without compiling it.
        self.built = True

    def call(self, moments: tuple[Tensor, Tensor]) -> Tensor:  # noqa: D102
        z_mean, z_log_var = moments
        noise = self.noise(ops.shape(z_mean), dtype=z_mean.dtype)
        return latent.DiagonalNormal(z_mean, z_log_var).rsample(noise).z

    def noise(self, shape: Sequence[Any], dtype: str = "float32") -> Tensor:
        """Draw standard normal noise of a shape."""
        return keras.random.normal(shape, dtype=dtype, seed=self.seed_generator)

    def uniform(self, shape: Sequence[Any]) -> Tensor:
        """Draw noise of a shape, uniform on [0, 1)."""
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def compute_output_shape(self, input_shape: tuple[Any, Any]) -> Any:  # noqa: D102
        return input_shape[0]

    # Keras saves weights, but not the state of random generators.
    def save_own_variables(self, store: dict[str, Any]) -> None:  # noqa: D102
        store["seed_generator_state"] = keras.ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: dict[str, Any]) -> None:  # noqa: D102
        self.seed_generator.state.assign(store["seed_generator_state"])

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {**super().get_config(), "seed": self.seed}


class Posterior(abc.ABC):
    """Base class of posteriors.

    A posterior is a function that returns a distribution. Subclasses also inherit from `Component`, or from
    `ComponentLayer` if they have weights, which they create in `build(latent_shape, input_shape, condition_shape)`.
    """

    kind: ClassVar[str] = "posterior"

    is_elementwise: ClassVar[bool] = False
    """Whether each dimension of z depends only on the encoder's outputs for this dimension, as latent maps require."""

    @abc.abstractmethod
    def param_sizes(self, latent_dim: int) -> dict[str, int]:
        """Return the size of each output of the encoder, by name, in order."""

    @abc.abstractmethod
    def __call__(self, features: Sequence[Tensor]) -> latent.ReparameterizedDistribution:
        """Return q(z|x), given the float32 outputs of the encoder, each (…, size)."""


@register("normal")
@dataclass(frozen=True)
class DiagonalNormal(Component, Posterior):
    """The diagonal normal of Kingma and Welling (arXiv 1312.6114).

    Example:
        >>> DiagonalNormal().param_sizes(latent_dim=2)
        {'z_mean': 2, 'z_log_var': 2}
    """

    is_elementwise: ClassVar[bool] = True

    def param_sizes(self, latent_dim: int) -> dict[str, int]:
        """Return the sizes of the means and log-variances."""
        return {"z_mean": latent_dim, "z_log_var": latent_dim}

    def __call__(self, features: Sequence[Tensor]) -> latent.DiagonalNormal:
        """Return the normal with parameters `[z_mean, z_log_var]`, log-variances clipped to `LOG_VAR_RANGE`."""
        z_mean, z_log_var = features
        return latent.DiagonalNormal(z_mean, clip_keeping_gradients(z_log_var, *LOG_VAR_RANGE))


@register("full-normal")
@dataclass(frozen=True)
class FullCovarianceNormal(Component, Posterior):
    r"""A normal with a full covariance \(LL^\top\) (Kingma and Welling, arXiv 1906.02691, section 2.5.1).

    Example:
        >>> FullCovarianceNormal().param_sizes(latent_dim=4)
        {'z_mean': 4, 'z_log_var': 4, 'z_lower': 6}
    """

    def param_sizes(self, latent_dim: int) -> dict[str, int]:
        """Return the sizes of the means, of twice the log-diagonal of L, and of the entries below the diagonal."""
        num_lower = latent_dim * (latent_dim - 1) // 2
        return {"z_mean": latent_dim, "z_log_var": latent_dim} | ({"z_lower": num_lower} if num_lower else {})

    def __call__(self, features: Sequence[Tensor]) -> MultivariateNormalTriL:
        """Return the normal with parameters `[z_mean, z_log_var, z_lower]`, `z_log_var` clipped to `LOG_VAR_RANGE`."""
        z_mean, z_log_var, *lower = features
        latent_dim = z_mean.shape[-1]
        diagonal = ops.exp(0.5 * clip_keeping_gradients(z_log_var, *LOG_VAR_RANGE))
        scale = diagonal[..., None] * ops.eye(latent_dim, dtype="float32")
        if lower:
            rows, columns = np.tril_indices(latent_dim, -1)
            positions = np.zeros((len(rows), latent_dim, latent_dim), "float32")
            positions[np.arange(len(rows)), rows, columns] = 1.0
            scale = scale + ops.tensordot(lower[0], positions, axes=1)
        return MultivariateNormalTriL(z_mean, scale)


@register("iaf")
class InverseAutoregressiveFlow(ComponentLayer, Posterior):
    """Autoregressive steps over a diagonal normal (Kingma et al., arXiv 1606.04934).

    A sample and its density need one pass. The density of any other point, as a `VampPrior` and the gradient
    estimators of the `IWAE` compute it, needs `latent_dim` passes per step of the flow.

    Args:
        steps: Number of steps. The order of the dimensions is reversed between them.
        hidden: Units of the hidden layers of each step.
        context_dim: Size of the encoder output on which all steps are conditioned.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: A size is below 1.

    Example:
        >>> InverseAutoregressiveFlow().param_sizes(latent_dim=2)
        {'z_mean': 2, 'z_log_var': 2, 'z_context': 32}
    """

    def __init__(
        self,
        steps: int = 2,
        hidden: tuple[int, ...] = (128,),
        context_dim: int = 32,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if min(steps, context_dim, *hidden) < 1:
            sizes = f"steps = {steps}, hidden = {list(hidden)}, context_dim = {context_dim}"
            raise InputError(f"{sizes}: not all positive; pass integers ≥ 1")
        self.steps, self.hidden, self.context_dim = steps, tuple(hidden), context_dim

    def param_sizes(self, latent_dim: int) -> dict[str, int]:
        """Return the sizes of the moments of the base and of the context."""
        return {"z_mean": latent_dim, "z_log_var": latent_dim, "z_context": self.context_dim}

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Create the weights, given the shapes of codes, encoder inputs and encoded conditions."""
        order = range(latent_shape[-1])
        self.flow = [
            MaskedAffineBijector(
                order if step % 2 == 0 else order[::-1], self.hidden, self.context_dim, name=f"step_{step}"
            )
            for step in range(self.steps)
        ]

    def __call__(self, features: Sequence[Tensor]) -> TransformedDistribution:
        """Return the flow with parameters `[z_mean, z_log_var, z_context]`, `z_log_var` clipped to `LOG_VAR_RANGE`."""
        z_mean, z_log_var, context = features
        base = latent.DiagonalNormal(z_mean, clip_keeping_gradients(z_log_var, *LOG_VAR_RANGE))
        return TransformedDistribution(base, self.flow, maps_to_base=False, context=context)


@register("deterministic")
@dataclass(frozen=True)
class Deterministic(Component, Posterior):
    """A point mass on the encoder's output, without noise (Ghosh et al., arXiv 1903.12436).

    The rate is then −log p(z), which pulls codes toward the prior, and `negative_elbo` is not a bound. To sample new
    images, fit a prior to the codes after training.

    Example:
        >>> Deterministic().param_sizes(latent_dim=2)
        {'z_mean': 2}
    """

    is_elementwise: ClassVar[bool] = True

    def param_sizes(self, latent_dim: int) -> dict[str, int]:
        """Return the size of the code."""
        return {"z_mean": latent_dim}

    def __call__(self, features: Sequence[Tensor]) -> latent.Deterministic:
        """Return the point mass on `[z_mean]`."""
        return latent.Deterministic(features[0])
