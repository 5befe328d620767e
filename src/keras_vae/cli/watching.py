"""`vae score --watch`: score image files as they arrive in a folder."""

import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vae.cli.common import check_out, class_name, say, with_data
from keras_vae.cli.scoring import Scoring, Settings
from keras_vae.core.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keras_vae.core.row_log import RowLog
    from keras_vae.core.typing import Array
    from keras_vae.data.arrivals import Arrival, Arrivals
    from keras_vae.data.config import DataConfig
    from keras_vae.runs.run import Run

INTERVAL = 1.0
"""Seconds between two polls; a file whose size and time did not change in between is read."""

PATIENCE = 10.0
"""Seconds after the last change of a file until a failure to read it is reported."""

_CHUNK = 32


def watch_folder(
    run: Path,
    folder: Path,
    out: Path,
    settings: Settings,
    conversion: tuple[Any, ...],
    force: bool,
) -> None:
    """Score the image files of a folder and those that arrive later, until Ctrl-C.

    Args:
        run: The run.
        folder: The folder to watch.
        out: The CSV file to which rows are appended. An existing file of the same model and settings is continued.
        settings: Options of the scores.
        conversion: Size, color, background, fit and scale, as for `with_data`; None for those of the run.
        force: Whether to replace an existing file.
    """
    from keras_vae.core.row_log import RowLog
    from keras_vae.data.arrivals import Arrivals, Signature
    from keras_vae.runs.run import Run

    if not folder.is_dir():
        raise InputError(f"--watch = {folder}: not a folder; create it first, or pass another")
    check_out(out, (".csv",), force=True)
    opened = Run.open(run)
    opened.require_complete()
    label = class_name(opened, settings.label)
    config = with_data(opened.experiment, str(folder), *conversion).data
    scoring = Scoring.fit(opened, settings)
    fingerprint = (
        opened.model_fingerprint(),
        scoring.scorer.seed,
        *settings._replace(devices=None),
        config.model_dump(mode="json"),
    )
    log = RowLog(out, _columns(scoring), key=fingerprint, force=force)
    rows = log.rows()
    finished = {row["name"]: Signature(int(row["size"]), int(row["modified"])) for row in rows}
    say(f"watching {folder} · {len(finished):,} images scored earlier · Ctrl-C ends")
    if scoring.limit is not None:
        say(f"anomaly: {scoring.describe_limit()}")
    watcher = Watcher(Arrivals(folder, finished), log, scoring, _reader(opened, scoring, folder, config, label))
    with _stopped_by_signals(watcher):
        watcher.run()
    say(f"stopped: {len(log.rows()) - len(rows):,} images scored, {watcher.failed:,} not readable")


class Watcher:
    """Scores arriving files and appends their rows.

    Args:
        arrivals: The files.
        log: The table.
        scoring: The scores.
        read: Returns the pixels (H, W, C) and the condition of a file.
    """

    def __init__(
        self, arrivals: "Arrivals", log: "RowLog", scoring: Scoring, read: "Callable[[Arrival], tuple[Array, Any]]"
    ) -> None:
        self.arrivals, self.log, self.scoring, self.read = arrivals, log, scoring, read
        self.failed = 0
        self.is_stopping = False
        """Whether to return after the images that are being scored."""

    def run(self) -> None:
        """Poll until `is_stopping` is set."""
        was_available = True
        while not self.is_stopping:
            started = time.monotonic()
            arrived = self.arrivals.poll()
            if was_available != self.arrivals.is_available:
                was_available = self.arrivals.is_available
                say(f"{self.arrivals.folder}: {'readable again' if was_available else 'not readable; waiting for it'}")
            for start in range(0, len(arrived), _CHUNK):
                if self.is_stopping:
                    return
                self.score(arrived[start : start + _CHUNK])
            # A folder that takes long to list is listed less often.
            time.sleep(max(INTERVAL, time.monotonic() - started) if not arrived else INTERVAL)

    def score(self, arrived: "Sequence[Arrival]") -> None:
        """Score the files that can be read, and append their rows in one write."""
        import numpy as np

        read = [(arrival, *content) for arrival in arrived if (content := self._try_to_read(arrival)) is not None]
        if not read:
            return
        chosen = [arrival for arrival, _, _ in read]
        # Equal shapes, so that the model is compiled once; scores do not depend on the other images.
        model, samples = self.scoring.model, self.scoring.scorer.samples
        size = model.fitting_batch_size(samples)
        rows = np.minimum(np.arange(len(read) + -len(read) % size), len(read) - 1)
        conditions = None if read[0][2] is None else np.array([condition for _, _, condition in read])[rows]
        columns = self.scoring.columns(np.stack([pixels for _, pixels, _ in read])[rows], conditions)
        columns = {name: values[: len(read)] for name, values in columns.items()}
        identity = {
            "name": np.array([arrival.name for arrival in chosen]),
            "size": np.array([arrival.signature.size for arrival in chosen]),
            "modified": np.array([arrival.signature.modified for arrival in chosen]),
        }
        self.log.append(identity | columns)
        for row, arrival in enumerate(chosen):
            self.arrivals.finish(arrival)
            score = self.scoring.score
            mark = "  anomaly" if "anomaly" in columns and columns["anomaly"][row] else ""
            percentile = columns[f"{score}_percentile"][row]
            print(f"{arrival.name}  {columns[score][row]:.2f}  percentile {percentile:.1f}{mark}", flush=True)

    def _try_to_read(self, arrival: "Arrival") -> "tuple[Array, Any] | None":
        """Return the pixels and the condition of a file; None if it changes, or cannot be read."""
        try:
            content = self.read(arrival)
        except InputError as error:
            # A copy that pauses looks complete, so allow it some time.
            if arrival.is_unchanged and arrival.age >= PATIENCE:
                say(f"not scored: {error}")
                self.arrivals.finish(arrival)
                self.failed += 1
            return None
        return content if arrival.is_unchanged else None


def _columns(scoring: Scoring) -> tuple[str, ...]:
    scores = tuple(scoring.scorer.reference)
    percentiles = tuple(f"{name}_percentile" for name in scores)
    return ("name", "size", "modified", *scores, *percentiles, *(() if scoring.rate is None else ("anomaly",)))


def _reader(
    run: "Run", scoring: Scoring, folder: Path, config: "DataConfig", label: str | None
) -> "Callable[[Arrival], tuple[Array, Any]]":
    """Return a function that reads a file as the images of the run were read."""
    from keras_vae.core.files import reading
    from keras_vae.data.labels import class_index
    from keras_vae.data.sources import decoder_of

    decode = decoder_of(config)
    expected = tuple(scoring.model.image_shape)

    def condition(arrival: "Arrival") -> int | None:
        if scoring.model.condition is None:
            return None
        if label is not None:
            return class_index(run.class_names, label)
        names = arrival.path.relative_to(folder).parts
        if len(names) == 1:
            raise InputError("no label; put it in a folder named as its class, or pass the label with --label")
        return class_index(run.class_names, names[0])

    def read(arrival: "Arrival") -> "tuple[Array, Any]":
        with reading(arrival.path):
            pixels = decode(arrival.path).pixels
            if pixels.shape != expected:
                found, wanted = ("x".join(map(str, shape)) for shape in (pixels.shape, expected))
                raise InputError(
                    f"{found} (H x W x C): {run.name} expects {wanted}; convert images with --image-size and --color"
                )
            return pixels, condition(arrival)

    return read


@contextlib.contextmanager
def _stopped_by_signals(watcher: Watcher) -> Iterator[None]:
    """Let Ctrl-C and SIGTERM stop a watcher after the images that are being scored, and a second signal at once.

    An exception from a signal handler can be lost, since Python ignores exceptions of destructors and callbacks.
    """

    def stop(*_: Any) -> None:
        if watcher.is_stopping:
            raise KeyboardInterrupt
        watcher.is_stopping = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
