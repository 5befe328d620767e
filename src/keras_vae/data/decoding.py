"""Decoding of image files."""

import contextlib
import re
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, alternatives
from keras_vae.data.convert import MODES, Conversion

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

WEB_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")
"""Formats that browsers display."""

FORMATS = (*WEB_FORMATS, "TIFF", "PPM")
_NAMES = (*FORMATS[:-1], "PGM/PPM")
COLORS = {mode: color for color, mode in MODES.items()}

LOSSY_BYTES = 4096
"""Number of bytes that show the compression of a file, unless a WebP file starts with large metadata."""


class DecodedImage(NamedTuple):
    """The converted image of one file.

    Args:
        pixels: (H, W, C).
        size: Height and width before conversion.
        color: `"gray"` or `"rgb"`, before conversion.
        background: Whether transparent pixels were filled with the background.
        is_deep: Whether the file has more than 8 bits per channel.
        is_lossy: Whether the file was compressed with loss.
    """

    pixels: NDArray[np.uint8]
    size: tuple[int, int]
    color: str
    background: bool
    is_deep: bool
    is_lossy: bool


@dataclass(frozen=True)
class Decoder:
    """A function that decodes an image file.

    Args:
        conversion: Target size and color.
        background: Color behind transparent pixels, as returned by `parse_background`; None rejects them.
        scale: Value of white in images of more than 8 bits per channel; None rejects them.

    Raises:
        InputError: The scale is not a positive number. In a call: the image has several frames, has transparent pixels
            but no background is given, or has more than 8 bits per channel but no scale is given.
        OSError: In a call: the file is damaged or not an image.
    """

    conversion: Conversion
    background: tuple[int, ...] | None = None
    scale: float | None = None

    def __post_init__(self) -> None:
        """Check the scale, and pad images with the background."""
        if self.scale is not None and not 0 < self.scale < float("inf"):
            raise InputError(f"scale = {self.scale!r}: not a positive number; pass the value of white, such as 65535")
        if self.background is not None:
            object.__setattr__(self, "conversion", replace(self.conversion, padding=self.background))

    def __call__(self, file: Path | BinaryIO) -> DecodedImage:
        """Decode an image file.

        Args:
            file: A path or an open file.
        """
        if isinstance(file, Path):
            # Pillow maps TIFF files that it opens itself into memory, and then confuses the sides of turned images.
            with file.open("rb") as content:
                return self(content)
        lossy = is_lossy(file.read(LOSSY_BYTES))
        file.seek(0)
        with open_image(file, self) as opened:
            deep = is_deep(opened)
            upright, transparent = _upright(opened, file, self.scale)
            image = _flatten(upright, self.background, transparent)
            size = image.height, image.width
            return DecodedImage(self.conversion.pixels(image), size, COLORS[image.mode], transparent, deep, lossy)


def open_image(file: BinaryIO, decoder: Decoder) -> "ImageFile":
    """Open an image file and read its header, but not its pixels.

    Args:
        file: An open file.
        decoder: The decoder of the image.

    Raises:
        InputError: The header shows that `decoder` rejects the image.
        OSError: The file is not an image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        opened = Image.open(file, formats=FORMATS)
    except UnidentifiedImageError:
        raise OSError(f"not a complete {alternatives(_NAMES)} image") from None
    except Image.DecompressionBombError as error:
        count, limit = (int(number) for number in re.findall(r"\d+", str(error))[:2])
        raise InputError(f"{count:,} pixels, of at most {limit:,}; reduce its size") from None
    try:
        # Cameras add a second picture, such as a preview, to a JPEG file, which Pillow reports as MPO with two frames.
        if opened.format != "MPO" and getattr(opened, "is_animated", False):
            kind = "several pages" if opened.format == "TIFF" else "an animated image"
            raise InputError(f"{kind}; pass still images")
        if is_deep(opened):
            _check_deep(opened, decoder.scale)
    except BaseException:
        opened.close()
        raise
    return opened


@contextlib.contextmanager
def without_size_warnings() -> Iterator[None]:
    """Silence the warning that Pillow prints for large images; images of twice that size remain errors."""
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        yield


def is_lossy(start: bytes) -> bool:
    """Return whether an image file was compressed with loss: whether it is a JPEG or a lossy WebP file.

    Args:
        start: The first `LOSSY_BYTES` bytes of the file, or more.

    Example:
        >>> is_lossy(bytes.fromhex("ffd8ffe0")), is_lossy(b"RIFF....WEBPVP8L")
        (True, False)
    """
    is_webp = start[:4] == b"RIFF" and start[8:12] == b"WEBP"
    return start[:3] == b"\xff\xd8\xff" or (is_webp and b"VP8 " in start[12:LOSSY_BYTES])


def is_deep(image: "ImageFile") -> bool:
    """Return whether an image has more than 8 bits per channel."""
    # Pillow silently converts 16-bit RGB files to 8 bits; only the arguments of its decoder show it.
    if image.format == "PPM":
        return any(isinstance(tile[3], tuple) and tile[3][-1] > 255 for tile in image.tile) or image.mode in "IF"
    raw_modes = [str(tile[3]) for tile in image.tile] if image.format in ("PNG", "TIFF") else []
    return image.mode.startswith(("I", "F")) or any(";16" in mode for mode in raw_modes)


def _check_deep(image: "ImageFile", scale: float | None) -> None:
    if scale is None:
        raise InputError(
            "more than 8 bits per channel; convert it to 8 bits, or pass the value of white, such as --scale 65535"
        )
    if image.has_transparency_data or image.mode == "CMYK" or (image.format == "PPM" and image.mode == "RGB"):
        kind = "PPM" if image.format == "PPM" else image.mode if image.mode == "CMYK" else "transparency"
        raise InputError(f"more than 8 bits per channel with {kind}; convert it to 8 bits")


def _upright(opened: "ImageFile", file: BinaryIO, scale: float | None) -> tuple["Image", bool]:
    """Return an image with 8 bits per channel in its EXIF orientation, and whether it has transparent pixels."""
    from PIL import ExifTags, Image, ImageOps

    deep = is_deep(opened)
    opened.load()
    if not deep:
        upright = ImageOps.exif_transpose(opened)
        return upright, has_transparent_pixels(upright)
    values = np.asarray(opened)
    if opened.mode == "RGB":
        values = values.astype(np.uint16) << 8 | _low_bytes(file)
    image = Image.fromarray(_levels(values, cast(float, scale)))
    image.getexif()[ExifTags.Base.Orientation] = opened.getexif().get(ExifTags.Base.Orientation, 1)
    return ImageOps.exif_transpose(image), False


def _low_bytes(file: BinaryIO) -> NDArray[np.uint8]:
    """Return the low bytes of an image with 16 bits per channel, of which Pillow decodes only the high bytes."""
    from PIL import Image

    swapped = {"L": "B", "B": "L", "N": "B" if sys.byteorder == "little" else "L"}

    def swap(mode: str) -> str:
        return re.sub(r"(?<=;16)[LBN]", lambda match: swapped[match[0]], mode)

    file.seek(0)
    with Image.open(file, formats=FORMATS) as opened:
        for index, tile in enumerate(opened.tile):
            mode, *others = (tile.args,) if isinstance(tile.args, str) else tile.args or ("",)
            opened.tile[index] = tile._replace(args=(swap(mode), *others) if others else swap(mode))
        return np.asarray(opened)


def _levels(values: NDArray[np.generic], scale: float) -> NDArray[np.uint8]:
    """Return values from 0 to `scale` as levels from 0 to 255."""
    low, high = float(values.min()), float(values.max())
    if not (low >= 0 and high <= scale):
        raise InputError(
            f"values from {low:g} to {high:g}, outside of 0 to {scale:g}; pass the value of white, --scale"
        )
    return np.rint(values.astype(np.float64) * (255 / scale)).astype(np.uint8)


def has_transparent_pixels(image: "Image") -> bool:
    """Return whether an image has pixels that are not opaque."""
    return image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema() != (255, 255)


def _flatten(image: "Image", background: tuple[int, ...] | None, transparent: bool) -> "Image":
    """Convert an image to mode L or RGB, with the background behind transparent pixels."""
    from PIL import Image

    gray = is_gray(image)
    if transparent:
        if background is None:
            raise InputError("transparent pixels; choose a color for them, such as --background white")
        canvas = Image.new("RGBA", image.size, background)
        canvas.alpha_composite(image.convert("RGBA"))
        image, gray = canvas, gray and len(set(background)) == 1
    image = image.convert("RGB") if image.mode not in ("1", "L") else image
    return image.convert("L" if gray else "RGB")


def is_gray(image: "Image") -> bool:
    """Return whether an image is gray, by its mode or palette."""
    if image.mode in ("P", "PA"):
        palette = np.asarray(image.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode in ("1", "L", "LA", "La") or image.mode.startswith(("I", "F"))


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
