"""Loading of image files from a folder."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import reading
from keras_vae.core.progress import Progress, silent
from keras_vae.data.convert import CHANNELS, MODES, Conversion, color_note, resize_note
from keras_vae.data.dataset import Dataset, LoadedData
from keras_vae.data.layout import list_images

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_COLORS = {mode: color for color, mode in MODES.items()}
# Large enough to keep all cores busy, and small enough to keep few decoded images in memory.
_THREADED_BATCH = 64
# Pillow decodes in parallel, but below this size threads cost more than they save.
_MIN_THREADED_PIXELS = 128 * 128


def load_folder(
    folder: Path, conversion: Conversion, *, background: str | None = None, progress: Progress = silent
) -> LoadedData:
    """Load the images of a folder, in the order of their paths.

    Sub-folders of the first level become the classes, sorted by name; images directly in the folder have no labels.
    Folders named train, validation and test are splits, whose sub-folders become the classes; see `layout.list_images`.
    Links are followed. EXIF orientation is applied. Gray files stay gray; all others become RGB.

    Args:
        folder: Searched recursively for files with the suffixes of PNG, JPEG, WebP, BMP and GIF.
        conversion: Target size and color; without them, all images must agree.
        background: Color behind transparent pixels, as a color name of Pillow or as `#rrggbb`.
        progress: Reports the progress of reading.

    Returns:
        The images, with the splits of the folder, if any, and notes on files that were ignored, resized or converted.

    Raises:
        InputError: There are no images, they differ in size or color, or a file is damaged, is animated, has
            transparent pixels but no background is given, or has 16 bits per channel, which the caller must rescale.
    """
    fill = None if background is None else parse_background(background)
    listing = list_images(folder)
    files = [file for part in listing.parts for file in part.files]
    images, changes = read_images(folder, files, conversion, fill, progress)
    name = folder.resolve().name or "images"
    labels = [label for part in listing.parts for label in part.labels or ()] or None
    with reading(folder):
        whole = Dataset.from_arrays(images, labels, name=name, classes=listing.classes)
    datasets, start = {}, 0
    for part in listing.parts:
        chosen = slice(start, start + len(part.files))
        start = chosen.stop
        numbers = None if whole.labels is None else whole.labels[chosen]
        datasets[part.split] = replace(whole, images=whole.images[chosen], labels=numbers, split=part.split)
    train = datasets["train"] if "train" in datasets else datasets["all"]
    return LoadedData(train, datasets.get("test"), (*listing.notes, *changes), datasets.get("validation"))


class DecodedImage(NamedTuple):
    """The converted image of one file.

    Args:
        pixels: (H, W, C).
        size: Height and width before conversion.
        color: `"gray"` or `"rgb"`, before conversion.
        background: Whether transparent pixels were filled with the background.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    color: str
    background: bool


def read_images(
    folder: Path,
    files: Sequence[Path],
    conversion: Conversion,
    background: tuple[int, ...] | None,
    progress: Progress,
) -> tuple[NDArray[np.uint8], list[str]]:
    """Read image files.

    Args:
        folder: The folder of the files, for messages.
        files: At least one file.
        conversion: Target size and color; without them, all images must agree.
        background: Color behind transparent pixels, as returned by `parse_background`.
        progress: Reports the progress of reading.

    Returns:
        N x H x W x C, and a note on each kind of change.

    Raises:
        InputError: See `load_folder`.
    """

    def decode(file: Path) -> DecodedImage:
        with reading(file):
            return decode_image(file, conversion, background)

    first = decode(files[0])
    with reading(folder):
        images = np.empty((len(files), *first.pixels.shape), np.uint8)
    resized = recolored = 0
    decoded = _threaded(decode, files) if math.prod(first.size) >= _MIN_THREADED_PIXELS else map(decode, files)
    for index, (file, image) in enumerate(zip(progress(files, "reading images"), decoded, strict=True)):
        if conversion.image_size is None and image.size != first.size:
            sizes = " and ".join(f"{path} {h}x{w}" for path, (h, w) in ((files[0], first.size), (file, image.size)))
            raise InputError(f"{folder}: images of different sizes (H x W), {sizes}; resize them with --image-size HxW")
        if conversion.color is None and image.color != first.color:
            colors = " and ".join(
                f"{path} is {color}" for path, color in ((files[0], first.color), (file, image.color))
            )
            raise InputError(
                f"{folder}: both gray and color images, {colors}; convert them with --color gray or --color rgb"
            )
        images[index] = image.pixels
        resized += image.size != image.pixels.shape[:2]
        recolored += CHANNELS[image.color] != image.pixels.shape[2]
    height, width, channels = first.pixels.shape
    notes = [resize_note((height, width), resized, len(files))] if resized else []
    return images, notes + ([color_note(channels, recolored, len(files))] if recolored else [])


def _threaded(decode: Callable[[Path], DecodedImage], files: Sequence[Path]) -> Iterator[DecodedImage]:
    """Yield the image of each file, decoded on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), _THREADED_BATCH):
            yield from pool.map(decode, files[start : start + _THREADED_BATCH])


def decode_image(file: Path | BinaryIO, conversion: Conversion, background: tuple[int, ...] | None) -> DecodedImage:
    """Decode an image file.

    Args:
        file: A path or an open file.
        conversion: Target size and color.
        background: Color behind transparent pixels, as returned by `parse_background`.

    Raises:
        InputError: The image is animated, has transparent pixels but no background is given, or has more than 8 bits
            per channel.
        OSError: The file is damaged or not an image.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        opened = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise OSError(f"not a complete {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    with opened:
        # Cameras add a second picture, such as a preview, to a JPEG file, which Pillow reports as MPO with two frames.
        if opened.format != "MPO" and getattr(opened, "is_animated", False):
            raise InputError("an animated image; pass still images")
        if _has_more_than_8_bits(opened):
            raise InputError("more than 8 bits per channel; convert it to 8 bits")
        opened.load()
        upright = ImageOps.exif_transpose(opened)
        image = _flatten(upright, background)
        size = image.height, image.width
        return DecodedImage(conversion.pixels(image), size, _COLORS[image.mode], _has_transparent_pixels(upright))


def _has_more_than_8_bits(image: "ImageFile") -> bool:
    # Pillow silently converts 16-bit RGB files to 8 bits; only the raw mode shows it.
    raw_modes = [str(tile[3]) for tile in image.tile] if image.format == "PNG" else []
    return image.mode.startswith(("I", "F")) or any("16B" in mode for mode in raw_modes)


def _has_transparent_pixels(image: "Image") -> bool:
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _flatten(image: "Image", background: tuple[int, ...] | None) -> "Image":
    """Convert an image to mode L or RGB, with the background behind transparent pixels."""
    from PIL import Image

    gray = _is_gray(image)
    if _has_transparent_pixels(image):
        if background is None:
            raise InputError("transparent pixels; choose a color for them, such as --background white")
        canvas = Image.new("RGBA", image.size, background)
        canvas.alpha_composite(image.convert("RGBA"))
        image, gray = canvas, gray and len(set(background)) == 1
    image = image.convert("RGB") if image.mode not in ("1", "L") else image
    return image.convert("L" if gray else "RGB")


def _is_gray(image: "Image") -> bool:
    if image.mode in ("P", "PA"):
        palette = np.asarray(image.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La")


def parse_background(background: str) -> tuple[int, ...]:
    """Return the red, green and blue levels of an opaque color.

    Args:
        background: A color name of Pillow, or `#rrggbb`.

    Raises:
        InputError: The color is unknown or not opaque.
    """
    from PIL import ImageColor

    try:
        color = ImageColor.getrgb(background)
    except ValueError:
        color = (0, 0, 0, 0)
    if len(color) == 4 and color[3] != 255:
        raise InputError(f"background = {background!r}: not an opaque color; pass one such as white, black or #808080")
    return color[:3]
