"""Opening runs by path or name, and loading the images that they were trained on."""

from pathlib import Path

from keras_vae.core.progress import Progress
from keras_vae.data.dataset import Splits
from keras_vae.runs.run import Run


def open_run(run: Run | Path | str) -> Run:
    """Return a run, given the run itself, its folder, or the name of a pretrained run.

    Args:
        run: The run, its folder or its name.

    Raises:
        InputError: There is no such run.

    Example:
        >>> open_run("mnist-2d").name
        'mnist-2d'
    """
    return run if isinstance(run, Run) else Run.open(run)


def load_splits(run: Run, progress: Progress | None = None) -> Splits:
    """Load the images of a run, and check that they are those that it was trained on.

    Args:
        run: The run.
        progress: Shows the progress of loading.

    Raises:
        InputError: The images are missing, or they have changed since the training.
    """
    run.check_data()
    splits, _ = run.experiment.load_splits(progress)
    run.check_images(splits)
    return splits
