"""`Tracker`: a callback that records a training, whichever service stores it."""

import abc
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from keras_vae.core.config import flattened
from keras_vae.core.errors import first_line
from keras_vae.data.dataset import Splits
from keras_vae.integrations.trackers import check_installed
from keras_vae.integrations.trackers.pictures import Pictures, draw
from keras_vae.report.context import PlotContext
from keras_vae.runs.files import Metrics, read_json, write_json
from keras_vae.runs.run import Run
from keras_vae.training.callbacks import RunCallback

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

Status = Literal["finished", "failed", "interrupted"]
"""The end of a training."""

RECORD = "trackers.json"
"""File of a run with the name of each of its records in a tracker, and the number of recorded epochs."""

PROJECT = "keras-vae"
"""The project, or experiment, in which runs are recorded by default."""


class Tracker(RunCallback, abc.ABC):
    """Records a training: settings and metrics as in the run, images of every epoch, results and the report at the end.

    It only observes: the weights are bitwise those of a training without a tracker. Epochs that are in `metrics.csv`
    but not in the tracker are recorded when the training starts, resumes, or ends.

    If the tracker fails, one warning is given, nothing more is recorded, and the training continues.

    Use it as a context manager, so that the record ends with the block. Otherwise, it ends with the training.

    Args:
        warn: Called with a line if the tracker fails.

    Raises:
        InputError: The package of the tracker is missing.
    """

    package: ClassVar[str]
    """Name of the package of the tracker."""

    def __init__(self, warn: Callable[[str], object] = warnings.warn) -> None:
        check_installed(self.package)
        super().__init__()
        self._warn = warn
        self._is_open = self._has_failed = self._is_managed = False

    def __enter__(self) -> Self:
        """Keep the record open until the end of the block."""
        self._is_managed = True
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End the record."""
        self._is_managed = False
        stopped = "interrupted" if kind is not None and issubclass(kind, KeyboardInterrupt) else "failed"
        self._attempt(self._end, "finished" if kind is None else stopped)

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Start the record of the run, or continue it."""
        self._attempt(self._start)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Record the epoch, which is in `metrics.csv` already."""
        self._attempt(self._record_epochs, with_pictures=True)

    def on_train_end(self, logs: dict[str, float] | None = None) -> None:
        """End the record, unless a block does so."""
        if not self._is_managed:
            self._attempt(self._end, "finished")

    def log_results(
        self, run: Run | str | Path, splits: Splits | None = None, *, model: "BaseVAE | None" = None
    ) -> None:
        """Record the evaluation and the report of a run, and epochs that were not recorded before.

        Args:
            run: A complete run, its folder, or the name of a pretrained run, which is copied before writing.
            splits: Its images; None loads them if the tracker shows them.
            model: Its model, if already loaded.

        Raises:
            InputError: There is no such run, or it is unfinished.
        """
        run = Run.open(run)
        run.require_complete()
        run = run.writable_copy()
        with run.lock():
            if not self._is_open:
                self.set_run(run, splits)
                self._attempt(self._start)
            self._attempt(self._log_results, PlotContext(run, model, splits))
            if not self._is_managed:
                self._attempt(self._end, "finished")

    @property
    def is_recording(self) -> bool:
        """Whether a record was started and has not failed."""
        return self._is_open and not self._has_failed

    @property
    @abc.abstractmethod
    def location(self) -> str:
        """The place of the record, or the command that shows it; only of a record that was started."""

    @abc.abstractmethod
    def _open(self, name: dict[str, str], epochs: int) -> tuple[dict[str, str], int]:
        """Start a record or, if `name` is not empty, continue the one of that name.

        Args:
            name: The identifiers of the record in the service.
            epochs: The number of recorded epochs. If the process was killed, it may be one too low.

        Returns:
            The name and the true number of recorded epochs.
        """

    @abc.abstractmethod
    def _log_settings(self, settings: Mapping[str, Any]) -> None:
        """Record the settings of the experiment by their dotted keys."""

    @abc.abstractmethod
    def _log_epoch(self, epoch: int, metrics: Mapping[str, float], pictures: Pictures) -> None:
        """Record the metrics of an epoch, and its images if there are any."""

    @abc.abstractmethod
    def _log_results(self, context: PlotContext) -> None:
        """Record the evaluation and the report of the run, and other results that the service can show."""

    @abc.abstractmethod
    def _close(self, status: Status) -> None:
        """End the record, and wait until it is written."""

    def _attempt(self, action: Callable[..., None], *arguments: Any, **options: Any) -> None:
        """Call a function that uses the service, unless it failed before."""
        if self._has_failed:
            return
        try:
            action(*arguments, **options)
        except Exception as error:
            # The libraries of the services document no common exceptions.
            self._has_failed = True
            self._warn(
                f"tracker = {self.package}: failed ({first_line(error)}); the training continues without it, and "
                f"`vae train --resume RUN --tracker {self.package}` records the missing epochs later"
            )

    def _start(self) -> None:
        entry = self._entries().get(self.package, {})
        name, self._epochs = self._open(entry.get("name", {}), entry.get("epochs", 0))
        self._is_open = True
        self._write_entry({"name": name, "epochs": self._epochs})
        self._log_settings(flattened(self.run.experiment.model_dump(exclude_none=True)))
        self._record_epochs()

    def _record_epochs(self, *, with_pictures: bool = False) -> None:
        """Record the epochs of `metrics.csv` that are missing, with images of the last one."""
        metrics: Metrics = self.run.metrics
        epochs = [int(epoch) for epoch in metrics.get("epoch", [])]
        for index, epoch in enumerate(epochs):
            if epoch > self._epochs:
                row = {column: values[index] for column, values in metrics.items() if column != "epoch"}
                pictures: Pictures = {}
                if with_pictures and index == len(epochs) - 1:
                    assert self.splits is not None
                    pictures = draw(self.model, self.splits)
                self._log_epoch(epoch, row, pictures)
        self._epochs = max([self._epochs, *epochs])
        self._write_entry({**self._entries()[self.package], "epochs": self._epochs})

    def _end(self, status: Status) -> None:
        if self._is_open:
            self._is_open = False
            self._close(status)

    def _entries(self) -> dict[str, Any]:
        return read_json(self.run.path / RECORD) or {}

    def _write_entry(self, entry: Mapping[str, Any]) -> None:
        write_json(self.run.path_to_write(RECORD), self._entries() | {self.package: entry})


def notes_on_resuming(run: Run, names: Iterable[str]) -> list[str]:
    """Return a line for each tracker that recorded a run and is not among those that will record it, by their names."""
    return [
        f"{run.path} is recorded in {name}: pass `--tracker {name}` to continue the record"
        for name in (read_json(run.path / RECORD) or {})
        if name not in names
    ]


def evaluation_numbers(run: Run) -> dict[str, float]:
    """Return the numbers of `evaluation.json` by their joined keys, such as `evaluation/likelihood/negative_elbo/mean`.

    Args:
        run: The run; without an evaluation, there are no numbers.
    """
    sections = {name: value for name, value in (run.evaluation or {}).items() if isinstance(value, Mapping)}
    return {
        key: float(value)
        for key, value in flattened(sections, "/", "evaluation/").items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }
