"""Progress of long work, on the terminal: epochs, losses in nats, time left."""

import operator
from collections.abc import Iterable, Iterator
from typing import TypeVar

import keras
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Item = TypeVar("Item")

_COLUMNS = (("total_loss", "total"), ("reconstruction_loss", "reconstruction"), ("kl_loss", "kl"))


def track(console: Console, items: Iterable[Item], title: str, /) -> Iterator[Item]:
    """Yield the items behind a progress bar that is gone when they are."""
    with _bar(console) as progress:
        yield from progress.track(items, total=operator.length_hint(items) or None, description=title)


class TrainingProgress(keras.callbacks.Callback):
    """Prints a row an epoch, above a bar with the loss so far and the time left.

    Args:
        console: Where to; a terminal gets the bar, anything else the rows alone.
        epochs: How many there will be.
    """

    def __init__(self, console: Console, epochs: int) -> None:
        super().__init__()
        self.console, self.epochs = console, epochs
        self.bar = _bar(console)
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

    def close(self) -> None:
        """Take the bar away."""
        self.bar.stop()


def _bar(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("·"),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
