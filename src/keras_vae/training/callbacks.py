"""Callbacks for checkpoints, signals, non-finite losses, learning rates, early stopping and terminal output."""

import math
import os
import signal
import time
from collections.abc import Callable, Iterable
from typing import Any, NoReturn, Protocol, Self, TypeVar

import keras
import numpy as np
from keras import ops
from rich.console import Console

from keras_vae.components.optimizers import SkippingOptimizer
from keras_vae.core import backend, progress
from keras_vae.core.errors import RunError
from keras_vae.core.typing import Array, Tensor
from keras_vae.data.dataset import Splits
from keras_vae.models.base import BaseVAE
from keras_vae.models.image_terms import count_parameters
from keras_vae.runs.checkpoint import assign
from keras_vae.runs.experiment import TrainingConfig
from keras_vae.runs.files import MONITORED, Metrics, describe_parameters
from keras_vae.runs.run import Run
from keras_vae.training.callback_list import StepCallback
from keras_vae.training.validation import averaged_weights, has_stalled, plateau_drops

MAX_SKIPPED = 100
"""Number of steps in a row whose updates may be skipped before training stops."""

STEPS_PER_LOOK = 64
"""Number of steps after which the loss is read from the device, which waits until the step is done."""

SECONDS_PER_LOOK = 0.25
"""Seconds between two updates of the progress bar, each of which reads the loss."""

_COLUMNS = (("total_loss", "total"), ("reconstruction_loss", "reconstruction"), ("kl_loss", "kl"))


class RunCallback(keras.callbacks.Callback):
    """Base class of callbacks that need the run and its images, which `train` and `resume` pass to them."""

    def set_run(self, run: Run, splits: Splits | None) -> None:
        """Set the run and its images before the training starts or resumes.

        Args:
            run: The run, which exists already.
            splits: Its images, if loaded.
        """
        self.run, self.splits = run, splits


class StopOnSignal(StepCallback):
    """Turns Ctrl-C and SIGTERM into a `KeyboardInterrupt` between two steps; a second signal interrupts at once.

    The backend could swallow an exception that is raised in the middle of a step. The argument of the
    `KeyboardInterrupt` is the number of the signal.

    In a cluster, the processes agree on a step, after which all of them stop.

    Example:
        >>> with StopOnSignal() as callback:
        ...     callback.received is None
        True
    """

    received: int | None = None
    fitting = False
    calls = 0

    def __enter__(self) -> Self:
        """Install the signal handlers."""
        if backend.num_processes() > 1:
            # JAX handles SIGTERM, and informs the other processes.
            handlers = {signal.SIGINT: lambda number, frame: os.kill(os.getpid(), signal.SIGTERM)}
        else:
            handlers = dict.fromkeys((signal.SIGINT, signal.SIGTERM), self._handle)
        self.before = {number: signal.signal(number, handler) for number, handler in handlers.items()}
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.received is not None or not self.fitting:
            raise KeyboardInterrupt(number)
        self.received = number

    def _stop_if_received(self) -> None:
        self.calls += 1
        if backend.stops_together(self.calls):
            raise KeyboardInterrupt(signal.SIGTERM)
        if self.received is not None:
            raise KeyboardInterrupt(self.received)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """From now on, delay signals until the end of a step."""
        self.fitting = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Stop if a signal was received. From now on, handle signals at once."""
        self._stop_if_received()
        self.fitting = False

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop if a signal was received."""
        self._stop_if_received()

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop if a signal was received."""
        self._stop_if_received()


class TerminateOnNonFinite(StepCallback):
    """Stops training if the loss is NaN or infinite before the next checkpoint, so that the last good epoch is kept.

    It reads the loss every `STEPS_PER_LOOK` steps and at the end of an epoch. If the loss is not finite, it reads all
    losses since the previous time, and reports the first step or steps that are not finite.

    If `skip_non_finite` is set, it stops if no more updates are made: after an epoch whose last `MAX_SKIPPED` steps, or
    all of fewer, were skipped.

    Args:
        config: The settings of the training.
    """

    def __init__(self, config: TrainingConfig) -> None:
        super().__init__()
        self.config = config

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember the epoch for the message."""
        self.epoch, self.looked_at = epoch, 0
        self.losses: list[tuple[int, Tensor]] = []

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Keep the loss, and check the last one of every `STEPS_PER_LOOK` steps."""
        step = _num_steps(self, batch)
        # The loss is a mean over the epoch, so that it stays NaN or infinite.
        self.losses.append((step, (logs or {})["total_loss"]))
        if step - self.looked_at >= STEPS_PER_LOOK:
            self._look()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Check the loss and the weights; the training loss does not reflect the last step of an epoch."""
        self._look()
        steps, optimizer = self.params["steps"], self.model.optimizer
        skipped = optimizer.skipped_in_a_row if isinstance(optimizer, SkippingOptimizer) else 0
        if skipped >= min(steps, MAX_SKIPPED):
            self._stop(f"the updates of the last {skipped} steps were skipped: NaN or infinite gradients", f"{steps}")
        finite = all(np.isfinite(weight).all() for weight in self.model.get_weights())
        if not (finite and np.isfinite(list((logs or {}).values())).all()):
            self._stop("the weights or the validation loss became NaN or infinite", f"{steps}")

    def _look(self) -> None:
        """Stop if the last loss is not finite; else forget the losses."""
        if not self.losses:
            return
        if not self.config.skip_non_finite and not math.isfinite(_read(self.losses[-1][1])):
            finite = self.looked_at
            for step, loss in self.losses:
                if not math.isfinite(value := _read(loss)):
                    self._stop(f"the loss became {value}", f"{step}" if step == finite + 1 else f"{finite + 1}–{step}")
                finite = step
        self.looked_at, self.losses = self.losses[-1][0], []

    def _stop(self, event: str, step: str) -> NoReturn:
        kept = f"the weights of epoch {self.epoch} are kept" if self.epoch else "no epoch was completed"
        advice = f"lower training.learning_rate (now {self.config.learning_rate:g})"
        if self.config.precision != "float32":
            advice += f", or set training.precision=float32 (now {self.config.precision})"
        raise RunError(f"{event} in epoch {self.epoch + 1} at step {step}; {kept}; to train again, {advice}")


def _num_steps(callback: keras.callbacks.Callback, batch: int) -> int:
    """Return the number of steps of the epoch so far: Keras counts those of a compiled call past the last one."""
    return min(batch + 1, callback.params["steps"])


def _read(tensor: Tensor) -> float:
    """Return the value of a tensor, after the steps that compute it."""
    return float(ops.convert_to_numpy(tensor))


class Checkpoint(keras.callbacks.Callback):
    """Writes the state of a training after every epoch, and restores it when the training resumes.

    Args:
        run: The run.
        model: The compiled model, whose optimizer is built.
        keep_best: Whether to store the weights of the epoch with the lowest validation loss.
    """

    def __init__(self, run: Run, model: BaseVAE, *, keep_best: bool) -> None:
        super().__init__()
        self.run, self.vae, self.keep_best = run, model, keep_best
        self.metrics: Metrics = {}
        self.best: list[Array] = []

    def restore(self) -> int:
        """Restore the last checkpoint, if any, and return the number of completed epochs."""
        checkpoint = self.run.read_checkpoint()
        if checkpoint is None:
            return 0
        state, self.metrics = checkpoint
        groups, file = self._variables(), self.run.checkpoint_file
        self.best = state.get("best", [])
        # Check the shapes of the best weights in the same way, then replace them by those of the last epoch.
        for group in (*(["best"] if self.best else []), *groups):
            assign(file, state.get(group, ()), groups["weights" if group == "best" else group])
        # The process may have been killed after it wrote the checkpoint and before it wrote the metrics.
        self.run.write_metrics(self.metrics)
        return len(self.metrics["epoch"])

    def set_kept_weights(self) -> None:
        """Set the weights to keep: of the best epoch if `keep_best`, else of the last; averaged if `ema_window` > 0."""
        self.vae.set_weights(self.best or averaged_weights(self.vae))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the checkpoint and the epoch's row of metrics."""
        # Keras synchronizes `self.model` with the state of JAX.
        model = self.model
        row = {"epoch": epoch + 1} | {name: float((logs or {})[name]) for name in self._columns(logs or {})}
        if isinstance(model.optimizer, SkippingOptimizer):
            row["skipped"] = int(model.optimizer.skipped)
        row["seconds"] = round(time.perf_counter() - self.started, 3)
        for name, value in row.items():
            self.metrics.setdefault(name, []).append(value)
        if self.keep_best and row[MONITORED] == min(self.metrics[MONITORED]):
            self.best = averaged_weights(model)
        state = {
            group: [ops.convert_to_numpy(variable) for variable in variables]
            for group, variables in self._variables().items()
        }
        self.run.write_checkpoint(state | {"best": self.best}, self.metrics)

    def _columns(self, logs: dict[str, float]) -> list[str]:
        # Omit Keras's `loss`, which equals `total_loss`.
        return [prefix + name for prefix in ("", "val_") for name in self.vae.loss_trackers if prefix + name in logs]

    def _variables(self) -> dict[str, list[Any]]:
        weights = self.vae.weights
        weight_ids = {id(variable) for variable in weights}
        # The other variables are the states of random generators and trackers.
        others = [variable for variable in self.vae.variables if id(variable) not in weight_ids]
        return {"weights": weights, "others": others, "optimizer": self.vae.optimizer.variables}


class ReduceLearningRateOnPlateau(keras.callbacks.Callback):
    """Reduces the learning rate on plateaus of the validation loss.

    The rate of an epoch depends only on the metrics so far, so that a resumed training continues with the same rates.

    Args:
        config: The settings of the training.
        checkpoint: Provides the metrics, including those from before a resume.
    """

    def __init__(self, config: TrainingConfig, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.config, self.checkpoint = config, checkpoint

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Set the learning rate of the epoch."""
        plateau = self.config.plateau
        if plateau.patience:
            drops = plateau_drops(self.checkpoint.metrics, plateau.patience)
            self.model.optimizer.learning_rate = self.config.learning_rate * plateau.factor**drops


class EarlyStopping(keras.callbacks.Callback):
    """Stops training when the validation loss has had no new best for some epochs.

    Unlike `keras.callbacks.EarlyStopping`, it also counts the epochs from before a resume.

    Args:
        patience: Number of epochs; 0 never stops.
        checkpoint: Provides the metrics, including those from before a resume.
    """

    def __init__(self, patience: int, checkpoint: Checkpoint) -> None:
        super().__init__()
        self.patience, self.checkpoint = patience, checkpoint

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stop if there was no new best for `patience` epochs."""
        if has_stalled(self.checkpoint.metrics, self.patience):
            self.model.stop_training = True


class Named(Protocol):
    """Anything with a name."""

    @property
    def name(self) -> str:
        """The name."""


FindingType = TypeVar("FindingType", bound=Named)


class ShowFindings(keras.callbacks.Callback):
    """Diagnoses a training after every epoch, and shows each problem once.

    Problems found before the first epoch are shown at once; later ones are shown if they persist for `PATIENCE` epochs.

    Args:
        diagnose: Returns the problems found; its argument is the model, or None before the first epoch.
        show: Called with each finding.
    """

    PATIENCE = 3

    def __init__(
        self, diagnose: Callable[[BaseVAE | None], Iterable[FindingType]], show: Callable[[FindingType], object]
    ) -> None:
        super().__init__()
        self.diagnose, self.show = diagnose, show
        self.epochs_found: dict[str, int] = {}
        self.shown: set[str] = set()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Diagnose the images and, if training resumes, the metrics."""
        self._show_new(self.diagnose(None))

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Diagnose the model after the epoch."""
        findings = list(self.diagnose(self.model))
        self.epochs_found = {finding.name: self.epochs_found.get(finding.name, 0) + 1 for finding in findings}
        self._show_new(finding for finding in findings if self.epochs_found[finding.name] >= self.PATIENCE)

    def _show_new(self, findings: Iterable[Any]) -> None:
        for finding in findings:
            if finding.name not in self.shown:
                self.shown.add(finding.name)
                self.show(finding)


class TrainingProgress(StepCallback):
    """Prints one row per epoch, and a progress bar with the current loss and the remaining time.

    Args:
        console: The output; the bar is shown only on a terminal.
        epochs: Number of epochs.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        super().__init__()
        self.console, self.epochs = console, epochs
        self.bar = progress.bar(console)
        self.rows, self.updated = 0, -math.inf

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Print the numbers of parameters, and show the bar."""
        self.console.print(f"parameters: {describe_parameters(count_parameters(self.model))}", highlight=False)
        self.bar.start()
        self.task = self.bar.add_task("", total=self.epochs * self.params["steps"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember the epoch for the bar."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Update the bar if it is shown, at most once in `SECONDS_PER_LOOK`."""
        if self.bar.disable or time.monotonic() - self.updated < SECONDS_PER_LOOK:
            return
        nats = f"{_read((logs or {})['total_loss']):8.2f} nats"
        self.updated = time.monotonic()
        completed = self.epoch * self.params["steps"] + _num_steps(self, batch)
        self.bar.update(self.task, completed=completed, description=nats)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Print the row of the epoch."""
        logs = logs or {}
        validated = "val_negative_elbo" in logs
        if self.rows == 0:
            names = "".join(f"{title:>16}" for _, title in _COLUMNS)
            self.console.print(f"{'epoch':>7}{names}{'validation −ELBO' if validated else '':>19}", style="bold")
        self.rows += 1
        values = "".join(f"{logs[name]:16.2f}" for name, _ in _COLUMNS)
        validation = f"{logs['val_negative_elbo']:19.2f}" if validated else ""
        self.console.print(f"{epoch + 1:>7}{values}{validation}", highlight=False)
        if isinstance(self.model.optimizer, SkippingOptimizer) and int(self.model.optimizer.skipped):
            skipped = f"{int(self.model.optimizer.skipped)} steps skipped so far: NaN or infinite gradients"
            self.console.print(f"{'':>7}{skipped}", style="yellow", highlight=False)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Remove the bar."""
        self.close()

    def close(self) -> None:
        """Remove the bar."""
        self.bar.stop()
