"""The flow-matching prior: an ordinary differential equation, learned by regression, that turns noise into codes."""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from keras import ops

from keras_vae.components.priors.base import Density, Prior, PriorInputs
from keras_vae.components.priors.velocity import VelocityMLP, VelocityNetwork, VelocityUNet
from keras_vae.core import backend
from keras_vae.core.errors import MAX_SIZE, InputError, check_count
from keras_vae.core.registry import ComponentLayer, register
from keras_vae.core.typing import Floats, Shape, Tensor
from keras_vae.distributions.continuous_flow import ContinuousFlow, VelocityField

MAX_DENSITY_DIM = 64
"""Number of latent dimensions up to which the prior has a density, whose cost is proportional to it."""

_SMALLEST_SCALE = 1e-6


@register("flow-matching")
class FlowMatching(ComponentLayer, Prior, VelocityField):
    r"""A flow \(du/dt = v(u, t)\) from N(0, I) to standardized codes (Lipman et al., arXiv 2210.02747).

    Fitted after the training of the model, by regression of v on \(u_1 - u_0\) at \(u_t = (1 - t) u_0 + t u_1\), for
    noise \(u_0\) and codes \(u_1\); see `fit_prior`. The velocity is
    \(v(u, t) = \frac{2t - 1}{t^2 + (1 - t)^2} u + f(u, t)\), whose first term is the solution for normal codes. The
    network f is a residual MLP, or a U-Net for maps of more than 64 values. Heun's method solves the equation.

    A prior of a conditional model depends on the condition. With classifier-free guidance (Ho and Salimans, arXiv
    2207.12598), \(v = v_\emptyset + g (v_c - v_\emptyset)\), where \(v_\emptyset\) is the velocity without a condition.

    Up to 64 dimensions, log p(z) is exact but for the steps of the solver: it integrates the divergence of v along the
    path of each code. This costs as much as hundreds of evaluations of f per code. Beyond, there is no density.

    Args:
        width: Units of the layers of f; its U-Net has an eighth as many channels at the largest map.
        num_blocks: Number of residual blocks of the MLP.
        steps: Number of steps of Heun's method, each of which evaluates v twice.
        guidance: g; 1 samples the condition as it was learned, and larger values favor typical codes.
        map_shape: (h, w, c) of codes that are maps; empty for vectors.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: A size is below 1, `guidance` is negative or the model has no condition, or `map_shape` does not fit
            the codes.

    Example:
        >>> prior = FlowMatching(width=16, num_blocks=1, steps=4)
        >>> prior.build((None, 2), (None, 28, 28, 1), (None, 0))
        >>> inputs = PriorInputs(latent_dim=2, encode=lambda images: None)
        >>> tuple(prior(inputs).sample(3, seed=0).shape)
        (3, 2)
    """

    def __init__(
        self,
        width: int = 512,
        num_blocks: int = 3,
        steps: int = 50,
        guidance: float = 1.0,
        map_shape: tuple[int, ...] = (),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in {"width": width, "num_blocks": num_blocks, "steps": steps}.items():
            check_count(name, value, maximum=MAX_SIZE)
        if not 0 <= guidance < math.inf:
            raise InputError(
                f"guidance = {guidance}: not a finite number ≥ 0; pass 1 for no guidance, or a larger number, such as 2"
            )
        if map_shape and (len(map_shape) != 3 or min(map_shape) < 1):
            raise InputError(
                f"map_shape = {tuple(map_shape)}: not the size of a map; pass (h, w, c), or () for vectors"
            )
        self.width, self.num_blocks, self.steps, self.guidance = width, num_blocks, steps, guidance
        self.map_shape = tuple(map_shape)

    def build(self, latent_shape: Shape, input_shape: Shape, condition_shape: Shape) -> None:
        """Create the weights, given the shapes of codes, encoder inputs and encoded conditions."""
        size, self.condition_dim = latent_shape[-1], condition_shape[-1]
        if self.map_shape and math.prod(self.map_shape) != size:
            raise InputError(f"map_shape = {self.map_shape}: does not fit codes of {size} values; pass (h, w, c)")
        if self.guidance != 1 and not self.condition_dim:
            raise InputError(
                f"guidance = {self.guidance}: the model has no condition to guide to; leave out guidance, or train a "
                "model with condition = 'label'"
            )
        self.latent_dim = size
        self.mean = self.add_weight(shape=(size,), initializer="zeros", trainable=False, name="mean")
        self.scale = self.add_weight(shape=(size,), initializer="ones", trainable=False, name="scale")
        # The condition and a constant 1, all zero for no condition.
        inputs = self.condition_dim + 1 if self.condition_dim else 0
        self.network: VelocityNetwork
        if self.map_shape and not self.has_divergence:
            self.network = VelocityUNet(self.map_shape, inputs, self.width, max(1, self.width // 8))
        else:
            self.network = VelocityMLP(size, inputs, self.width, self.num_blocks)

    @property
    def has_divergence(self) -> bool:  # type: ignore[override]
        """Whether there are few enough dimensions for the divergence of v."""
        return bool(self.latent_dim <= MAX_DENSITY_DIM)

    @property
    def density(self) -> Density:
        """`"ode"` up to 64 dimensions; otherwise `"none"`."""
        return "ode" if self.has_divergence else "none"

    def initialize(self, codes: Floats) -> None:
        """Set the standardization to the moments of codes (n, D): per dimension, or per channel of maps."""
        values = codes.reshape(-1, self.map_shape[-1] if self.map_shape else self.latent_dim).astype("float64")
        repeats = self.latent_dim // values.shape[1]
        self.mean.assign(np.tile(values.mean(axis=0), repeats))
        self.scale.assign(np.tile(np.maximum(values.std(axis=0), _SMALLEST_SCALE), repeats))

    def __call__(self, inputs: PriorInputs) -> ContinuousFlow:
        """Return the flow, given the condition if the model has one."""
        mean, scale = ops.convert_to_tensor(self.mean), ops.convert_to_tensor(self.scale)
        return ContinuousFlow(self, mean, scale, inputs.condition if self.condition_dim else None)

    def conditional_velocity(self, u: Tensor, time: Tensor, condition: Tensor, keep: Tensor = 1.0) -> Tensor:
        """Return the velocity without guidance, (N, D), for training.

        Args:
            u: Points, (N, D).
            time: Times, (N, 1), or one for all points, (1, 1).
            condition: Encoded conditions, (N, size), or None.
            keep: 1 to use the condition and 0 to drop it, a scalar or (N, 1).
        """
        return u * _normal_slope(time) + self.network.apply(u, time, self._condition_inputs(condition, keep))

    def velocity(self, u: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return v(u, t) with guidance, (N, D)."""
        time = ops.reshape(ops.convert_to_tensor(time, "float32"), (-1, 1))
        velocity = self.conditional_velocity(u, time, condition)
        if self.guidance == 1:
            return velocity
        free = self.conditional_velocity(u, time, condition, 0.0)
        return free + self.guidance * (velocity - free)

    def velocity_and_divergence(self, u: Tensor, time: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """Return v(u, t) with guidance, (N, D), and its divergence, (N,)."""
        time, network = ops.reshape(ops.convert_to_tensor(time, "float32"), (-1, 1)), self.network
        assert isinstance(network, VelocityMLP)
        output, divergence = network.apply_with_divergence(u, time, self._condition_inputs(condition, 1.0))
        if self.guidance != 1:
            free, other = network.apply_with_divergence(u, time, self._condition_inputs(condition, 0.0))
            output = free + self.guidance * (output - free)
            divergence = other + self.guidance * (divergence - other)
        slope = _normal_slope(time)
        return u * slope + output, self.latent_dim * slope[:, 0] + divergence

    @functools.cached_property
    def compiled_transform(self) -> Callable[[dict[str, Tensor]], Tensor]:
        """A compiled function of `noise` and, if any, `condition`, that returns u at t = 1."""
        return backend.compiled(lambda inputs: self.transport(inputs["noise"], inputs.get("condition")), self.variables)

    def _condition_inputs(self, condition: Tensor, keep: Tensor) -> Tensor:
        if not self.condition_dim:
            return None
        ones = ops.ones_like(ops.max(condition, axis=-1, keepdims=True))
        return ops.concatenate([condition, ones], axis=-1) * keep


def _normal_slope(time: Tensor) -> Tensor:
    r"""Return \((2t - 1) / (t^2 + (1 - t)^2)\): v(u, t) = slope · u transports N(0, I) to itself."""
    return (time * 2.0 - 1.0) / (ops.square(time) + ops.square(1.0 - time))
