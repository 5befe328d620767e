"""A mixture proposal that searches the modes of p(z|x), also those that the encoder misses."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from keras_vae.core.images import normal_noise
from keras_vae.core.typing import Floats
from keras_vae.models.importance_sampling import Block, Proposal
from keras_vae.models.latent_target import LatentTarget

_LOG_TWO_PI = math.log(2 * math.pi)


@dataclass(frozen=True)
class NormalMixture:
    r"""Mixtures of C normal distributions with full covariances \(LL^\top\), one mixture per image.

    Args:
        weights: Weights of the components, (N, C), which sum to one.
        means: Means, (N, C, D).
        scales: \(L\), lower triangular with a positive diagonal, (N, C, D, D).
    """

    weights: Floats
    means: Floats
    scales: Floats

    def sample(self, noise: Floats, offsets: Floats) -> Floats:
        """Return codes (N, K, D).

        The components are chosen by systematic sampling: component c yields the share of the K codes that is its
        weight, up to one code, and the expected density of the codes is that of the mixture.

        Args:
            noise: Standard normal noise, (N, K, D).
            offsets: One number per image, uniform on [0, 1), (N,).
        """
        count = noise.shape[1]
        positions = (np.arange(count) + offsets[:, None]) / count
        ends = np.cumsum(self.weights, axis=1)[:, :-1]
        chosen = (positions[..., None] >= ends[:, None]).sum(axis=-1)
        # One image at a time, because each code has its own copy of a D×D matrix.
        return np.stack(
            [
                means[indices] + (scales[indices] @ epsilon[..., None])[..., 0]
                for means, scales, indices, epsilon in zip(self.means, self.scales, chosen, noise, strict=True)
            ]
        )

    def log_prob(self, codes: Floats) -> Floats:
        """Return the log-densities of codes (N, K, D), in nats, (N, K)."""
        whitened = (codes[:, None] - self.means[:, :, None]) @ np.swapaxes(np.linalg.inv(self.scales), -1, -2)
        log_dets = np.log(np.diagonal(self.scales, axis1=-2, axis2=-1)).sum(axis=-1)
        constants = np.log(self.weights) - log_dets - 0.5 * codes.shape[-1] * _LOG_TWO_PI
        result: Floats = np.logaddexp.reduce(constants[..., None] - 0.5 * np.square(whitened).sum(axis=-1), axis=1)
        return result


@dataclass(frozen=True)
class MixtureProposal(Proposal):
    r"""A mixture of the posterior, the prior, and normals at modes of p(x, z) found for each image.

    The posterior and the prior yield a tenth of the draws each. The prior bounds the weights of a discrete likelihood
    (Hesterberg, Technometrics 1995). All other draws come from normals, which are fitted to the image in two steps:

    1. `steps` steps of Adam ascend log p(x, z) from the posterior mean and from the `starts` best of `candidates` draws
       from the prior.
    2. At the highest of the modes, `rounds` rounds of Gaussian variational inference fit the mean and the full
       covariance. The expected gradient and Hessian come from gradients at the \(2D\) points of the spherical cubature
       rule, \(\mu \pm \sqrt D L e_d\) (Arasaratnam and Haykin, 2009).

    Each fit is used with its own scale and a wider one, and weighted by its ELBO. A tenth of these draws come from a
    normal at the posterior mean that is wider than the posterior. The weight of a draw from any component is
    \(p(x, z) / q(z)\), with the density q of the whole mixture, the balance heuristic (Veach and Guibas, 1995). The
    search has its own noise, so the weights average to p(x) exactly.

    A search costs about 100 decodes, 270 gradients of the ascent, and up to 400 gradients of the fits (8D above 50
    dimensions). A gradient costs as much as three decodes.

    Args:
        candidates: Number of draws from the prior among which starts are chosen.
        starts: Number of starts in addition to the posterior mean.
        steps: Number of steps of Adam per start.
        rounds: Number of rounds of the Gaussian fits.
        fitted_points: Number of points at which the gradients of a round are computed, if there are several modes.
    """

    candidates: int = 100
    starts: int = 8
    steps: int = 30
    rounds: int = 4
    fitted_points: int = 100

    name = "mixture"
    draws_at_once = 50

    def log_weights(self, block: Block) -> Iterator[Floats]:
        """Yield the log importance weights of a block, (N, ·), float64."""
        for _, log_weights in self.weighted_codes(block):
            yield log_weights

    def weighted_codes(self, block: Block) -> Iterator[tuple[Floats, Floats]]:
        """Yield the draws of a block: codes (N, ·, D), and their log importance weights, (N, ·), float64."""
        target = LatentTarget(block.model, block.inputs, block.size, block.draws)
        normals = self.fit(target, block.generators(3))
        count, dim = block.samples, target.latent_dim
        defensive = count // 10
        generators = block.generators(4)
        noise = normal_noise(generators, (count, dim))
        offsets = np.array([generator.random() for generator in generators])
        parts = [normals.sample(noise[:, 2 * defensive :], offsets)]
        if defensive:
            parts.append(target.sample_posterior(noise[:, :defensive]))
            parts.append(target.sample_prior(noise[:, defensive : 2 * defensive], generators))
        codes = np.concatenate(parts, axis=1).astype("float32").astype("float64")
        log_share, log_rest = _log(defensive / count), _log(1 - 2 * defensive / count)
        for start in range(0, count, block.draws):
            chunk = codes[:, start : start + block.draws]
            log_likelihood, log_prior, log_posterior = target.terms(chunk)
            log_density = np.logaddexp(log_prior, log_posterior) + log_share
            log_density = np.logaddexp(log_density, normals.log_prob(chunk) + log_rest)
            yield chunk, log_likelihood + log_prior - log_density

    def fit(self, target: LatentTarget, generators: list[np.random.Generator]) -> NormalMixture:
        """Return mixtures of normals fitted to images.

        Args:
            target: The joint density of the images.
            generators: One per image, for the candidates.
        """
        dim = target.latent_dim
        mean, deviation = target.posterior_moments()
        shape = (self.candidates, dim)
        noise = normal_noise(generators, shape)
        candidates = target.sample_prior(noise, generators)
        starts = np.concatenate([mean, _best(candidates, target.log_joint(candidates), self.starts)], axis=1)
        # A tenth of the prior's deviation is small compared with its structure, and large compared with a posterior.
        modes, heights = ascend(target, starts, 0.1 * candidates.std(axis=1, keepdims=True), self.steps)
        num_modes = min(max(1, self.fitted_points // (2 * dim)), self.starts + 1)
        posterior_scale: Floats = deviation[..., None] * np.eye(dim)
        scales: Floats = np.repeat(posterior_scale, num_modes, axis=1)
        means, scales, elbos = fit_normals(target, _best(modes, heights, num_modes), scales, self.rounds)
        # The ELBOs can be wrong, so a fifth of the weight is spread evenly.
        weights = np.exp(elbos - elbos.max(axis=1, keepdims=True))
        weights = 0.8 * weights / weights.sum(axis=1, keepdims=True) + 0.2 / num_modes
        # Scales that differ by this factor overlap to the same degree in every dimension.
        wide = 3.0 ** math.sqrt(2 / dim)
        return NormalMixture(
            np.concatenate([0.6 * weights, 0.3 * weights, np.full((len(mean), 1), 0.1)], axis=1),
            np.concatenate([means, means, mean], axis=1),
            np.concatenate([scales, wide * scales, wide * posterior_scale], axis=1),
        )


def ascend(target: LatentTarget, codes: Floats, step_size: Floats, steps: int) -> tuple[Floats, Floats]:
    """Ascend log p(x, z) with Adam, whose steps decrease along half a cosine, and return the highest points visited.

    Args:
        target: The joint density of N images.
        codes: The starts, (N, M, D).
        step_size: The size of the first step, broadcastable to `codes`.
        steps: Number of steps.

    Returns:
        Codes (N, M, D) and their log p(x, z), (N, M).
    """
    best, heights = codes, np.full(codes.shape[:2], -np.inf)
    first_moment, second_moment = np.zeros_like(codes), np.zeros_like(codes)
    for step in range(steps):
        values, gradients = target.log_joint_and_gradient(codes)
        is_higher = values > heights
        best, heights = np.where(is_higher[..., None], codes, best), np.maximum(values, heights)
        first_moment = 0.9 * first_moment + 0.1 * gradients
        second_moment = 0.99 * second_moment + 0.01 * gradients**2
        corrected = first_moment / (1 - 0.9 ** (step + 1))
        root = np.sqrt(second_moment / (1 - 0.99 ** (step + 1)))
        decay = 0.5 * (1 + math.cos(math.pi * (step + 1) / steps))
        codes = codes + decay * step_size * corrected / (root + 1e-8)
    return best, heights


def fit_normals(target: LatentTarget, means: Floats, scales: Floats, rounds: int) -> tuple[Floats, Floats, Floats]:
    r"""Fit normal distributions to p(z|x) by Gaussian variational inference.

    Each round is a Newton step for \(f(z) = \log p(x, z)\): \(\Sigma \leftarrow -E[\nabla^2 f]^{-1}\) and
    \(\mu \leftarrow \mu + \Sigma E[\nabla f]\), with expectations under the current normal. It is exact for a
    quadratic f.

    Args:
        target: The joint density of N images.
        means: Initial means, (N, M, D).
        scales: Initial lower triangular factors of the covariances, (N, M, D, D).
        rounds: Number of rounds.

    Returns:
        The means, the factors, and the ELBO of each normal before the last round, (N, M).
    """
    num_images, num_normals, dim = means.shape
    elbos = np.zeros((num_images, num_normals))
    for _ in range(rounds):
        offsets = math.sqrt(dim) * np.swapaxes(scales, -1, -2)
        points = np.concatenate([means[:, :, None] + offsets, means[:, :, None] - offsets], axis=2)
        values, gradients = target.log_joint_and_gradient(points.reshape(num_images, -1, dim))
        entropy = np.log(np.diagonal(scales, axis1=-2, axis2=-1)).sum(axis=-1)
        elbos = np.maximum(values.reshape(num_images, num_normals, -1).mean(axis=-1) + entropy, -1e30)
        # In the coordinates in which the normal is standard:
        gradients = gradients.reshape(num_images, num_normals, 2, dim, dim) @ scales[:, :, None]
        precision = (gradients[:, :, 1] - gradients[:, :, 0]) / (2 * math.sqrt(dim))
        eigenvalues, vectors = np.linalg.eigh(0.5 * (precision + np.swapaxes(precision, -1, -2)))
        # A round changes a variance by at most a factor of 100, and the mean by at most two typical radii.
        eigenvalues = np.clip(eigenvalues, 0.01, 100.0)[..., None, :]
        covariance = (vectors / eigenvalues) @ np.swapaxes(vectors, -1, -2)
        step = (covariance @ gradients.mean(axis=(2, 3))[..., None])[..., 0]
        length = np.linalg.norm(step, axis=-1, keepdims=True)
        step = step * np.minimum(1.0, 2 * math.sqrt(dim) / np.maximum(length, 1e-9))
        means = means + (scales @ step[..., None])[..., 0]
        scales = np.linalg.cholesky(scales @ covariance @ np.swapaxes(scales, -1, -2))
    return means, scales, elbos


def _best(codes: Floats, values: Floats, count: int) -> Floats:
    """Return the `count` codes of each image with the highest values, (N, count, D)."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :count]
    chosen: Floats = np.take_along_axis(codes, order[..., None], axis=1)
    return chosen


def _log(share: float) -> float:
    return math.log(share) if share > 0 else -math.inf
