"""The importance-weighted estimate of log p(x), in memory that depends on neither the draws nor the images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, Protocol

import keras
import numpy as np
from keras import ops

from keras_vae.core import backend
from keras_vae.core.typing import Array, Shape

_DRAWS_AT_ONCE = 200
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

    def predict_on_batch(self, x: Any) -> Any:
        """Return the output for a batch, whose `terms.log_weight` has the log-weights, (N, K)."""


class Estimate(NamedTuple):
    """Estimates for a block of images.

    Args:
        log_likelihood: Estimates of log p(x) in nats per image, (N,), float64.
        effective_sample_size: Kish's (Σw)² / Σw² of the weights, from 1 to K, (N,), float64.
    """

    log_likelihood: Array
    effective_sample_size: Array


class ImportanceSampling:
    r"""Estimator of log p(x), \(\log \tfrac1K \sum_k p(x|z_k) p(z_k) / q(z_k|x)\), for blocks of images.

    Burda et al. (arXiv 1509.00519). The encoder runs once per image. The noise of image i comes from NumPy's
    `default_rng([seed, 2, i])`, so its estimate depends neither on the blocks nor on the backend, and an evaluation can
    stop after any block and resume.

    Args:
        model: A built model.
        inputs: Inputs of `call`, by name: arrays of N rows.
        samples: Number of draws K per image.
        seed: Seed of the draws.
    """

    def __init__(self, model: WeightedModel, inputs: dict[str, Array], samples: int, seed: int) -> None:
        self.model, self.inputs, self.samples, self.seed = model, inputs, samples, seed
        height, width = (size or 28 for size in model.image_shape[:2])
        rows = max(1, _PIXELS_AT_ONCE // (height * width * model.output_size))
        self.draws = min(samples, _DRAWS_AT_ONCE, rows)
        images, count = max(1, rows // self.draws), len(inputs["images"])
        self.blocks = [slice(start, min(start + images, count)) for start in range(0, count, images)]

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
        batch = {name: values[block] for name, values in self.inputs.items()}
        features = self.model.encode_features(batch)
        if features is not None:
            batch["features"] = keras.tree.map_structure(ops.convert_to_numpy, features)
        generators = [np.random.default_rng([self.seed, 2, image]) for image in range(block.start, block.stop)]
        log_sum, log_sum_of_squares = (np.full(len(generators), -np.inf) for _ in range(2))
        for start in range(0, self.samples, self.draws):
            shape = (min(self.draws, self.samples - start), self.model.latent_dim)
            noise = np.stack([generator.standard_normal(shape, dtype="float32") for generator in generators])
            terms = self.model.predict_on_batch({**batch, "noise": noise}).terms
            log_weights = ops.convert_to_numpy(terms.log_weight).astype("float64")
            log_sum = np.logaddexp(log_sum, np.logaddexp.reduce(log_weights, axis=1))
            log_sum_of_squares = np.logaddexp(log_sum_of_squares, np.logaddexp.reduce(2 * log_weights, axis=1))
        return Estimate(log_sum - np.log(self.samples), np.exp(2 * log_sum - log_sum_of_squares))
