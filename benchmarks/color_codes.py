"""Share of 4,096 codes that each quantizer uses on color images: `python -m benchmarks.color_codes --seeds 3`.

The images are `emoji.npz` in the folder $KERAS_VAE_DATA: 1,476 training images and 212 test images of 64×64 pixels.
The share is that of the codes which at least one image uses: 377,856 indices of the training images with a map of
16×16, and 54,272 of the test images. The goal is for the training images. The prior is not trained: it passes no
gradient to encoder and decoder. Batches have 16 images, since small batches take more steps in the same time, and the
last bias of the decoder starts at the mean color of the training images.
"""

import argparse
import json
import math
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vae.components.autoregressive_prior import AutoregressivePrior
from keras_vae.components.likelihoods import Normal
from keras_vae.components.quantizers import FiniteScalarQuantizer, Quantizer, SimVQ, VectorQuantizerEMA
from keras_vae.components.quantizers.usage import perplexity
from keras_vae.core.typing import Array, Tensor
from keras_vae.data import sources
from keras_vae.evaluation.descriptions import format_number
from keras_vae.models.vq import VQVAE
from keras_vae.networks import Conv

QUANTIZERS: dict[str, Callable[[], Quantizer]] = {
    "ema": lambda: VectorQuantizerEMA(num_codes=4096),
    "fsq": lambda: FiniteScalarQuantizer(levels=(8, 8, 8, 8)),
    "simvq": lambda: SimVQ(num_codes=4096),
}
WIDTHS = {8: [24, 32, 48], 16: [24, 48]}
"""Channels of the network, by rows and columns of the map of indices."""

GOAL = 0.95
"""Share of the codes that `fsq` and `simvq` should use."""


MEANS = ("code_usage", "code_usage_test", "perplexity", "psnr_test")
"""Measurements whose mean over the seeds is printed."""


class UniformPrior(AutoregressivePrior):
    """A prior under which all maps are equally likely, without a network to train."""

    def log_prob(self, indices: Tensor, condition: Tensor = None) -> Tensor:  # noqa: D102
        rows, columns, num_codes = self.map_shape
        return ops.full(ops.shape(indices)[:1], -rows * columns * math.log(num_codes))


def make_model(quantizer: str, seed: int, rows: int, mean_color: Array) -> VQVAE:
    """Return the model of one row, whose decoder returns a color (3,) in [0, 1] at first."""
    keras.utils.set_random_seed(seed)
    model = VQVAE.from_network(
        Conv(widths=WIDTHS[rows]),
        (64, 64, 3),
        quantizer=QUANTIZERS[quantizer](),
        code_dim=4,
        gradient="straight-through" if quantizer == "fsq" else "rotation",
        prior=UniformPrior(width=4, num_blocks=1, num_heads=1),
        likelihood=Normal(scale=0.1),
        seed=seed,
    )
    # It has no gradient.
    model.prior.trainable = False
    # Otherwise, the first steps would learn the mean color alone.
    model.decoder.layers[-1].bias.assign(mean_color)
    model.compile(keras.optimizers.Adam(1e-3))
    return model


def usage(counts: Array) -> float:
    """Return the share of codes with a count above 0."""
    return float(np.count_nonzero(counts) / len(counts))


def measure(quantizer: str, seed: int, epochs: int, rows: int) -> dict[str, Any]:
    """Train a model, and return the use of its codes and its peak signal-to-noise ratio."""
    loaded = sources.load(Path(os.environ["KERAS_VAE_DATA"]) / "emoji.npz")
    train, test = loaded.train.images, loaded.test.images
    start = time.perf_counter()
    model = make_model(quantizer, seed, rows, train.mean(axis=(0, 1, 2)) / 255)
    model.fit(train, batch_size=16, epochs=epochs, verbose=0)
    counts = model.count_codes(train)
    error = np.mean(np.square(model.reconstruct(test) - test / np.float32(255)), axis=(1, 2, 3))
    return {
        "quantizer": quantizer,
        "seed": seed,
        "epochs": epochs,
        "map": [rows, rows],
        "code_usage": usage(counts),
        "code_usage_test": usage(model.count_codes(test)),
        "perplexity": perplexity(counts),
        "psnr_test": float(np.mean(-10 * np.log10(error))),
        "seconds": time.perf_counter() - start,
        "backend": keras.backend.backend(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every quantizer with every seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--epochs", type=int, default=4, help="passes over the 1,476 images")
    parser.add_argument("--map", type=int, choices=list(WIDTHS), default=16, help="rows of the map of indices")
    parser.add_argument("--quantizers", nargs="+", choices=list(QUANTIZERS), default=list(QUANTIZERS))
    parser.add_argument("--json", action="store_true", help="print one JSON object per training")
    options = parser.parse_args(arguments)
    for quantizer in options.quantizers:
        rows = []
        for seed in range(options.seeds):
            rows.append(measure(quantizer, seed, options.epochs, options.map))
            if options.json:
                print(json.dumps(rows[-1]), flush=True)
        worst = min(row["code_usage"] for row in rows)
        verdict = "" if quantizer == "ema" else f"  goal {GOAL:.0%}: {'met' if worst >= GOAL else 'missed'}"
        means = {name: float(np.mean([row[name] for row in rows])) for name in MEANS}
        print(
            f"{quantizer:<6} code usage {means['code_usage']:.1%} (lowest {worst:.1%}), on test images "
            f"{means['code_usage_test']:.1%}, perplexity {format_number(means['perplexity'])}, PSNR of test images "
            f"{means['psnr_test']:.2f} dB{verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
