"""The images of a run that are available on this machine, for figures and the explorer."""

from pathlib import Path
from typing import NamedTuple

from keras_vae.core.archives import read_npz
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.files import reading
from keras_vae.core.progress import Progress
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.data.sources import SOURCES
from keras_vae.runs.run import Run

IMAGES_FILE = "images.npz"
"""A few test images and their labels, in a run folder that comes without its data."""


class ImageSources(NamedTuple):
    """The images of a run that are available on this machine.

    Args:
        examples: Images to show on the map and to choose from: held-out images if any, else training images. None if
            no images are available.
        splits: All images of the run; None if its data is not available.
        note: Why images are missing; empty if none are.
    """

    examples: Dataset | None = None
    splits: Splits | None = None
    note: str = ""

    @property
    def reference(self) -> Dataset | None:
        """The images whose scores define percentiles: training images if available, else the examples."""
        return self.examples if self.splits is None else self.splits.train


def load_sources(run: Run, progress: Progress | None = None) -> ImageSources:
    """Load the images of a run, or those in its folder if its data is not on this machine.

    Data is downloaded if necessary, unless the run folder contains images.

    Args:
        run: The run.
        progress: Shows the progress of loading.

    Raises:
        InputError: The file of images in the run's folder is damaged.
    """
    file = run.path / IMAGES_FILE
    reason = "the run's data would have to be downloaded"
    if not (file.is_file() and _is_remote(run.experiment.data.source)):
        try:
            splits = run.load_splits(progress)
            return ImageSources((splits.held_out or splits.train).sample(), splits)
        except (InputError, RunError, OSError) as error:
            reason = str(error)
    if file.is_file():
        return ImageSources(_read(file, run), note=f"training images are not available: {reason}")
    return ImageSources(note=f"images are not available: {reason}")


def _is_remote(source: str) -> bool:
    return source in SOURCES and SOURCES[source].locate().startswith("download")


def _read(file: Path, run: Run) -> Dataset:
    data = run.environment["data"]
    arrays = read_npz(file)
    with reading(file):
        return Dataset.from_arrays(
            arrays["images"], arrays.get("labels"), name=data["name"], split="test", classes=data.get("class_names", ())
        )
