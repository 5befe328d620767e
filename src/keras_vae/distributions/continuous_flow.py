"""Continuous normalizing flows: distributions whose samples solve an ordinary differential equation."""

import abc
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar, final

import keras
from keras import ops

from keras_vae.core import backend
from keras_vae.core.errors import InputError
from keras_vae.core.progress import reported
from keras_vae.core.typing import Seed, Tensor
from keras_vae.distributions.latent import PushforwardDistribution

State = TypeVar("State")

_LOG_TWO_PI = math.log(2 * math.pi)
_VALUES_AT_ONCE = 2**15


class VelocityField(abc.ABC):
    """A velocity field v(u, t) that moves noise, at t = 0, to samples, at t = 1.

    Attributes:
        latent_dim: Number of dimensions D.
        steps: Number of steps of Heun's method.
        has_divergence: Whether `velocity_and_divergence` is available.
    """

    latent_dim: int
    steps: int
    has_divergence: bool

    @abc.abstractmethod
    def velocity(self, u: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return v(u, t), (N, D).

        Args:
            u: Points, (N, D).
            time: t, a scalar, or one per point, (N, 1).
            condition: Encoded conditions, (N, size), or None.
        """

    @abc.abstractmethod
    def velocity_and_divergence(self, u: Tensor, time: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return v(u, t), (N, D), and its divergence \(\sum_i \partial v_i / \partial u_i\), (N,)."""

    @property
    @abc.abstractmethod
    def compiled_transform(self) -> Callable[[dict[str, Tensor]], Tensor]:
        """A compiled function of `noise` (N, D) and, if any, `condition` (N, size), that returns u at t = 1, (N, D)."""

    def transport(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return u at t = 1, (N, D), given u at t = 0."""
        step = 1 / self.steps

        def advance(index: Tensor, u: Tensor) -> Tensor:
            time = index * step
            velocity = self.velocity(u, time, condition)
            end = self.velocity(u + step * velocity, time + step, condition)
            return u + 0.5 * step * (velocity + end)

        return _repeat(self.steps, advance, noise)

    def noise_and_log_volume(self, u: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return u at t = 0, (N, D), given u at t = 1, and \(\int_0^1 \nabla \cdot v(u(t), t) \, dt\), (N,).

        The integral is a trapezoidal sum over the steps.
        """
        step = 1 / self.steps

        def go_back(index: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            u, log_volume, velocity, divergence = state
            time = 1.0 - (index + 1.0) * step
            start = self.velocity(u - step * velocity, time, condition)
            u = u - 0.5 * step * (velocity + start)
            velocity, earlier = self.velocity_and_divergence(u, time, condition)
            return u, log_volume + 0.5 * step * (divergence + earlier), velocity, earlier

        velocity, divergence = self.velocity_and_divergence(u, ops.ones((), "float32"), condition)
        return _repeat(self.steps, go_back, (u, ops.zeros_like(divergence), velocity, divergence))[:2]


@final
@dataclass(frozen=True, eq=False)
class ContinuousFlow(PushforwardDistribution):
    r"""Distribution of \(z = \mu + \sigma u(1)\), where \(du/dt = v(u, t)\) and \(u(0) \sim N(0, I)\).

    \(\log p(z) = \log N(u(0)) - \int_0^1 \nabla \cdot v(u(t), t) \, dt - \sum_d \log \sigma_d\) (Chen et al., arXiv
    1806.07366), with the exact divergence.

    Args:
        field: The velocity field v.
        mean: \(\mu\), (D,).
        scale: \(\sigma\), positive, (D,).
        condition: Encoded conditions, (…, size), whose leading axes broadcast to those of codes; or None.
    """

    field: VelocityField
    mean: Tensor
    scale: Tensor
    condition: Tensor = None

    def transform(self, noise: Tensor) -> Tensor:
        """Transform noise (…, D) into samples by Heun's method.

        Outside of a traced function, it is compiled and runs in batches, and the samples have no gradient.
        """
        if isinstance(noise, keras.KerasTensor):
            return self.field.transport(noise, self.condition) * self.scale + self.mean
        flat, condition = self._flatten(ops.convert_to_tensor(noise))
        if backend.is_concrete(flat):
            u = self._transport_in_batches(flat, condition)
        else:
            u = self.field.transport(flat, condition)
        return ops.reshape(u, ops.shape(noise)) * self.scale + self.mean

    def sample(self, count: int, seed: Seed) -> Tensor:
        """Draw codes, (count, D)."""
        shape = (count, self.field.latent_dim)
        return self.transform(keras.random.normal(shape, dtype="float32", seed=seed))

    def log_prob(self, z: Tensor) -> Tensor:
        """Return log-densities in nats, (…), of codes (…, D).

        Raises:
            InputError: The divergence of the field is not available.
        """
        if not self.field.has_divergence:
            raise InputError(
                f"log_prob: the divergence in {self.field.latent_dim} dimensions is too expensive; use samples only"
            )
        u, condition = self._flatten((z - self.mean) / self.scale)
        noise, log_volume = self.field.noise_and_log_volume(u, condition)
        log_prob = -0.5 * ops.sum(ops.square(noise) + _LOG_TWO_PI, axis=-1) - log_volume
        return ops.reshape(log_prob, ops.shape(z)[:-1]) - ops.sum(ops.log(self.scale))

    def _flatten(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Return points (N, D) and the condition of each, (N, size), or None."""
        condition = self.condition
        if condition is not None:
            size = condition.shape[-1]
            condition = ops.reshape(ops.broadcast_to(condition, (*ops.shape(u)[:-1], size)), (-1, size))
        return ops.reshape(u, (-1, self.field.latent_dim)), condition

    def _transport_in_batches(self, noise: Tensor, condition: Tensor) -> Tensor:
        """Return the transported noise, in batches whose memory does not grow with their number."""
        count, rows = len(noise), max(1, _VALUES_AT_ONCE // self.field.latent_dim)
        if count > rows:
            # All batches have the same size, because some backends compile a program for each size.
            padding = ((0, -count % rows), (0, 0))
            noise = ops.pad(noise, padding)
            condition = None if condition is None else ops.pad(condition, padding)
        parts = []
        for start in reported(range(0, len(noise), rows), "drawing codes"):
            chunk = slice(start, start + rows)
            inputs = {"noise": noise[chunk]} | ({} if condition is None else {"condition": condition[chunk]})
            parts.append(self.field.compiled_transform(inputs))
        return ops.concatenate(parts)[:count]


def _repeat(steps: int, function: Callable[[Tensor, State], State], state: State) -> State:
    """Apply a function of (index, state) for each step; in symbolic graphs, which have no loops, unrolled."""
    if isinstance(state, keras.KerasTensor):
        for index in range(steps):
            state = function(float(index), state)
        return state
    looped: State = ops.fori_loop(0, steps, lambda index, state: function(ops.cast(index, "float32"), state), state)
    return looped
