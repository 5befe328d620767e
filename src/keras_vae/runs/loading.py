"""Loading of trained models by path or name, and of the images of a run."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.core.errors import InputError
from keras_vae.core.progress import Progress
from keras_vae.data.dataset import Splits
from keras_vae.data.labels import check_known, united
from keras_vae.runs.model_file import read_model
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


def load(source: Run | str | Path, *, trust_code: bool = False) -> "BaseVAE":
    """Load a trained model.

    A run that was trained with the user's own Python files (`vae train --import`) contains a copy of them. They are
    executed only if this user has imported files with the same content before, or allows it with `trust_code`.

    Args:
        source: A run, its folder, the name of a pretrained run, or a `.keras` file.
        trust_code: Whether to allow the execution of the run's Python files, now and later. Read them first.

    Returns:
        The model.

    Raises:
        InputError: There is no such run or file, the file is damaged or contains code, or the run's Python files are
            not trusted.

    Example:
        >>> load("mnist-2d").sample(4, seed=0).shape
        (4, 28, 28, 1)
    """
    if isinstance(source, str | Path) and (path := Path(source).expanduser()).is_file():
        return read_model(path)
    run = Run.open(source)
    run.import_code(trusted=trust_code)
    return run.load_model()


def load_scoring_model(run: Run) -> "tuple[BaseVAE, str | None]":
    """Load the model of a run for anomaly scores, which evaluate log p(z) at many codes.

    Args:
        run: A run.

    Returns:
        The model with the fitted prior, if any, and None; or, if that prior has no direct log-density, the model with
        the original prior, and a note about it.
    """
    model = run.load_model()
    if model.density == "direct" or not run.has_fitted_prior:
        return model, None
    return run.load_model("original"), "scores use the original prior, because the fitted one has no direct log-density"


def given_or_own_splits(run: Run, splits: Splits | None, progress: Progress | None = None) -> Splits:
    """Return the given images, or load those of a run if there are none.

    The labels of given images are matched with those of the run by name.

    Args:
        run: The run.
        splits: The images, or None.
        progress: Reports the progress of loading.

    Raises:
        InputError: `splits` is something else, the images of the run do not exist any more or have changed, or the
            model is conditioned on labels and given images have other labels.
    """
    if splits is None:
        return run.load_splits(progress)
    if not isinstance(splits, Splits):
        value = repr(splits) if isinstance(splits, str) else type(splits).__name__
        raise InputError(f"splits = {value}: not Splits; pass Run.load_splits(), or None to load the images of the run")
    return _with_run_classes(run, splits)


def _with_run_classes(run: Run, splits: Splits) -> Splits:
    """Return images whose classes have the numbers of the run; if its model ignores labels, new classes come last."""
    names = run.class_names
    parts = [part for part in splits if part is not None and part.labels is not None]
    if all(part.classes == names for part in parts):
        return splits
    if run.experiment.model.is_conditioned_on_labels:
        for part in parts:
            check_known(part.present_classes, names, argument=f"data = {part.name}", run=run.name)
    else:
        names = united(names, *(part.classes for part in parts))
    train, *held_out = (None if part is None else part.with_classes(names) for part in splits)
    return Splits(splits.train if train is None else train, *held_out)
