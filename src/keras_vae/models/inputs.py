"""Inputs of a model: data sets in the form in which `fit`, `evaluate` and the inference methods take them."""

from typing import TYPE_CHECKING

from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE


def dataset_condition(model: "BaseVAE", dataset: Dataset) -> Array | None:
    """Return the labels of a data set for a conditional model, else None."""
    return None if model.condition is None else dataset.labels


def dataset_inputs(model: "BaseVAE", dataset: Dataset) -> Array | dict[str, Array]:
    """Return the images of a data set, with their labels under `condition` for a conditional model."""
    labels = dataset_condition(model, dataset)
    return dataset.images if labels is None else {"images": dataset.images, "condition": labels.astype("int32")}
