"""Priors whose density is a closed form."""

from dataclasses import dataclass
from typing import Any, ClassVar

import keras
import numpy as np
from keras import layers, ops

from keras_vae.components.priors.base import Prior, PriorInputs
from keras_vae.core.errors import MAX_SIZE, InputError, check_count
from keras_vae.core.math import clip_keeping_gradients
from keras_vae.core.registry import Component, ComponentLayer, register
from keras_vae.core.typing import Array, Shape
from keras_vae.distributions.bijectors import MaskedAffineBijector
from keras_vae.distributions.latent import DiagonalNormal, Mixture, TransformedDistribution


@register("standard-normal")
@dataclass(frozen=True)
class StandardNormal(Component, Prior):
    """The standard normal N(0, I) of Kingma and Welling (arXiv 1312.6114)."""

    is_elementwise: ClassVar[bool] = True

    def __call__(self, inputs: PriorInputs) -> DiagonalNormal:
        """Return N(0, I)."""
        zeros = ops.zeros((inputs.latent_dim,), "float32")
        return DiagonalNormal(zeros, zeros)


@register("mixture")
class MixtureOfNormals(ComponentLayer, Prior):
    r"""A learned mixture of diagonal normals, \(p(z) = \sum_m w_m N(z; \mu_m, \sigma_m^2)\).

    Args:
        num_components: Number of normals M (Dilokthanakul et al., arXiv 1611.02648; Jiang et al., arXiv 1611.05148).
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: `num_components` is below 1.
    """

    def __init__(self, num_components: int = 50, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_count("num_components", num_components, maximum=MAX_SIZE)
        self.num_components = num_components

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Create the weights, given the shapes of codes, encoder inputs and encoded conditions."""
        shape = (self.num_components, latent_shape[-1])
        self.logits = self.add_weight(shape=(self.num_components,), initializer="zeros", name="logits")
        self.means = self.add_weight(shape=shape, initializer=keras.initializers.RandomNormal(stddev=1.0), name="means")
        self.log_vars = self.add_weight(shape=shape, initializer="zeros", name="log_vars")

    def initialize(self, codes: Array) -> None:
        """Initialize the means with codes, and all variances with the variance of the codes.

        Args:
            codes: (n, D). Component m starts at code m modulo n.
        """
        self.means.assign(codes[np.arange(self.num_components) % len(codes)])
        self.log_vars.assign(np.tile(np.log(codes.var(axis=0) + 1e-6), (self.num_components, 1)))

    def __call__(self, inputs: PriorInputs) -> Mixture:
        """Return the mixture."""
        means, log_vars = ops.convert_to_tensor(self.means), ops.convert_to_tensor(self.log_vars)
        return Mixture(
            ops.convert_to_tensor(self.logits), DiagonalNormal(means, clip_keeping_gradients(log_vars, -20.0, 20.0))
        )


@register("vamp")
class VampPrior(ComponentLayer, Prior):
    r"""The mixture of the posteriors of learned pseudo-inputs, \(p(z) = \tfrac1K \sum_k q(z|u_k)\).

    Tomczak and Welling (arXiv 1705.07120). Training the prior also trains the encoder, which encodes the pseudo-inputs.

    Args:
        num_components: Number of pseudo-inputs K.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: `num_components` is below 1.
    """

    def __init__(self, num_components: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_count("num_components", num_components, maximum=MAX_SIZE)
        self.num_components = num_components

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Create the weights, given the shapes of codes, encoder inputs and encoded conditions."""
        uniform = keras.initializers.RandomUniform(0.0, 1.0)
        shape = (self.num_components, *input_shape[1:])
        self.channels = input_shape[-1] - condition_shape[-1]
        self.pseudo_inputs = self.add_weight(shape=shape, initializer=uniform, name="pseudo_inputs")

    def initialize(self, inputs: Array) -> None:
        """Initialize the pseudo-inputs with encoder inputs.

        Args:
            inputs: Images in [0, 1] with their conditions as further channels, (n, H, W, C). Pseudo-input k starts at
                input k modulo n.
        """
        self.pseudo_inputs.assign(inputs[np.arange(self.num_components) % len(inputs)])

    def __call__(self, inputs: PriorInputs) -> Mixture:
        """Return the mixture of the posteriors of the pseudo-inputs, whose images are clipped to [0, 1]."""
        pseudo_inputs = ops.convert_to_tensor(self.pseudo_inputs)
        images = clip_keeping_gradients(pseudo_inputs[..., : self.channels], 0.0, 1.0)
        pseudo_inputs = ops.concatenate([images, pseudo_inputs[..., self.channels :]], axis=-1)
        return Mixture(ops.zeros((self.num_components,), "float32"), inputs.encode(pseudo_inputs))


@register("realnvp")
class RealNVP(ComponentLayer, Prior):
    """A flow of affine couplings over a standard normal (Dinh et al., arXiv 1605.08803; Chen et al., 1611.02731).

    Args:
        num_couplings: Number of couplings, which transform even and odd dimensions alternately.
        hidden: Units of the hidden layers of each coupling.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: A size is below 1.
    """

    def __init__(self, num_couplings: int = 6, hidden: tuple[int, ...] = (128, 128), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if min((num_couplings, *hidden)) < 1:
            raise InputError(
                f"num_couplings = {num_couplings}, hidden = {list(hidden)}: not all positive; pass integers ≥ 1"
            )
        self.num_couplings, self.hidden = num_couplings, tuple(hidden)

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Create the weights, given the shapes of codes, encoder inputs and encoded conditions."""
        # The dimensions alternate, so that a flow over a single dimension transforms it too.
        halves = [[(dimension + turn) % 2 for dimension in range(latent_shape[-1])] for turn in range(2)]
        self.flow = [
            MaskedAffineBijector(halves[index % 2], self.hidden, name=f"coupling_{index}")
            for index in range(self.num_couplings)
        ]

    def __call__(self, inputs: PriorInputs) -> TransformedDistribution:
        """Return the flow over N(0, I)."""
        zeros = ops.zeros((inputs.latent_dim,), "float32")
        return TransformedDistribution(DiagonalNormal(zeros, zeros), self.flow, maps_to_base=True)


@register("conditional-normal")
class ConditionalNormal(ComponentLayer, Prior):
    """A diagonal normal whose moments are a learned function of the condition (Sohn et al., NeurIPS 2015).

    Args:
        hidden: Units of the hidden layer.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: The model has no condition, or `hidden` is below 1.
    """

    def __init__(self, hidden: int = 64, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_count("hidden", hidden, maximum=MAX_SIZE)
        self.hidden = hidden

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Create the weights, given the shapes of codes, encoder inputs and encoded conditions."""
        if condition_shape[-1] == 0:
            raise InputError("prior = conditional-normal: the model has no condition; set condition = 'label'")
        small = keras.initializers.RandomNormal(stddev=0.01)
        self.inner = layers.Dense(self.hidden, activation="relu", dtype="float32")
        self.inner.build(condition_shape)
        self.outer = layers.Dense(2 * latent_shape[-1], kernel_initializer=small, dtype="float32")
        self.outer.build((None, self.hidden))

    def __call__(self, inputs: PriorInputs) -> DiagonalNormal:
        """Return the normal given the condition, with the condition's batch shape."""
        mean, log_var = ops.split(self.outer(self.inner(inputs.condition)), 2, axis=-1)
        return DiagonalNormal(mean, clip_keeping_gradients(log_var, -20.0, 20.0))
