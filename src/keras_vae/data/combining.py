"""Data sets that belong together: a check, common classes, and their union."""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vae.core.errors import InputError
from keras_vae.data.labels import united
from keras_vae.data.lazy import is_lazy

if TYPE_CHECKING:
    from keras_vae.data.dataset import Dataset


def check_compatible(train: "Dataset", test: "Dataset") -> None:
    """Reject training and test images that do not fit the same model.

    Args:
        train: Training images.
        test: Test images.

    Raises:
        InputError: Shapes, or the names or sizes of factors differ, or only one of the two has labels.
    """
    if train.image_shape != test.image_shape:
        shapes = " and ".join(" x ".join(map(str, part.image_shape)) for part in (train, test))
        raise InputError(f"train and test images differ in shape: {shapes}; resize them to the same H x W x C")
    if (train.labels is None) != (test.labels is None):
        raise InputError("train and test images differ in labels; pass both with labels, or both without")
    kinds = [part.factors and (part.factors.names, part.factors.sizes) for part in (train, test)]
    if kinds[0] != kinds[1]:
        raise InputError(
            "train and test images differ in factors; pass both with the same names and sizes, or both without"
        )


def with_same_classes(train: "Dataset", *others: "Dataset | None") -> list[Any]:
    """Return data sets whose classes have the same numbers: the classes of the first in order, then new ones.

    Args:
        train: Images with or without labels.
        *others: More images, with labels if `train` has labels, or None.

    Returns:
        The data sets in the order of the arguments; None remains None.
    """
    parts = [train, *others]
    classes = united(*(part.classes for part in parts if part is not None))
    return [None if part is None else part.with_classes(classes) for part in parts]


def join(train: "Dataset", test: "Dataset") -> "Dataset":
    """Return the images of two data sets as one; images of the same streamed source remain on disk."""
    labels = None
    if train.labels is not None and test.labels is not None:
        labels = np.concatenate([train.labels, test.labels])
    factors = None
    if train.factors is not None and test.factors is not None:
        factors = replace(train.factors, values=np.concatenate([train.factors.values, test.factors.values]))
    images: Any = [train.images, test.images]
    if is_lazy(train.images) and is_lazy(test.images) and train.images.source == test.images.source:
        images = replace(train.images, rows=np.concatenate([train.images.rows, test.images.rows]))
    else:
        images = (np.ma if train.has_missing or test.has_missing else np).concatenate(images)
    is_lossy = train.is_lossy or test.is_lossy
    return replace(train, images=images, labels=labels, factors=factors, is_lossy=is_lossy)
