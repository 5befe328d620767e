"""The importance-weighted estimate of log p(x), in memory that grows with neither the draws nor the images."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_vae.core import backend
from keras_vae.core.typing import Array

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

_DRAWS_AT_ONCE = 200
_PIXELS_AT_ONCE = 4000 * 28 * 28


class Estimate(NamedTuple):
    """What the draws say of every image.

    Args:
        log_likelihood: The estimate of log p(x) in nats, (N,), float64.
        effective_sample_size: Kish's (Σw)² / Σw² of the weights, from 1 to K, (N,), float64.
    """

    log_likelihood: Array
    effective_sample_size: Array


class ImportanceSampling:
    r"""Estimates \(\log \tfrac1K \sum_k p(x|z_k) p(z_k) / q(z_k|x)\) for blocks of images (Burda et al., 1509.00519).

    The encoder runs once an image. Image i has noise of its own, of NumPy's `default_rng([seed, 2, i])`, so that its
    estimate depends neither on the blocks nor on the backend, and an evaluation can stop after any block and go on.

    Args:
        model: A built model.
        inputs: What `call` takes, by name: arrays of N rows.
        samples: K.
        seed: Fixes the draws.
    """

    def __init__(self, model: "BaseVAE", inputs: dict[str, Array], samples: int, seed: int) -> None:
        self.model, self.inputs, self.samples, self.seed = model, inputs, samples, seed
        height, width = (size or 28 for size in model.image_shape[:2])
        rows = max(1, _PIXELS_AT_ONCE // (height * width * model.output_size))
        self.draws = min(samples, _DRAWS_AT_ONCE, rows)
        images, count = max(1, rows // self.draws), len(inputs["images"])
        self.blocks = [slice(start, min(start + images, count)) for start in range(0, count, images)]

    def over(self, blocks: Sequence[slice]) -> Iterator[Estimate]:
        """Return the estimates of blocks, in their order; several are computed at once where that is faster."""
        # The first one compiles the model, which threads would do several times.
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
