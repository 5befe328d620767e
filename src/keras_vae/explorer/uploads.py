"""Pictures from outside: checked, and brought to the size and colour of a model's images."""

import base64
import binascii
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.data.convert import Color, Conversion
from keras_vae.errors import InputError
from keras_vae.types import ImageShape

MOST_BYTES = 10 * 2**20
SIDES = 4, 4096
"""The least and the greatest side of a picture, in pixels."""

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF")


class Picture(NamedTuple):
    """An image as a model takes it.

    Args:
        image: (H, W, C), uint8.
        notes: What was done to it, a line each.
    """

    image: NDArray[np.uint8]
    notes: tuple[str, ...]


def read_file(path: str | Path) -> bytes:
    """Return a file's bytes.

    Raises:
        InputError: It is too large.
    """
    size = Path(path).stat().st_size
    _check_size(size)
    return Path(path).read_bytes()


def read_uri(uri: str) -> bytes:
    """Return the bytes of `data:image/…;base64,…`.

    Raises:
        InputError: It is no such text, or too large.
    """
    head, comma, body = uri.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise InputError("picture: pass data:image/png;base64,… as text")
    _check_size(len(body) * 3 // 4)
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise InputError("picture: what follows base64, is damaged") from None


def prepare(content: bytes, shape: ImageShape, *, invert: bool = False) -> Picture:
    """Return a picture in the size and colour of a model's images.

    Args:
        content: A PNG, JPEG, WebP, BMP or GIF file.
        shape: (H, W, C) of the model's images.
        invert: Swaps dark and light.

    Raises:
        InputError: It is no such file, moves, or is too large or too small.
    """
    from PIL import Image, ImageOps, UnidentifiedImageError

    _check_size(len(content))
    height, width, channels = shape
    notes: list[str] = []
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            wide, high = opened.size
            if max(wide, high) > SIDES[1] or min(wide, high) < SIDES[0]:
                raise InputError(f"picture of {wide}×{high} pixels: accepted are {SIDES[0]} to {SIDES[1]} a side")
            frames = getattr(opened, "n_frames", 1)
            if frames > 1:
                raise InputError(f"picture with {frames} frames: it moves; pass a still one")
            picture: Image.Image = ImageOps.exif_transpose(opened)
            if picture.has_transparency_data:
                rgba = picture.convert("RGBA")
                if np.asarray(rgba.getchannel("A")).min() < 255:
                    notes.append("transparent pixels laid on white")
                ground = Image.new("RGBA", rgba.size, "white")
                picture = Image.alpha_composite(ground, rgba)
            picture = picture.convert("L" if picture.mode in ("1", "L", "LA", "I;16") else "RGB")
    except InputError:
        raise
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"picture: not a {', '.join(FORMATS)} file that can be read ({_first_line(error)})") from None
    if invert:
        picture = ImageOps.invert(picture)
        notes.append("dark and light swapped")
    color: Color = "grey" if channels == 1 else "rgb"
    if picture.size != (width, height):
        notes.append(f"resized from {picture.width}×{picture.height} to {width}×{height}")
    if channels == 1 and picture.mode == "RGB":
        notes.append("turned grey")
    return Picture(Conversion((height, width), color).pixels(picture), tuple(notes))


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise InputError(f"picture of {size / 2**20:.0f} MB: at most {MOST_BYTES // 2**20} MB are accepted")


def _first_line(error: Exception) -> str:
    lines = (str(error).strip() or type(error).__name__).splitlines()
    return lines[0][:120]
