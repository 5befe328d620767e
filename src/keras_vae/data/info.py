"""Properties of a data set that determine the shape of a model."""

from typing import TYPE_CHECKING, NamedTuple, Self

from keras_vae.core.typing import ImageShape

if TYPE_CHECKING:
    from keras_vae.data.dataset import Splits


class DatasetInfo(NamedTuple):
    """Properties of a data set that determine the shape of a model.

    Args:
        image_shape: (H, W, C).
        images: Number of training images.
        classes: Number of labels; 0 if the images have none.
    """

    image_shape: ImageShape
    images: int
    classes: int = 0

    @classmethod
    def from_splits(cls, splits: "Splits") -> Self:
        """Return the properties of loaded images."""
        train = splits.train
        labels = [part.labels.max() for part in splits if part is not None and part.labels is not None]
        return cls(train.image_shape, len(train), len(train.classes) or int(max(labels, default=-1)) + 1)
