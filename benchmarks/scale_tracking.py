"""Measure the seconds per epoch that trackers need, offline: for the pictures, and for writing to each service.

Usage:
    python -m benchmarks.scale_tracking
"""

import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from keras_vae import Experiment, trackers, train
from keras_vae.integrations.trackers.pictures import draw
from keras_vae.runs.run import Run

EPOCHS = 5
"""Number of timed calls, whose mean is printed."""


def seconds(call: Callable[[int], object]) -> float:
    """Return the mean time of a call, after one call to compile."""
    call(0)
    start = time.perf_counter()
    for epoch in range(1, EPOCHS + 1):
        call(epoch)
    return (time.perf_counter() - start) / EPOCHS


def measure(run: Run) -> None:
    """Print the time of the pictures of a run and of each tracker."""
    model, splits = run.load_model(), run.load_splits()
    print(f"{'pictures':<12} {seconds(lambda epoch: draw(model, splits)):6.3f} s per epoch")
    pictures = draw(model, splits)
    row = {name: values[-1] for name, values in run.metrics.items() if name != "epoch"}
    for name, kind in trackers.TRACKERS.items():
        with getattr(trackers, kind)() as tracker:
            tracker.set_run(run, splits)
            tracker.on_train_begin()
            spent = seconds(lambda epoch, tracker=tracker: tracker._log_epoch(epoch + 2, row, pictures))
            print(f"{name:<12} {spent:6.3f} s per epoch")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ |= {"WANDB_MODE": "offline", "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        experiment = Experiment.preset("classic").with_overrides(["data.source=digits", "training.epochs=1"])
        measure(train(experiment, out=Path(folder) / "run"))
