"""Share of 4,096 codes that each quantizer uses on color images: `python -m benchmarks.color_codes --seeds 3`.

The images are `emoji.npz` in the folder $KERAS_VAE_DATA: 1,476 training images of 64×64 pixels. The share is that
of the codes which at least one of them uses.
"""

import argparse
import json
import time
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from benchmarks.workload import emoji_file
from keras_vae.components.quantizers.usage import perplexity
from keras_vae.data import sources
from keras_vae.data.info import DatasetInfo
from keras_vae.evaluation.descriptions import format_number
from keras_vae.runs.build import build, resolve
from keras_vae.runs.experiment import Experiment

QUANTIZERS = {
    "ema": '{ name = "ema", num_codes = 4096 }',
    "fsq": '{ name = "fsq", levels = [8, 8, 8, 8] }',
    "simvq": '{ name = "simvq", num_codes = 4096 }',
}
WIDTHS = {8: [24, 32, 48], 16: [24, 48]}
"""Channels of the network, by rows and columns of the map of indices."""

GOAL = 0.95
"""Share of the codes that `fsq` and `simvq` should use."""


def experiment(quantizer: str, seed: int, epochs: int, rows: int) -> Experiment:
    """Return the experiment of one row."""
    gradient = "straight-through" if quantizer == "fsq" else "rotation"
    code_dim = "" if quantizer == "fsq" else ", code_dim = 8"
    return Experiment().with_overrides(
        [
            f"seed={seed}",
            f'model.network={{ name = "conv", widths = {WIDTHS[rows]} }}',
            'model.likelihood={ name = "normal", scale = 0.1 }',
            f'model.architecture={{ name = "vq", quantizer = {QUANTIZERS[quantizer]}, gradient = "{gradient}"'
            f"{code_dim}, prior_width = 16, prior_blocks = 1 }}",
            *("training.batch_size=64", f"training.epochs={epochs}", "training.learning_rate=2e-3"),
        ]
    )


def measure(quantizer: str, seed: int, epochs: int, rows: int) -> dict[str, Any]:
    """Train a model, and return the use of its codes and its peak signal-to-noise ratio."""
    images = sources.load(emoji_file()).train.images
    start = time.perf_counter()
    model = build(resolve(experiment(quantizer, seed, epochs, rows), DatasetInfo(images.shape[1:], len(images))))
    model.fit(images, batch_size=64, epochs=epochs, verbose=0)
    counts = model.count_codes(images)  # type: ignore[attr-defined]
    error = np.mean(np.square(model.reconstruct(images) - images / np.float32(255)), axis=(1, 2, 3))
    return {
        "quantizer": quantizer,
        "seed": seed,
        "epochs": epochs,
        "map": [rows, rows],
        "code_usage": float(np.count_nonzero(counts) / len(counts)),
        "perplexity": perplexity(counts),
        "psnr": float(np.mean(-10 * np.log10(error))),
        "seconds": time.perf_counter() - start,
        "backend": keras.backend.backend(),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure every quantizer with every seed, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--epochs", type=int, default=60, help="passes over the 1,476 images")
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
        means = {name: float(np.mean([row[name] for row in rows])) for name in ("code_usage", "perplexity", "psnr")}
        print(
            f"{quantizer:<6} code usage {means['code_usage']:.1%} (lowest {worst:.1%}), perplexity "
            f"{format_number(means['perplexity'])}, PSNR {means['psnr']:.2f} dB{verdict}",
            flush=True,
        )


if __name__ == "__main__":
    main()
