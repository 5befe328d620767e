"""The classic model's training step, ours beside the plain Keras graph-mode loop, in one run.

    python benchmarks/training.py            # scikit-learn's digits, repeated; the numbers do not depend on the images

Ours is `keras_vae.training.train` with everything that it does in an epoch: shuffling, the watch over the loss, the
average of the weights, the checkpoint. Plain is `examples/from_scratch.py`: `fit` on an array. Both train on the same
images and measure the same validation images at the end of every epoch. They take turns, so that a machine whose speed
drifts slows both. Every turn is a process of its own, because determinism, once switched on, cannot be switched off;
its first epoch, which compiles, is left out. A third row is ours without the switch for determinism: what that costs.
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

from keras_vae import _backend, training
from keras_vae.data import sources
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.experiment import Experiment

BATCH_SIZE = 128
VALIDATION_BATCH_SIZE = 500
"""What `keras_vae.training` measures validation images in."""


class EpochTimes(keras.callbacks.Callback):
    """Measures every epoch but the first, from the end of the one before: all callbacks and the validation included."""

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Forget what was measured before."""
        self.ends: list[float] = []

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Note the time."""
        self.ends.append(time.perf_counter())

    @property
    def seconds(self) -> list[float]:
        """The seconds of each epoch."""
        return [float(value) for value in np.diff(self.ends)]


def repeated_digits(steps: int) -> tuple[Experiment, Splits]:
    """Return the classic experiment, and digits for so many steps an epoch with its fraction of validation images."""
    experiment = Experiment.preset("classic").with_settings([f"training.batch_size={BATCH_SIZE}"])
    train = steps * BATCH_SIZE
    fraction = experiment.data.validation
    validation = max(1, round(train * fraction / (1 - fraction)))
    digits = sources.load("digits").train.images
    images = np.resize(digits, (train + validation + BATCH_SIZE, *digits.shape[1:]))
    parts = np.split(images, [train, train + validation])
    return experiment, Splits(*(Dataset.from_arrays(part, name="digits") for part in parts))


def plain(steps: int, epochs: int) -> list[float]:
    """Return the seconds of each epoch of the plain loop."""
    path = Path(__file__).parents[1] / "examples" / "from_scratch.py"
    spec = importlib.util.spec_from_file_location("from_scratch", path)
    assert spec is not None
    assert spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    _, splits = repeated_digits(steps)
    assert splits.validation is not None
    keras.utils.set_random_seed(0)
    vae = example.VAE(example.build_encoder(), example.build_decoder(), seed=0)
    vae.compile(optimizer=keras.optimizers.Adam(1e-3), jit_compile=False)
    times = EpochTimes()
    vae.fit(
        splits.train.images / np.float32(255),
        validation_data=(splits.validation.images / np.float32(255),),
        validation_batch_size=VALIDATION_BATCH_SIZE,
        batch_size=BATCH_SIZE,
        epochs=epochs,
        verbose=0,
        callbacks=[times],
    )
    return times.seconds


def ours(steps: int, epochs: int) -> list[float]:
    """Return the seconds of each epoch of a run."""
    experiment, splits = repeated_digits(steps)
    times = EpochTimes()
    with tempfile.TemporaryDirectory() as folder:
        training.train(
            experiment.with_settings([f"training.epochs={epochs}"]), splits, Path(folder) / "run", callbacks=[times]
        )
    return times.seconds


def ours_without_determinism(steps: int, epochs: int) -> list[float]:
    """Return the seconds of each epoch of a run whose backend may add up in any order."""
    _backend.make_deterministic = lambda: None
    return ours(steps, epochs)


PLAIN, OURS, FREE = "plain Keras", "keras-vae", "keras-vae without determinism"
WAYS: dict[str, Callable[[int, int], list[float]]] = {PLAIN: plain, OURS: ours, FREE: ours_without_determinism}


def turn(way: str, steps: int, epochs: int) -> list[float]:
    """Return the seconds of each epoch but the first of one way, in a process of its own."""
    command = [sys.executable, __file__, "--only", way, "--steps", str(steps), "--epochs", str(epochs)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    seconds: list[float] = json.loads(done.stdout.splitlines()[-1])
    return seconds


def main() -> None:
    """Measure and print medians and their ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100, help="steps an epoch")
    parser.add_argument("--epochs", type=int, default=4, help="epochs a turn, at least 2")
    parser.add_argument("--turns", type=int, default=3, help="turns of each")
    parser.add_argument("--only", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if min(arguments.steps, arguments.epochs - 1, arguments.turns) < 1:
        parser.error("--steps and --turns must be at least 1, --epochs at least 2")
    if arguments.only:
        print(json.dumps(WAYS[arguments.only](arguments.steps, arguments.epochs)))
        return
    measured: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(arguments.turns):
        for way, seconds in measured.items():
            seconds += turn(way, arguments.steps, arguments.epochs)
    for way, seconds in measured.items():
        steps = sorted(1000 * epoch / arguments.steps for epoch in seconds)
        print(f"{way:{len(FREE)}} {statistics.median(steps):7.2f} ms a step (min {steps[0]:.2f}, max {steps[-1]:.2f})")
    medians = {way: statistics.median(seconds) for way, seconds in measured.items()}
    print(f"{OURS} takes {medians[OURS] / medians[PLAIN]:.3f} × the time of {PLAIN}")
    print(f"{OURS} takes {medians[OURS] / medians[FREE]:.3f} × the time of {FREE}")


if __name__ == "__main__":
    main()
