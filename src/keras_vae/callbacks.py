"""Callbacks of a training: its order, its safety, its checkpoint, and what the terminal shows of it."""

import signal
import time
from typing import Any, NoReturn, Self

import keras
import numpy as np
from keras import ops
from rich.console import Console

from keras_vae import progress
from keras_vae.errors import RunError
from keras_vae.experiment import Training
from keras_vae.models.vae import VAE
from keras_vae.run import Metrics, Run
from keras_vae.types import Array

_COLUMNS = (("total_loss", "total"), ("reconstruction_loss", "reconstruction"), ("kl_loss", "kl"))


class ShuffledBatches(keras.utils.PyDataset):
    """The training images, in an order that is a function of the seed and the epoch and of nothing else.

    Args:
        images: (N, H, W, C), uint8.
        batch_size: Images a batch; the last one may hold fewer.
        seed: Fixes the orders.
    """

    def __init__(self, images: Array, batch_size: int, seed: int) -> None:
        super().__init__()
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.shuffle(0)

    def shuffle(self, epoch: int) -> None:
        """Take the order of an epoch, counted from 0."""
        self.order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Array]:
        """Return the batch at `index`."""
        return (self.images[self.order[index * self.batch_size : (index + 1) * self.batch_size]],)


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


class StopOnNonFinite(keras.callbacks.Callback):
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
        loss = float((logs or {})["loss"])
        if not np.isfinite(loss):
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


class MeasureAverage(keras.callbacks.Callback):
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


class Checkpoint(keras.callbacks.Callback):
    """Writes the state of a training after every epoch, and puts it back when the training resumes.

    Args:
        run: Where to.
        model: The compiled model, with its optimizer's variables.
        keep_best: Remember the weights of the epoch with the least validation `negative_elbo`.
    """

    def __init__(self, run: Run, model: VAE, *, keep_best: bool) -> None:
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
        # Keras's own `loss` is `total_loss` again.
        return [prefix + name for prefix in ("", "val_") for name in self.vae.trackers if prefix + name in logs]

    def _variables(self) -> dict[str, list[Any]]:
        weights = self.vae.weights
        known = {id(variable) for variable in weights}
        # What is left are the states of the generators, and of the trackers.
        others = [variable for variable in self.vae.variables if id(variable) not in known]
        return {"weights": weights, "others": others, "optimizer": self.vae.optimizer.variables}


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
