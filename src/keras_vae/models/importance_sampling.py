"""The importance-weighted estimate of log p(x), in memory that depends on neither the draws nor the images."""

import abc
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple, Protocol

import keras
import numpy as np
from keras import ops

from keras_vae.core import backend
from keras_vae.core.images import normal_noise
from keras_vae.core.typing import Array, Shape
from keras_vae.models.pareto import pareto_shape

_PIXELS_AT_ONCE = 4000 * 28 * 28


class WeightedModel(Protocol):
    """Protocol of models with importance weights: the members of `BaseVAE` that `ImportanceSampling` uses."""

    image_shape: Shape
    latent_dim: int

    @property
    def output_size(self) -> int:
        """Memory of the decoder's outputs per pixel, in units of eight channels."""

    def encode_features(self, inputs: dict[str, Array]) -> Any:
        """Return the encoder's outputs for a batch, or None."""

    def loss_terms(self, inputs: dict[str, Any]) -> Any:
        """Return the loss terms of a batch on the device; `log_weight` are the log-weights, (N, K)."""

    def weighted_codes(self, inputs: dict[str, Any]) -> tuple[Any, Any]:
        """Return a code per row of a batch with noise, (N, …), and its log-weight, (N,), on the device."""


class Estimate(NamedTuple):
    """Estimates for a block of images.

    Args:
        log_likelihood: Estimates of log p(x) in nats per image, (N,), float64.
        effective_sample_size: Kish's (Σw)² / Σw² of the weights, from 1 to K, (N,), float64.
        pareto_shape: Shape of the tail of the weights, (N,), float64; see `pareto_shape`.
    """

    log_likelihood: Array
    effective_sample_size: Array
    pareto_shape: Array


@dataclass(frozen=True)
class Block:
    """A block of images, the input of a proposal.

    Args:
        model: The model.
        inputs: Inputs of `call`, with `features` if they are reusable: arrays of N rows.
        images: Positions of the images among all images.
        samples: Number of draws K per image.
        seed: Seed of the draws.
        draws: Maximum number of codes per image to decode at once.
        size: Number of images in a complete block, at least N.
    """

    model: Any
    inputs: dict[str, Any]
    images: range
    samples: int
    seed: int
    draws: int
    size: int

    def generators(self, stream: int) -> list[np.random.Generator]:
        """Return a generator per image, so that noise does not depend on the blocks. Streams are independent."""
        return [np.random.default_rng([self.seed, stream, image]) for image in self.images]


class Proposal(abc.ABC):
    """Base class of proposals: the distributions that importance sampling draws codes from.

    The weights of a proposal average to p(x), so that they can be compared and combined.
    """

    name: ClassVar[str]
    """Name in `evaluation.json` and on the command line."""

    draws_at_once: ClassVar[int] = 200
    """Maximum number of codes per image that are decoded at once."""

    requires_latent_vector: ClassVar[bool] = True
    """Whether the proposal searches a latent space of vectors with a density."""

    @abc.abstractmethod
    def log_weights(self, block: Block) -> Iterator[Array]:
        """Yield the log importance weights of the K draws of a block in chunks, (N, ·), float64."""

    @abc.abstractmethod
    def weighted_codes(self, block: Block) -> Iterator[tuple[Array, Array]]:
        """Yield the draws of a block in chunks: codes (N, ·, …), and their log importance weights, (N, ·), float64."""


class PosteriorProposal(Proposal):
    r"""The posterior q(z|x) as the proposal, with weights \(p(x|z) p(z) / q(z|x)\) (Burda et al., arXiv 1509.00519).

    Most published numbers use this estimator. It is unbiased, but misses modes of p(z|x) that the encoder misses.
    Nearly all estimates are then below log p(x).
    """

    name = "posterior"
    requires_latent_vector = False

    def log_weights(self, block: Block) -> Iterator[Array]:
        """Yield the log importance weights of a block, (N, ·), float64."""
        for noise in self._noise(block):
            # Only the log-weights leave the device.
            log_weight = block.model.loss_terms({**block.inputs, "noise": noise}).log_weight
            yield ops.convert_to_numpy(log_weight).astype("float64")

    def weighted_codes(self, block: Block) -> Iterator[tuple[Array, Array]]:
        """Yield the draws of a block: codes (N, ·, …), and their log importance weights, (N, ·), float64."""
        for noise in self._noise(block):
            count, draws, dim = noise.shape
            # One row per draw, because the outputs of a model contain the code of the first draw only.
            rows = keras.tree.map_structure(lambda values: np.repeat(values, draws, axis=0), block.inputs)  # noqa: B023
            codes, log_weight = block.model.weighted_codes({**rows, "noise": noise.reshape(-1, 1, dim)})
            codes = ops.convert_to_numpy(codes)
            log_weights = ops.convert_to_numpy(log_weight).astype("float64").reshape(count, draws)
            yield codes.reshape(count, draws, *codes.shape[1:]), log_weights

    def _noise(self, block: Block) -> Iterator[Array]:
        """Yield the noise of the draws in chunks, (N, ·, latent_dim)."""
        generators = block.generators(2)
        for start in range(0, block.samples, block.draws):
            shape = (min(block.draws, block.samples - start), block.model.latent_dim)
            yield normal_noise(generators, shape)


class ImportanceSampling:
    r"""Estimator of log p(x), \(\log \tfrac1K \sum_k w_k\) with weights of expectation p(x), for blocks of images.

    The encoder runs once per image. The noise of image i comes from NumPy's `default_rng([seed, stream, i])`, so its
    estimate depends, except for rounding, neither on the blocks nor on the backend, and an evaluation can stop after
    any block and resume.

    Args:
        model: A built model.
        inputs: Inputs of `call`, by name: arrays of N rows.
        proposal: The distribution of the draws.
        samples: Number of draws K per image.
        seed: Seed of the draws.
    """

    def __init__(
        self, model: WeightedModel, inputs: dict[str, Array], proposal: Proposal, samples: int, seed: int
    ) -> None:
        self.model, self.inputs, self.proposal, self.samples, self.seed = model, inputs, proposal, samples, seed
        height, width = (size or 28 for size in model.image_shape[:2])
        rows = max(1, _PIXELS_AT_ONCE // (height * width * model.output_size))
        self.draws = min(samples, proposal.draws_at_once, rows)
        count = len(inputs["images"])
        self.size = min(count, max(1, rows // self.draws))
        self.blocks = [slice(start, min(start + self.size, count)) for start in range(0, count, self.size)]

    def over(self, blocks: Sequence[slice]) -> Iterator[Estimate]:
        """Yield the estimates of blocks in order, computing several blocks in parallel if that is faster."""
        # The first block compiles the model. Parallel threads would each compile it.
        yield from map(self, blocks[:1])
        num_threads = backend.num_inference_threads()
        if num_threads == 1:
            yield from map(self, blocks[1:])
        else:
            with ThreadPoolExecutor(num_threads) as threads:
                yield from threads.map(self, blocks[1:])

    def __call__(self, block: slice) -> Estimate:
        """Return the estimates of a block of images, one of `blocks`."""
        work = self.block(block)
        log_sum, log_sum_of_squares = (np.full(len(work.images), -np.inf) for _ in range(2))
        chunks = []
        for log_weights in self.proposal.log_weights(work):
            log_sum = np.logaddexp(log_sum, np.logaddexp.reduce(log_weights, axis=1))
            log_sum_of_squares = np.logaddexp(log_sum_of_squares, np.logaddexp.reduce(2 * log_weights, axis=1))
            chunks.append(log_weights)
        return Estimate(
            log_sum - np.log(self.samples),
            np.exp(2 * log_sum - log_sum_of_squares),
            pareto_shape(np.concatenate(chunks, axis=1)),
        )

    def block(self, block: slice) -> Block:
        """Return the input of the proposal for a block of images, one of `blocks`."""
        inputs: dict[str, Any] = {name: values[block] for name, values in self.inputs.items()}
        features = self.model.encode_features(inputs)
        if features is not None:
            inputs["features"] = keras.tree.map_structure(ops.convert_to_numpy, features)
        images = range(block.start, block.stop)
        return Block(self.model, inputs, images, self.samples, self.seed, self.draws, self.size)
