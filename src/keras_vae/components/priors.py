"""Priors p(z): where latent codes are expected to lie, and are drawn from."""

import abc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from keras_vae.core.errors import InputError
from keras_vae.core.math import clip_keeping_gradients
from keras_vae.core.registry import Component, ComponentLayer, register
from keras_vae.core.typing import Array, Shape, Tensor
from keras_vae.distributions.bijectors import MaskedAffineBijector
from keras_vae.distributions.latent import Density, DiagonalNormal, Mixture, Posterior, TransformedDistribution


class PriorInputs(NamedTuple):
    """What a prior may look at.

    Args:
        latent_dim: The number of latent dimensions.
        encode: The encoder and posterior of the model: its inputs (M, H, W, C) → q(z|x) over (M, latent_dim).
        condition: What images are drawn under, (…, size), or None in a model without conditions.
    """

    latent_dim: int
    encode: Callable[[Tensor], Posterior]
    condition: Tensor = None


class Prior(abc.ABC):
    """What a prior can do."""

    kind: ClassVar[str] = "prior"

    @abc.abstractmethod
    def __call__(self, context: PriorInputs) -> Density:
        """Return p(z), a distribution over codes (…, latent_dim)."""


@register("standard-normal")
@dataclass(frozen=True)
class StandardNormal(Component, Prior):
    """The standard normal N(0, I) of Kingma and Welling (arXiv 1312.6114)."""

    def __call__(self, context: PriorInputs) -> DiagonalNormal:
        """Return N(0, I)."""
        zeros = ops.zeros((context.latent_dim,), "float32")
        return DiagonalNormal(zeros, zeros)


@register("mixture")
class MixtureOfNormals(ComponentLayer, Prior):
    r"""A learned mixture of diagonal normals, \(p(z) = \sum_m w_m N(z; \mu_m, \sigma_m^2)\).

    Args:
        num_components: How many normals (Dilokthanakul et al., arXiv 1611.02648; Jiang et al., arXiv 1611.05148).
        **kwargs: As for every Keras layer.

    Raises:
        InputError: There is no component.
    """

    def __init__(self, num_components: int = 50, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_components < 1:
            raise InputError(f"mixture: num_components = {num_components}: must be ≥ 1")
        self.num_components = num_components

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Make the weights for codes, inputs of the encoder and conditions of these shapes."""
        shape = (self.num_components, latent_shape[-1])
        self.logits = self.add_weight(shape=(self.num_components,), initializer="zeros", name="logits")
        self.means = self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0), name="means")
        self.log_vars = self.add_weight(shape=shape, initializer="zeros", name="log_vars")

    def initialize(self, codes: Array) -> None:
        """Start from codes.

        Args:
            codes: (n, D); the components start at the first ones, again where they are few, as wide as all of them.
        """
        self.means.assign(codes[np.arange(self.num_components) % len(codes)])
        self.log_vars.assign(np.tile(np.log(codes.var(axis=0) + 1e-6), (self.num_components, 1)))

    def __call__(self, context: PriorInputs) -> Mixture:
        """Return the mixture."""
        means, log_vars = ops.convert_to_tensor(self.means), ops.convert_to_tensor(self.log_vars)
        return Mixture(
            ops.convert_to_tensor(self.logits), DiagonalNormal(means, clip_keeping_gradients(log_vars, -20.0, 20.0))
        )


@register("vamp")
class VampPrior(ComponentLayer, Prior):
    r"""The mixture of the posteriors of learned pseudo-inputs, \(p(z) = \tfrac1K \sum_k q(z|u_k)\).

    Tomczak and Welling (arXiv 1705.07120). The encoder is passed when the prior is used, so that it is trained by both.

    Args:
        num_components: K, how many pseudo-inputs.
        **kwargs: As for every Keras layer.

    Raises:
        InputError: There is no component.
    """

    def __init__(self, num_components: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if num_components < 1:
            raise InputError(f"vamp: num_components = {num_components}: must be ≥ 1")
        self.num_components = num_components

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Make the weights for codes, inputs of the encoder and conditions of these shapes."""
        uniform = keras.initializers.RandomUniform(0.0, 1.0)
        shape = (self.num_components, *input_shape[1:])
        self.channels = input_shape[-1] - condition_shape[-1]
        self.pseudo_inputs = self.add_weight(shape=shape, initializer=uniform, name="pseudo_inputs")

    def initialize(self, inputs: Array) -> None:
        """Start from what the encoder sees of real images.

        Args:
            inputs: Images in [0, 1] with their conditions, (n, H, W, C); the first are taken, again where they are few.
        """
        self.pseudo_inputs.assign(inputs[np.arange(self.num_components) % len(inputs)])

    def __call__(self, context: PriorInputs) -> Mixture:
        """Return the mixture of the posteriors of the pseudo-inputs, their images kept within [0, 1]."""
        inputs = ops.convert_to_tensor(self.pseudo_inputs)
        images = clip_keeping_gradients(inputs[..., : self.channels], 0.0, 1.0)
        inputs = ops.concatenate([images, inputs[..., self.channels :]], axis=-1)
        return Mixture(ops.zeros((self.num_components,)), context.encode(inputs))


@register("realnvp")
class RealNVP(ComponentLayer, Prior):
    """A standard normal bent by affine couplings (Dinh et al., arXiv 1605.08803; as a prior: Chen et al., 1611.02731).

    Args:
        num_couplings: Number of couplings; the two halves of the dimensions take turns.
        hidden: Widths of the hidden layers of each.
        **kwargs: As for every Keras layer.

    Raises:
        InputError: A size is below one.
    """

    def __init__(self, num_couplings: int = 6, hidden: tuple[int, ...] = (128, 128), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if min((num_couplings, *hidden)) < 1:
            raise InputError(f"realnvp: num_couplings = {num_couplings}, hidden = {list(hidden)}: each must be ≥ 1")
        self.num_couplings, self.hidden = num_couplings, tuple(hidden)

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Make the weights for codes, inputs of the encoder and conditions of these shapes."""
        # Alternate dimensions, so that a coupling of one dimension alone is still a step.
        halves = [[(dimension + turn) % 2 for dimension in range(latent_shape[-1])] for turn in range(2)]
        self.flow = [
            MaskedAffineBijector(halves[index % 2], self.hidden, name=f"coupling_{index}")
            for index in range(self.num_couplings)
        ]

    def __call__(self, context: PriorInputs) -> TransformedDistribution:
        """Return the flow."""
        zeros = ops.zeros((context.latent_dim,), "float32")
        return TransformedDistribution(DiagonalNormal(zeros, zeros), self.flow, normalizing=True)


@register("conditional-normal")
class ConditionalNormal(ComponentLayer, Prior):
    """A diagonal normal whose moments are a learned function of the condition (Sohn et al., NeurIPS 2015).

    Args:
        hidden: Units of the hidden layer.
        **kwargs: As for every Keras layer.

    Raises:
        InputError: The model has no condition, or a size is below one.
    """

    def __init__(self, hidden: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if hidden < 1:
            raise InputError(f"conditional-normal: hidden = {hidden}: must be ≥ 1")
        self.hidden = hidden

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Make the weights for codes, inputs of the encoder and conditions of these shapes."""
        if condition_shape[-1] == 0:
            raise InputError("prior = conditional-normal: the model has no condition; set condition = 'label'")
        small = keras.initializers.RandomNormal(stddev=0.01)
        self.inner = layers.Dense(self.hidden, activation="relu", dtype="float32")
        self.inner.build(condition_shape)
        self.outer = layers.Dense(2 * latent_shape[-1], kernel_initializer=small, dtype="float32")
        self.outer.build((None, self.hidden))

    def __call__(self, context: PriorInputs) -> DiagonalNormal:
        """Return the normal under the condition, of its batch shape."""
        mean, log_var = ops.split(self.outer(self.inner(context.condition)), 2, axis=-1)
        return DiagonalNormal(mean, clip_keeping_gradients(log_var, -20.0, 20.0))
