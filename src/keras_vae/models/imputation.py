"""Imputation: missing pixels by self-normalized importance sampling."""

import abc
import functools
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_vae.core import backend, tracing
from keras_vae.core.errors import InputError, check_count, shown
from keras_vae.core.images import to_unit
from keras_vae.core.typing import Array, Floats, Tensor
from keras_vae.distributions.image import ImageDistribution
from keras_vae.models.importance_sampling import Block, Proposal
from keras_vae.models.inference import Inference

LOW_SAMPLE_SIZE = 10.0
"""Effective sample size below which the imputation of an image is reported as unreliable."""

_FLOATS_AT_ONCE = 2**26


class ImputedImages(NamedTuple):
    r"""Images whose missing pixels are filled. Observed pixels keep their values.

    Args:
        images: Posterior means \(E[x_{mis} \mid x_{obs}]\), in [0, 1], (N, H, W, C), float32.
        lower: Lower bounds of the interval of each missing value, (N, H, W, C), float32.
        upper: Upper bounds, (N, H, W, C), float32.
        mask: True for observed values, (N, H, W, C).
        effective_sample_size: Kish's (Σw)² / Σw² of the importance weights, from 1 to the number of samples, (N,); NaN
            for a model whose codes are not random.
        log_likelihood: Estimates of log p(x_obs) in nats per image, summed over the observed pixels, (N,).
    """

    images: Array
    lower: Array
    upper: Array
    mask: Array
    effective_sample_size: Array
    log_likelihood: Array


class Imputation(Inference, abc.ABC):
    """The method `impute` of `BaseVAE`."""

    code_name: ClassVar[str]
    """Name of the codes among the outputs of the model."""

    call: Callable[..., Any]
    variables: list[Any]

    @property
    @abc.abstractmethod
    def is_stochastic(self) -> bool:
        """Whether the posterior is random."""

    @abc.abstractmethod
    def decode_distribution(self, codes: Tensor, condition: Tensor) -> ImageDistribution:
        """Return p(x|z) of codes, for images (N, H, W, C); arguments as for `decode_tensors`."""

    def decode_tensors(self, codes: Tensor, condition: Tensor) -> Tensor:
        """Return the mean images (N, H, W, C) of codes, clipped to [0, 1]."""
        return self.decode_distribution(codes, condition).mean_image()

    def impute(
        self,
        x: Any,
        mask: Any = None,
        *,
        samples: int = 500,
        interval: float = 0.9,
        seed: int = 0,
        condition: Any = None,
        proposal: str | Proposal | None = None,
    ) -> ImputedImages:
        r"""Fill missing pixels by self-normalized importance sampling (MIWAE; Mattei and Frellsen, arXiv 1812.02633).

        Draws \(z_k\) from a proposal q have weights \(w_k \propto p(x_{obs} \mid z_k) p(z_k) / q(z_k)\), which sum to
        one. The mean is \(\sum_k w_k E[x \mid z_k]\). The interval contains the given share of draws from
        \(\sum_k w_k p(x \mid z_k)\), so that it covers the uncertainty about z and the noise of the pixels. An image
        without any observed pixel is filled with the mean and the interval of the prior.

        The model may be trained on complete or on incomplete images. Draws of z are the same on every backend, except
        for rounding; those of pixels, which determine the interval, are not.

        Args:
            x: Images (N, H, W, C), uint8 or floats in [0, 1], with NaN at missing pixels unless there is a mask; or a
                masked array, or `{"images": x, "mask": m}`.
            mask: True for observed pixels, (N, H, W) or (N, H, W, C).
            samples: Number of draws K, of codes and of images, per image.
            interval: Probability of the interval, between 0 and 1. Its bounds are quantiles with equal tails.
            seed: Seed of the draws.
            condition: Condition of the images, one for all or one per image.
            proposal: As for `log_likelihood`.

        Returns:
            `ImputedImages`: means, intervals, and the effective sample size of each image. A warning reports images
            for which it is below `LOW_SAMPLE_SIZE`.

        Raises:
            InputError: The images or the mask do not fit the model, no pixel is marked as missing, or an argument is
                invalid.

        Example:
            >>> from keras_vae import VAE
            >>> images = np.full((2, 28, 28, 1), 0.5, "float32")
            >>> images[:, :14] = np.nan
            >>> imputed = VAE(seed=0).impute(images, samples=50, proposal="posterior")
            >>> imputed.images.shape, float(imputed.upper[0, 20, 20, 0])
            ((2, 28, 28, 1), 0.5)
        """
        check_count("samples", samples)
        if isinstance(interval, bool) or not isinstance(interval, float) or not 0 < interval < 1:
            raise InputError(f"interval = {shown(interval)}: not a probability; pass a number between 0 and 1")
        inputs = self._input_checks.arrays(_with_mask(self._input_checks.join(x), mask), condition)
        draws = samples if self.is_stochastic else 1
        sampling = self.importance_sampling(inputs, samples=draws, seed=seed, proposal=proposal)
        shape = inputs["images"].shape
        results = [np.empty(shape, "float32") for _ in range(3)]
        sizes, log_likelihood = np.full(shape[0], np.nan), np.empty(shape[0])
        for rows in sampling.blocks:
            block = sampling.block(rows)
            codes, log_weights = _concatenate(sampling.proposal.weighted_codes(block))
            total = np.logaddexp.reduce(log_weights, axis=1, keepdims=True)
            weights = np.exp(log_weights - total)
            log_likelihood[rows] = total[:, 0] - np.log(draws)
            if self.is_stochastic:
                sizes[rows] = 1 / np.square(weights).sum(axis=1)
            results[0][rows] = self._weighted_mean(block, codes, weights)
            chosen = _resample(codes, weights, samples, block)
            results[1][rows], results[2][rows] = self._bounds(block, chosen, interval, seed)
        mask = inputs["mask"]
        known = ops.convert_to_numpy(to_unit(ops.convert_to_tensor(inputs["images"])))
        images, lower, upper = (np.where(mask, known, result) for result in results)
        _warn_of_few(sizes[~mask.all(axis=(1, 2, 3))], samples, sampling.proposal)
        return ImputedImages(images, lower, upper, mask, sizes, log_likelihood)

    def weighted_codes(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Return a code per row of a batch, (N, …), and its log importance weight, (N,), as tensors.

        Args:
            inputs: Inputs of `call` with `noise`, (N, 1, latent_dim), which are not checked; see `loss_terms`.
        """
        with tracing.expected_tracing():
            codes, log_weight = backend.map_rows(self._compiled_weighted_codes, dict(inputs))
        return codes, log_weight[:, 0]

    @functools.cached_property
    def _compiled_weighted_codes(self) -> Callable[[dict[str, Any]], Any]:
        def compute(inputs: dict[str, Any]) -> Any:
            output = self.call(inputs, training=False)
            return getattr(output, self.code_name), output.terms.log_weight

        return backend.compiled(compute, self.variables)

    @functools.cached_property
    def _compiled_mean(self) -> Callable[[dict[str, Any]], Any]:
        """Return the weighted means of the images of codes (N, K, …), (N, H, W, C)."""

        def compute(inputs: dict[str, Any]) -> Tensor:
            means = self._decode_draws(inputs, lambda pixels: pixels.mean_image())
            return ops.sum(means * inputs["weights"][..., None, None, None], axis=1)

        return backend.compiled(compute, self.variables)

    @functools.cached_property
    def _compiled_draws(self) -> Callable[[dict[str, Any]], Any]:
        """Return an image drawn from p(x|z) for each of the codes (N, K, …), (N, K, H, W, C)."""

        def compute(inputs: dict[str, Any]) -> Tensor:
            return self._decode_draws(inputs, lambda pixels: pixels.sample(_GivenSeed(inputs["seed"][0])))

        return backend.compiled(compute, self.variables)

    def _decode_draws(self, inputs: Mapping[str, Any], images_of: Callable[[Any], Tensor]) -> Tensor:
        """Return images of p(x|z) for codes (N, K, …), (N, K, H, W, C)."""
        codes, condition = ops.convert_to_tensor(inputs["codes"]), None
        count = ops.shape(codes)[1]
        if self.condition is not None:
            condition = self.condition.encode(inputs["condition"])[:, None]
            shape = (ops.shape(codes)[0], count, condition.shape[-1])
            condition = ops.reshape(ops.broadcast_to(condition, shape), (-1, condition.shape[-1]))
        images = images_of(self.decode_distribution(ops.reshape(codes, (-1, *codes.shape[2:])), condition))
        return ops.reshape(images, (-1, count, *images.shape[1:]))

    def _weighted_mean(self, block: Block, codes: Array, weights: Floats) -> Floats:
        """Return the weighted means of the images of codes, (N, H, W, C)."""
        total: Any = 0.0
        for start in range(0, codes.shape[1], block.draws):
            chunk = slice(start, start + block.draws)
            inputs = {"codes": codes[:, chunk], "weights": weights[:, chunk].astype("float32"), **_condition(block)}
            with tracing.expected_tracing():
                total = total + ops.convert_to_numpy(backend.map_rows(self._compiled_mean, inputs)).astype("float64")
        return np.clip(total, 0.0, 1.0)

    def _bounds(self, block: Block, codes: Array, interval: float, seed: int) -> Floats:
        """Return the lower and the upper bounds of the pixels of images drawn for codes (N, K, …)."""
        tails = [(1 - interval) / 2, (1 + interval) / 2]
        bounds = np.empty((2, len(codes), *block.inputs["images"].shape[1:]))
        size = max(1, _FLOATS_AT_ONCE // (codes.shape[1] * bounds[0, 0].size))
        for row in range(0, len(codes), size):
            rows = slice(row, row + size)
            parts = []
            for start in range(0, codes.shape[1], block.draws):
                chunk = codes[rows, start : start + block.draws]
                words = np.random.default_rng([seed, 6, block.images.start + row, start]).integers(2**31, size=2)
                inputs = {"codes": chunk, "seed": np.tile(words.astype("uint32"), (len(chunk), 1))}
                inputs |= {name: values[rows] for name, values in _condition(block).items()}
                with tracing.expected_tracing():
                    drawn = backend.map_rows(self._compiled_draws, inputs)
                parts.append(np.clip(ops.convert_to_numpy(drawn), 0.0, 1.0))
            bounds[:, rows] = np.quantile(np.concatenate(parts, axis=1), tails, axis=1)
        return bounds


class _GivenSeed(keras.random.SeedGenerator):
    """Generator of seeds that starts at a tensor, so that a compiled function can have a seed among its inputs.

    Args:
        state: Two numbers, (2,), uint32.
    """

    def __init__(self, state: Tensor) -> None:
        self.first, self.calls = state, 0

    def next(self, ordered: bool = True) -> Tensor:
        """Return the next seed, (2,)."""
        self.calls += 1
        return self.first + ops.cast(self.calls, self.first.dtype)


def _with_mask(x: Any, mask: Any) -> dict[str, Any]:
    """Return inputs with a mask: the given one, that of a masked array, or that of the pixels that are not NaN."""
    inputs = dict(x) if isinstance(x, Mapping) else {"images": x}
    if mask is not None and inputs.get("mask") is not None:
        raise InputError('mask, x["mask"]: the mask is given twice; pass one of the two')
    images, mask = inputs.get("images"), inputs.get("mask") if mask is None else mask
    if isinstance(images, np.ma.MaskedArray) or mask is not None:
        return {**inputs, "mask": mask}
    images = ops.convert_to_numpy(images) if ops.is_tensor(images) else np.asarray(images)
    if images.dtype.kind != "f" or not np.isnan(images).any():
        raise InputError(
            "mask = None: the images are complete; pass the mask of the observed pixels, or floats with NaN at the "
            "missing ones"
        )
    return {**inputs, "images": images, "mask": ~np.isnan(images)}


def _concatenate(draws: Iterator[tuple[Array, Array]]) -> tuple[Array, Array]:
    """Return the codes of all chunks, (N, K, …), float32 or integers, and their log-weights, (N, K)."""
    codes, log_weights = zip(*draws, strict=True)
    joined = np.concatenate(codes, axis=1)
    return (joined.astype("float32") if joined.dtype.kind == "f" else joined), np.concatenate(log_weights, axis=1)


def _resample(codes: Array, weights: Floats, count: int, block: Block) -> Array:
    """Return codes drawn in proportion to their weights by systematic sampling, (N, count, …)."""
    chosen = []
    for row, generator in enumerate(block.generators(5)):
        ends = np.cumsum(weights[row])
        positions = (np.arange(count) + generator.random()) / count * ends[-1]
        indices = np.minimum(np.searchsorted(ends, positions, side="right"), codes.shape[1] - 1)
        chosen.append(codes[row, indices])
    return np.stack(chosen)


def _condition(block: Block) -> dict[str, Array]:
    """Return the condition of a block as inputs of the model, if any."""
    return {name: block.inputs[name] for name in ("condition",) if name in block.inputs}


def _warn_of_few(sizes: Floats, samples: int, proposal: Proposal) -> None:
    """Warn of images whose effective sample size is low, given those of images with missing pixels."""
    low = int((sizes < LOW_SAMPLE_SIZE).sum())
    if low:
        other = "" if proposal.name == "mixture" else ", or proposal = 'mixture'"
        warnings.warn(
            f"samples = {samples}: the effective sample size is below {LOW_SAMPLE_SIZE:g} for {low} of {len(sizes)} "
            f"images, whose means and intervals are unreliable; use more samples{other}",
            stacklevel=3,
        )
