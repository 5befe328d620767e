"""The report of a run: its figures, and an HTML page with its numbers, figures and the doctor's findings."""

from typing import TYPE_CHECKING

from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.diagnostics import diagnose
from keras_vae.report import html, plots
from keras_vae.report.context import PlotContext
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


def write_page(run: Run, model: "BaseVAE", splits: Splits, *, progress: Progress = silent) -> None:
    """Plot every figure that the model supports, and write `report.html`.

    Args:
        run: An evaluated run.
        model: Its model.
        splits: Its images.
        progress: Shows the progress over the figures.
    """
    context = PlotContext(run, model, splits)
    # The doctor judges the training, which does not include a prior fitted later.
    trained = None if run.has_fitted_prior else model
    kinds = plots.available_plots(context)
    for kind in progress(kinds, "figures"):
        plots.plot(context, kind, out=run.figure_path(kind))
    run.write_report(
        html.render(
            title=run.name,
            summary=run.experiment.description,
            experiment_toml=run.experiment.to_toml(),
            environment=run.environment,
            metrics=run.metrics,
            evaluation=run.evaluation,
            figures={kind: run.figure_path(kind) for kind in kinds},
            findings=diagnose(run, splits, trained),
        )
    )
