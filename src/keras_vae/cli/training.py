"""Commands that train: a model, or a prior for it."""

import importlib.util
import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_vae.cli.common import (
    Backend,
    BackgroundOption,
    ColorOption,
    ForceOption,
    ImageSizeOption,
    JsonOption,
    RunArgument,
    console,
    import_keras,
    load_own_splits,
    load_splits,
    open_to_write,
    print_answer,
    progress,
    quoted,
    say,
    with_data,
)
from keras_vae.core.errors import InputError, RunError

if TYPE_CHECKING:
    from keras_vae.data.dataset import Splits
    from keras_vae.runs.experiment import Experiment
    from keras_vae.runs.run import Run


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
    from keras_vae.runs.experiment import Experiment
    from keras_vae.runs.run import Run

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
            say(f"{resume} is complete: nothing to resume")
            print_answer(run, as_json)
            return
        experiment, path = run.experiment, resume
        backend = backend or Backend(run.environment["backend"])
    else:
        what = what or "classic"
        experiment = Experiment.from_file(Path(what)) if what.endswith(".toml") else Experiment.preset(what)
        # Its own source, too, is to be found from everywhere.
        experiment = with_data(experiment, data or experiment.data.source, image_size, color, background)
        experiment = experiment.with_overrides(settings or [])
        run, path = None, out or _free_folder(experiment.name)
        if path.exists():
            raise InputError(f"--out {path} exists: choose another folder, or `vae train --resume {quoted(path)}`")

    # A wrong image is said at once: Keras takes seconds to import.
    splits = load_splits(experiment)
    import_keras(backend)
    _fit(experiment, splits, run, path, tensorboard)
    print_answer(Run(path), as_json)


def fit_prior(
    run: RunArgument,
    prior: Annotated[str, typer.Option(help="A prior that is learned: realnvp or mixture.")] = "realnvp",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change an argument of it; may be repeated.")
    ] = None,
    force: ForceOption = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a density to the codes of a trained model, from which `vae sample` then draws."""
    from keras_vae.runs.experiment import Experiment
    from keras_vae.runs.run import Run

    chosen = [f"model.prior={json.dumps(prior)}", *(f"model.prior.{setting}" for setting in settings or [])]
    spec = Experiment().with_overrides(chosen).model.prior or {}
    source = Run.open(run)
    import_keras(Backend(source.environment["backend"]))
    from keras_vae.core import registry
    from keras_vae.training.prior_fitting import fit_prior

    # Refused before images are loaded and a shipped run is copied.
    registry.build("prior", spec)
    splits = load_own_splits(source)
    opened = open_to_write(run)
    if opened.has_fitted_prior and not force:
        raise InputError(f"{run} has a fitted prior: replace it with --force")
    result = fit_prior(opened, splits, spec, progress=progress())
    if as_json:
        print(json.dumps(result))
        return
    for name, evaluation in result.items():
        value = evaluation["negative_elbo"]
        error = value["standard_error"] or 0
        print(f"{name:<9} prior: negative_elbo {value['mean']:9.2f} ± {error:.2f} nats per image")


def _fit(experiment: "Experiment", splits: "Splits", run: "Run | None", path: Path, tensorboard: bool) -> None:
    from keras_vae.runs.run import Run
    from keras_vae.training import trainer
    from keras_vae.training.callbacks import Doctor, StopOnSignal, TrainingProgress

    terminal, resume = console(), f"`vae train --resume {quoted(path)}`"
    progress = TrainingProgress(terminal, experiment.training.epochs)
    doctor = Doctor(Run(path), splits, lambda finding: terminal.print(str(finding), style="yellow", highlight=False))
    try:
        with StopOnSignal() as stop:
            callbacks = [progress, doctor, stop, *([_tensorboard(path)] if tensorboard else [])]
            if run is None:
                trainer.train(experiment, splits, path, callbacks=callbacks)
            else:
                trainer.resume(run, splits, callbacks=callbacks)
    except KeyboardInterrupt as interrupt:
        progress.close()
        say(f"stopped; every completed epoch is kept: go on with {resume}" if path.exists() else "stopped")
        raise typer.Exit(128 + (interrupt.args or (signal.SIGINT,))[0]) from None
    except OSError as error:
        if not path.exists():
            raise
        raise RunError(f"{error.strerror or error}; every completed epoch is kept: go on with {resume}") from None
    finally:
        progress.close()


def _free_folder(name: str) -> Path:
    paths = [Path("runs") / (name if number == 1 else f"{name}-{number}") for number in range(1, 10_000)]
    return next(path for path in paths if not path.exists())


def _tensorboard(path: Path) -> Any:
    if importlib.util.find_spec("tensorboard") is None:
        raise InputError("--tensorboard: the package tensorboard is missing; pip install 'keras-vae[tensorboard]'")
    import keras

    return keras.callbacks.TensorBoard(path / "tensorboard")
