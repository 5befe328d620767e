"""The doctor: what is wrong with a run, how that was seen, why it matters, and which setting to change."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.diagnostics.checks import CHECKS, Finding
from keras_vae.evaluation.diagnostics.evidence import INACTIVE_RATE, Evidence, gather
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

__all__ = ["CHECKS", "INACTIVE_RATE", "Evidence", "Finding", "diagnose", "examine", "gather"]


def examine(evidence: Evidence) -> tuple[Finding, ...]:
    """Return what every check finds.

    Args:
        evidence: What is known.

    Example:
        >>> import numpy as np
        >>> black = np.zeros((4, 28, 28, 1), "uint8")
        >>> [finding.name for finding in examine(Evidence(train=black))]
        ['no contrast']
        >>> examine(Evidence())
        ()
    """
    return tuple(finding for check in CHECKS if (finding := check(evidence)) is not None)


def diagnose(
    run: Run | str | Path, splits: Splits | None = None, model: "BaseVAE | None" = None, progress: Progress = silent
) -> tuple[Finding, ...]:
    """Return what is wrong with a run, complete or not.

    Args:
        run: The run, its folder, or the name of a pretrained run.
        splits: Its images; None loads them.
        model: Its model under the prior that it was trained with, where the caller has it; else the run's is loaded,
            and if no epoch is complete yet, images and metrics are what is looked at.
        progress: Shown over the images.

    Returns:
        The findings; none where nothing is wrong.

    Raises:
        InputError: A file of the run is damaged, or the images do not fit the model.
    """
    run = Run.open(run)
    if splits is None:
        splits = run.load_splits(progress)
    if model is None and (run.is_complete or run.read_checkpoint() is not None):
        model = run.load_model("original")
    return examine(gather(run, splits, model, progress=progress))
