"""Conversion of images to another size or color, for all sources."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, unknown
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import ImageShape
from keras_vae.data.dataset import Dataset
from keras_vae.data.validation import total_memory

if TYPE_CHECKING:
    from PIL.Image import Image

Color = Literal["gray", "rgb"]
Fit = Literal["crop", "pad", "stretch"]

CHANNELS = {"gray": 1, "rgb": 3}
MODES = {"gray": "L", "rgb": "RGB"}
FITS = ("crop", "pad", "stretch")

MAX_SIDE = 16_384
"""Largest height and width to resize to, in pixels."""


@dataclass(frozen=True)
class Conversion:
    """Target size and color of images; `None` keeps the original.

    Args:
        image_size: Height and width in pixels. Images are resampled with an antialiased Lanczos filter.
        color: `"gray"` converts RGB to luma, 0.299 R + 0.587 G + 0.114 B; `"rgb"` repeats gray.
        fit: `"crop"` scales images to cover `image_size` and crops them centrally, `"pad"` scales them to fit inside
            and fills the margins, and `"stretch"` changes their aspect ratio.
        padding: Red, green and blue levels of the margins.

    Raises:
        InputError: The size is not two positive integers or is too large, or the color or fit is unknown.
    """

    image_size: tuple[int, int] | None = None
    color: Color | None = None
    fit: Fit = "crop"
    padding: tuple[int, ...] = (0, 0, 0)

    def __post_init__(self) -> None:
        """Check the fields."""
        size = self.image_size
        sides: Sequence[int] = size if isinstance(size, tuple | list) else ()
        if size is not None and not (len(sides) == 2 and all(type(side) is int and side > 0 for side in sides)):
            raise InputError(f"image_size = {size!r}: not a size; pass two positive integers, height and width")
        if max(sides, default=0) > MAX_SIDE:
            raise InputError(
                f"image_size = {sides[0]}x{sides[1]}: too large; choose at most {MAX_SIDE} pixels per side"
            )
        if self.color is not None and self.color not in CHANNELS:
            raise unknown("color", self.color, CHANNELS)
        if self.fit not in FITS:
            raise unknown("fit", self.fit, FITS)

    def pixels(self, image: "Image") -> NDArray[np.uint8]:
        """Convert one image.

        Args:
            image: A Pillow image of mode `L` or `RGB`.

        Returns:
            Levels 0..255, H x W x C.
        """
        height, width = self.image_size or (image.height, image.width)
        mode = MODES[self.color] if self.color else image.mode
        # Convert to gray first, because that is cheaper. Resampling is linear: both orders agree up to rounding.
        # Margins need the final color, because they may not be gray.
        if mode == "L" or self.fit == "pad":
            image = image.convert(mode)
        if image.size != (width, height):
            image = self._resized(image, width, height)
        return np.asarray(image.convert(mode), dtype=np.uint8).reshape(height, width, -1)

    def _resized(self, image: "Image", width: int, height: int) -> "Image":
        from PIL import Image, ImageOps

        lanczos = Image.Resampling.LANCZOS
        if self.fit == "crop":
            return ImageOps.fit(image, (width, height), lanczos)
        if self.fit == "stretch":
            return image.resize((width, height), lanczos)
        scale = min(width / image.width, height / image.height)
        inner = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        padded = Image.new("RGB", (width, height), self.padding).convert(image.mode)
        padded.paste(image.resize(inner, lanczos), ((width - inner[0]) // 2, (height - inner[1]) // 2))
        return padded


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
    if dataset.has_missing:
        raise InputError(
            f"missing = 'mask': images with missing pixels cannot be converted from {_size(dataset.image_shape)} to "
            f"{_size(target)}; leave out the size and color"
        )
    check_memory(len(dataset), target, is_resized=size != (height, width))
    images = np.empty((len(dataset), *target), np.uint8)
    for index, pixels in enumerate(progress(dataset.images, f"converting {dataset.name}")):
        images[index] = conversion.pixels(Image.fromarray(pixels[..., 0] if channels == 1 else pixels))
    changed = Changes(
        resized=len(dataset) * (size != (height, width)), recolored=len(dataset) * (target[2] != channels)
    )
    return replace(dataset, images=images), changed.notes(conversion, target, len(dataset))


def _size(shape: ImageShape) -> str:
    return "x".join(map(str, shape))


class Changes(NamedTuple):
    """Numbers of images that are changed when they are loaded.

    Args:
        resized: Images of another size.
        recolored: Images of another color.
        scaled: Images of more than 8 bits per channel.
    """

    resized: int = 0
    recolored: int = 0
    scaled: int = 0

    def notes(
        self, conversion: Conversion, shape: ImageShape, total: int, scale: float | None = None
    ) -> tuple[str, ...]:
        """Return one note per kind of change.

        Args:
            conversion: Target size and color.
            shape: (H, W, C) of the resulting images.
            total: Number of images.
            scale: Value of white in images of more than 8 bits per channel.
        """
        kinds = {
            f"resized to {shape[0]}x{shape[1]} (H x W, fit = {conversion.fit})": self.resized,
            "RGB converted to gray (luma)" if shape[2] == 1 else "gray repeated to RGB": self.recolored,
            f"scaled to 8 bits (white = {scale or 0:g})": self.scaled,
        }
        return tuple(f"{kind}: {count} of {total} images" for kind, count in kinds.items() if count)


def check_memory(count: int, shape: ImageShape, *, is_resized: bool) -> None:
    """Reject images that take more memory than this machine has.

    Args:
        count: Number of images.
        shape: (H, W, C) of each image.
        is_resized: Whether the size was chosen by the caller.

    Raises:
        InputError: The images are too large.
    """
    needed, total = count * math.prod(shape), total_memory()
    if needed > total:
        size = "x".join(map(str, shape))
        start = f"image_size = {shape[0]}x{shape[1]}: " if is_resized else ""
        remedy = "choose a smaller size" if is_resized else "resize them with --image-size HxW"
        raise InputError(
            f"{start}{count:,} images of {size} need {needed / 2**30:,.0f} GiB, and this machine has"
            f" {total / 2**30:,.0f} GiB; {remedy}, or use fewer images"
        )
