"""Batches of training images in a reproducible order, and the batch size of validation."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_vae.core import backend
from keras_vae.core.typing import Array
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
        rows = self.order[index * self.batch_size : (index + 1) * self.batch_size]
        return (keras.tree.map_structure(lambda array: array[rows], self.images),)


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
