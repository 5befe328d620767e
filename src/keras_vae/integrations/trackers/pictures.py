"""Pictures that show the progress of a training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from keras_vae.core.typing import Array
from keras_vae.data.dataset import Splits
from keras_vae.models.inputs import dataset_condition
from keras_vae.report.context import PlotContext
from keras_vae.report.figures import image_sheet
from keras_vae.training.validation import with_averaged_weights

if TYPE_CHECKING:
    from PIL.Image import Image

    from keras_vae.models.base import BaseVAE

Pictures = Mapping[str, "Image"]
"""Pictures by name."""

SEED = 0
"""Seed of the samples, which are the same draws in every epoch."""

SAMPLES = 64
"""Largest number of samples."""

COLUMNS = 10
"""Number of reconstructions per row, in two rows."""


def draw(model: "BaseVAE", splits: Splits) -> Pictures:
    """Draw samples of fixed noise, and reconstructions below fixed held-out images; the model is unchanged.

    The weights are those that validation measures: averaged if `training.ema_window` is set.

    Args:
        model: The model in training.
        splits: Its images; training images are reconstructed if none were held out.

    Returns:
        The pictures `samples` and `reconstructions`.
    """
    context = PlotContext(None, model, splits)
    classes = getattr(model.condition, "classes", None)
    # If there are few classes, every column contains images of one class.
    columns = classes * max(1, 8 // classes) if classes and classes <= 16 else 8
    count = columns * (SAMPLES // columns)
    dataset = context.images(2 * COLUMNS)
    with with_averaged_weights(model):
        samples = model.sample(count, seed=SEED, condition=context.labels_in_turn(count, None))
        reconstructed = model.reconstruct(dataset.images, condition=dataset_condition(model, dataset))
    pairs = _in_rows(dataset.images.astype("float32") / 255, reconstructed, min(COLUMNS, len(dataset)))
    return {
        "samples": image_sheet(samples, columns=columns),
        "reconstructions": image_sheet(pairs, columns=min(COLUMNS, len(dataset))),
    }


def _in_rows(above: Array, below: Array, columns: int) -> Array:
    """Return rows of one array of images, each followed by the row of the other; the last may be shorter."""
    rows = [slice(start, start + columns) for start in range(0, len(above), columns)]
    parts = [part[row] for row in rows for part in (above, below)]
    # Fill all rows but the last.
    filled = [np.pad(part, [(0, columns - len(part)), *[(0, 0)] * 3], constant_values=1.0) for part in parts]
    return np.concatenate(filled)
