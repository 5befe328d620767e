"""Training does not read from the device in every step."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
import pytest
from rich.console import Console

from helpers import small
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.training import callbacks as training_callbacks
from keras_vae.training.callback_list import CallbackList, StepCallback
from keras_vae.training.callbacks import StopOnSignal, TrainingProgress
from keras_vae.training.trainer import train

STEPS, LOOKS_EVERY = 40, 10
SETTINGS = small("training.batch_size=2", "training.epochs=3")
READS = ("__array__", "__float__", "__int__", "__bool__", "__index__", "item", "tolist", "numpy")


class CountReads(StepCallback):
    """Counts the values that the program reads from tensors between the first and the last step of an epoch."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        super().__init__()
        self.reads, self.depth, self.steps, self.counts = 0, 0, 0, []
        for tensor_type in {type(keras.ops.ones(())), *_base_types()}:
            for name in READS:
                if hasattr(tensor_type, name):
                    patch.setattr(tensor_type, name, self._counted(getattr(tensor_type, name)))
        # NumPy may read a tensor without a call of its methods.
        patch.setattr(keras.src.backend, "convert_to_numpy", self._counted(keras.src.backend.convert_to_numpy))

    def _counted(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*args: Any, **kwargs: Any) -> Any:
            # One read may call several of the methods.
            self.reads += self.depth == 0
            self.depth += 1
            try:
                return method(*args, **kwargs)
            finally:
                self.depth -= 1

        return counted

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        if batch == 0:
            self.before, self.steps = self.reads, 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps += 1
        if batch == STEPS - 1:
            self.counts.append(self.reads - self.before)


def _base_types() -> set[type]:
    if keras.backend.backend() != "torch":
        return set()
    import torch

    return {torch.Tensor}


@pytest.fixture
def many_steps() -> Splits:
    images = np.random.default_rng(0).integers(0, 256, (STEPS * 2 + 8, 8, 8, 1), "uint8")
    return split(Dataset.from_arrays(images, name="noise"), None, validation=4, test_size=4, holdout=True, seed=0)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> CountReads:
    monkeypatch.setattr(training_callbacks, "STEPS_PER_LOOK", LOOKS_EVERY)
    monkeypatch.setattr(training_callbacks, "SECONDS_PER_LOOK", np.inf)
    return CountReads(monkeypatch)


def reads_by_keras() -> int:
    """Return the reads per epoch of Keras's own steps: the end of TensorFlow's data, the seed of PyTorch's noise."""
    return 0 if keras.backend.backend() == "jax" else STEPS


def test_few_steps_of_a_training_read_from_the_device(
    many_steps: Splits, counter: CountReads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    console = Console(file=io.StringIO(), force_terminal=True)
    with StopOnSignal() as stop:
        train(SETTINGS, many_steps, tmp_path / "run", callbacks=[stop, TrainingProgress(console, 3), counter])
    # One look per LOOKS_EVERY steps; in the first epoch, also those of the first step and of the progress bar.
    looks = reads_by_keras() + STEPS // LOOKS_EVERY
    assert len(counter.counts) == 3
    assert looks <= counter.counts[0] <= looks + 2
    assert counter.counts[1:] == [looks, looks]


def test_metrics_are_converted_for_a_callback_that_reads_every_step(
    many_steps: Splits, counter: CountReads, tmp_path: Path
) -> None:
    class Collect(keras.callbacks.Callback):
        logs: ClassVar[list[dict[str, float]]] = []

        def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
            self.logs.append(logs)

    train(SETTINGS, many_steps, tmp_path / "run", callbacks=[Collect(), counter])
    assert len(Collect.logs) == 3 * STEPS
    assert all(type(value) is float for logs in Collect.logs for value in logs.values())
    assert min(counter.counts) >= reads_by_keras() + len(Collect.logs[0]) * STEPS


@pytest.mark.parametrize(
    ("hook", "needed"),
    [("on_train_batch_end", True), ("on_batch_begin", True), ("on_epoch_end", False), ("on_test_batch_end", False)],
)
def test_callbacks_that_need_every_step_are_recognized(hook: str, needed: bool) -> None:
    def callback_list(callback: keras.callbacks.Callback) -> CallbackList:
        return CallbackList([callback], keras.Model(), epochs=1, steps=1)

    method = {hook: lambda *_: None}
    assert callback_list(type("Override", (keras.callbacks.Callback,), method)()).needs_every_step is needed
    attribute = keras.callbacks.LambdaCallback()
    setattr(attribute, hook, lambda *_: None)
    assert callback_list(attribute).needs_every_step is needed
    assert not callback_list(type("Ours", (StepCallback,), method)()).needs_every_step
