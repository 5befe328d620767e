"""The importance-weighted estimate of log p(x), in memory that grows with neither the draws nor the images."""

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
    """A model that returns importance weights: the part of `BaseVAE` that `ImportanceSampling` uses."""

    image_shape: Shape
    latent_dim: int

    @property
    def output_size(self) -> int:
        """The size of the decoder's outputs relative to that of the images."""

    def encode_features(self, inputs: dict[str, Array]) -> Any:
        """Return the encoder's outputs for a batch, or None."""

    def predict_on_batch(self, x: Any) -> Any:
        """Return the output of a batch, with the log-weights (N, K) under `terms.log_weight`."""


class Estimate(NamedTuple):
    """Estimates for a block of images.

    Args:
        log_likelihood: The estimate of log p(x) in nats per image, (N,), float64.
        effective_sample_size: Kish's (Σw)² / Σw² of the weights, from 1 to K, (N,), float64.
    """

    log_likelihood: Array
    effective_sample_size: Array


class ImportanceSampling:
    r"""Estimates \(\log \tfrac1K \sum_k p(x|z_k) p(z_k) / q(z_k|x)\) for blocks of images (Burda et al., 1509.00519).

    The encoder runs once per image. Image i has its own noise, from NumPy's `default_rng([seed, 2, i])`, so its
    estimate depends neither on the blocks nor on the backend, and an evaluation can stop after any block and resume.

    Args:
        model: A built model.
        inputs: The inputs of `call` by name: arrays of N rows.
        samples: K.
        seed: Fixes the draws.
    """

    def __init__(self, model: WeightedModel, inputs: dict[str, Array], samples: int, seed: int) -> None:
        self.model, self.inputs, self.samples, self.seed = model, inputs, samples, seed
        height, width = (size or 28 for size in model.image_shape[:2])
        rows = max(1, _PIXELS_AT_ONCE // (height * width * model.output_size))
        self.draws = min(samples, _DRAWS_AT_ONCE, rows)
        images, count = max(1, rows // self.draws), len(inputs["images"])
        self.blocks = [slice(start, min(start + images, count)) for start in range(0, count, images)]

    def over(self, blocks: Sequence[slice]) -> Iterator[Estimate]:
        """Yield the estimates of blocks in order; several are computed at once if that is faster."""
        # The first block compiles the model, which threads would do several times.
        yield from map(self, blocks[:1])
        at_once = backend.num_inference_threads()
        if at_once == 1:
            yield from map(self, blocks[1:])
        else:
            with ThreadPoolExecutor(at_once) as threads:
                yield from threads.map(self, blocks[1:])

    def __call__(self, block: slice) -> Estimate:
        """Return the estimates of a block of images, one of `blocks`."""
        batch = {name: values[block] for name, values in self.inputs.items()}
        features = self.model.encode_features(batch)
        if features is not None:
            batch["features"] = keras.tree.map_structure(ops.convert_to_numpy, features)
        generators = [np.random.default_rng([self.seed, 2, image]) for image in range(block.start, block.stop)]
        total, squares = (np.full(len(generators), -np.inf) for _ in range(2))
        for start in range(0, self.samples, self.draws):
            shape = (min(self.draws, self.samples - start), self.model.latent_dim)
            noise = np.stack([generator.standard_normal(shape, dtype="float32") for generator in generators])
            terms = self.model.predict_on_batch({**batch, "noise": noise}).terms
            weights = ops.convert_to_numpy(terms.log_weight).astype("float64")
            total = np.logaddexp(total, np.logaddexp.reduce(weights, axis=1))
            squares = np.logaddexp(squares, np.logaddexp.reduce(2 * weights, axis=1))
        return Estimate(total - np.log(self.samples), np.exp(2 * total - squares))
