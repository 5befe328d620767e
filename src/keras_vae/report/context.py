"""The run or model that a plot shows, loaded when it is first needed."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation.latents import active_units, dimensions_by_kl, kl_per_dimension
from keras_vae.models.inputs import dataset_condition
from keras_vae.report.latent_range import MIN_IMAGES, LatentRange, class_numbers
from keras_vae.runs.image_sources import ImageSources, load_sources

if TYPE_CHECKING:
    from keras_vae.core.progress import Progress
    from keras_vae.models.base import BaseVAE
    from keras_vae.runs.files import Metrics
    from keras_vae.runs.run import Run

ORDERING_IMAGES = 2000
"""Number of images over which the KL divergence or the variance of each latent dimension is measured."""


class PlotContext:
    """A run or a model to plot; the model and the images are loaded when a plot first needs them.

    Args:
        run: The run, or None for a model without one.
        model: The model, if already loaded.
        splits: The images, if already loaded.
        progress: Shows the loading of images.
    """

    def __init__(
        self,
        run: "Run | None" = None,
        model: "BaseVAE | None" = None,
        splits: Splits | None = None,
        progress: "Progress | None" = None,
    ) -> None:
        self._run, self._model, self._splits, self._progress = run, model, splits, progress
        self._ranges: dict[int | None, LatentRange] = {}

    @classmethod
    def of(
        cls,
        run: "PlotContext | Run | BaseVAE | str | Path",
        splits: Splits | Dataset | Array | None = None,
        progress: "Progress | None" = None,
    ) -> "PlotContext":
        """Return the context of a run, a run's path or name, or a model.

        Args:
            run: The run or model to plot; a context is returned unchanged.
            splits: Images to use instead of the run's own: splits, a data set, or an array.
            progress: Shows the loading of images.

        Raises:
            InputError: `run` is none of these, there is no such run, or the array does not hold images.
        """
        from keras_vae.runs.run import Run

        if isinstance(run, PlotContext):
            return run
        if splits is not None and not isinstance(splits, Splits):
            images = splits if isinstance(splits, Dataset) else Dataset.from_arrays(splits, name="images")
            splits = Splits(images, None, None)
        if isinstance(run, str | Path):
            run = Run.open(run)
        if isinstance(run, Run):
            return cls(run, None, splits, progress)
        from keras_vae.models.base import BaseVAE

        if isinstance(run, BaseVAE):
            return cls(None, run, splits, progress)
        raise InputError(f"run = {run!r}: neither a run nor a model; pass a run, its path or name, or a model")

    @property
    def name(self) -> str:
        """Name of the run or the model."""
        return self.model.name if self._run is None else self._run.name

    @property
    def metrics(self) -> "Metrics":
        """Metrics of each epoch: of the run, or of the model's last call of `fit`."""
        if self._run is not None:
            metrics, remedy = self._run.metrics, f"train it with `vae train --resume {self._run.path}`"
        else:
            # Keras sets `history` when `fit` starts.
            history = getattr(self.model, "history", None)
            metrics, remedy = ({} if history is None else history.history), "call fit first, or pass the model's run"
        if not metrics:
            raise InputError(f"run = {self.name}: no epoch is complete yet; {remedy}")
        return metrics

    @functools.cached_property
    def model(self) -> "BaseVAE":
        """The trained model."""
        if self._model is not None:
            return self._model
        assert self._run is not None
        return self._run.load_model()

    @functools.cached_property
    def splits(self) -> Splits:
        """The images the model was trained on, and held-out images."""
        if self._splits is not None:
            # Labels are matched by name: other images may lack a class, and number the others differently.
            names = getattr(self.model.condition, "names", ())
            if not names:
                return self._splits
            return Splits._make(None if part is None else part.with_classes(names) for part in self._splits)
        if self._run is None:
            raise InputError(f"splits = None: {self.name} has no images of its own; pass splits or an array of images")
        return self._sources.splits or self._run.load_splits(self._progress)

    @functools.cached_property
    def _sources(self) -> ImageSources:
        """The images that are available without a download."""
        if self._splits is not None:
            return ImageSources((self.splits.held_out or self.splits.train).sample(), self.splits)
        return ImageSources() if self._run is None else load_sources(self._run, self._progress)

    def images(self, n: int) -> Dataset:
        """Return at most n held-out images, evenly spaced; training images if none were held out.

        Raises:
            InputError: `n` is less than 1.
        """
        if n < 1:
            raise InputError(f"n = {n}: nothing to show; pass 1 or more")
        return (self.splits.held_out or self.splits.train).subsample_evenly(n)

    @functools.cached_property
    def examples(self) -> Dataset | None:
        """The images whose codes are measured: at most 2,000 that are held out, if any; None if none are available."""
        examples = self._sources.examples
        return None if examples is None else examples.subsample_evenly(ORDERING_IMAGES)

    @functools.cached_property
    def kl_per_dimension(self) -> NDArray[np.float64] | None:
        """KL divergence of each latent dimension, in nats per image; None if only the sum is known."""
        return kl_per_dimension(self.model, self.examples or self.images(ORDERING_IMAGES))

    @functools.cached_property
    def order(self) -> NDArray[np.int64]:
        """Latent dimensions, active ones first, by descending KL divergence or, if unknown, variance of the means.

        Without images, their natural order.
        """
        if self.examples is None:
            return np.arange(self.model.latent_dim)
        return dimensions_by_kl(self.kl_per_dimension, lambda: self._z_mean)

    @property
    def active_units(self) -> list[int]:
        """The active latent dimensions, counted from 0."""
        dimensions: list[int] = active_units(self._z_mean)["dimensions"]
        return dimensions

    @functools.cached_property
    def _z_mean(self) -> Array:
        dataset = self.examples or self.images(ORDERING_IMAGES)
        encoding = self.model.encode(dataset.images, condition=dataset_condition(self.model, dataset))
        return encoding.flattened().z_mean

    @property
    def plane(self) -> tuple[int, int]:
        """The two most informative latent dimensions, in ascending order."""
        if self.model.latent_dim <= 2:
            return 0, 1
        first, second = sorted(self.order[:2].tolist())
        return first, second

    def latent_range(self, label: str | int | None = None) -> LatentRange:
        """Return where the codes of `examples` lie.

        Args:
            label: For a conditional model, the label whose images are measured, if there are enough; None measures
                images of all labels.
        """
        number = None if label is None else int(class_numbers(self.model, label, 1)[0])
        if number not in self._ranges:
            self._ranges[number] = LatentRange.measure(self.model, self._examples_of(number), number)
        return self._ranges[number]

    def _examples_of(self, label: int | None) -> Dataset | None:
        """Return the images of a label whose codes are measured; those of all labels if it has too few."""
        images = self._sources.examples
        if label is None or images is None or images.labels is None:
            return self.examples
        of_label = np.flatnonzero(images.labels == label)
        if len(of_label) < MIN_IMAGES:
            return self.examples
        return images.subset(of_label, images.split).subsample_evenly(ORDERING_IMAGES)

    def label_or_first(self, label: str | int | None) -> str | int | None:
        """Return a label, or the first of a conditional model if it is None."""
        condition = self.model.condition
        return next(iter(condition.class_names), None) if label is None and condition is not None else label

    def labels_in_turn(self, n: int, label: str | int | None) -> Array | str | int | None:
        """Return a label, or class numbers that cycle through the classes of a conditional model if it is None."""
        classes = getattr(self.model.condition, "classes", None)
        return np.arange(n) % classes if classes and label is None else label

    def decode_rows(self, codes: NDArray[np.float32], label: str | int | None) -> Array:
        """Return the mean images of codes `(rows, columns, latent_dim)`."""
        images = self.model.decode(codes.reshape(-1, codes.shape[-1]), condition=label)
        return images.reshape(*codes.shape[:2], *images.shape[1:])
