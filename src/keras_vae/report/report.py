"""The report of a run: its figures, and an HTML page that shows them with its numbers and diagnostics."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.diagnostics import Finding, diagnose
from keras_vae.report import html, plots
from keras_vae.report.context import PlotContext
from keras_vae.report.figures.themes import ThemedImage, themed_image
from keras_vae.runs.loading import given_or_own_splits
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


def write_report(
    run: Run | str | Path,
    splits: Splits | None = None,
    *,
    model: "BaseVAE | None" = None,
    findings: Sequence[Finding] | None = None,
    progress: Progress = silent,
) -> Path:
    """Draw all figures that are available for a run, and write `report.html`.

    Args:
        run: A complete run, its folder, or the name of a pretrained run, which is copied before writing.
        splits: Its images; None loads them.
        model: Its model, if already loaded.
        findings: The result of `diagnose`; None diagnoses the run.
        progress: Shows the progress over the figures.

    Returns:
        The path of the page.

    Raises:
        InputError: The run is unfinished, or its images no longer exist.
    """
    run = Run.open(run)
    run.require_complete()
    splits = given_or_own_splits(run, splits, progress)
    run = run.writable_copy()
    model = model or run.load_model()
    context = PlotContext(run, model, splits)
    kinds = plots.available_plots(context)
    images = {
        kind: themed_image(plots.plot(context, kind, out=run.figure_path(kind))) for kind in progress(kinds, "figures")
    }
    if findings is None:
        # The diagnostics concern the training, and a prior that was fitted later is not part of it.
        findings = diagnose(run, splits, None if run.has_fitted_prior else model)
    return run.write_report(render_run(run, images, findings))


def render_run(run: Run, figures: Mapping[str, ThemedImage], findings: Sequence[Finding]) -> str:
    """Return the report of a run as one self-contained HTML page.

    Args:
        run: The run.
        figures: The images by the names of the plots.
        findings: Problems that the diagnostics found.

    Raises:
        InputError: A file of the run is damaged.
    """
    return html.render(
        title=run.name,
        summary=run.experiment.description,
        experiment_toml=run.experiment.to_toml(),
        environment=run.environment,
        metrics=run.metrics,
        evaluation=run.evaluation,
        figures=figures,
        findings=findings,
    )
