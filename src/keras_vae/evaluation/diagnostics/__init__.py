"""Diagnostics of a run (`vae doctor`): observed problems, why they matter, and which setting to change."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.diagnostics.checks import CHECKS, run_checks
from keras_vae.evaluation.diagnostics.finding import Finding
from keras_vae.evaluation.diagnostics.run_diagnostics import RunDiagnostics, collect_diagnostics, current_evaluation
from keras_vae.runs.loading import given_or_own_splits
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

__all__ = ["CHECKS", "Finding", "RunDiagnostics", "collect_diagnostics", "current_evaluation", "diagnose", "run_checks"]


def diagnose(
    run: Run | Path | str,
    splits: Splits | None = None,
    model: "BaseVAE | None" = None,
    progress: Progress = silent,
) -> tuple[Finding, ...]:
    """Return the problems of a run, complete or not.

    Args:
        run: The run, its folder, or the name of a pretrained run.
        splits: The images of the run; loaded if None.
        model: The model of the run under the prior that it was trained with; loaded if None. Before the first epoch is
            complete, only the images and the metrics are checked.
        progress: Shows the progress over the images.

    Returns:
        The findings; empty if no check found a problem.

    Raises:
        InputError: The run does not exist, a file of it is damaged, or the images do not fit the model.

    Example:
        >>> from keras_vae.evaluation.diagnostics import diagnose
        >>> for finding in diagnose("mnist-2d"):  # doctest: +SKIP
        ...     print(finding)
    """
    run = Run.open(run)
    splits = given_or_own_splits(run, splits, progress)
    if model is None and (run.is_complete or run.checkpoint_file.exists()):
        model = run.load_model("original")
    return run_checks(collect_diagnostics(run, splits, model, progress=progress))
