"""A run's page: its figures, and the report that shows them beside its numbers and the doctor's findings."""

from typing import TYPE_CHECKING

from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.diagnostics import diagnose
from keras_vae.report import html, plots
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


def write_page(run: Run, model: "BaseVAE", splits: Splits, *, progress: Progress = silent) -> None:
    """Draw every figure that a run's model can be shown in, and write `report.html`.

    Args:
        run: The run, its evaluation written.
        model: Its model.
        splits: Its images.
        progress: Shown over the figures.
    """
    subject = plots.Subject(run, model, splits)
    # The doctor judges the training, and a prior that was fitted later is no part of it.
    trained = None if run.has_fitted_prior else model
    drawn = plots.applicable(subject)
    for kind in progress(drawn, "figures"):
        plots.draw(subject, kind, run.figure_path(kind))
    run.write_report(
        html.render(
            title=run.name,
            summary=run.experiment.description,
            experiment_toml=run.experiment.to_toml(),
            environment=run.environment,
            metrics=run.metrics,
            evaluation=run.evaluation,
            figures={kind: run.figure_path(kind) for kind in drawn},
            findings=diagnose(run, splits, trained),
        )
    )
