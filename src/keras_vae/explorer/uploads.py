"""Pictures from outside: checked, and brought to the size and color of a model's images."""

import base64
import binascii
import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, first_line
from keras_vae.core.typing import ImageShape
from keras_vae.data.convert import Color, Conversion
from keras_vae.data.folders import FORMATS, decode_image, parse_background

MOST_BYTES = 10 * 2**20
SIDES = 4, 4096
"""The least and the greatest side of a picture, in pixels."""


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
    """Return a picture in the size and color of a model's images.

    Args:
        content: A PNG, JPEG, WebP, BMP or GIF file.
        shape: (H, W, C) of the model's images.
        invert: Swaps dark and light.

    Raises:
        InputError: It is no such file, moves, or is too large or too small.
    """
    from PIL import Image, UnidentifiedImageError

    _check_size(len(content))
    height, width, channels = shape
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as opened:
            wide, high = opened.size
        if max(wide, high) > SIDES[1] or min(wide, high) < SIDES[0]:
            raise InputError(f"{wide}×{high} pixels: accepted are {SIDES[0]} to {SIDES[1]} a side")
        color: Color = "gray" if channels == 1 else "rgb"
        decoded = decode_image(io.BytesIO(content), Conversion((height, width), color), parse_background("white"))
    except InputError as error:
        raise InputError(f"picture: {error}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        raise InputError(f"picture: not a {', '.join(FORMATS)} file that can be read ({first_line(error)})") from None
    notes = ["transparent pixels laid on white"] * decoded.background + ["dark and light swapped"] * invert
    if decoded.size != (height, width):
        notes.append(f"resized from {decoded.size[1]}×{decoded.size[0]} to {width}×{height}")
    if color == "gray" != decoded.color:
        notes.append("turned gray")
    return Picture(255 - decoded.pixels if invert else decoded.pixels, tuple(notes))


def _check_size(size: int) -> None:
    if size > MOST_BYTES:
        raise InputError(f"picture of {size / 2**20:.0f} MB: at most {MOST_BYTES // 2**20} MB are accepted")
