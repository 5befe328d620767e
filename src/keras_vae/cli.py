"""The command line: `vae`.

Results go to stdout, messages to stderr. A wrong call exits with 2, a failure with 1, each in one line. Keras and
its backend take seconds to import, so that every command imports what it needs when it runs.
"""

import functools
import importlib.util
import json
import os
import shlex
import signal
import sys
import tempfile
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_vae import __version__
from keras_vae.errors import InputError, RunError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from keras_vae.data.dataset import Dataset, Splits
    from keras_vae.experiment import Experiment
    from keras_vae.run import Run

app = typer.Typer(
    name="vae",
    help="Variational autoencoders: train them, look at them, sample from them.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


class Backend(StrEnum):
    """What Keras computes with."""

    TENSORFLOW = "tensorflow"
    JAX = "jax"
    TORCH = "torch"


class Color(StrEnum):
    """What `--color` turns images to."""

    GREY = "grey"
    RGB = "rgb"


class Plot(StrEnum):
    """What `vae plot` draws."""

    GRID = "grid"
    SAMPLES = "samples"
    RECONSTRUCTIONS = "reconstructions"
    LATENTS = "latents"
    CURVES = "curves"


RunArgument = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder.")]
ImageSizeOption = Annotated[str | None, typer.Option(metavar="HxW", help="Resize images to this height and width.")]
ColorOption = Annotated[Color | None, typer.Option(help="Turn images grey, or into colour.")]
BackgroundOption = Annotated[
    str | None, typer.Option(metavar="COLOUR", help="Lay a colour under transparent pixels, such as white.")
]
SeedOption = Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Makes the draw repeatable.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Replace the file given as --out.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


def main() -> None:
    """Run the command line and turn what goes wrong into one line and an exit code."""
    try:
        app()
    except InputError as error:
        _fail(str(error), 2)
    except RunError as error:
        _fail(str(error), 1)
    except ModuleNotFoundError as error:
        _fail(f"{error.name} is not installed: pip install {error.name}, or an extra of keras-vae that brings it", 1)
    except OSError as error:
        _fail(f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}", 1)


def _fail(message: str, code: int) -> None:
    print(f"vae: {message}", file=sys.stderr)
    sys.exit(code)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None: ...


@app.command()
def train(
    what: Annotated[
        str | None,
        typer.Argument(metavar="[PRESET | EXPERIMENT.toml]", help="A preset (`vae presets`) or a file; else classic."),
    ] = None,
    resume: Annotated[Path | None, typer.Option(metavar="RUN", help="Go on with an interrupted run.")] = None,
    data: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="A source (`vae data`), a .npz, a .npy, or a folder of images.")
    ] = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    background: BackgroundOption = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="The run folder. Default: runs/NAME.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting; may be repeated.")
    ] = None,
    backend: Annotated[Backend | None, typer.Option(help="What to compute with. Default: Keras's own choice.")] = None,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Write TensorBoard logs into the run.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train a model into a new run folder, then measure it and draw its figures."""
    from keras_vae.experiment import Experiment
    from keras_vae.run import Run

    if resume is not None:
        given = {
            "a preset or file": what,
            "--data": data,
            "--image-size": image_size,
            "--color": color,
            "--background": background,
            "--out": out,
            "--set": settings,
        }
        for option, value in given.items():
            if value:
                raise InputError(f"{option} ({value}): --resume goes on with the run as it was begun, without {option}")
        run = Run.open(resume)
        if run.is_complete:
            _say(f"{resume} is complete: nothing to resume")
            _print_answer(run, as_json)
            return
        experiment, path = run.experiment, resume
        backend = backend or Backend(run.environment["backend"])
    else:
        shorthand = {
            "data.source": data,
            "data.image_size": image_size and _parse_size(image_size),
            "data.color": color and color.value,
            "data.background": background,
        }
        what = what or "classic"
        experiment = Experiment.from_file(Path(what)) if what.endswith(".toml") else Experiment.preset(what)
        experiment = experiment.with_settings(
            [f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in shorthand.items() if value]
            + (settings or [])
        )
        experiment = experiment.with_settings([f"data.source={json.dumps(_absolute(experiment.data.source))}"])
        run, path = None, out or _free_folder(experiment.name)
        if path.exists():
            raise InputError(f"--out {path} exists: choose another folder, or `vae train --resume {_quoted(path)}`")

    # A wrong image is said at once: Keras takes seconds to import.
    splits = _load_splits(experiment)
    _import_keras(backend)
    _fit(experiment, splits, run, path, tensorboard)
    _print_answer(Run(path), as_json)


def _load_splits(experiment: "Experiment") -> "Splits":
    from keras_vae.progress import track

    splits, notes = experiment.load_splits(functools.partial(track, _console()))
    for note in notes:
        _say(note)
    counts = " · ".join(f"{len(dataset):,} {name}" for name, dataset in splits._asdict().items() if dataset is not None)
    _say(f"{experiment.name} · {splits.train.name}: {counts} · {'×'.join(map(str, splits.train.image_shape))}")
    if not experiment.data.holdout:
        _say("trained on train and test images together: no held-out data, so no number of this run is a held-out one")
    return splits


def _fit(experiment: "Experiment", splits: "Splits", run: "Run | None", path: Path, tensorboard: bool) -> None:
    from keras_vae import training
    from keras_vae.callbacks import StopOnSignal, TrainingProgress

    progress, resume = TrainingProgress(_console(), experiment.training.epochs), f"`vae train --resume {_quoted(path)}`"
    try:
        with StopOnSignal() as stop:
            callbacks = [progress, stop, *([_tensorboard(path)] if tensorboard else [])]
            if run is None:
                training.train(experiment, splits, path, callbacks=callbacks)
            else:
                training.resume(run, splits, callbacks=callbacks)
    except KeyboardInterrupt as interrupt:
        progress.close()
        _say(f"stopped; every completed epoch is kept: go on with {resume}" if path.exists() else "stopped")
        raise typer.Exit(128 + (interrupt.args or (signal.SIGINT,))[0]) from None
    except OSError as error:
        if not path.exists():
            raise
        raise RunError(f"{error.strerror or error}; every completed epoch is kept: go on with {resume}") from None
    finally:
        progress.close()


@app.command()
def plot(
    run: RunArgument,
    kind: Annotated[Plot, typer.Argument(help="What to draw.")],
    out: Annotated[Path | None, typer.Option(help="The PNG file. Default: in the run's figures.")] = None,
    n: Annotated[int | None, typer.Option("-n", "--n", help="Images a side (grid), or how many.")] = None,
    bounds: Annotated[
        tuple[float, float] | None, typer.Option("--range", metavar="LOW HIGH", help="grid: least and greatest z.")
    ] = None,
    quantiles: Annotated[
        bool | None, typer.Option("--quantiles", help="grid: space z by the normal's inverse CDF.")
    ] = None,
    dims: Annotated[
        tuple[int, int] | None, typer.Option(metavar="I J", help="grid, latents: the two latent dimensions.")
    ] = None,
    seed: SeedOption = None,
    force: ForceOption = False,
) -> None:
    """Draw a figure of a run and print where it is."""
    from keras_vae.run import Run

    opened = Run.open(run)
    _check_out(out, (".png",), force)
    given = {"n": n, "bounds": bounds, "quantiles": quantiles, "dims": dims, "seed": seed}
    if kind is not Plot.CURVES:
        _import_keras()
    from keras_vae import plots
    from keras_vae.progress import track

    options = {name: value for name, value in given.items() if value is not None}
    subject = plots.Subject(opened, progress=functools.partial(track, _console()))
    print(plots.draw(subject, kind.value, out or opened.figure_path(kind.value), **options))


@app.command()
def sample(
    run: RunArgument,
    n: Annotated[int, typer.Option("-n", "--n", help="How many.")] = 64,
    seed: SeedOption = None,
    out: Annotated[
        Path | None, typer.Option(help="A .png sheet, or a .npz of floats. Default: in the run's figures.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Draw images from the prior and print where they are."""
    from keras_vae.run import Run

    opened = Run.open(run)
    _check_out(out, (".png", ".npz"), force)
    _import_keras()
    import numpy as np

    from keras_vae import figures
    from keras_vae.files import replacing

    out = out or opened.figure_path("sheet")
    images = opened.load_model().sample(n, seed=seed)
    if out.suffix == ".npz":
        with replacing(out) as temporary:
            np.savez(temporary, images=images)
    else:
        figures.save_images(images, out)
    print(out)


@app.command()
def info(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show what a run is, how far it is, and its numbers."""
    from keras_vae.run import Run

    opened = Run.open(run)
    if as_json:
        facts = {
            "run": str(run),
            "complete": opened.is_complete,
            "epochs": len(opened.metrics.get("epoch", [])),
            "experiment": opened.experiment.model_dump(),
            "environment": opened.environment,
            "metrics": opened.metrics,
            "evaluation": opened.evaluation,
        }
        print(json.dumps(facts))
        return
    experiment, environment = opened.experiment, opened.environment
    done, data = len(opened.metrics.get("epoch", [])), environment["data"]
    print(f"{experiment.name}: {experiment.description}" if experiment.description else experiment.name)
    print(f"data       {data['name']}, {', '.join(f'{count:,} {name}' for name, count in data['images'].items())}")
    state = "complete" if opened.is_complete else f"interrupted: go on with `vae train --resume {_quoted(run)}`"
    print(f"training   {done} of {experiment.training.epochs} epochs, {state}")
    print(f"made with  keras-vae {environment['versions']['keras-vae']}, {environment['backend']}")
    _print_result(opened)


@app.command()
def presets(as_json: JsonOption = False) -> None:
    """List the presets."""
    from keras_vae.experiment import Experiment, preset_names

    described = {name: Experiment.preset(name).description for name in preset_names()}
    if as_json:
        print(json.dumps(described))
    else:
        _print_table(described.items())


@app.command()
def data(
    source: Annotated[str | None, typer.Argument(help="A source to look into: a name, a file or a folder.")] = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    background: BackgroundOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the data sources, or look into one without training on it."""
    from keras_vae.data import sources
    from keras_vae.progress import track

    if source is None:
        listed = sources.available()
        if as_json:
            print(json.dumps([row._asdict() for row in listed]))
        else:
            _print_table(listed)
        return
    console = _console()
    loaded = sources.load(
        source,
        image_size=None if image_size is None else _parse_size(image_size),
        color=None if color is None else color.value,
        background=background,
        progress=functools.partial(track, console),
    )
    for note in loaded.notes:
        _say(note)
    rows = [_describe(dataset) for dataset in (loaded.train, loaded.test) if dataset is not None]
    if as_json:
        print(json.dumps(rows))
    else:
        for row in rows:
            _print_table((key, str(value)) for key, value in row.items())


def _describe(dataset: "Dataset") -> dict[str, Any]:
    return {
        "name": dataset.name,
        "split": dataset.split,
        "images": len(dataset),
        "image_shape": dataset.image_shape,
        "classes": None if dataset.labels is None else len(set(dataset.labels.tolist())),
        "checksum": dataset.checksum,
    }


def _print_answer(run: "Run", as_json: bool) -> None:
    if as_json:
        print(json.dumps({"run": str(run.path), "evaluation": run.evaluation}))
    else:
        _print_result(run)


def _print_result(run: "Run") -> None:
    evaluation = run.evaluation
    print(f"run        {run.path}")
    if evaluation:
        for name in ("negative_elbo", "reconstruction_loss", "kl_loss"):
            value = evaluation[name]
            print(f"{name:<20} {value['mean']:9.2f} ± {value['standard_error'] or 0:.2f} nats per image")
        where = f"{evaluation['images']:,} {evaluation['split']} images"
        print(f"measured on {where}{'' if evaluation['held_out'] else ': no held-out data'}")
        if not evaluation["normalised"]:
            print("grey levels under this likelihood: not a normalised likelihood")
    if (run.path / "report.html").exists():
        print(f"report     {run.path / 'report.html'}")


def _print_table(rows: Iterable[tuple[str, ...]]) -> None:
    lines = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    for row in lines:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _console() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def _say(message: str) -> None:
    print(message, file=sys.stderr)


def _absolute(source: str) -> str:
    """Return a path as one that later commands, run elsewhere, will find; a source's name as it is."""
    from keras_vae.data.sources import SOURCES

    path = Path(os.path.expanduser(source))
    return str(path.resolve()) if source not in SOURCES and path.exists() else source


def _quoted(path: Path) -> str:
    return shlex.quote(str(path))


def _free_folder(name: str) -> Path:
    paths = [Path("runs") / (name if number == 1 else f"{name}-{number}") for number in range(1, 10_000)]
    return next(path for path in paths if not path.exists())


def _parse_size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdigit() and width.isdigit() and int(height) and int(width)):
        raise InputError(f"--image-size {text}: write height x width in pixels, such as 64x48")
    return int(height), int(width)


def _check_out(out: Path | None, suffixes: Sequence[str], force: bool) -> None:
    if out is None:
        return
    if out.suffix not in suffixes:
        raise InputError(f"--out {out}: must end in {' or '.join(suffixes)}")
    if not out.parent.is_dir():
        raise InputError(f"--out {out}: there is no folder {out.parent}")
    if out.exists() and not force:
        raise InputError(f"--out {out} exists: choose another name, or replace it with --force")


def _import_keras(backend: Backend | None = None) -> None:
    """Import Keras with its backend, without the greetings that the libraries print while they load."""
    if backend is not None:
        os.environ["KERAS_BACKEND"] = backend.value
    chosen = os.environ.get("KERAS_BACKEND", Backend.TENSORFLOW)
    if chosen not in list(Backend):
        raise unknown("backend in KERAS_BACKEND", chosen, list(Backend))
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with tempfile.TemporaryFile() as greetings:
        stderr = os.dup(2)
        os.dup2(greetings.fileno(), 2)
        try:
            importlib.import_module("keras_vae.models.vae")
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)


def _tensorboard(path: Path) -> Any:  # noqa: ANN401
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: the package tensorboard is missing; pip install 'keras-vae[tensorboard]'")
    import keras

    return keras.callbacks.TensorBoard(path / "tensorboard")
