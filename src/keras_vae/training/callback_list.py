"""A list of callbacks that does not read the metrics of every step from the device."""

from collections.abc import Iterable, Sequence
from typing import Any

import keras

from keras_vae.models.base import BaseVAE

_STEP_HOOKS = ("on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end")
_TEST_HOOKS = ("on_test_batch_begin", "on_test_batch_end")


class StepCallback(keras.callbacks.Callback):
    """Base class of callbacks whose `on_train_batch_end` and `on_test_batch_end` do not need the metrics of every step.

    These methods receive the metrics as tensors, and are called only after some of the steps if several steps are
    compiled into one call. Reading a tensor waits for the device, so they must read rarely.
    """


class CallbackList(keras.callbacks.CallbackList):
    """Calls the hooks of callbacks, and converts the metrics of a step to floats only for callbacks that need them.

    Keras converts the metrics after every step, even if no callback uses them: the program waits for the device, and the
    device waits for the program.

    Args:
        callbacks: The callbacks.
        model: The model to be trained.
        epochs: Number of epochs.
        steps: Steps per epoch.
    """

    def __init__(
        self, callbacks: Sequence[keras.callbacks.Callback], model: BaseVAE, *, epochs: int, steps: int
    ) -> None:
        super().__init__(callbacks, add_history=True, model=model, verbose=0, epochs=epochs, steps=steps)
        # Keras would call the hooks in another thread if it finds none that do anything.
        self._async_train = self._async_test = False
        self.train_readers = [callback for callback in self.callbacks if _overrides(callback, _STEP_HOOKS)]
        self.test_readers = [callback for callback in self.callbacks if _overrides(callback, _TEST_HOOKS)]

    @property
    def needs_every_step(self) -> bool:
        """Whether a callback must be called after every training step: one that is not a `StepCallback`."""
        return not all(isinstance(callback, StepCallback) for callback in self.train_readers)

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Call the callbacks that have such a hook."""
        self._call("on_train_batch_end", self.train_readers, batch, logs or {})

    def on_test_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Call the callbacks that have such a hook."""
        self._call("on_test_batch_end", self.test_readers, batch, logs or {})

    def _call(
        self, hook: str, callbacks: Iterable[keras.callbacks.Callback], batch: int, tensors: dict[str, Any]
    ) -> None:
        floats: dict[str, float] | None = None
        for callback in callbacks:
            if isinstance(callback, StepCallback):
                getattr(callback, hook)(batch, tensors)
            else:
                if floats is None:
                    floats = {name: float(keras.ops.convert_to_numpy(value)) for name, value in tensors.items()}
                getattr(callback, hook)(batch, floats)


def _overrides(callback: keras.callbacks.Callback, hooks: Iterable[str]) -> bool:
    """Return whether a callback defines one of the hooks, as a method or as an attribute (`LambdaCallback`)."""
    base = keras.callbacks.Callback
    return any(getattr(getattr(callback, hook), "__func__", None) is not getattr(base, hook) for hook in hooks)
