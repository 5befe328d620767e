"""Loading of trained models by path or name."""

from pathlib import Path
from typing import TYPE_CHECKING

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
    if not isinstance(source, Run) and (path := Path(source).expanduser()).is_file():
        return read_model(path)
    run = Run.open(source)
    run.import_code(trusted=trust_code)
    return run.load_model()
