"""Validation after every epoch: of the weights that would be kept, with the same noise, and its best epochs."""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from keras_vae.core.typing import Array
from keras_vae.models.base import BaseVAE
from keras_vae.runs.files import MONITORED, Metrics

FIRST_DRAW = 2**30
"""Position of the first draw of validation in the stream of a random generator, which no training reaches."""


def averaged_weights(model: keras.Model) -> list[Array]:
    """Return the moving average of the weights if the optimizer keeps one, else the weights; the model is unchanged.

    Args:
        model: A compiled model.

    Returns:
        Arrays in the order of `get_weights`.
    """
    trained = _copied_weights(model)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    averaged = _copied_weights(model)
    model.set_weights(trained)
    return averaged


def _copied_weights(model: keras.Model) -> list[Array]:
    # Copy, because the arrays may be views of memory that the next training step on JAX frees.
    return [np.array(weight) for weight in model.get_weights()]


@contextlib.contextmanager
def with_averaged_weights(model: keras.Model) -> Iterator[None]:
    """Set the averaged weights of a model for a block, if the optimizer keeps any, then restore the weights exactly.

    Under TensorFlow, `keras.callbacks.SwapEMAWeights` swaps by addition and subtraction, which causes rounding errors.

    Args:
        model: A compiled model.
    """
    trained = _copied_weights(model)
    model.set_weights(averaged_weights(model))
    try:
        yield
    finally:
        model.set_weights(trained)


class EvaluateWithEMA(keras.callbacks.Callback):
    """Evaluates validation images with the averaged weights, then restores the trained weights exactly."""

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Set the averaged weights."""
        self.averaged = contextlib.ExitStack()
        self.averaged.enter_context(with_averaged_weights(self.model))

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Restore the trained weights."""
        self.averaged.close()


class RepeatNoise(keras.callbacks.Callback):
    """Draws the same noise in every validation, so that the losses of two epochs differ by their weights alone.

    Args:
        seed: Seed of the training.
    """

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.seed = seed

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Set the generator to the start of the noise of validation."""
        self.before = self._state()
        set_validation_noise(self.model, self.seed)

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Return the generator to training, advanced by the number of draws."""
        draws = self._state()[1] - FIRST_DRAW
        self.model.sampler.seed_generator.state.assign(self.before + np.array([0, draws], self.before.dtype))

    def _state(self) -> Array:
        return np.array(ops.convert_to_numpy(self.model.sampler.seed_generator.state))


def set_validation_noise(model: BaseVAE, seed: int) -> None:
    """Set a model's generator so that `evaluate` draws the noise of validation, and gives the values in the metrics.

    Args:
        model: The model.
        seed: Seed of the training.
    """
    model.sampler.seed_generator.state.assign([seed, FIRST_DRAW])


def has_stalled(metrics: Metrics, patience: int) -> bool:
    """Return whether the best validation loss is `patience` epochs old; False if `patience` is 0."""
    history = metrics.get(MONITORED, [])
    epochs_since_best = len(history) - 1 - int(np.argmin(history)) if history else 0
    return 0 < patience <= epochs_since_best


def plateau_drops(metrics: Metrics, patience: int) -> int:
    """Return the number of reductions so far: one after every `patience` epochs without a new best validation loss."""
    history, drops, waited = metrics.get(MONITORED, []), 0, 0
    for epoch, value in enumerate(history):
        waited = 0 if value == min(history[: epoch + 1]) else waited + 1
        if 0 < patience <= waited:
            drops, waited = drops + 1, 0
    return drops
