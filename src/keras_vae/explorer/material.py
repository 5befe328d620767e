"""The images that there are to explore a run with."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.files import reading
from keras_vae.core.progress import Progress
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.data.sources import SOURCES
from keras_vae.runs.run import Run

IMAGES = "images.npz"
"""A few test images and their labels, in a run that travels without its data."""


class Material(NamedTuple):
    """What is at hand besides the model.

    Args:
        shown: Images to be put on the map and picked from, held-out ones where there are any; None without images.
        splits: All the images of the run; None where its data is not at hand.
        note: Why something is missing; empty where nothing is.
    """

    shown: Dataset | None = None
    splits: Splits | None = None
    note: str = ""

    @property
    def known(self) -> Dataset | None:
        """The images that strange ones are compared with: training images, else those shown."""
        return self.shown if self.splits is None else self.splits.train


def gather(run: Run, progress: Progress | None = None) -> Material:
    """Return the images of a run, or those in its folder where its data is not on this machine.

    Data that would have to be downloaded is, unless the run has images of its own in its folder.

    Args:
        run: The run.
        progress: Shown while images are loaded.

    Raises:
        InputError: The images in the run's folder are damaged.
    """
    own = run.path / IMAGES
    reason = "its data would have to be downloaded"
    if not (own.is_file() and _is_remote(run.experiment.data.source)):
        try:
            splits, _ = run.experiment.load_splits(progress)
            run.check_images(splits)
            return Material(splits.held_out or splits.train, splits)
        except (InputError, RunError, OSError) as error:
            reason = str(error)
    if own.is_file():
        return Material(_read(own, run), note=f"no training images at hand: {reason}")
    return Material(note=f"no images at hand: {reason}")


def _is_remote(source: str) -> bool:
    return source in SOURCES and SOURCES[source].locate().startswith("download")


def _read(file: Path, run: Run) -> Dataset:
    data = run.environment["data"]
    # np.load leaves a damaged file open if it opens the file itself.
    with reading(file), file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
        labels = archive["labels"] if "labels" in archive.files else None
        return Dataset.from_arrays(
            archive["images"], labels, name=data["name"], split="test", classes=data.get("class_names", ())
        )
