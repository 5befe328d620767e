"""The page of a sweep: figures of its settings, and its best runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_vae.core.errors import InputError
from keras_vae.core.files import write_text
from keras_vae.core.locks import locked
from keras_vae.core.progress import Progress, silent
from keras_vae.evaluation.descriptions import format_number
from keras_vae.integrations.sweep.engine import quiet
from keras_vae.integrations.sweep.results import Sweep, TrialResult
from keras_vae.integrations.sweep.space import Range
from keras_vae.report.figures import sweeps as figures
from keras_vae.report.figures.image_grids import tile_images
from keras_vae.report.figures.themes import ThemedImage, themed_image
from keras_vae.report.pages import png_uri
from keras_vae.report.sweep_page import TrialRow, render_sweep
from keras_vae.runs.run import Run

PAGE = "report.html"
"""Name of the page in the folder of the sweep."""

_BEST = 6
_IMAGES = (8, 4)


def write_report(sweep: Sweep, *, progress: Progress = silent) -> Path:
    """Write a page about a sweep into its folder: history, importances, parallel coordinates and the best runs.

    Args:
        sweep: The sweep; it may still be running.
        progress: Reports the progress of drawing.

    Returns:
        The path of the page.

    Raises:
        RunError: The file cannot be written.
    """
    trials, ranked = sweep.trials, sweep.ranked
    metric = sweep.experiment.sweep.metric
    drawn, notes = _figures(sweep, trials, ranked)
    page = render_sweep(
        title=sweep.folder.resolve().name,
        summary=sweep.summary or "no trials",
        metric=metric,
        best=[_row(sweep, trial, _thumbnail(sweep, trial)) for trial in progress(ranked[:_BEST], "drawing images")],
        trials=[_row(sweep, trial) for trial in trials],
        figures=drawn,
        notes=notes,
        experiment_toml=sweep.experiment.to_toml(),
        environment={"repeats": sweep.experiment.sweep.repeats, **_software(sweep, ranked)},
    )
    file = sweep.folder / PAGE
    with locked(file):
        write_text(file, page)
    return file


def _figures(
    sweep: Sweep, trials: Sequence[TrialResult], ranked: Sequence[TrialResult]
) -> tuple[dict[str, ThemedImage], list[str]]:
    """Return the figures that the trials allow, and the reasons why others are missing."""
    if len(ranked) < 2:
        return {}, ["Figures need at least two complete trials."]
    complete = {trial.number: float(trial.value or 0) for trial in ranked}
    pruned = {
        trial.number: list(trial.history.values())[-1] for trial in trials if trial.state == "pruned" and trial.history
    }
    label = f"{sweep.experiment.sweep.metric}, nats per image"
    drawn = {
        "history": figures.history(complete, pruned, label),
        "parallel-coordinates": figures.parallel_coordinates(*_coordinates(sweep, ranked)),
    }
    notes = list[str]()
    if shares := importances(sweep):
        drawn["importances"] = figures.importances(shares)
    else:
        notes.append("Importances are missing: the metric or the settings of all complete trials are equal.")
    return {name: themed_image(figure) for name, figure in drawn.items()}, notes


def importances(sweep: Sweep) -> dict[str, float]:
    """Return the share of the variance of the metric that each setting explains; empty if it cannot be estimated.

    Args:
        sweep: The sweep.
    """
    import optuna

    complete = [trial for trial in sweep.trials if trial.value is not None]
    if len({trial.value for trial in complete}) < 2:
        return {}
    try:
        with quiet():
            evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
            return dict(optuna.importance.get_param_importances(sweep.study, evaluator=evaluator))
    except (ValueError, RuntimeError):
        return {}


def _coordinates(sweep: Sweep, ranked: Sequence[TrialResult]) -> tuple[list[figures.Axis], list[float]]:
    """Return the axes of the settings and of the metric, and the rank of each trial in [0, 1]."""
    axes = list[figures.Axis]()
    for key, dimension in list(sweep.experiment.space.items())[: figures.MAX_AXES]:
        values = [trial.settings[key] for trial in ranked]
        if isinstance(dimension, Range):
            axes.append(figures.number_axis(key, values, dimension.low, dimension.high, log=dimension.log))
        else:
            axes.append(figures.category_axis(key, list(map(_text, values)), list(map(_text, dimension.candidates))))
    axes.append(figures.rank_axis(sweep.experiment.sweep.metric, [float(trial.value or 0) for trial in ranked]))
    return axes, [index / (len(ranked) - 1) for index in range(len(ranked))]


def _row(sweep: Sweep, trial: TrialResult, thumbnail: str = "") -> TrialRow:
    links = {run: f"{run}/" for run in trial.runs}
    links |= {f"report of {run}": f"{run}/{PAGE}" for run in trial.runs if (sweep.folder / run / PAGE).is_file()}
    value = trial.state if trial.value is None else format_number(trial.value)
    settings = {key: _text(value) for key, value in trial.settings.items()}
    return TrialRow(trial.name, links, value, settings, trial.error or "", thumbnail)


def _thumbnail(sweep: Sweep, trial: TrialResult) -> str:
    """Return images drawn from the model of a trial; nothing if its run is on another machine."""
    if not trial.runs:
        return ""
    columns, rows = _IMAGES
    try:
        model = Run.open(sweep.folder / trial.runs[0]).load_model()
        classes = getattr(model.condition, "classes", None)
        labels = None if classes is None else [index % classes for index in range(columns * rows)]
        return png_uri(tile_images(model.sample(columns * rows, seed=0, condition=labels), columns=columns))
    except InputError:
        return ""


def _software(sweep: Sweep, ranked: Sequence[TrialResult]) -> Mapping[str, Any]:
    """Return the backend and the versions of the best run, if it is on this machine."""
    folder = next((sweep.folder / trial.runs[0] for trial in ranked if trial.runs), None)
    if folder is None:
        return {}
    environment: Mapping[str, Any] = Run.open(folder).environment
    return {"backend": environment["backend"], **environment["versions"]}


def _text(value: Any) -> str:
    if isinstance(value, float):
        return format_number(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
