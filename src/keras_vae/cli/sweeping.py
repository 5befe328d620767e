"""The command that trains an experiment with many settings, and shows the results."""

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from keras_vae.cli import completion
from keras_vae.cli.common import (
    Backend,
    JsonOption,
    import_keras,
    print_table,
    progress,
    quoted,
    say,
    with_data,
)
from keras_vae.cli.common import load_splits as show_and_load
from keras_vae.core.errors import InputError, RunError

if TYPE_CHECKING:
    from keras_vae.integrations.sweep.results import Sweep, TrialResult

_SHOWN = 10


def sweep(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="FILE.toml | SWEEP", help="An experiment file with a table [sweep], or the folder of a sweep."
        ),
    ],
    trials: Annotated[
        int | None,
        typer.Option(min=1, help="Trials of all workers together. Default: 50, or all points of a grid."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="SWEEP", help="The folder of the sweep. Default: sweeps/NAME.")
    ] = None,
    storage: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The database of all workers, such as postgresql://HOST/DATABASE. Default: an SQLite file in the "
            "folder, for workers on one machine.",
        ),
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="A source (`vae data`), a .npz, a .npy, or a folder of images.",
            autocompletion=completion.sources,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="Change a setting of all trials; may be repeated.",
            autocompletion=completion.settings,
        ),
    ] = None,
    backend: Annotated[
        Backend | None, typer.Option(help="The backend of Keras. Default: the one that Keras is configured to use.")
    ] = None,
    report: Annotated[bool, typer.Option("--report", help="Write a page with figures into the folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train an experiment with many settings, or show a sweep. Start the same command once per worker."""
    from keras_vae.integrations.sweep.engine import require_optuna

    require_optuna()
    if source.suffix == ".toml":
        opened = _work(source, trials, out, storage, data, settings or [], backend)
    else:
        given = {"--trials": trials, "--out": out, "--data": data, "--set": settings, "--backend": backend}
        for option, value in given.items():
            if value is not None:
                raise InputError(
                    f"{option} = {value}: applies only to new trials; pass FILE.toml, or leave out {option}"
                )
        from keras_vae.integrations.sweep.results import Sweep

        opened = Sweep.open(source, storage)
    if report:
        import_keras()
        from keras_vae.integrations.sweep.report import write_report

        page = write_report(opened, progress=progress())
    if as_json:
        content = {"sweep": str(opened.folder), "trials": [trial.to_json() for trial in opened.trials]}
        print(json.dumps(content | ({"report": str(page)} if report else {})))
        return
    _print_sweep(opened)
    if report:
        print(f"report     {page}")


def _work(
    source: Path,
    trials: int | None,
    out: Path | None,
    storage: str | None,
    data: str | None,
    settings: list[str],
    backend: Backend | None,
) -> "Sweep":
    """Train trials until there are enough."""
    from keras_vae.integrations.sweep.config import SweepExperiment

    experiment = SweepExperiment.from_file(source)
    experiment = with_data(experiment, data or experiment.data.source, None, None, None).with_overrides(settings)
    splits = show_and_load(experiment) if experiment.sweep.repeats == 1 else None
    import_keras(backend)
    from keras_vae.integrations.sweep import worker
    from keras_vae.training.callbacks import StopOnSignal

    try:
        with StopOnSignal():
            return worker.sweep(experiment, splits, out, trials=trials, storage=storage, on_trial=_say_trial)
    except KeyboardInterrupt as interrupt:
        say("stopped; all completed epochs are saved: continue with the same command")
        raise typer.Exit(128 + (interrupt.args or (signal.SIGINT,))[0]) from None
    except RunError as error:
        if not isinstance(error.__cause__, OSError):
            raise
        raise RunError(f"{error}; all completed epochs are saved: continue with the same command") from None


def _say_trial(trial: "TrialResult") -> None:
    say(f"{trial.number:04d}  {_outcome(trial)}  {_settings(trial)}")


def _outcome(trial: "TrialResult") -> str:
    from keras_vae.evaluation.descriptions import format_value

    return f"{format_value(trial.value)} nats" if trial.value is not None else trial.state


def _run(sweep: "Sweep", trial: "TrialResult") -> str:
    return str(sweep.folder / trial.name) if trial.runs else trial.name


def _settings(trial: "TrialResult") -> str:
    if trial.error is not None:
        return trial.error
    return ", ".join(f"{key}={_text(value)}" for key, value in trial.settings.items())


def _text(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else json.dumps(value, ensure_ascii=False).strip('"')


def _print_sweep(sweep: "Sweep") -> None:
    """Print the number of trials by state, and the best ones."""
    trials, ranked = sweep.trials, sweep.ranked
    print(f"sweep      {sweep.folder}")
    print(f"trials     {sweep.summary or 'none'}")
    if ranked:
        head = ("run", f"{sweep.experiment.sweep.metric} (validation)", "settings")
        rows = [(_run(sweep, trial), _outcome(trial), _settings(trial)) for trial in ranked[:_SHOWN]]
        print_table([head, *rows])
        say(f"next:\n  vae evaluate {quoted(Path(rows[0][0]))}  measure the best run on test images")
    for trial in [trial for trial in trials if trial.error is not None][:_SHOWN]:
        say(f"{trial.number:04d} failed: {trial.error}")
    if trials and not ranked and all(trial.state == "failed" for trial in trials):
        raise RunError(
            f"sweep = {quoted(sweep.folder)}: no trial succeeded; correct the experiment, and choose another --out"
        )
