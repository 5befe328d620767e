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
        classes: Number of classes; 0 if the images have no labels.
        class_names: Names of the classes, or nothing if they are unknown.
    """

    image_shape: ImageShape
    images: int
    classes: int = 0
    class_names: tuple[str, ...] = ()

    @classmethod
    def from_splits(cls, splits: "Splits") -> Self:
        """Return the properties of loaded images."""
        train = splits.train
        names = () if train.labels is None else train.classes
        return cls(train.image_shape, len(train), len(names), names)
