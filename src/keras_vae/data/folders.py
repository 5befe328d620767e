"""Image files in a folder."""

import math
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import reading
from keras_vae.core.progress import Progress, silent
from keras_vae.data.convert import CHANNELS, MODES, Conversion, color_note, resize_note
from keras_vae.data.dataset import Dataset, LoadedData

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
_COLORS = {mode: color for color, mode in MODES.items()}
# Enough to keep every core busy, few enough that decoded images waiting their turn stay small.
_BATCH = 64
# Pillow's decoders run beside each other, but for smaller images the threads cost more than they save.
_THREADED_PIXELS = 128 * 128


def load_folder(
    folder: Path, conversion: Conversion, *, background: str | None = None, progress: Progress = silent
) -> LoadedData:
    """Return the images of a folder, in the order of their paths.

    Sub-folders of the first level become the classes, by sorted name; images directly in the folder have no labels.
    Links are followed. EXIF orientation is applied. Files that are gray stay gray, all others become RGB.

    Args:
        folder: Searched with all its sub-folders for PNG, JPEG, WebP, BMP and GIF files, which are known by suffix.
        conversion: The size and color to bring the images to; where it says neither, all must agree.
        background: Any color Pillow names, to put behind transparent pixels.
        progress: Shown while files are read.

    Returns:
        The images, without a test part; notes on what was ignored, resized or recolored.

    Raises:
        InputError: When there are no images, when they differ, and when a file is damaged, animated, transparent
            without a background, or has 16 bits a channel (scaling those is the caller's choice).
    """
    paint = None if background is None else opaque(background)
    found = find_images(folder)
    images, changes = read_images(folder, found.files, conversion, paint, progress)
    with reading(folder):
        name = folder.resolve().name or "images"
        dataset = Dataset.from_arrays(images, found.labels, name=name, classes=found.classes)
    return LoadedData(dataset, None, (*found.notes, *changes))


class Found(NamedTuple):
    """The image files of a folder in the order of their paths, their labels by sub-folder, and what was ignored."""

    files: list[Path]
    labels: list[int] | None
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def find_images(folder: Path) -> Found:
    """Return the image files of a folder, none of them opened.

    Args:
        folder: As for `load_folder`.

    Raises:
        InputError: There are none, or some lie directly in the folder and others in sub-folders.
    """
    with reading(folder):
        files, ignored = _scan(folder, frozenset())
    if not files:
        held = f"; it holds {_some(ignored)}" if ignored else ""
        raise InputError(f"{folder} holds no images{held}; accepted: {', '.join(SUFFIXES)} files")
    labels, classes = _classes(folder, files)
    notes = (f"ignored, as not images: {len(ignored)} ({_some(ignored)})",) if ignored else ()
    return Found(files, labels, classes, notes)


class Decoded(NamedTuple):
    """One file's image.

    Args:
        pixels: (H, W, C).
        size: What height and width were before conversion.
        color: `"gray"` or `"rgb"`, likewise.
        background: Whether transparent pixels had one put behind them.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    color: str
    background: bool


def _scan(folder: Path, above: frozenset[str]) -> tuple[list[Path], list[Path]]:
    """Return the image files below a folder and the entries that are none, each sorted by path."""
    real = os.path.realpath(folder)
    if real in above:
        return [], [folder]
    files: list[Path] = []
    ignored: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            ignored.append(entry)
        elif entry.is_dir():
            inner_files, inner_ignored = _scan(entry, above | {real})
            files += inner_files
            ignored += inner_ignored if inner_files or inner_ignored else [entry]
        else:
            is_image = entry.suffix.lower() in SUFFIXES and entry.is_file()
            (files if is_image else ignored).append(entry)
    return files, ignored


def _classes(folder: Path, files: Sequence[Path]) -> tuple[list[int] | None, tuple[str, ...]]:
    """Return the label of each file and the names of the classes."""
    parts = [file.relative_to(folder).parts for file in files]
    direct = [names for names in parts if len(names) == 1]
    nested = [names for names in parts if len(names) > 1]
    if not nested:
        return None, ()
    if direct:
        raise InputError(
            f"{folder} has images both directly ({direct[0][0]}) and in sub-folders ({'/'.join(nested[0])});"
            " accepted: all directly, or all in one sub-folder a class"
        )
    classes = sorted({names[0] for names in parts})
    numbers = {name: number for number, name in enumerate(classes)}
    return [numbers[names[0]] for names in parts], tuple(classes)


def read_images(
    folder: Path,
    files: Sequence[Path],
    conversion: Conversion,
    background: tuple[int, ...] | None,
    progress: Progress,
) -> tuple[NDArray[np.uint8], list[str]]:
    """Return the pixels of image files.

    Args:
        folder: Where they lie, for messages.
        files: At least one.
        conversion: The size and color to bring them to; where it says neither, all must agree.
        background: The color behind transparent pixels, as `opaque` returns it.
        progress: Shown while files are read.

    Returns:
        N x H x W x C, and a note on each kind of change.

    Raises:
        InputError: As for `load_folder`.
    """

    def decode(file: Path) -> Decoded:
        with reading(file):
            return decode_image(file, conversion, background)

    first = decode(files[0])
    with reading(folder):
        images = np.empty((len(files), *first.pixels.shape), np.uint8)
    resized = recolored = 0
    decoded = _threaded(decode, files) if math.prod(first.size) >= _THREADED_PIXELS else map(decode, files)
    for index, (file, image) in enumerate(zip(progress(files, "reading images"), decoded, strict=True)):
        if conversion.image_size is None and image.size != first.size:
            sizes = " and ".join(f"{path} {h}x{w}" for path, (h, w) in ((files[0], first.size), (file, image.size)))
            raise InputError(f"images of different sizes (H x W): {sizes}; give --image-size HxW to resize them")
        if conversion.color is None and image.color != first.color:
            colors = " and ".join(
                f"{path} is {color}" for path, color in ((files[0], first.color), (file, image.color))
            )
            raise InputError(f"gray and color images are mixed: {colors}; give --color gray or --color rgb")
        images[index] = image.pixels
        resized += image.size != image.pixels.shape[:2]
        recolored += CHANNELS[image.color] != image.pixels.shape[2]
    height, width, channels = first.pixels.shape
    notes = [resize_note((height, width), resized, len(files))] if resized else []
    return images, notes + ([color_note(channels, recolored, len(files))] if recolored else [])


def _threaded(decode: Callable[[Path], Decoded], files: Sequence[Path]) -> Iterator[Decoded]:
    """Yield each file's image, decoded on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(files), _BATCH):
            yield from pool.map(decode, files[start : start + _BATCH])


def decode_image(file: Path | BinaryIO, conversion: Conversion, background: tuple[int, ...] | None) -> Decoded:
    """Return an image file's pixels.

    Args:
        file: Its path, or an open file.
        conversion: The size and color to bring it to.
        background: The color behind transparent pixels, as `opaque` returns it.

    Raises:
        InputError: It moves, is transparent without a background, or has more than 8 bits a channel.
        OSError: It is no image, or damaged.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        opened = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise OSError(f"it is no whole {', '.join(FORMATS[:-1])} or {FORMATS[-1]} image") from None
    with opened:
        # Cameras put a second picture, such as a preview, into a JPEG: Pillow calls that MPO and counts two frames.
        if opened.format != "MPO" and getattr(opened, "is_animated", False):
            raise InputError("an animated image; accepted: still images")
        if _is_deep(opened):
            raise InputError("more than 8 bits a channel; accepted: 8 bits, so convert it first")
        opened.load()
        upright = ImageOps.exif_transpose(opened)
        image = _flat(upright, background)
        size = image.height, image.width
        return Decoded(conversion.pixels(image), size, _COLORS[image.mode], _lets_light_through(upright))


def _is_deep(image: "ImageFile") -> bool:
    # Pillow opens 16-bit RGB files as 8-bit ones and drops half the bits: only the raw mode tells.
    raw_modes = [str(tile[3]) for tile in image.tile] if image.format == "PNG" else []
    return image.mode.startswith(("I", "F")) or any("16B" in mode for mode in raw_modes)


def _lets_light_through(image: "Image") -> bool:
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _flat(image: "Image", background: tuple[int, ...] | None) -> "Image":
    """Return an image of mode L or RGB, with the background behind transparent pixels."""
    from PIL import Image

    gray = _is_gray(image)
    if _lets_light_through(image):
        if background is None:
            raise InputError("transparent pixels; give --background white, black or another color")
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


def opaque(background: str) -> tuple[int, ...]:
    """Return the red, green and blue of a color that Pillow names.

    Raises:
        InputError: It names none, or one that lets light through.
    """
    from PIL import ImageColor

    accepted = "accepted: an opaque color such as white, black or #808080"
    try:
        color = ImageColor.getrgb(background)
    except ValueError:
        raise InputError(f"background: '{background}'; {accepted}") from None
    if len(color) == 4 and color[3] != 255:
        raise InputError(f"background: '{background}'; {accepted}")
    return color[:3]


def _some(paths: Sequence[Path]) -> str:
    """Return the names of the first few paths."""
    return ", ".join(path.name for path in paths[:3]) + (", …" if len(paths) > 3 else "")
