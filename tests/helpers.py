"""Shared helpers of the tests: tensors, gradients on every backend, and small trainings."""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae.core.typing import Array, Tensor
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.evaluate import EvaluationConfig, evaluate
from keras_vae.report.report import write_report
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.run import Run
from keras_vae.training.trainer import train

SMALL = [
    "model.network.widths=[2, 3]",
    "model.network.dense_units=4",
    "training.epochs=4",
    "training.batch_size=8",
]
"""Settings of a training that takes about a second."""


def small(*settings: str) -> Experiment:
    """Return a small experiment with further settings."""
    return Experiment.preset("classic").with_overrides([*SMALL, *settings])


class Interrupt(keras.callbacks.Callback):
    """Stops a training in the middle of an epoch, as Ctrl-C does."""

    def __init__(self, epoch: int, batch: int) -> None:
        super().__init__()
        self.moment, self.epoch = (epoch, batch), 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        if (self.epoch, batch) == self.moment:
            raise KeyboardInterrupt


def assert_equal_runs(one: Run, other: Run) -> None:
    """Assert that models, optimizers and metrics are bitwise equal, except for the seconds per epoch."""
    first, second = one.load_model(), other.load_model()
    for left, right in zip(
        [*first.variables, *first.optimizer.variables], [*second.variables, *second.optimizer.variables], strict=True
    ):
        np.testing.assert_array_equal(ops.convert_to_numpy(left), ops.convert_to_numpy(right))
    assert {**one.metrics, "seconds": 0} == {**other.metrics, "seconds": 0}


def on_tensorflow(reason: str) -> pytest.MarkDecorator:
    """Skip a test on backends other than TensorFlow, for the given reason."""
    return pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason=reason)


def on_jax(reason: str) -> pytest.MarkDecorator:
    """Skip a test on backends other than JAX, for the given reason."""
    return pytest.mark.skipif(keras.backend.backend() != "jax", reason=reason)


def to_numpy(value: object) -> Array:
    return ops.convert_to_numpy(value)


def tensor(values: object) -> Tensor:
    return ops.convert_to_tensor(np.asarray(values, "float32"))


def gradient(
    function: Callable[[Tensor], Tensor], values: object, layers: Sequence[keras.layers.Layer] = ()
) -> tuple[Array, list[Array]]:
    """Return the gradients of a scalar function with respect to its argument and the weights of layers that it calls.

    A step of plain gradient descent with learning rate 1 changes each weight by its gradient, on every backend.
    """

    class Descent(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.values = self.add_weight(shape=np.shape(values), initializer="zeros")
            self.parts = list(layers)

        def call(self, inputs: Tensor) -> Tensor:
            return inputs

        def compute_loss(self, x: Tensor = None, *args: object, **kwargs: object) -> Tensor:
            values = ops.convert_to_tensor(self.values)
            # Backends cannot differentiate a constant.
            return function(values) + 0.0 * ops.sum(values)

    model = Descent()
    model.values.assign(np.asarray(values, "float32"))
    # A single step is fastest without compilation, except on JAX, which would compile each operation separately.
    model.compile(optimizer=keras.optimizers.SGD(1.0), run_eagerly=keras.backend.backend() != "jax")
    before = [to_numpy(weight).copy() for weight in model.trainable_weights]
    with warnings.catch_warnings():
        # Some tests compute the gradient of a constant.
        warnings.filterwarnings("ignore", "Gradients do not exist")
        model.train_on_batch(np.zeros((1, 1), "float32"))
    after = [to_numpy(weight).copy() for weight in model.trainable_weights]
    for weight, value in zip(model.trainable_weights, before, strict=True):
        weight.assign(value)
    ours, *others = (old - new for old, new in zip(before, after, strict=True))
    return ours, others


def randomize(layer: keras.layers.Layer, scale: float, seed: int = 0) -> None:
    """Set every weight to normal noise of the given scale."""
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        weight.assign(rng.normal(scale=scale, size=weight.shape).astype("float32"))


def weight_values(layer: keras.layers.Layer) -> list[Array]:
    """Return copies of all weights."""
    return [to_numpy(weight).copy() for weight in layer.weights]


def equal_arrays(first: list[Array], second: list[Array]) -> list[bool]:
    """Return whether the arrays of each pair are equal."""
    return [np.array_equal(*pair) for pair in zip(first, second, strict=True)]


def jacobians(function: Callable[[Tensor], Tensor], points: Array, step: float = 4e-3) -> Array:
    """Return ∂f_i/∂x_j at every point by central differences, (n, i, j)."""
    columns = []
    for index in range(points.shape[-1]):
        shift = step * np.eye(points.shape[-1], dtype="float32")[index]
        up, down = (to_numpy(function(tensor(points + sign * shift))).astype("float64") for sign in (1, -1))
        columns.append((up - down) / (2 * step))
    return np.stack(columns, axis=-1)


def integral(log_density: Callable[[Tensor], Tensor], reach: float, points: int = 301) -> float:
    """Return the integral of a density over a square of the plane, as a sum over a grid."""
    axis = np.linspace(-reach, reach, points, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    return float(np.exp(to_numpy(log_density(tensor(grid))).astype("float64")).sum() * (2 * reach / (points - 1)) ** 2)


def train_and_report(
    experiment: Experiment,
    out: Path,
    splits: Splits | None = None,
    callbacks: Sequence[object] = (),
    *,
    report: bool = True,
) -> Run:
    """Train a run, measure its ELBO and, on request, write its report, as `vae train` does."""
    run = train(experiment, splits, out, callbacks=callbacks)
    model = run.load_model()
    evaluate(run, splits, EvaluationConfig(samples=0), stages=["likelihood"], model=model)
    if report:
        write_report(run, splits, model=model)
    return run
