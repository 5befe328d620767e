"""Batches of training images in a reproducible order, and the batch size of validation."""

import contextlib
import os
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np

from keras_vae.core import backend
from keras_vae.core.errors import InputError, require_packages
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Splits
from keras_vae.data.lazy import is_lazy
from keras_vae.models.base import BaseVAE


class ShuffledBatches(keras.utils.PyDataset):
    """Batches of the training images, in an order that depends only on the seed and the epoch.

    Args:
        images: Inputs of the model: (N, H, W, C), uint8, or a dict of arrays of equal length.
        batch_size: Images per batch; the last batch may be smaller.
        seed: Seed of the orders; None keeps the order of the images.
    """

    def __init__(self, images: Array | dict[str, Array], batch_size: int, seed: int | None) -> None:
        super().__init__()
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.count = len(keras.tree.flatten(images)[0])
        self.follow: Callable[[Array], object] | None = None
        self.shuffle(0)

    def shuffle(self, epoch: int) -> None:
        """Set the order of an epoch, counted from 0."""
        ordered = np.arange(self.count)
        self.order = ordered if self.seed is None else np.random.default_rng([self.seed, epoch]).permutation(ordered)
        if self.follow is not None:
            self.follow(self.order)

    def __len__(self) -> int:
        """Return the number of batches."""
        return -(-self.count // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Any]:
        """Return the batch at `index`."""
        rows = backend.own_rows(self.order[index * self.batch_size : (index + 1) * self.batch_size])
        return (keras.tree.map_structure(lambda array: array[rows], self.images),)


class StreamedBatches(ShuffledBatches):
    """Batches of images that are read on demand, in threads of grain, while the model trains on earlier batches.

    Args:
        images: As for `ShuffledBatches`, with `LazyImages`.
        batch_size: As for `ShuffledBatches`.
        seed: As for `ShuffledBatches`.
        workers: Number of threads; 0 is the number of cores.
    """

    def __init__(self, images: Any, batch_size: int, seed: int | None, workers: int = 0) -> None:
        self._threads = workers or os.cpu_count() or 1
        self._error: InputError | None = None
        super().__init__(images, batch_size, seed)

    def shuffle(self, epoch: int) -> None:
        """Set the order of an epoch, counted from 0."""
        super().shuffle(epoch)
        self._next, self._ahead = 0, iter(())

    def __getitem__(self, index: int) -> tuple[Any]:
        """Return the batch at `index`; successive batches have been read ahead."""
        if index == 0 or index != self._next:
            self._ahead = self._read_ahead(index)
        self._next = index + 1
        return next(self._ahead)

    def _read_ahead(self, start: int) -> Iterator[Any]:
        """Return an iterator over the batches from `start` to the end of the epoch."""
        import grain

        order, size = self.order, self.batch_size

        def read(index: int) -> tuple[Any]:
            rows = backend.own_rows(order[index * size : (index + 1) * size])
            try:
                return (keras.tree.map_structure(lambda x: x.take(rows) if is_lazy(x) else x[rows], self.images),)
            except InputError as error:
                # Grain adds lines to the message of the error that it passes on.
                self._error = InputError(str(error))
                raise

        options = grain.ReadOptions(num_threads=self._threads, prefetch_buffer_size=2 * self._threads)
        return iter(grain.MapDataset.range(start, len(self)).map(read).to_iter_dataset(options))

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Raise the error of reading a batch in place of the one that grain or the backend makes of it."""
        try:
            yield
        except Exception:
            if self._error is not None:
                raise self._error from None
            raise


def make_batches(images: Any, batch_size: int, seed: int | None = None, workers: int = 0) -> ShuffledBatches:
    """Return batches of images in memory or of images that are read on demand; arguments as for `StreamedBatches`."""
    if any(map(is_lazy, keras.tree.flatten(images))):
        return StreamedBatches(images, batch_size, seed, workers)
    return ShuffledBatches(images, batch_size, seed)


def require_grain(splits: Splits) -> None:
    """Reject training on streamed images without grain.

    Raises:
        InputError: The images are streamed, and grain is not installed.
    """
    if splits.train.is_streamed:
        require_packages("load = 'stream'", ["grain"], "stream")


class ShuffleEachEpoch(keras.callbacks.Callback):
    """Shuffles batches at the start of every epoch.

    Args:
        batches: The batches.
    """

    def __init__(self, batches: ShuffledBatches) -> None:
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Shuffle the batches."""
        self.batches.shuffle(epoch)


def validation_batch_size(model: BaseVAE, num_images: int) -> int:
    """Return the largest validation batch size that fits into memory and does not leave a last batch of one image.

    On several devices, it is a multiple of their number.

    Args:
        model: The model.
        num_images: Number of validation images, a multiple of the number of devices.
    """
    fitting = min(model.fitting_batch_size(model.objective.num_samples), num_images)
    # Objectives that compare the images of a batch need at least two.
    sizes = (*range(fitting, 1, -1), *range(fitting + 1, num_images))
    replicas = backend.num_replicas()
    return next((size for size in sizes if num_images % size != 1 and size % replicas == 0), num_images)
