"""Annealed importance sampling, an estimate of log p(x) that does not depend on the encoder."""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from keras_vae.core.images import normal_noise
from keras_vae.core.typing import Floats
from keras_vae.models.importance_sampling import Block, Proposal
from keras_vae.models.latent_target import LatentTarget

_PRIOR_SAMPLES = 100
_PILOT_CHAINS = 10
_TARGET_ACCEPTANCE = 0.65
_LOG_TWO_PI = math.log(2 * math.pi)


class Chains(NamedTuple):
    """States of M Markov chains per image, in coordinates in which the initial distribution is N(0, I).

    Args:
        position: (N, M, D).
        log_joint: log p(x, z) of the positions, (N, M).
        gradient: Its gradient in the positions, (N, M, D).
    """

    position: Floats
    log_joint: Floats
    gradient: Floats

    @property
    def log_initial(self) -> Floats:
        """Log-density of the initial distribution at the positions, up to a constant, (N, M)."""
        density: Floats = -0.5 * np.square(self.position).sum(axis=-1)
        return density


@dataclass(frozen=True)
class AnnealedImportanceSampling(Proposal):
    r"""Annealed importance sampling with Hamiltonian transitions (Neal 2001; Wu et al., arXiv 1611.04273).

    A chain starts at a draw from \(q_0\), the diagonal normal with the moments of the prior, and passes through the
    densities \(q_0(z)^{1-\beta} p(x, z)^\beta\) with β rising from 0 to 1 along a sigmoid. Its weight is
    \(\prod_t (p(x, z_t) / q_0(z_t))^{\beta_{t+1} - \beta_t}\). The weights average to p(x) exactly, because the step
    sizes come from a first run with its own noise, whose acceptance rate they adjust to 0.65.

    The estimate does not depend on the encoder. Use it as a second opinion on few images and with few chains (the
    `samples`): a chain costs `temperatures` · `leapfrog_steps` gradients, and the first run costs ten chains.

    Args:
        temperatures: Number of transitions of a chain.
        leapfrog_steps: Number of leapfrog steps per transition.
    """

    temperatures: int = 100
    leapfrog_steps: int = 5

    name = "ais"
    draws_at_once = 50

    def log_weights(self, block: Block) -> Iterator[Floats]:
        """Yield the log-weights of the chains of a block, (N, ·), float64."""
        for _, log_weights in self.weighted_codes(block):
            yield log_weights

    def weighted_codes(self, block: Block) -> Iterator[tuple[Floats, Floats]]:
        """Yield the last states of the chains of a block, (N, ·, D), and their log-weights, (N, ·), float64."""
        target = LatentTarget(block.model, block.inputs, block.size, block.draws)
        pilot = block.generators(3)
        shape = (_PRIOR_SAMPLES, target.latent_dim)
        noise = normal_noise(pilot, shape)
        samples = target.sample_prior(noise, pilot)
        space = _WhitenedSpace(target, samples.mean(axis=1, keepdims=True), samples.std(axis=1, keepdims=True))
        *_, step_sizes = self._anneal(space, pilot, min(block.samples, _PILOT_CHAINS), None)
        generators = block.generators(4)
        for start in range(0, block.samples, block.draws):
            count = min(block.draws, block.samples - start)
            yield self._anneal(space, generators, count, step_sizes)[:2]

    def _anneal(
        self, space: "_WhitenedSpace", generators: list[np.random.Generator], count: int, step_sizes: Floats | None
    ) -> tuple[Floats, Floats, Floats]:
        """Return last states (N, count, D), log-weights (N, count) and step sizes (temperatures, N).

        Args:
            space: The coordinates of the chains.
            generators: One per image.
            count: Number of chains.
            step_sizes: Step sizes; None adjusts them to the acceptance rate.
        """
        shape = (count, space.target.latent_dim)
        chains = space.at(np.stack([generator.standard_normal(shape) for generator in generators]))
        log_weights, used = np.zeros(chains.log_joint.shape), []
        step_size = np.full(len(generators), 0.5)
        betas = 1 / (1 + np.exp(-np.linspace(-4, 4, self.temperatures + 1)))
        betas = (betas - betas[0]) / (betas[-1] - betas[0])
        for step in range(self.temperatures):
            log_weights += (betas[step + 1] - betas[step]) * (chains.log_joint - chains.log_initial)
            if step_sizes is not None:
                step_size = step_sizes[step]
            used.append(step_size)
            momentum = np.stack([generator.standard_normal(shape) for generator in generators])
            uniform = np.stack([generator.random(count) for generator in generators])
            chains, acceptance = self._transition(space, chains, momentum, uniform, betas[step + 1], step_size)
            step_size = step_size * np.exp(0.3 * (acceptance.mean(axis=1) - _TARGET_ACCEPTANCE))
        return space.codes(chains.position), log_weights + space.log_volume, np.stack(used)

    def _transition(
        self, space: "_WhitenedSpace", chains: Chains, momentum: Floats, uniform: Floats, beta: float, step_size: Floats
    ) -> tuple[Chains, Floats]:
        """Return the next states of chains, and the probabilities with which the transitions were accepted, (N, M)."""
        step = step_size[:, None, None]

        def slope(state: Chains) -> Floats:
            gradient: Floats = beta * state.gradient - (1 - beta) * state.position
            return gradient

        def energy(state: Chains, momentum: Floats) -> Floats:
            potential = beta * state.log_joint + (1 - beta) * state.log_initial
            total: Floats = 0.5 * np.square(momentum).sum(axis=-1) - potential
            return total

        before, proposed = energy(chains, momentum), chains
        momentum = momentum + 0.5 * step * slope(proposed)
        for index in range(self.leapfrog_steps):
            proposed = space.at(proposed.position + step * momentum)
            is_last = index == self.leapfrog_steps - 1
            momentum = momentum + (0.5 if is_last else 1.0) * step * slope(proposed)
        acceptance = np.exp(np.minimum(0.0, before - energy(proposed, momentum)))
        accepted = uniform < acceptance
        return Chains(
            *(
                np.where(accepted if old.ndim == 2 else accepted[..., None], new, old)
                for new, old in zip(proposed, chains, strict=True)
            )
        ), acceptance


@dataclass(frozen=True)
class _WhitenedSpace:
    """Coordinates (z − mean) / deviation of the codes of N images.

    Args:
        target: The joint density.
        mean: Means, (N, 1, D).
        deviation: Standard deviations, (N, 1, D).
    """

    target: LatentTarget
    mean: Floats
    deviation: Floats

    @property
    def log_volume(self) -> Floats:
        """The constant that `Chains.log_initial` lacks with the opposite sign, (N, 1)."""
        volume: Floats = np.log(self.deviation).sum(axis=-1) + 0.5 * self.target.latent_dim * _LOG_TWO_PI
        return volume

    def codes(self, position: Floats) -> Floats:
        """Return the codes at positions (N, M, D)."""
        return self.mean + self.deviation * position

    def at(self, position: Floats) -> Chains:
        """Return chains at positions (N, M, D)."""
        values, gradients = self.target.log_joint_and_gradient(self.codes(position))
        return Chains(position, values, gradients * self.deviation)
