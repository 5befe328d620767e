"""Measurements other than the training step, each in its own process: `python -m benchmarks.measures NAME`.

Each prints one line of JSON: numbers by name, or curves `{name: [[size, time], …]}`.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import compiled_example
from benchmarks.other_libraries import pythae_model
from benchmarks.workload import BATCH_SIZE, digits, example

Numbers = dict[str, Any]

GRID_SIDE = 30


def seconds_of(function: Callable[[], object], repeats: int, warmup: int = 1) -> float:
    """Return the median duration of a call in seconds."""
    times = []
    for _ in range(warmup + repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times[warmup:])


def peak(quick: bool) -> Numbers:
    """Measure float32 products of square matrices, the peak arithmetic speed of this machine."""
    import tensorflow as tf
    import torch

    size = 2048
    matrix = np.random.default_rng(0).normal(size=(size, size)).astype("float32")
    ours, theirs = tf.constant(matrix), torch.from_numpy(matrix)
    repeats = 5 if quick else 15
    best = min(
        seconds_of(lambda: tf.matmul(ours, ours), repeats, warmup=2),
        seconds_of(lambda: theirs @ theirs, repeats, warmup=2),
    )
    return {"gflops": 2e-9 * size**3 / best}


def grid_tutorial(quick: bool) -> Numbers:
    """Decode the grid as the tutorial does, with one `predict` call per image, without its progress bar."""
    decoder = example().build_decoder()
    axis = np.linspace(-1, 1, GRID_SIDE)
    points = [np.array([[x, y]]) for y in axis for x in axis]
    decoder.predict(points[0], verbose=0)
    points = points[:: 6 if quick else 1]
    start = time.perf_counter()
    for z in points:
        decoder.predict(z, verbose=0)
    return {"seconds": (time.perf_counter() - start) * GRID_SIDE**2 / len(points)}


def grid_ours(quick: bool) -> Numbers:
    """Decode the grid as `vae plot RUN grid` does."""
    from keras_vae import VAE
    from keras_vae.report.latent_grid import grid_points

    vae, z = VAE(seed=0), grid_points(GRID_SIDE).z
    return {"seconds": seconds_of(lambda: vae.decode(z), 5 if quick else 15)}


def nll_ours(quick: bool) -> Numbers:
    """Measure the importance-sampled likelihood in decodes per second, in the blocks of `vae evaluate`."""
    from keras_vae import VAE

    vae, images, samples = VAE(seed=0), digits(1)[: 20 if quick else 60], 500
    spent = seconds_of(lambda: vae.log_likelihood(images, samples=samples), 1 if quick else 3)
    return {"decodes_per_second": len(images) * samples / spent}


def nll_pythae(quick: bool) -> Numbers:
    """Measure pythae's `get_nll` in decodes per second, with gradients disabled, which it does not do itself."""
    import torch

    model = pythae_model().eval()
    images = torch.from_numpy(digits(1)[: 10 if quick else 20].transpose(0, 3, 1, 2).astype("float32") / 255)
    samples = 500
    with torch.no_grad():
        spent = seconds_of(lambda: model.get_nll(images, n_samples=samples, batch_size=100), 1 if quick else 3)
    return {"decodes_per_second": len(images) * samples / spent}


def step_clock() -> Any:
    """Return a Keras callback that records the times of steps, epochs and validations."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self) -> None:
            super().__init__()
            self.steps: list[float] = []
            self.trained: list[float] = []
            self.validated: list[float] = []
            self.epochs: list[float] = []

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            self.step_began = time.perf_counter()
            if batch == 0:
                self.epoch_began = self.step_began

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.step_ended = time.perf_counter()
            self.steps.append(self.step_ended - self.step_began)

        def on_test_begin(self, logs: Any = None) -> None:
            self.trained.append(self.step_ended - self.epoch_began)
            self.test_began = time.perf_counter()

        def on_test_end(self, logs: Any = None) -> None:
            self.validated.append(time.perf_counter() - self.test_began)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.epochs.append(time.perf_counter())

    return Clock()


def whole_training(quick: bool) -> Numbers:
    """Compare the time of `vae train classic` with that of its steps alone, extrapolated to 30 epochs of MNIST.

    The steps take their median time, multiplied by their number. The time between steps and the time of validation are
    proportional to the number of images. Other costs per epoch, and those before the first and after the last epoch,
    are constant. Each part is measured on fewer steps and extrapolated to 30 epochs of 57,000 images.
    """
    started = time.perf_counter()
    from keras_vae.cli import main
    from keras_vae.training import trainer

    steps, epochs, batch = (20 if quick else 60), 3, BATCH_SIZE

    clock, train = step_clock(), trainer.train
    # The clock is the last callback, so that its steps do not include the work of the others.
    trainer.train = lambda *args, callbacks=(), **kwargs: train(*args, callbacks=[*callbacks, clock], **kwargs)
    # Use the preset's ratio of validation images to training images, and the number of test images of MNIST.
    images = digits(2 * steps)[: round(steps * batch / 0.95)]
    test = np.resize(images, (10_000, *images.shape[1:]))
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        np.savez("digits.npz", x_train=images, x_test=test)
        settings = [f"training.epochs={epochs}", f"training.batch_size={batch}"]
        options = [part for setting in settings for part in ("--set", setting)]
        sys.argv = ["vae", "train", "classic", "--data", "digits.npz", "--out", "run", *options]
        try:
            main()
        except SystemExit as done:
            if done.code:
                raise
        os.chdir("/")
    wall = time.perf_counter() - started
    step, epoch = statistics.median(clock.steps), statistics.median(np.diff(clock.epochs))
    trained, validated = (statistics.median(times[1:]) for times in (clock.trained, clock.validated))
    constant, around = epoch - trained - validated, wall - (clock.epochs[-1] - clock.epochs[0]) - epoch
    mnist_steps = -(-57_000 // batch)
    scale = mnist_steps / len(clock.steps) * epochs
    return {
        "step_milliseconds": 1000 * step,
        "other_seconds_per_epoch": constant,
        "validation_over_training": validated / trained,
        "seconds_around_epochs": around,
        "wall_over_steps_30_epochs": (30 * (scale * (trained + validated) + constant) + around)
        / (30 * mnist_steps * step),
    }


def growth(quick: bool) -> dict[str, list[tuple[int, float]]]:
    """Measure the time per image of the classic model as a function of one size at a time."""
    from keras_vae import VAE  # isort: skip
    from keras_vae.components.objectives import IWAE  # isort: skip
    from keras_vae.networks import Conv  # isort: skip
    import keras

    def microseconds(count: int = 512, batch: int = 128, side: int = 28, latent: int = 2, draws: int = 1) -> float:
        network = Conv()
        shape = (side, side, 1)
        objective = IWAE(samples=draws) if draws > 1 else None
        vae = VAE(network.encoder(shape, latent), network.decoder(latent, shape), objective=objective, seed=0)
        vae.compile(optimizer="adam")
        images = np.random.default_rng(0).integers(0, 256, (count, *shape)).astype("uint8")
        spent = seconds_of(lambda: vae.fit(images, batch_size=batch, verbose=0), 1 if quick else 3)
        keras.backend.clear_session()
        return 1e6 * spent / count

    sizes = {
        "batch": (32, 128, 512),
        "side": (14, 28, 56),
        "latent": (2, 32, 256),
        "draws": (1, 4, 16),
        "count": (512, 2048, 8192),
    }
    return {name: [(value, microseconds(**{name: value})) for value in values] for name, values in sizes.items()}


def fits(quick: bool) -> dict[str, list[tuple[int, float]]]:
    """Measure the milliseconds per step of a whole `fit` on arrays, which includes the cost of its input pipeline."""
    from keras_vae import VAE

    ours = VAE(seed=0)
    ours.compile(optimizer="adam")
    plain, images = compiled_example(), digits(160)
    contenders = {"plain Keras": (plain, images.astype("float32") / 255), "ours": (ours, images)}

    def milliseconds(model: Any, images: Any, steps: int) -> float:
        chosen = images[: steps * BATCH_SIZE]
        fit = lambda: model.fit(chosen, batch_size=BATCH_SIZE, verbose=0)  # noqa: E731
        return 1000 * seconds_of(fit, 1 if quick else 3) / steps

    sizes = (10, 20) if quick else (10, 20, 40, 80, 160)
    return {
        name: [(steps, milliseconds(*contender, steps)) for steps in sizes] for name, contender in contenders.items()
    }


def layers(quick: bool) -> Numbers:
    """Measure the classic model's convolutions, ours and Keras's, in milliseconds."""
    from benchmarks import convolutions

    return {name: list(times) for name, times in convolutions.layer_times(3 if quick else 15).items()}


MEASURES: dict[str, Callable[[bool], Any]] = {
    "peak": peak,
    "grid-tutorial": grid_tutorial,
    "grid-ours": grid_ours,
    "nll-pythae": nll_pythae,
    "nll-ours": nll_ours,
    "whole-training": whole_training,
    "growth": growth,
    "fits": fits,
    "layers-tensorflow": layers,
    "layers-jax": layers,
}


def main() -> None:
    """Run one measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("measure", choices=MEASURES)
    parser.add_argument("--quick", action="store_true")
    arguments = parser.parse_args()
    os.environ["KERAS_BACKEND"] = "jax" if arguments.measure.endswith("jax") else "tensorflow"
    sys.path.insert(0, str(Path(__file__).parents[1]))
    measured = MEASURES[arguments.measure](arguments.quick)
    sys.stdout.flush()
    print(json.dumps(measured))


if __name__ == "__main__":
    main()
