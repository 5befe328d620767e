r"""Distributions over images: log-probabilities, means and samples as functions of a decoder's outputs.

A distribution is a short-lived view of tensors. Its leading axes, … below, are (N,) or (N, K). Images broadcast to the
axes of the parameters: (N, 1, H, W, C) to (N, K, H, W, C).

Of images with missing pixels, `log_prob(x, mask)` is the log-probability of the observed ones, in closed form.

`DiscretizedLogistic` and `Categorical` define a probability of each of the 256 levels \(x = l / 255\); other values are
rounded to the nearest level. `Bernoulli` defines the probabilities of black and white. The others are densities.
"""

import abc
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

import keras
import numpy as np
from keras import ops

from keras_vae.core.math import log_prob_of_mode
from keras_vae.core.typing import Seed, Tensor

_PIXEL_AXES = (-3, -2, -1)
_LOG_TWO = math.log(2)
_CERTAIN = 1e4
"""Logit of a pixel whose likelier value has the log-probability 0."""
_QUADRATURE_NODES = (6, 2)
"""Inner nodes of the integral over the first of several dependent channels, and over each later one."""


class ImageDistribution(abc.ABC):
    """Base class of distributions over images (…, H, W, C), the results of likelihoods.

    Classes are either abstract or final. A subclass is a frozen dataclass whose fields are its parameters.
    """

    @abc.abstractmethod
    def log_prob(self, x: Tensor, mask: Tensor = None) -> Tensor:
        """Return log p(x) in nats, (…), summed over the observed pixels and channels of each image.

        Args:
            x: Images in [0, 1], (…, H, W, C).
            mask: True for observed values, of a shape that broadcasts to `x`; None if all are observed. The others are
                integrated out: they must be finite, and change neither the result nor its gradient.
        """

    @abc.abstractmethod
    def mean(self) -> Tensor:
        """Return the mean of `sample`, (…, H, W, C)."""

    @abc.abstractmethod
    def sample(self, seed: Seed) -> Tensor:
        """Draw images, (…, H, W, C), in [0, 1] unless `log_prob` is a density that extends beyond."""

    def mean_image(self) -> Tensor:
        """Return the mean, clipped to the range of images, [0, 1], (…, H, W, C)."""
        return ops.clip(self.mean(), 0.0, 1.0)


@final
@dataclass(frozen=True, eq=False)
class Bernoulli(ImageDistribution):
    r"""Independent Bernoulli pixels, \(p(x) = \prod_i \sigma(l_i)^{x_i} (1 - \sigma(l_i))^{1 - x_i}\).

    Args:
        logits: \(l\), (…, H, W, C).
    """

    logits: Tensor

    def log_prob(self, x: Tensor, mask: Tensor = None) -> Tensor:
        """Return log p(x) in nats, (…), summed over the observed pixels and channels of each image.

        Args:
            x: Images in [0, 1], (…, H, W, C). On gray levels, the value is the negative cross-entropy that the classic
                VAE maximizes; it is a normalized log-probability on {0, 1} only.
            mask: True for observed values, or None.
        """
        # x·l − log(1 + eˡ) = log-probability of the likelier value of the pixel, minus the deficit of x.
        # `sign` is 0 at l = 0, so the gradient is correct there. The gradient of |l| would be wrong on some backends.
        deficit = _sum_pixels(ops.subtract(2.0 * x - 1.0, ops.sign(self.logits)) * self.logits, mask)
        logits = self.logits if mask is None else ops.where(mask, self.logits, _CERTAIN)
        return deficit / 2 + log_prob_of_mode(ops.reshape(logits, (*ops.shape(logits)[:-3], -1)))

    def mean(self) -> Tensor:
        """Return the probability that each pixel is 1, (…, H, W, C)."""
        return ops.sigmoid(self.logits)

    def sample(self, seed: Seed) -> Tensor:
        """Draw images with pixels in {0, 1}, (…, H, W, C)."""
        uniform = keras.random.uniform(ops.shape(self.logits), seed=seed)
        return ops.cast(uniform < self.mean(), "float32")


@final
@dataclass(frozen=True, eq=False)
class ContinuousBernoulli(ImageDistribution):
    r"""Independent pixels with density \(p(x_i) = e^{l_i x_i} / \int_0^1 e^{l_i t} dt\) on [0, 1].

    With \(\lambda = \sigma(l)\) this is \(C(\lambda) \lambda^x (1 - \lambda)^{1 - x}\) of Loaiza-Ganem and Cunningham
    (arXiv 1907.06845). The normalizer is \(e^{l/2} \sinh(l/2) / (l/2)\), which is 1 at \(\lambda = \tfrac12\).

    Args:
        logits: \(l\), (…, H, W, C).
    """

    logits: Tensor

    def log_prob(self, x: Tensor, mask: Tensor = None) -> Tensor:
        """Return log p(x) in nats, (…), summed over the observed pixels and channels of each image."""
        square, small, size = self._series_terms()
        series = square * (1 / 24 + square * (-1 / 2880 + square * (1 / 181440 - square / 9676800)))
        exact = size / 2 + ops.log(-ops.expm1(-size) / size)
        return _sum_pixels(self.logits * (x - 0.5) - ops.where(small, series, exact), mask)

    def mean(self) -> Tensor:
        r"""Return \(\tfrac12 + \tfrac12 \coth(l/2) - 1/l\), (…, H, W, C)."""
        square, small, size = self._series_terms()
        series = self.logits * (1 / 12 + square * (-1 / 720 + square * (1 / 30240 - square / 1209600)))
        exact = ops.sign(self.logits) * (0.5 / ops.tanh(size / 2) - 1.0 / size)
        return 0.5 + ops.where(small, series, exact)

    def sample(self, seed: Seed) -> Tensor:
        """Draw images by inverting the distribution function, (…, H, W, C)."""
        # Positive logits are mirrored about ½, because the exponential of a large one overflows.
        size = ops.maximum(ops.abs(self.logits), 1e-6)
        below = ops.log1p(_uniform(ops.shape(self.logits), seed) * ops.expm1(-size)) / -size
        return ops.clip(ops.where(self.logits > 0, 1.0 - below, below), 0.0, 1.0)

    def _series_terms(self) -> tuple[Tensor, Tensor, Tensor]:
        """Return l² for the series, a mask of the small l that need it, and |l| for the closed forms, never near 0."""
        small = ops.abs(self.logits) < 1.0
        near = ops.where(small, self.logits, 1.0)
        return ops.square(near), small, ops.where(small, 1.0, ops.abs(self.logits))


@dataclass(frozen=True, eq=False)
class _LocationScale(ImageDistribution):
    r"""Independent pixels \(x_i = \mu_i + \sigma_i \varepsilon_i\).

    The density extends beyond [0, 1], and so do `mean` and `sample`; `mean_image` is clipped. The mean of clipped
    pixels would be gray where the location is black: 0.32 for a normal with \(\sigma = 1\).

    Args:
        location: \(\mu\), (…, H, W, C).
        log_scale: \(\log\sigma\), broadcastable to `location`.
    """

    location: Tensor
    log_scale: Tensor

    def log_prob(self, x: Tensor, mask: Tensor = None) -> Tensor:
        """Return log p(x) in nats, (…), summed over the observed pixels and channels of each image."""
        noise = (x - self.location) * ops.exp(-self.log_scale)
        return _sum_pixels(self._noise_log_prob(noise) - self.log_scale, mask)

    def mean(self) -> Tensor:
        """Return the locations, (…, H, W, C)."""
        return self.location

    def sample(self, seed: Seed) -> Tensor:
        """Draw pixels, which may lie beyond [0, 1], (…, H, W, C)."""
        noise = self._noise(_uniform(ops.shape(self.location), seed))
        return self.location + ops.exp(self.log_scale) * noise

    @abc.abstractmethod
    def _noise_log_prob(self, noise: Tensor) -> Tensor:
        """Return the log-densities of ε."""

    @abc.abstractmethod
    def _noise(self, uniform: Tensor) -> Tensor:
        """Return ε, its inverse distribution function at uniform values in (0, 1)."""


@final
class Normal(_LocationScale):
    r"""Independent normal pixels, \(p(x_i) = N(x_i; \mu_i, \sigma_i^2)\)."""

    def _noise_log_prob(self, noise: Tensor) -> Tensor:
        return -0.5 * (ops.square(noise) + math.log(2 * math.pi))

    def _noise(self, uniform: Tensor) -> Tensor:
        return math.sqrt(2) * ops.erfinv(2.0 * uniform - 1.0)


@final
class Laplace(_LocationScale):
    r"""Independent Laplace pixels, \(p(x_i) = e^{-|x_i - \mu_i| / \sigma_i} / 2\sigma_i\)."""

    def _noise_log_prob(self, noise: Tensor) -> Tensor:
        return -ops.abs(noise) - _LOG_TWO

    def _noise(self, uniform: Tensor) -> Tensor:
        centered = 2.0 * uniform - 1.0
        return -ops.sign(centered) * ops.log1p(-ops.abs(centered))


@final
@dataclass(frozen=True, eq=False)
class DiscretizedLogistic(ImageDistribution):
    r"""Probabilities of the 256 levels under a mixture of M logistic distributions. The edge bins contain the tails.

    \(p(x) = \prod_i \sum_m w_{im} \prod_c [F_{imc}(x_{ic} + \tfrac{1}{510}) - F_{imc}(x_{ic} - \tfrac{1}{510})]\),
    where \(F_{imc}\) is a logistic distribution function (Salimans et al., arXiv 1701.05517). All channels of a pixel
    share one component, and the location of a channel is linear in the channels before it. Locations and scales are
    in units where black is −1 and white is 1.

    Args:
        logits: Logarithms of the weights, up to a constant, (…, H, W, M).
        location: (…, H, W, M, C).
        log_scale: (…, H, W, M, C).
        coefficients: Coefficients of the earlier channels in each channel's location, (…, H, W, M, C(C − 1)/2): green
            on red, blue on red, blue on green. None for independent channels.
    """

    logits: Tensor
    location: Tensor
    log_scale: Tensor
    coefficients: Tensor | None = None

    def log_prob(self, x: Tensor, mask: Tensor = None) -> Tensor:
        """Return log p(x) in nats, (…), summed over the observed pixels and channels of each image."""
        levels, total, earlier = _levels(x), ops.log_softmax(self.logits), list[Tensor]()
        for channel in range(self.location.shape[-1]):
            level = levels[..., channel : channel + 1]
            log_bin = _log_bin(level, self._location_given(channel, earlier), self.log_scale[..., channel])
            if mask is not None:
                # A channel that no other one depends on is integrated out by leaving out its factor.
                log_bin = ops.where(mask[..., channel % mask.shape[-1], None], log_bin, 0.0)
            total = total + log_bin
            earlier.append(_signed(level))
        log_pixels = ops.logsumexp(total, axis=-1)
        if mask is not None:
            is_known, is_complete = ops.any(mask, axis=-1), ops.all(mask, axis=-1)
            log_pixels = ops.where(is_known, log_pixels, 0.0)
            if self.coefficients is not None:
                # Models reject such masks if they can; a number would be wrong.
                log_pixels = ops.where(is_known == is_complete, log_pixels, float("nan"))
        return ops.sum(log_pixels, axis=(-2, -1))

    def mean(self) -> Tensor:
        """Return the mean images, (…, H, W, C), exact to half a level if the channels are independent.

        The mean of a dependent channel is an integral over the earlier channels, approximated with `_QUADRATURE_NODES`:
        to one level, or to two if the scales of several channels are below a level.
        """
        # Values of an earlier channel are on a new first axis, so that they broadcast to those of the channels before.
        weights, earlier, means = _softmax(self.logits), list[Tensor](), list[Tensor]()
        channels = self.location.shape[-1]
        for channel in range(channels):
            location, log_scale = self._location_given(channel, earlier), self.log_scale[..., channel]
            above_black = weights * (_clipped_mean(location, log_scale) + 1.0)
            means.append(ops.sum(above_black, axis=(*range(len(earlier)), -1)) / 2.0)
            if self.coefficients is not None and channel + 1 < channels:
                values, masses = _quadrature(location, log_scale, _QUADRATURE_NODES[min(channel, 1)])
                earlier.append(values)
                weights = masses * weights
        return ops.clip(ops.stack(means, axis=-1), 0.0, 1.0)

    def sample(self, seed: Seed) -> Tensor:
        """Draw levels divided by 255, (…, H, W, C), one channel after another."""
        *pixels, components = ops.shape(self.logits)
        channels = self.location.shape[-1]
        uniform = _uniform((*pixels, 1 + channels), seed)
        chosen = ops.one_hot(_choice(self.logits, uniform[..., 0]), components)
        levels, earlier = list[Tensor](), list[Tensor]()
        for channel in range(channels):
            location = ops.sum(chosen * self._location_given(channel, earlier), axis=-1)
            scale = ops.exp(ops.sum(chosen * self.log_scale[..., channel], axis=-1))
            u = uniform[..., 1 + channel]
            value = location + scale * (ops.log(u) - ops.log1p(-u))
            levels.append(ops.clip(ops.round(127.5 * (value + 1.0)), 0.0, 255.0))
            earlier.append(_signed(levels[-1])[..., None])
        return ops.stack(levels, axis=-1) / 255.0

    def _location_given(self, channel: int, earlier: Sequence[Tensor]) -> Tensor:
        """Return the location of a channel, given the earlier ones, each (…, H, W, M) or (…, H, W, 1)."""
        location = self.location[..., channel]
        if self.coefficients is None:
            return location
        row = channel * (channel - 1) // 2
        return location + sum(self.coefficients[..., row + index] * value for index, value in enumerate(earlier))


@final
@dataclass(frozen=True, eq=False)
class Categorical(ImageDistribution):
    r"""Independent pixels with a probability for each level, \(p(x) = \prod_i w_{i, 255 x_i}\).

    Args:
        logits: Logarithms of the probabilities of the 256 levels, up to a constant, (…, H, W, C, 256).
    """

    logits: Tensor

    def log_prob(self, x: Tensor, mask: Tensor = None) -> Tensor:
        """Return log p(x) in nats, (…), summed over the observed pixels and channels of each image."""
        levels = ops.broadcast_to(ops.cast(_levels(x), "int32"), ops.shape(self.logits)[:-1])
        chosen = ops.take_along_axis(ops.log_softmax(self.logits), levels[..., None], axis=-1)
        return _sum_pixels(chosen[..., 0], mask)

    def mean(self) -> Tensor:
        """Return the mean images, (…, H, W, C)."""
        return ops.sum(_softmax(self.logits) * (ops.arange(256, dtype="float32") / 255.0), axis=-1)

    def sample(self, seed: Seed) -> Tensor:
        """Draw levels divided by 255, (…, H, W, C)."""
        levels = _choice(self.logits, _uniform(ops.shape(self.logits)[:-1], seed))
        return ops.cast(levels, "float32") / 255.0


def _sum_pixels(values: Tensor, mask: Tensor) -> Tensor:
    """Return the sum of the observed values of each image, (…)."""
    return ops.sum(values if mask is None else ops.where(mask, values, 0.0), axis=_PIXEL_AXES)


def _uniform(shape: Sequence[int], seed: Seed) -> Tensor:
    """Return uniform noise strictly between 0 and 1, so that its logarithms are finite."""
    uniform = keras.random.uniform(tuple(shape), dtype="float32", seed=seed)
    return ops.clip(uniform, 1e-7, 1.0 - 1e-7)


def _softmax(logits: Tensor) -> Tensor:
    """Return softmax(logits) over the last axis, without Keras's warning about a single logit."""
    return ops.exp(ops.log_softmax(logits))


def _choice(logits: Tensor, uniform: Tensor) -> Tensor:
    """Return categorical samples as int32 indices (…), given logits (…, M) and uniform noise (…)."""
    cumulative = ops.cumsum(_softmax(logits), axis=-1)[..., :-1]
    return ops.sum(ops.cast(cumulative < uniform[..., None], "int32"), axis=-1)


def _levels(x: Tensor) -> Tensor:
    """Return the nearest level, 0…255, as a float."""
    return ops.round(255.0 * x)


def _signed(levels: Tensor) -> Tensor:
    """Return levels 0…255 scaled to [−1, 1]."""
    return levels / 127.5 - 1.0


def _log_bin(levels: Tensor, location: Tensor, log_scale: Tensor) -> Tensor:
    r"""Return the log-probabilities of the bins of levels under logistic distributions.

    \(\sigma(a) - \sigma(b) = \sigma(a) \, \sigma(-b) \, (1 - e^{b - a})\): every factor has a finite logarithm,
    even if the difference underflows. An edge bin is a product of fewer factors.
    """
    inverse_scale = ops.exp(-log_scale)
    centered, half = _signed(levels) - location, 1.0 / 255.0
    first, last = levels < 0.5, levels > 254.5
    from_above = ops.where(last, 0.0, -ops.softplus(-(centered + half) * inverse_scale))
    from_below = ops.where(first, 0.0, -ops.softplus((centered - half) * inverse_scale))
    width = ops.log(-ops.expm1(-2.0 * half * inverse_scale))
    return from_above + from_below + ops.where(ops.logical_or(first, last), 0.0, width)


def _clipped_mean(location: Tensor, log_scale: Tensor) -> Tensor:
    r"""Return the means of logistic variables clipped to [−1, 1], \(1 - \int_{-1}^1 F(x) dx\)."""
    # A difference of two softplus functions, with half the logarithms: this function is evaluated for many locations.
    scale, size = ops.exp(log_scale), ops.abs(location)
    near, far = ops.exp(-ops.abs(size - 1.0) / scale), ops.exp((-size - 1.0) / scale)
    inside = ops.minimum(size, 1.0) + scale * (ops.log(far + 1.0) - ops.log(near + 1.0))
    return ops.sign(location) * inside


def _quadrature(location: Tensor, log_scale: Tensor, nodes: int) -> tuple[Tensor, Tensor]:
    """Return values of logistic variables clipped to [−1, 1], and their probabilities, on a new first axis.

    The first and the last value are the edge levels, −1 and 1. The others are quantiles at Gauss-Legendre nodes between
    the probabilities of the edges.

    Args:
        location: (…, M).
        log_scale: Broadcastable to `location`.
        nodes: Number of values between the edges.
    """
    inverse_scale, edge = ops.exp(-log_scale), 1.0 - 1.0 / 255.0
    black = ops.sigmoid((location + edge) * -inverse_scale)
    white = ops.sigmoid((location - edge) * inverse_scale)
    between = ops.relu(-black - white + 1.0)
    values, masses = [ops.zeros_like(location) - 1.0], [black]
    for position, weight in zip(*np.polynomial.legendre.leggauss(nodes), strict=True):
        below, above = black + between * float(1 + position) / 2, white + between * float(1 - position) / 2
        quantile = ops.log(ops.maximum(below, 1e-30)) - ops.log(ops.maximum(above, 1e-30))
        values.append(ops.clip(location + quantile / inverse_scale, -1.0, 1.0))
        masses.append(between * float(weight) / 2)
    return ops.stack([*values, ops.ones_like(location)], axis=0), ops.stack([*masses, white], axis=0)
