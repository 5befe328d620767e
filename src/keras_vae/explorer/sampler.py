"""Samples from a run's priors, and the training images nearest to them."""

import functools

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import unknown
from keras_vae.core.typing import Array
from keras_vae.evaluation.neighbors import NeighborIndex, Neighbors
from keras_vae.explorer.engine import Engine
from keras_vae.runs.run import Run

PAGE_SIZE = 24
"""Number of images on a page of samples, or on a page of images to choose from."""

_MAX_SEARCHED_VALUES = 60_000 * 28 * 28


class Sampler:
    """Draws images from the priors of a run.

    Args:
        run: The run.
        engine: Its model.
        num_labels: The number of labels of a conditional model; 0 without a condition.
    """

    def __init__(self, run: Run, engine: Engine, num_labels: int) -> None:
        self._run, self._engine, self._num_labels = run, engine, num_labels

    @property
    def priors(self) -> tuple[str, ...]:
        """The priors to draw from; the first one is the default."""
        return ("fitted", "original") if self._run.has_fitted_prior else ("original",)

    def sample(self, count: int, seed: int, *, prior: str | None = None, label: int | None = None) -> Array:
        """Return mean images of codes drawn from a prior, (count, H, W, C).

        Args:
            count: The number of images.
            seed: Fixes the draw.
            prior: `"original"` or `"fitted"`; None uses the fitted one, if any.
            label: The label to condition on; None cycles through all labels.

        Raises:
            InputError: There is no such prior.
        """
        if prior not in (None, *self.priors):
            raise unknown("prior", prior, self.priors)
        engine = self._engine
        if prior == "original" and self._run.has_fitted_prior:
            engine = self._original_engine
        labels = np.arange(count) % self._num_labels if self._num_labels and label is None else label
        return engine.sample(count, seed, labels)

    @functools.cached_property
    def _original_engine(self) -> Engine:
        return Engine(self._run.load_model("original"), self._engine.batch_sizes)


class TrainingImages:
    """Training images to search for nearest neighbors, prepared so that a search takes milliseconds.

    Args:
        images: Training images (N, H, W, C), uint8. If there are very many, an evenly spaced subset is searched.
    """

    def __init__(self, images: NDArray[np.uint8]) -> None:
        count = min(len(images), max(1, _MAX_SEARCHED_VALUES // images[0].size))
        self._images = images
        self._searched = np.linspace(0, len(images) - 1, count).round().astype("int64")
        self._index = NeighborIndex(images[self._searched])
        self.num_images, self.num_searched = len(images), count

    def nearest(self, images: Array) -> tuple[Array, Neighbors]:
        """Return the nearest training image of each image, with its index and its Euclidean distance.

        Args:
            images: (N, H, W, C), in [0, 1].
        """
        found = self._index.query(np.asarray(images, "float32"))
        indices = self._searched[found.indices]
        return self._images[indices], Neighbors(indices, found.distances)
