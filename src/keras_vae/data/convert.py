"""Conversion of images to another size or color, for all sources."""

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, unknown
from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Dataset

if TYPE_CHECKING:
    from PIL.Image import Image

Color = Literal["gray", "rgb"]

CHANNELS = {"gray": 1, "rgb": 3}
MODES = {"gray": "L", "rgb": "RGB"}


@dataclass(frozen=True)
class Conversion:
    """Target size and color of images; `None` keeps the original.

    Args:
        image_size: Height and width in pixels. Images are scaled to cover it, keeping their aspect ratio, with
            antialiased Lanczos resampling, and then cropped centrally.
        color: `"gray"` converts RGB to luma, 0.299 R + 0.587 G + 0.114 B; `"rgb"` repeats gray.

    Raises:
        InputError: The size is not two positive integers, or the color is unknown.
    """

    image_size: tuple[int, int] | None = None
    color: Color | None = None

    def __post_init__(self) -> None:
        """Check the fields."""
        size = self.image_size
        sides = size if isinstance(size, tuple | list) else ()
        if size is not None and not (len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)):
            raise InputError(f"image_size = {size!r}: not a size; pass two positive integers, height and width")
        if self.color is not None and self.color not in CHANNELS:
            raise unknown("color", self.color, CHANNELS)

    def pixels(self, image: "Image") -> NDArray[np.uint8]:
        """Convert one image.

        Args:
            image: A Pillow image of mode `L` or `RGB`.

        Returns:
            Levels 0..255, H x W x C.
        """
        from PIL import Image, ImageOps

        height, width = self.image_size or (image.height, image.width)
        mode = MODES[self.color] if self.color else image.mode
        # Convert to gray first, because that is cheaper. Resampling is linear: both orders agree up to rounding.
        if mode == "L":
            image = image.convert(mode)
        if image.size != (width, height):
            image = ImageOps.fit(image, (width, height), Image.Resampling.LANCZOS)
        return np.asarray(image.convert(mode), dtype=np.uint8).reshape(height, width, -1)


def convert(dataset: Dataset, conversion: Conversion, progress: Progress = silent) -> tuple[Dataset, tuple[str, ...]]:
    """Convert a data set to another size and color.

    Args:
        dataset: The images.
        conversion: Target size and color.
        progress: Reports the progress.

    Returns:
        The converted data set, or the same one if nothing changes, and one note per change.
    """
    from PIL import Image

    height, width, channels = dataset.image_shape
    size = conversion.image_size or (height, width)
    target = (*size, CHANNELS[conversion.color] if conversion.color else channels)
    if target == dataset.image_shape:
        return dataset, ()
    images = np.empty((len(dataset), *target), np.uint8)
    for index, pixels in enumerate(progress(dataset.images, f"converting {dataset.name}")):
        images[index] = conversion.pixels(Image.fromarray(pixels[..., 0] if channels == 1 else pixels))
    notes = []
    if size != (height, width):
        notes.append(resize_note(size, len(dataset), len(dataset)))
    if target[2] != channels:
        notes.append(color_note(target[2], len(dataset), len(dataset)))
    return replace(dataset, images=images), tuple(notes)


def resize_note(size: tuple[int, int], count: int, total: int) -> str:
    """Return a note on the number of images that were resized.

    Args:
        size: New height and width.
        count: Number of resized images.
        total: Number of images.
    """
    return f"resized to {size[0]}x{size[1]} (H x W): {count} of {total} images"


def color_note(channels: int, count: int, total: int) -> str:
    """Return a note on the number of images whose color was converted.

    Args:
        channels: New number of channels, 1 or 3.
        count: Number of converted images.
        total: Number of images.
    """
    return f"{'RGB converted to gray (luma)' if channels == 1 else 'gray repeated to RGB'}: {count} of {total} images"
