"""Checks of uploaded images, and their conversion to the size and color of a model's images."""

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
from keras_vae.data.decoding import WEB_FORMATS, Decoder, parse_background, without_size_warnings

MAX_BYTES = 10 * 2**20
MIN_SIDE, MAX_SIDE = 4, 4096
"""The accepted side lengths of an image, in pixels."""


class ConvertedImage(NamedTuple):
    """An image in the size and color of a model's images.

    Args:
        image: (H, W, C), uint8.
        notes: A description of each change that was made.
    """

    image: NDArray[np.uint8]
    notes: tuple[str, ...]


def read_file(path: str | Path) -> bytes:
    """Return the content of a file.

    Raises:
        InputError: The file is too large.
    """
    size = Path(path).stat().st_size
    _check_size(size)
    return Path(path).read_bytes()


def read_uri(uri: str) -> bytes:
    """Return the bytes of `data:image/…;base64,…`.

    Raises:
        InputError: The text is not a data URI, or the image is too large.
    """
    head, comma, body = uri.partition(",")
    if not (comma and head.startswith("data:") and head.endswith(";base64")):
        raise InputError(f"image = {uri[:40]!r}: not a data URI; pass data:image/png;base64,…")
    _check_size(len(body) * 3 // 4)
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise InputError(f"image = {uri[:40]!r}: the data after base64, is damaged; encode the file again") from None


def convert(content: bytes, shape: ImageShape, *, invert: bool = False) -> ConvertedImage:
    """Decode an image file and convert it to the size and color of a model's images.

    Args:
        content: A PNG, JPEG, WebP, BMP or GIF file.
        shape: (H, W, C) of the model's images.
        invert: Inverts the levels.

    Raises:
        InputError: The file has another format, is animated, or is too large or too small.
    """
    from PIL import Image, UnidentifiedImageError

    _check_size(len(content))
    height, width, channels = shape
    try:
        with without_size_warnings(), Image.open(io.BytesIO(content), formats=WEB_FORMATS) as opened:
            wide, high = opened.size
        if not MIN_SIDE <= min(wide, high) <= max(wide, high) <= MAX_SIDE:
            raise InputError(f"{wide}×{high} pixels; both sides must have {MIN_SIDE} to {MAX_SIDE} pixels")
        color: Color = "gray" if channels == 1 else "rgb"
        decoded = Decoder(Conversion((height, width), color), parse_background("white"))(io.BytesIO(content))
    except InputError as error:
        raise InputError(f"image = uploaded file: {error}") from None
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
        formats = f"{', '.join(WEB_FORMATS[:-1])} or {WEB_FORMATS[-1]}"
        # Pillow's own message for an unknown format shows the address of an object.
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else first_line(error)
        raise InputError(f"image = uploaded file: cannot be read ({reason}); pass {formats}") from None
    notes = ["transparency replaced by white"] * decoded.background + ["inverted"] * invert
    if decoded.size != (height, width):
        notes.append(f"resized from {decoded.size[1]}×{decoded.size[0]} to {width}×{height}")
    if color == "gray" != decoded.color:
        notes.append("converted to grayscale")
    return ConvertedImage(255 - decoded.pixels if invert else decoded.pixels, tuple(notes))


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise InputError(f"image = {size / 2**20:.0f} MB: too large; at most {MAX_BYTES // 2**20} MB are accepted")
