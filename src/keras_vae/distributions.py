"""Distributions: tensors in; log-probabilities, divergences, draws and means out.

They are short-lived views of tensors. They are built where they are used and never cross a Keras boundary:
neither `predict` nor JAX can carry them.
"""

import math
from dataclasses import dataclass
from typing import Protocol

import keras
from keras import ops

from keras_vae.types import Tensor

_PIXEL_AXES = (-3, -2, -1)


@dataclass(frozen=True, eq=False)
class Normal:
    r"""Normal with diagonal covariance over the last axis, \(N(\mu, \operatorname{diag} e^{\log\sigma^2})\).

    Args:
        mean: Means, (…, D).
        log_var: Logarithms of the variances, broadcastable to `mean`.
    """

    mean: Tensor
    log_var: Tensor

    def sample(self, noise: Tensor) -> Tensor:
        r"""Return the reparameterised draw \(\mu + \sigma\varepsilon\) (Kingma and Welling, arXiv 1312.6114).

        Args:
            noise: \(\varepsilon \sim N(0, I)\), broadcastable to `mean`.

        Returns:
            The draw, (…, D), differentiable in both parameters.
        """
        return self.mean + ops.exp(0.5 * self.log_var) * noise

    def log_prob(self, z: Tensor) -> Tensor:
        r"""Return \(\log N(z; \mu, \sigma^2)\), summed over the last axis.

        Args:
            z: Points, (…, D).

        Returns:
            Log-densities in nats, (…).
        """
        squares = ops.square(z - self.mean) * ops.exp(-self.log_var)
        return -0.5 * ops.sum(squares + self.log_var + math.log(2 * math.pi), axis=-1)

    def kl(self, other: "Normal") -> Tensor:
        r"""Return the closed-form divergence from `self` to `other`, summed over the last axis.

        \(\tfrac12 \sum_d \left[ e^{\lambda_d - \lambda'_d} + (\mu_d - \mu'_d)^2 e^{-\lambda'_d} - 1 - \lambda_d
        + \lambda'_d \right]\), with \(\lambda = \log\sigma^2\).

        Args:
            other: The distribution diverged to.

        Returns:
            \(KL(\text{self} \| \text{other})\) in nats, (…).
        """
        excess = self.log_var - other.log_var
        distance = ops.square(self.mean - other.mean) * ops.exp(-other.log_var)
        return 0.5 * ops.sum(ops.exp(excess) + distance - 1.0 - excess, axis=-1)


class ImageDistribution(Protocol):
    """What a distribution over images (…, H, W, C) can do."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x) in nats, (…), summed over the pixels and channels of each image."""

    def mean(self) -> Tensor:
        """Return the mean images in [0, 1], (…, H, W, C)."""

    def sample(self, seed: int | keras.random.SeedGenerator) -> Tensor:
        """Return drawn images in [0, 1], (…, H, W, C)."""


@dataclass(frozen=True, eq=False)
class Bernoulli:
    r"""Independent Bernoulli pixels, \(p(x) = \prod_i \sigma(l_i)^{x_i} (1 - \sigma(l_i))^{1 - x_i}\).

    Args:
        logits: \(l\), (…, H, W, C).
    """

    logits: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """Return log p(x), summed over the pixels and channels of each image.

        Args:
            x: Images in [0, 1], (…, H, W, C). Between 0 and 1 the value is the negative cross-entropy, which is
                what the classic VAE minimises on grey levels; it is a normalised log-probability on {0, 1} only.

        Returns:
            Log-probabilities in nats, (…).
        """
        targets = ops.broadcast_to(x, ops.shape(self.logits))
        return -ops.sum(ops.binary_crossentropy(targets, self.logits, from_logits=True), axis=_PIXEL_AXES)

    def mean(self) -> Tensor:
        """Return the probability that each pixel is 1, (…, H, W, C)."""
        return ops.sigmoid(self.logits)

    def sample(self, seed: int | keras.random.SeedGenerator) -> Tensor:
        """Return a draw of {0, 1} pixels, (…, H, W, C).

        Args:
            seed: An integer, or the generator of the layer that draws.
        """
        uniform = keras.random.uniform(ops.shape(self.logits), seed=seed)
        return ops.cast(uniform < self.mean(), "float32")
