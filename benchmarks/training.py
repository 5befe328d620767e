"""The classic model's training step, ours beside the plain Keras graph-mode loop, in one run.

    python benchmarks/training.py            # scikit-learn's digits, repeated; the numbers do not depend on the images

Ours is `keras_vae.training.train` with everything that it does in an epoch: shuffling, the watch over the loss, the
checkpoint. Plain is `examples/from_scratch.py`: `fit` on an array. The two take turns, so that a machine whose speed
drifts slows both; the first epoch of each turn, which compiles, is left out.
"""

import argparse
import importlib.util
import os
import statistics
import tempfile
import time
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_vae import training
from keras_vae.data import sources
from keras_vae.data.dataset import Dataset, split
from keras_vae.experiment import Experiment
from keras_vae.types import Array

BATCH_SIZE = 128


class EpochTimes(keras.callbacks.Callback):
    """Measures every epoch in seconds."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Forget what was measured before."""
        self.seconds: list[float] = []

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stop it."""
        self.seconds.append(time.perf_counter() - self.started)


def plain(images: Array, epochs: int) -> list[float]:
    """Return the seconds of each epoch of the plain loop."""
    path = Path(__file__).parents[1] / "examples" / "from_scratch.py"
    spec = importlib.util.spec_from_file_location("from_scratch", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    vae = example.VAE(example.build_encoder(), example.build_decoder(), seed=0)
    vae.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    times = EpochTimes()
    vae.fit(images / np.float32(255), batch_size=BATCH_SIZE, epochs=epochs, verbose=0, callbacks=[times])
    return times.seconds


def ours(images: Array, epochs: int) -> list[float]:
    """Return the seconds of each epoch of a run."""
    settings = ["data.validation=0", f"training.epochs={epochs}", f"training.batch_size={BATCH_SIZE}"]
    experiment = Experiment.preset("classic").with_settings(settings)
    splits = split(
        Dataset.from_arrays(images, name="digits"), None, validation=0, test_size=BATCH_SIZE, holdout=True, seed=0
    )
    times = EpochTimes()
    with tempfile.TemporaryDirectory() as folder:
        training.train(experiment, splits, Path(folder) / "run", callbacks=[times])
    return times.seconds


def main() -> None:
    """Measure and print medians and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps an epoch")
    parser.add_argument("--epochs", type=int, default=4, help="epochs a turn")
    parser.add_argument("--turns", type=int, default=3, help="turns of each")
    arguments = parser.parse_args()
    digits = sources.load("digits").train.images
    images = np.resize(digits, (arguments.steps * BATCH_SIZE, *digits.shape[1:]))
    held_out = np.concatenate([images, digits[:BATCH_SIZE]])
    measured: dict[str, list[float]] = {"plain Keras": [], "keras-vae": []}
    for _ in range(arguments.turns):
        measured["plain Keras"] += plain(images, arguments.epochs)[1:]
        measured["keras-vae"] += ours(held_out, arguments.epochs)[1:]
    for name, seconds in measured.items():
        steps = sorted(1000 * epoch / arguments.steps for epoch in seconds)
        print(f"{name:12} {statistics.median(steps):7.2f} ms a step (min {steps[0]:.2f}, max {steps[-1]:.2f})")
    ratio = statistics.median(measured["keras-vae"]) / statistics.median(measured["plain Keras"])
    print(f"keras-vae takes {ratio:.3f} × the time of plain Keras")


if __name__ == "__main__":
    main()
