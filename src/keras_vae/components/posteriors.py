"""Posteriors q(z|x): from what the encoder says to the distribution of z, and to a draw from it."""

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
"""Where log-variances are kept: standard deviations from 5e-5 to 2e4. Beyond it, the gradient still points back."""


@keras.saving.register_keras_serializable(PACKAGE)
class Sampler(keras.layers.Layer):
    r"""Draws \(z = \mu + e^{\frac12 \log\sigma^2} \varepsilon\), \(\varepsilon \sim N(0, I)\), differentiably.

    The reparameterization trick of Kingma and Welling (arXiv 1312.6114). The layer owns the noise: its generator's
    state is saved with the model, so that a loaded model goes on with the draws that the saved one would have made.

    Args:
        seed: Where the noise starts; None takes a random start.
        **kwargs: As for every Keras layer.

    Call arguments:
        moments: `z_mean` and `z_log_var`, each (N, latent_dim).

    Example:
        >>> z = Sampler(seed=0)([keras.ops.zeros((8, 2)), keras.ops.zeros((8, 2))])
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)
        # While any layer of a model is not built, Keras runs every single batch once more, and uncompiled on JAX.
        self.built = True

    def call(self, moments: tuple[Tensor, Tensor]) -> Tensor:  # noqa: D102
        z_mean, z_log_var = moments
        noise = self.noise(ops.shape(z_mean), dtype=z_mean.dtype)
        return latent.DiagonalNormal(z_mean, z_log_var).rsample(noise).z

    def noise(self, shape: Sequence[Any], dtype: str = "float32") -> Tensor:
        """Return standard normal noise of a shape."""
        return keras.random.normal(shape, dtype=dtype, seed=self.seed_generator)

    def uniform(self, shape: Sequence[Any]) -> Tensor:
        """Return noise uniform on [0, 1) of a shape."""
        return keras.random.uniform(shape, dtype="float32", seed=self.seed_generator)

    def compute_output_shape(self, input_shape: tuple[Any, Any]) -> Any:  # noqa: D102
        return input_shape[0]

    # Keras saves weights and forgets the state of generators.
    def save_own_variables(self, store: dict[str, Any]) -> None:  # noqa: D102
        store["seed_generator_state"] = keras.ops.convert_to_numpy(self.seed_generator.state)

    def load_own_variables(self, store: dict[str, Any]) -> None:  # noqa: D102
        self.seed_generator.state.assign(store["seed_generator_state"])

    def get_config(self) -> dict[str, Any]:  # noqa: D102
        return {**super().get_config(), "seed": self.seed}


class Posterior(abc.ABC):
    """What a posterior can do."""

    kind: ClassVar[str] = "posterior"

    @abc.abstractmethod
    def param_sizes(self, latent_dim: int) -> dict[str, int]:
        """Return what the encoder must put out: the name and size of each output, in order."""

    @abc.abstractmethod
    def __call__(self, features: Sequence[Tensor]) -> latent.Posterior:
        """Return q(z|x), a view of the encoder's outputs, each (…, its size), float32."""


@register("normal")
@dataclass(frozen=True)
class DiagonalNormal(Component, Posterior):
    """The diagonal normal of Kingma and Welling (arXiv 1312.6114).

    Example:
        >>> DiagonalNormal().param_sizes(latent_dim=2)
        {'z_mean': 2, 'z_log_var': 2}
    """

    def param_sizes(self, latent_dim: int) -> dict[str, int]:
        """Return the sizes of the means and log-variances."""
        return {"z_mean": latent_dim, "z_log_var": latent_dim}

    def __call__(self, features: Sequence[Tensor]) -> latent.DiagonalNormal:
        """Return the normal of `[z_mean, z_log_var]`, log-variances within `LOG_VAR_RANGE`."""
        z_mean, z_log_var = features
        return latent.DiagonalNormal(z_mean, clip_keeping_gradients(z_log_var, *LOG_VAR_RANGE))


@register("full-normal")
@dataclass(frozen=True)
class FullCovarianceNormal(Component, Posterior):
    r"""A normal with any covariance \(LL^\top\) (Kingma and Welling, arXiv 1906.02691, section 2.5.1).

    Example:
        >>> FullCovarianceNormal().param_sizes(latent_dim=4)
        {'z_mean': 4, 'z_log_var': 4, 'z_lower': 6}
    """

    def param_sizes(self, latent_dim: int) -> dict[str, int]:
        """Return the sizes of the means, of twice the logarithms of L's diagonal, and of what lies below it."""
        below = latent_dim * (latent_dim - 1) // 2
        return {"z_mean": latent_dim, "z_log_var": latent_dim} | ({"z_lower": below} if below else {})

    def __call__(self, features: Sequence[Tensor]) -> MultivariateNormalTriL:
        """Return the normal of `[z_mean, z_log_var, z_lower]`, the log-diagonal within `LOG_VAR_RANGE`."""
        z_mean, z_log_var, *lower = features
        latent_dim = z_mean.shape[-1]
        diagonal = ops.exp(0.5 * clip_keeping_gradients(z_log_var, *LOG_VAR_RANGE))
        scale = diagonal[..., None] * ops.eye(latent_dim, dtype="float32")
        if lower:
            rows, columns = np.tril_indices(latent_dim, -1)
            places = np.zeros((len(rows), latent_dim, latent_dim), "float32")
            places[np.arange(len(rows)), rows, columns] = 1.0
            scale = scale + ops.tensordot(lower[0], places, axes=1)
        return MultivariateNormalTriL(z_mean, scale)


@register("iaf")
class InverseAutoregressiveFlow(ComponentLayer, Posterior):
    """A diagonal normal, bent by autoregressive steps (Kingma et al., arXiv 1606.04934).

    A draw and its density take one pass. The density of any other point, which a VampPrior and the gradient
    estimators of the IWAE ask for, takes `latent_dim` passes a step.

    Args:
        steps: How many steps; the order of the dimensions is reversed between them.
        hidden: Widths of the hidden layers of each.
        context_dim: Size of the vector by which the encoder steers all steps.
        **kwargs: As for every Keras layer.

    Raises:
        InputError: A size is below one.

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
            raise InputError(f"iaf: steps = {steps}, hidden = {list(hidden)}, context_dim = {context_dim}: each ≥ 1")
        self.steps, self.hidden, self.context_dim = steps, tuple(hidden), context_dim

    def param_sizes(self, latent_dim: int) -> dict[str, int]:
        """Return the sizes of the base's moments and of the context."""
        return {"z_mean": latent_dim, "z_log_var": latent_dim, "z_context": self.context_dim}

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Make the weights for codes, inputs of the encoder and conditions of these shapes."""
        order = range(latent_shape[-1])
        self.flow = [
            MaskedAffineBijector(
                order if step % 2 == 0 else order[::-1], self.hidden, self.context_dim, name=f"step_{step}"
            )
            for step in range(self.steps)
        ]

    def __call__(self, features: Sequence[Tensor]) -> TransformedDistribution:
        """Return the flow of `[z_mean, z_log_var, z_context]`, log-variances within `LOG_VAR_RANGE`."""
        z_mean, z_log_var, context = features
        base = latent.DiagonalNormal(z_mean, clip_keeping_gradients(z_log_var, *LOG_VAR_RANGE))
        return TransformedDistribution(base, self.flow, normalizing=False, context=context)


@register("deterministic")
@dataclass(frozen=True)
class Deterministic(Component, Posterior):
    """No noise: the code is the encoder's output (Ghosh et al., arXiv 1903.12436).

    The rate is then −log p(z), which pulls codes toward the prior, and `negative_elbo` is no bound. Fit a density
    to the codes after training to draw new images.

    Example:
        >>> Deterministic().param_sizes(latent_dim=2)
        {'z_mean': 2}
    """

    def param_sizes(self, latent_dim: int) -> dict[str, int]:
        """Return the size of the code."""
        return {"z_mean": latent_dim}

    def __call__(self, features: Sequence[Tensor]) -> latent.Deterministic:
        """Return the point `[z_mean]`."""
        return latent.Deterministic(features[0])
