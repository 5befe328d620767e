"""The base class of priors, and their inputs."""

import abc
from collections.abc import Callable
from typing import ClassVar, Literal, NamedTuple, TypeAlias

from keras_vae.core.typing import Tensor
from keras_vae.distributions.latent import LatentDistribution, ReparameterizedDistribution

Density: TypeAlias = Literal["direct", "ode", "none"]


class PriorInputs(NamedTuple):
    """Inputs of a prior.

    Args:
        latent_dim: Number of latent dimensions.
        encode: The model's encoder and posterior: encoder inputs (M, H, W, C) → q(z|x) of batch shape (M, latent_dim).
        condition: Encoded conditions, (…, size), or None if the model is not conditional.
    """

    latent_dim: int
    encode: Callable[[Tensor], ReparameterizedDistribution]
    condition: Tensor = None


class Prior(abc.ABC):
    """Base class of priors.

    A prior is a function that returns a distribution. Subclasses also inherit from `Component`, or from
    `ComponentLayer` if they have weights, which they create in `build(latent_shape, input_shape, condition_shape)`.
    """

    kind: ClassVar[str] = "prior"

    is_elementwise: ClassVar[bool] = False
    """Whether the prior is defined for any number of dimensions, so that it applies to images of any size."""

    @property
    def density(self) -> Density:
        """How log p(z) is computed: `"direct"`, by solving an ODE for each code (`"ode"`), or not at all (`"none"`)."""
        return "direct"

    @abc.abstractmethod
    def __call__(self, inputs: PriorInputs) -> LatentDistribution:
        """Return p(z), a distribution over codes (…, latent_dim)."""
