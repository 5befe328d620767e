"""Callbacks of a training: its order, its safety, its checkpoint, and what the terminal shows of it."""

import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, Self

import keras
import numpy as np
from keras import ops
from rich.console import Console

from keras_vae.core import progress
from keras_vae.core.errors import RunError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Splits
from keras_vae.evaluation import diagnostics
from keras_vae.models.base import BaseVAE
from keras_vae.runs.experiment import Training
from keras_vae.runs.run import Metrics, Run

_COLUMNS = (("total_loss", "total"), ("reconstruction_loss", "reconstruction"), ("kl_loss", "kl"))


class ShuffledBatches(keras.utils.PyDataset):
    """The training images, in an order that is a function of the seed and the epoch and of nothing else.

    Args:
        images: What the model takes: (N, H, W, C), uint8, or a dict of aligned arrays.
        batch_size: Images a batch; the last one may hold fewer.
        seed: Fixes the orders; None keeps that of the images.
    """

    def __init__(self, images: Array | dict[str, Array], batch_size: int, seed: int | None) -> None:
        super().__init__()
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.count = len(keras.tree.flatten(images)[0])
        self.follow: Callable[[Array], object] | None = None
        self.shuffle(0)

    def shuffle(self, epoch: int) -> None:
        """Take the order of an epoch, counted from 0."""
        ordered = np.arange(self.count)
        self.order = ordered if self.seed is None else np.random.default_rng([self.seed, epoch]).permutation(ordered)
        if self.follow is not None:
            self.follow(self.order)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.count // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any]:
        """Return the batch at `index`."""
        chosen = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return (keras.tree.map_structure(lambda array: array[chosen], self.images),)


class ShuffleEachEpoch(keras.callbacks.Callback):
    """Shuffles batches at the start of every epoch.

    Args:
        batches: The batches.
    """

    def __init__(self, batches: ShuffledBatches) -> None:
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Shuffle."""
        self.batches.shuffle(epoch)


class StopOnSignal(keras.callbacks.Callback):
    """Turns Ctrl-C and SIGTERM into a `KeyboardInterrupt` between two steps; a second one interrupts at once.

    Raised wherever Python happens to be, it could be swallowed by the backend. Its argument is the signal's number.

    Example:
        >>> with StopOnSignal() as callback:
        ...     callback.received is None
        True
    """

    received: int | None = None
    fitting = False

    def __enter__(self) -> Self:
        """Listen."""
        self.before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: object) -> None:
        if self.received is not None or not self.fitting:
            raise KeyboardInterrupt(number)
        self.received = number

    def _stop_if_asked(self) -> None:
        if self.received is not None:
            raise KeyboardInterrupt(self.received)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """From here on, steps are waited for."""
        self.fitting = True

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """From here on, there are none to wait for."""
        self._stop_if_asked()
        self.fitting = False

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop if asked to."""
        self._stop_if_asked()

    def on_test_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Stop if asked to."""
        self._stop_if_asked()


class TerminateOnNonFinite(keras.callbacks.Callback):
    """Stops a training whose loss is not finite before the checkpoint sees it: the weights of the last epoch are kept.

    Args:
        training: What the message suggests to change.
    """

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Remember which epoch it is."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Look at the loss."""
        loss = float((logs or {})["total_loss"])
        if not np.isfinite(loss) and not self.training.skip_non_finite:
            self._stop(f"the loss became {loss}", batch + 1)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Look at what the last step did, which no loss has shown yet."""
        finite = all(np.isfinite(weight).all() for weight in self.model.get_weights())
        if not (finite and np.isfinite(list((logs or {}).values())).all()):
            self._stop("the weights or the validation loss became NaN or infinite", self.params["steps"])

    def _stop(self, what: str, step: int) -> NoReturn:
        kept = f"the weights of epoch {self.epoch} are kept" if self.epoch else "no epoch was completed"
        advice = f"lower training.learning_rate (now {self.training.learning_rate:g})"
        if self.training.precision != "float32":
            advice += f", or set training.precision=float32 (now {self.training.precision})"
        raise RunError(f"{what} in epoch {self.epoch + 1} at step {step}; {kept}. To go on, train anew: {advice}")


def averaged_weights(model: keras.Model) -> list[Array]:
    """Return the moving average of the weights if the optimizer keeps one, else the weights; the model stays as it is.

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
    # A step on JAX gives its inputs' memory away, and arrays may be views of it.
    return [np.array(weight) for weight in model.get_weights()]


class EvaluateWithEMA(keras.callbacks.Callback):
    """Measures validation images with the averaged weights, and trains on with exactly those that were there.

    Keras's own `SwapEMAWeights` swaps by adding and subtracting under TensorFlow, which rounds.
    """

    def on_test_begin(self, logs: dict[str, float] | None = None) -> None:
        """Put the average in."""
        self.trained = _copied_weights(self.model)
        self.model.set_weights(averaged_weights(self.model))

    def on_test_end(self, logs: dict[str, float] | None = None) -> None:
        """Take it out."""
        self.model.set_weights(self.trained)


def has_stalled(metrics: Metrics, patience: int) -> bool:
    """Return whether the best validation `negative_elbo` lies `patience` epochs back; never, where that is 0."""
    return 0 < patience <= _epochs_since_best(metrics.get("val_negative_elbo", []))


def plateau_drops(metrics: Metrics, patience: int) -> int:
    """Return how often the validation `negative_elbo` has stood still for `patience` epochs; the wait begins anew."""
    history, drops, waited = metrics.get("val_negative_elbo", []), 0, 0
    for epoch, value in enumerate(history):
        waited = 0 if value == min(history[: epoch + 1]) else waited + 1
        if 0 < patience <= waited:
            drops, waited = drops + 1, 0
    return drops


def _epochs_since_best(history: Sequence[float]) -> int:
    return len(history) - 1 - int(np.argmin(history)) if history else 0


class ReduceLearningRateOnPlateau(keras.callbacks.Callback):
    """Lowers the learning rate on plateaus and stops early, both as functions of the metrics so far alone.

    Args:
        training: What is asked for.
        checkpoint: Where the metrics are, of a resumed training those from before as well.
    """

    def __init__(self, training: Training, checkpoint: "Checkpoint") -> None:
        super().__init__()
        self.training, self.checkpoint = training, checkpoint

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Set the epoch's learning rate."""
        plateau = self.training.plateau
        if plateau.patience:
            drops = plateau_drops(self.checkpoint.metrics, plateau.patience)
            self.model.optimizer.learning_rate = self.training.learning_rate * plateau.factor**drops

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Stop where nothing has got better for long."""
        if has_stalled(self.checkpoint.metrics, self.training.early_stopping):
            self.model.stop_training = True


class Checkpoint(keras.callbacks.Callback):
    """Writes the state of a training after every epoch, and puts it back when the training resumes.

    Args:
        run: Where to.
        model: The compiled model, with its optimizer's variables.
        keep_best: Remember the weights of the epoch with the least validation `negative_elbo`.
    """

    def __init__(self, run: Run, model: BaseVAE, *, keep_best: bool) -> None:
        super().__init__()
        self.run, self.vae, self.keep_best = run, model, keep_best
        self.metrics: Metrics = {}
        self.best: list[Array] = []

    def restore(self) -> int:
        """Put back what the last checkpoint holds, and return how many epochs are done."""
        checkpoint = self.run.read_checkpoint()
        if checkpoint is None:
            return 0
        state, self.metrics = checkpoint
        for group, variables in self._variables().items():
            for variable, value in zip(variables, state[group], strict=True):
                variable.assign(value)
        self.best = state.get("best", [])
        # A kill may have come between the two files.
        self.run.write_metrics(self.metrics)
        return len(self.metrics["epoch"])

    def use_kept_weights(self) -> None:
        """Give the model the weights that the run keeps: averaged, and of the best epoch, if the experiment says so."""
        self.vae.set_weights(self.best or averaged_weights(self.vae))

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Start the clock."""
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Write the checkpoint and the epoch's row."""
        # Keras hands the model to its callbacks as `self.model`, in step with JAX's state.
        model = self.model
        row = {"epoch": epoch + 1} | {name: float((logs or {})[name]) for name in self._columns(logs or {})}
        if isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer):
            # It halves its scale, 1 at first, whenever it leaves out an update.
            row["skipped"] = round(-float(np.log2(ops.convert_to_numpy(model.optimizer.dynamic_scale))))
        row["seconds"] = round(time.perf_counter() - self.started, 3)
        for name, value in row.items():
            self.metrics.setdefault(name, []).append(value)
        if self.keep_best and row["val_negative_elbo"] == min(self.metrics["val_negative_elbo"]):
            self.best = averaged_weights(model)
        state = {
            group: [ops.convert_to_numpy(variable) for variable in variables]
            for group, variables in self._variables().items()
        }
        self.run.write_checkpoint(state | {"best": self.best}, self.metrics)

    def _columns(self, logs: dict[str, float]) -> list[str]:
        return [prefix + name for prefix in ("", "val_") for name in self.vae.loss_trackers if prefix + name in logs]

    def _variables(self) -> dict[str, list[Any]]:
        weights = self.vae.weights
        known = {id(variable) for variable in weights}
        # What is left are the states of the generators, and of the trackers.
        others = [variable for variable in self.vae.variables if id(variable) not in known]
        return {"weights": weights, "others": others, "optimizer": self.vae.optimizer.variables}


class Doctor(keras.callbacks.Callback):
    """Shows what is wrong with a training while it runs, each finding once: see `doctor.examine`.

    Images are judged before the first epoch. What an epoch shows must show in `PATIENCE` epochs in a row.

    Args:
        run: The run that is being trained; nothing need be there before training begins.
        splits: Its images.
        show: What is done with a finding.
        images: How many images of each split are looked at.
    """

    PATIENCE = 3

    def __init__(
        self, run: Run, splits: Splits, show: Callable[[diagnostics.Finding], object], images: int = 256
    ) -> None:
        super().__init__()
        self.run, self.splits, self.show, self.images = run, splits, show, images
        self.stood: dict[str, int] = {}
        self.shown: set[str] = set()

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Judge the images, and of a training that goes on its metrics."""
        for finding in diagnostics.examine(diagnostics.gather(self.run, self.splits, None, images=self.images)):
            self._show_once(finding)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Judge the epoch."""
        findings = diagnostics.examine(diagnostics.gather(self.run, self.splits, self.model, images=self.images))
        self.stood = {finding.name: self.stood.get(finding.name, 0) + 1 for finding in findings}
        for finding in findings:
            if self.stood[finding.name] >= self.PATIENCE:
                self._show_once(finding)

    def _show_once(self, finding: diagnostics.Finding) -> None:
        if finding.name not in self.shown:
            self.shown.add(finding.name)
            self.show(finding)


class TrainingProgress(keras.callbacks.Callback):
    """Prints a row an epoch, above a bar with the loss so far and the time left.

    Args:
        console: Where to; a terminal gets the bar, anything else the rows alone.
        epochs: How many there will be.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        super().__init__()
        self.console, self.epochs = console, epochs
        self.bar = progress.bar(console)
        self.rows = 0

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Show the bar."""
        self.bar.start()
        self.task = self.bar.add_task("", total=self.epochs * self.params["steps"])

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Count on from here."""
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        """Move the bar."""
        nats = f"{float((logs or {})['total_loss']):8.2f} nats"
        self.bar.update(self.task, completed=self.epoch * self.params["steps"] + batch + 1, description=nats)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Print the epoch's row."""
        logs = logs or {}
        validated = "val_negative_elbo" in logs
        if self.rows == 0:
            names = "".join(f"{title:>16}" for _, title in _COLUMNS)
            self.console.print(f"{'epoch':>7}{names}{'validation −ELBO' if validated else '':>19}", style="bold")
        self.rows += 1
        values = "".join(f"{logs[name]:16.2f}" for name, _ in _COLUMNS)
        validation = f"{logs['val_negative_elbo']:19.2f}" if validated else ""
        self.console.print(f"{epoch + 1:>7}{values}{validation}", highlight=False)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """Say what comes after the epochs."""
        self.close()
        self.console.print("measuring and drawing …", style="dim")

    def close(self) -> None:
        """Take the bar away."""
        self.bar.stop()
