"""Commands that train a model, or a prior for it."""

import contextlib
import json
import signal
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_vae.cli import completion
from keras_vae.cli.common import (
    Backend,
    BackgroundOption,
    ColorOption,
    DevicesOption,
    FitOption,
    ImageSizeOption,
    JsonOption,
    RunArgument,
    ScaleOption,
    SkipBrokenOption,
    TrackerChoice,
    console,
    import_keras,
    load_own_splits,
    load_splits,
    open_to_write,
    print_evaluation,
    progress,
    quoted,
    say,
    say_findings,
    with_data,
)
from keras_vae.cli.parsing import parse_devices
from keras_vae.cli.starting import FrozenNetwork, convert, initial_experiment, is_foreign_model, start_settings
from keras_vae.core.errors import InputError, RunError

if TYPE_CHECKING:
    from keras_vae.core.progress import Progress
    from keras_vae.data.dataset import Splits
    from keras_vae.evaluation.diagnostics import Finding
    from keras_vae.integrations.trackers.base import Tracker
    from keras_vae.models.base import BaseVAE
    from keras_vae.runs.experiment import Experiment
    from keras_vae.runs.run import Run


def train(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[PRESET | EXPERIMENT.toml]",
            help="A preset (`vae presets`) or an experiment file. Default: classic.",
            autocompletion=completion.presets,
        ),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(metavar="RUN", help="Resume an interrupted run.", autocompletion=completion.runs),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="A source (`vae data`), a .npz, a .npy, or a folder of images.",
            autocompletion=completion.sources,
        ),
    ] = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    fit: FitOption = None,
    background: BackgroundOption = None,
    scale: ScaleOption = None,
    skip_broken: SkipBrokenOption = False,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="The run folder. Default: runs/NAME.")] = None,
    init: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Start from the weights of a run, a .keras file, or an AutoencoderKL of diffusers. Without a preset, "
            "train with its networks.",
            autocompletion=completion.runs,
        ),
    ] = None,
    freeze: Annotated[
        list[FrozenNetwork] | None,
        typer.Option("--freeze", help="Keep the weights of this network; may be repeated."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting; may be repeated.",
            autocompletion=completion.settings,
        ),
    ] = None,
    imports: Annotated[
        list[Path] | None,
        typer.Option("--import", metavar="FILE.py", help="Import components of your own; may be repeated."),
    ] = None,
    backend: Annotated[
        Backend | None, typer.Option(help="The backend of Keras. Default: the one that Keras is configured to use.")
    ] = None,
    devices: DevicesOption = None,
    distributed: Annotated[
        bool,
        typer.Option(
            "--distributed",
            help="Train one model with the other processes of a SLURM job, or of $KERAS_DISTRIBUTION_…; requires the "
            "backend jax.",
        ),
    ] = False,
    trackers: Annotated[
        list[TrackerChoice] | None,
        typer.Option("--tracker", help="Record the training in an experiment tracker; may be repeated."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Train a model into a new run folder, evaluate it, and write a report with figures."""
    from keras_vae.integrations.trackers import check_installed
    from keras_vae.runs import user_code
    from keras_vae.runs.files import free_path
    from keras_vae.runs.run import Run

    initial: BaseVAE | None = None
    trackers = list(dict.fromkeys(trackers or []))
    for name in trackers:
        check_installed(name)
    _check_devices(devices, distributed, trackers)
    if resume is not None:
        given: dict[str, Any] = {
            "PRESET": source,
            "--data": data,
            "--image-size": image_size,
            "--color": color,
            "--fit": fit,
        }
        given |= {"--background": background, "--scale": scale, "--skip-broken": skip_broken}
        given |= {"--init": init, "--freeze": freeze}
        _reject_with_resume({**given, "--out": out, "--set": settings, "--import": imports})
        interrupted = Run.open(resume)
        is_done = interrupted.is_complete and interrupted.evaluation is not None and interrupted.has_report
        if is_done and not trackers:
            say(f"{resume} is complete: nothing to resume")
            print_evaluation(interrupted, as_json)
            return
        # In a cluster, process 0 locks the run later.
        experiment, path = interrupted.experiment, open_to_write(resume, lock=not distributed).path
        backend = backend or Backend(interrupted.environment["backend"])
        if (count := interrupted.environment.get("num_processes", 1)) > 1 and not distributed:
            raise InputError(
                f"run = {resume}: started by {count} processes; resume it with as many, each with --distributed"
            )
        devices = devices or (None if distributed else str(interrupted.environment.get("num_devices", 1)))
    else:
        if init is not None and is_foreign_model(init):
            import_keras(backend, devices)
            initial = convert(init)
        # The source of the experiment file becomes an absolute path as well.
        experiment = initial_experiment(source, init, initial)
        experiment = with_data(
            experiment, data or experiment.data.source, image_size, color, background, fit, scale, skip_broken
        ).with_overrides([*start_settings(init, freeze or []), *(settings or [])])
        path = out or free_path(experiment.name)
        if path.exists():
            raise InputError(
                f"--out = {path}: exists; choose another folder, or use `vae train --resume {quoted(path)}`"
            )
        user_code.require_files(imports or [])

    # Importing Keras takes seconds: load the images first, so that problems with them are reported at once.
    splits = load_splits(experiment)
    import_keras(backend, devices)
    if distributed:
        from keras_vae.core.backend import join_cluster

        join_cluster(path.parent / f".{path.name}.processes")
    findings = _train(experiment, splits, path, imports or [], trackers, resumes=resume is not None, initial=initial)
    print_evaluation(Run(path), as_json)
    say_findings(path, findings)
    if not as_json:
        _say_next_commands(Run(path))


def fit_prior(
    run: RunArgument,
    prior: Annotated[
        str,
        typer.Option(
            help="A prior that can be learned: realnvp, mixture or flow-matching.",
            autocompletion=completion.words("realnvp", "mixture", "flow-matching"),
        ),
    ] = "realnvp",
    epochs: Annotated[
        int | None,
        typer.Option(help="Passes over the codes. Default: 30, or enough for 9,000 steps of flow-matching."),
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(help="How strongly samples of flow-matching follow the condition of the model. Default: 1."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change an argument of the prior; may be repeated."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace an earlier fitted prior.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Fit a prior to the codes of a trained model, which `vae sample` then uses."""
    from keras_vae.runs.experiment import Experiment
    from keras_vae.runs.run import Run

    settings = [*(settings or []), *([] if guidance is None else [f"guidance={guidance}"])]
    overrides = [f"model.prior={json.dumps(prior)}", *(f"model.prior.{setting}" for setting in settings)]
    spec = Experiment().with_overrides(overrides).model.prior or {}
    opened = Run.open(run)
    import_keras(Backend(opened.environment["backend"]))
    from keras_vae.core import registry
    from keras_vae.training.prior_fitting import fit_prior

    # Reject an invalid prior before images are loaded and a pretrained run is copied.
    opened.import_code()
    registry.build("prior", spec)
    splits = load_own_splits(opened)
    opened = open_to_write(run)
    if opened.has_fitted_prior and not force:
        raise InputError(f"run = {run}: has a fitted prior; replace it with --force")
    from keras_vae.evaluation.descriptions import format_value

    result = fit_prior(opened, spec, splits, epochs=epochs, progress=progress())
    if as_json:
        print(json.dumps(result))
        return
    for name, evaluation in result.items():
        print(f"{name:<9} prior: negative_elbo {format_value(evaluation['negative_elbo']):>9} nats per image")
    if "fitted" not in result:
        print("fitted    prior: no log-density in so many dimensions, so no negative_elbo; `vae sample` draws from it")


def trust(run: RunArgument) -> None:
    """Allow this machine to execute the Python files of a run, and print their paths. Read them first."""
    from keras_vae.runs import user_code
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    names, folder = opened.environment.get("code", []), opened.path / "code"
    user_code.trust(user_code.read_kept(folder, names).values())
    for name in names:
        print(folder / name)
    if not names:
        say(f"{run} contains no Python files: nothing to trust")


def _check_devices(devices: str | None, distributed: bool, trackers: Sequence[TrackerChoice]) -> None:
    """Reject an invalid number of devices, and options that a training by several processes does not support."""
    if devices is not None:
        parse_devices(devices)
    if distributed and devices:
        raise InputError(f"--devices = {devices}: --distributed uses all devices of every process; leave out --devices")
    if distributed and trackers:
        raise InputError("--tracker: not supported with --distributed; leave out one of the two")


def _reject_with_resume(given: dict[str, Any]) -> None:
    for option, value in given.items():
        if value:
            raise InputError(f"{option} = {value}: --resume keeps all settings of the run; leave out {option}")


def _train(
    experiment: "Experiment",
    splits: "Splits",
    path: Path,
    imports: list[Path],
    trackers: Sequence[TrackerChoice],
    *,
    resumes: bool,
    initial: "BaseVAE | None",
) -> "Sequence[Finding]":
    """Train, evaluate and report a run, and return its problems."""
    from rich.console import Console

    from keras_vae.core import backend as processes
    from keras_vae.evaluation import diagnostics
    from keras_vae.integrations.trackers.base import notes_on_resuming
    from keras_vae.runs.run import Run
    from keras_vae.training import trainer
    from keras_vae.training.callbacks import ShowFindings, StopOnSignal, TrainingProgress

    leads, together = processes.process_id() == 0, processes.num_processes() > 1
    resume = f"`vae train --resume {quoted(path)}{' --distributed' if together else ''}`"
    terminal, watched = console() if leads else Console(quiet=True), Run(path)
    rows = TrainingProgress(terminal, experiment.training.epochs)

    def warn(message: object, *_: Any, **__: Any) -> None:
        terminal.print(str(message), style="yellow", highlight=False, soft_wrap=True)

    findings = ShowFindings(
        lambda model: diagnostics.run_checks(diagnostics.collect_diagnostics(watched, splits, model, images=256)), warn
    )
    try:
        with StopOnSignal() as stop, _opened(trackers, warn) as opened, warnings.catch_warnings():
            # These are printed as notes.
            warnings.filterwarnings("ignore", ".* was started with other versions")
            # One line each, without the place in the code.
            warnings.showwarning = warn
            callbacks = [rows, findings, stop, *opened]
            if resumes:
                for note in (*trainer.notes_on_resuming(watched), *notes_on_resuming(watched, trackers)):
                    terminal.print(note, highlight=False)
            with processes.ending_with_others(f"all completed epochs are saved: continue with {resume}"):
                if resumes:
                    run = trainer.resume(path, splits, callbacks=callbacks)
                else:
                    run = trainer.train(experiment, splits, path, callbacks=callbacks, imports=imports, initial=initial)
                processes.leave_cluster()
            if not leads:
                raise typer.Exit
            terminal.print("evaluating and drawing figures …", style="dim")
            return _report(run, splits, opened, progress())
    except KeyboardInterrupt as interrupt:
        rows.close()
        processes.leave_cluster()
        say(f"stopped; all completed epochs are saved: continue with {resume}" if path.exists() else "stopped")
        raise typer.Exit(128 + (interrupt.args or (signal.SIGINT,))[0]) from None
    except RunError as error:
        # A file could not be written, for example because the disk is full.
        if not (isinstance(error.__cause__, OSError) and path.exists()):
            raise
        raise RunError(f"{error}; all completed epochs are saved: continue with {resume}") from None
    finally:
        rows.close()


@contextlib.contextmanager
def _opened(names: Iterable[TrackerChoice], warn: Callable[[str], object]) -> "Iterator[list[Tracker]]":
    """Open trackers for a block of code, and print the places of their records at its end."""
    from keras_vae.integrations import trackers

    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(getattr(trackers, trackers.TRACKERS[name])(warn)) for name in names]
        yield opened
        for tracker in opened:
            if tracker.is_recording:
                say(f"recorded in {tracker.package}: {tracker.location}")


def _report(run: "Run", splits: "Splits", trackers: "Iterable[Tracker]", progress: "Progress") -> "Sequence[Finding]":
    """Evaluate the ELBO of a complete run, unless it has been evaluated, write the report, and return the problems."""
    from keras_vae.evaluation.diagnostics import diagnose
    from keras_vae.evaluation.evaluate import EvaluationConfig, evaluate
    from keras_vae.report.report import write_report

    model = run.load_model()
    if run.evaluation is None:
        config = EvaluationConfig(samples=0)
        evaluate(run, splits, config, stages=("likelihood",), model=model, progress=progress)
    findings = diagnose(run, splits, model, progress=progress)
    write_report(run, splits, model=model, findings=findings, progress=progress)
    for tracker in trackers:
        tracker.log_results(run, splits, model=model)
    return findings


def _say_next_commands(run: "Run") -> None:
    """Print commands that use a trained run."""
    path, posterior = quoted(run.path), run.experiment.model.posterior or {}
    commands = {
        f"vae explore {path}": "look at the model in a browser",
        f"vae sample {path} --out samples.png": "draw new images",
        f"vae evaluate {path}": "measure the likelihood, the latent space and samples",
    }
    if posterior.get("name") == "deterministic":
        commands = {f"vae fit-prior {path}": "fit a prior, which samples need", **commands}
    width = max(map(len, commands))
    say("next:")
    for command, purpose in commands.items():
        say(f"  {command:<{width}}  {purpose}")
