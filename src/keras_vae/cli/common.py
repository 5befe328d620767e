"""Options that several commands share, and functions for their input and output."""

import contextlib
import functools
import importlib
import json
import logging
import os
import shlex
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from keras_vae.cli import completion
from keras_vae.cli.parsing import parse_devices, parse_size
from keras_vae.core import startup
from keras_vae.core.errors import InputError, alternatives, unknown
from keras_vae.core.files import printable, to_path
from keras_vae.core.locks import locked

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from typing import TextIO

    from rich.console import Console

    from keras_vae.core.blocks import BlockFolder
    from keras_vae.core.parts import Part
    from keras_vae.core.progress import Progress
    from keras_vae.data.dataset import Splits
    from keras_vae.evaluation.diagnostics import Finding
    from keras_vae.models.base import BaseVAE
    from keras_vae.runs.experiment import Experiment
    from keras_vae.runs.run import Run

ExperimentType = TypeVar("ExperimentType", bound="Experiment")


class Backend(StrEnum):
    """The backends of Keras."""

    TENSORFLOW = "tensorflow"
    JAX = "jax"
    TORCH = "torch"


LIBRARIES = {Backend.TENSORFLOW: "TensorFlow", Backend.JAX: "JAX", Backend.TORCH: "PyTorch"}
"""The names of the backends in messages."""


class Color(StrEnum):
    """Values of `--color`."""

    GRAY = "gray"
    RGB = "rgb"


class Fit(StrEnum):
    """Values of `--fit`."""

    CROP = "crop"
    PAD = "pad"
    STRETCH = "stretch"


class PriorChoice(StrEnum):
    """Values of `--prior`."""

    ORIGINAL = "original"
    FITTED = "fitted"


class TrackerChoice(StrEnum):
    """Values of `--tracker`."""

    TENSORBOARD = "tensorboard"
    WANDB = "wandb"
    MLFLOW = "mlflow"


RunArgument = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run folder, or a pretrained run: mnist-2d, mnist-16d or emoji.",
        autocompletion=completion.runs,
    ),
]
ImageSizeOption = Annotated[str | None, typer.Option(metavar="HxW", help="Resize images to this height and width.")]
ColorOption = Annotated[Color | None, typer.Option(help="Convert images to gray or to color.")]
BackgroundOption = Annotated[
    str | None, typer.Option(metavar="COLOR", help="Color behind transparent pixels, such as white.")
]
FitOption = Annotated[
    Fit | None,
    typer.Option(
        help="How --image-size changes the aspect ratio: crop the edges, pad with --background (or black), or stretch. "
        "Default: crop."
    ),
]
ScaleOption = Annotated[
    float | None,
    typer.Option(metavar="WHITE", help="Value of white in images of more than 8 bits, such as 65535 or 4095."),
]
SkipBrokenOption = Annotated[bool, typer.Option("--skip-broken", help="Skip files that cannot be used, and list them.")]
SeedOption = Annotated[
    int | None, typer.Option(min=0, max=2**31 - 1, help="Random seed; makes the result reproducible.")
]
LabelOption = Annotated[
    str | None, typer.Option(help="Label of the images, for a conditional model: the name of a class, or its number.")
]
PriorOption = Annotated[PriorChoice | None, typer.Option(help="The prior to use. Default: the fitted one, if any.")]
DevicesOption = Annotated[
    str | None,
    typer.Option(
        metavar="all|N",
        help="Divide every batch among all devices, or the first N; requires the backend jax. Default: one device.",
        autocompletion=completion.words("all"),
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file given as --out.")]
ForceTableOption = Annotated[
    bool,
    typer.Option("--force", help="Replace the file given as --out, and discard its parts that have other settings."),
]
PartOption = Annotated[
    str | None,
    typer.Option(
        metavar="K/N",
        help="Compute only part K of N, such as 3/8. Parts can be computed at the same time, also on several machines; "
        "the same command without --part then merges them.",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def load_splits(experiment: "Experiment") -> "Splits":
    """Load the images of an experiment, and print a summary of them."""
    from keras_vae.data import sources

    splits, notes = sources.load_splits(experiment.data, experiment.seed, progress())
    for note in notes:
        say(note)
    counts = " · ".join(f"{len(dataset):,} {name}" for name, dataset in splits._asdict().items() if dataset is not None)
    say(f"{experiment.name} · {splits.train.name}: {counts} · {'×'.join(map(str, splits.train.image_shape))}")
    if not experiment.data.holdout:
        say(
            "trained on training and test images together: there is no held-out data, so all results are too optimistic"
        )
    return splits


def load_own_splits(run: "Run") -> "Splits":
    """Load the images that a run was trained on, and print a summary of them."""
    run.require_source()
    return load_splits(run.experiment.model_copy(update={"data": run.data}))


def with_data(
    experiment: ExperimentType,
    source: str | None,
    image_size: str | None,
    color: Color | None,
    background: str | None,
    fit: Fit | None = None,
    scale: float | None = None,
    skip_broken: bool = False,
) -> ExperimentType:
    """Return an experiment with the data of `--data` and its related options; None keeps a setting."""
    source = source and _absolute(source)
    is_other = source not in (None, _absolute(experiment.data.source))
    settings: dict[str, Any] = {
        "data.source": source,
        "data.image_size": None if image_size is None else parse_size(image_size),
        "data.color": None if color is None else color.value,
        "data.fit": None if fit is None else fit.value,
        "data.background": background,
        "data.scale": scale,
        "data.skip_broken": skip_broken or None,
    }
    if is_other:
        # Settings of the folder on which a run was trained do not apply to other sources.
        unset = {"data.background": "refuse", "data.scale": "refuse", "data.skip_broken": False}
        reset = () if to_path(source or "").is_dir() else unset
        settings |= {"data.load": "auto", "data.missing": "refuse"} | {
            key: unset[key] for key in reset if settings[key] is None
        }
    return experiment.with_overrides(
        [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in settings.items() if value is not None]
    )


def _absolute(source: str) -> str:
    """Return the absolute path of a file or a folder, so that later commands find it; other sources remain."""
    from keras_vae.data.sources import SOURCES

    return source if source in SOURCES or not (path := to_path(source)).exists() else printable(path.resolve())


_held = contextlib.ExitStack()
"""The locks that the command holds."""


def hold(lock: contextlib.AbstractContextManager[None]) -> None:
    """Hold a lock until the command ends."""
    _held.enter_context(lock)


def release_locks() -> None:
    """Release the locks of the command."""
    _held.close()


def open_to_write(path: Path, *, lock: bool = True) -> "Run":
    """Open a run to write into, and lock it by default; for a pretrained run, open its copy and print a message."""
    from keras_vae.runs.run import Run

    run = Run.open(path)
    own = run.writable_copy()
    if own is not run:
        say(f"{run.name} is a pretrained run: written into its copy {own.path}")
    if lock:
        hold(own.lock())
    return own


def print_evaluation(run: "Run", as_json: bool) -> None:
    """Print the evaluation of a run."""
    if as_json:
        print(json.dumps({"run": str(run.path), "evaluation": run.evaluation}))
    else:
        print_result(run, run.evaluation)


def print_result(run: "Run", evaluation: Mapping[str, Any] | None) -> None:
    """Print an evaluation of a run, and the path of its report."""
    from keras_vae.evaluation.summary import summarize

    print(f"run        {run.path}")
    for line in summarize(evaluation or {}):
        print(line)
    if (run.path / "report.html").exists():
        print(f"report     {run.path / 'report.html'}")


def say_findings(run: Path, findings: "Sequence[Finding]") -> None:
    """Print one line per problem of a run, and the command that explains them."""
    if not findings:
        say("no problems found")
        return
    count = "1 problem" if len(findings) == 1 else f"{len(findings)} problems"
    say(f"{count} found; `vae doctor {quoted(run)}` explains {'it' if len(findings) == 1 else 'them'}:")
    for finding in findings:
        # The first sentence contains the most important numbers.
        say(f"  {finding.name}: {finding.observation.partition('. ')[0].rstrip('.')}")


def print_table(rows: Iterable[tuple[str, ...]]) -> None:
    """Print rows in columns."""
    lines = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for row in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def console(file: "TextIO | None" = None) -> "Console":
    """Return the console of messages and progress bars: stderr, or a copy of it."""
    from rich.console import Console

    return Console(stderr=True) if file is None else Console(file=file)


def progress() -> "Progress":
    """Return a progress bar for long work."""
    from keras_vae.core.progress import track

    return functools.partial(track, console())


def working(title: str) -> "AbstractContextManager[None]":
    """Show that work of unknown length is in progress, until the context ends."""
    from keras_vae.core.progress import spinner

    return spinner(console(), title)


def load_model(run: "Run", prior: PriorChoice | None = None) -> "BaseVAE":
    """Load the model of a run, and show that it is being loaded."""
    with working(f"loading {run.name}"):
        return run.load_model(None if prior is None else prior.value)


def say(message: str) -> None:
    """Print a message that is not the result."""
    print(message, file=sys.stderr)


def class_name(run: "Run", label: str | None) -> str | None:
    """Return the name of the class that `--label` selects; None without a label.

    Raises:
        InputError: There is no such class, or the model is not conditioned on labels.
    """
    from keras_vae.data.labels import class_index

    if label is None:
        return None
    if not run.experiment.model.is_conditioned_on_labels:
        raise InputError(f"--label = {label}: {run.name} is not a conditional model; leave out --label")
    return run.class_names[class_index(run.class_names, label, argument="--label")]


def say_part(part: "Part", folder: "BlockFolder") -> None:
    """Print that a part is finished and, after the last one, how to merge all parts."""
    merge = f"; all {part.count} parts exist: merge them with the same command without --part"
    say(f"part {part} of {folder.out} is finished{merge if folder.is_complete() else ''}")


def quoted(path: Path) -> str:
    """Return a path, quoted for a shell."""
    return shlex.quote(str(path))


def check_out(out: Path | None, suffixes: Sequence[str], force: bool, *, lock: bool = True) -> None:
    """Reject an output file that cannot be written, or that exists and must not be replaced; lock it by default."""
    if out is None:
        return
    if out.suffix not in suffixes:
        raise InputError(f"--out = {out}: unknown format; choose a name that ends in {alternatives(suffixes)}")
    if not out.parent.is_dir():
        raise InputError(f"--out = {out}: the folder {out.parent} does not exist; create it first")
    if not os.access(out.parent, os.W_OK):
        raise InputError(f"--out = {out}: the folder {out.parent} is not writable; choose another")
    if out.is_dir():
        raise InputError(f"--out = {out}: a folder; choose another name")
    if lock:
        hold(locked(out, argument="--out"))
    if out.exists() and not force:
        raise InputError(f"--out = {out}: exists; choose another name, or replace it with --force")


def import_keras(backend: Backend | None = None, devices: str | None = None) -> None:
    """Import Keras with its backend, without the messages that libraries print while they load.

    Args:
        backend: The backend; None for the one that Keras is configured to use.
        devices: The value of `--devices`, if given.
    """
    count = None if devices is None else parse_devices(devices)
    _import_keras(backend)
    if count is not None:
        from keras_vae.core.backend import distribute

        distribute(count)


def _import_keras(backend: Backend | None) -> None:
    if backend is not None:
        os.environ["KERAS_BACKEND"] = backend.value
        startup.prepare()
    chosen = os.environ.get("KERAS_BACKEND", Backend.TENSORFLOW)
    if chosen not in list(Backend):
        raise unknown("$KERAS_BACKEND", chosen, list(Backend))
    chosen = Backend(chosen)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    # TensorFlow warns about retracing for inputs of different shapes, which is intended here.
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if "keras_vae.models.registration" in sys.modules:
        return
    from keras_vae.core.progress import spinner

    with tempfile.TemporaryFile() as messages, os.fdopen(os.dup(2), "w") as stderr:
        os.dup2(messages.fileno(), 2)
        try:
            with spinner(console(stderr), f"loading {LIBRARIES[chosen]}"):
                importlib.import_module("keras_vae.models.registration")
        finally:
            os.dup2(stderr.fileno(), 2)
