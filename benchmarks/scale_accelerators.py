"""Measure the difference that the compiled loop for accelerators makes to the weights, on any machine.

Usage:
    KERAS_BACKEND=jax python -m benchmarks.scale_accelerators
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from keras_vae import Experiment, train
from keras_vae.core import backend
from keras_vae.core.backend import accelerators, hardware
from keras_vae.core.typing import Array
from keras_vae.training.callback_list import StepCallback

SETTINGS = {
    "the classic model, batches of 128": ["data.source=digits", "training.epochs=3"],
    "two and three filters, batches of 8": [
        "data.source=digits",
        "training.epochs=2",
        "training.batch_size=8",
        "model.network.widths=[2, 3]",
    ],
}


class CountCalls(StepCallback):
    """Counts the calls after training steps, of which there is one per compiled loop."""

    calls = 0

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Count a call."""
        self.calls += 1


def trained_weights(settings: list[str]) -> tuple[list[Array], int]:
    """Train an experiment, and return its weights and the number of calls that ran the steps."""
    count = CountCalls()
    experiment = Experiment.preset("classic").with_overrides(settings)
    with tempfile.TemporaryDirectory() as folder:
        run = train(experiment, out=Path(folder, "run"), callbacks=[count])
        return run.load_model().get_weights(), count.calls


def main() -> None:
    """Print the largest difference of a weight between the host's steps and those of an accelerator."""
    on_accelerator, device_bytes = hardware.is_accelerator, accelerators._device_bytes
    for name, settings in SETTINGS.items():
        hardware.is_accelerator, accelerators._device_bytes = on_accelerator, device_bytes
        host, steps = trained_weights(settings)
        hardware.is_accelerator, accelerators._device_bytes = lambda: True, lambda: 2**30
        looped, calls = trained_weights(settings)
        largest = max(np.abs(left - right).max() for left, right in zip(host, looped, strict=True))
        print(f"{backend.name()}, {name}: {steps} steps in {calls} calls, largest difference of a weight {largest:.1e}")


if __name__ == "__main__":
    main()
