"""Parts that all HTML pages share: templates that escape every value, and images as data URIs."""

import base64
import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from keras_vae.core.typing import Array

if TYPE_CHECKING:
    from jinja2 import Template


@functools.cache
def load_template(name: str, **filters: Callable[..., str]) -> "Template":
    """Return a template, which escapes every value and rejects missing ones.

    Args:
        name: The file in `templates/`.
        **filters: Functions that the template applies to values.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("keras_vae.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters.update(filters)
    return environment.get_template(name)


def data_uri(content: bytes, format: str) -> str:
    """Return an encoded image as a data URI.

    Args:
        content: The content of the image file.
        format: Its format: `png` or `webp`.
    """
    return f"data:image/{format};base64,{base64.b64encode(content).decode('ascii')}"


def png_uri(image: Array) -> str:
    """Return an image as a data URI of a PNG file.

    Args:
        image: Floats in [0, 1] or uint8, (H, W, C) or (H, W).
    """
    from PIL import Image

    levels = (
        image if image.dtype == np.uint8 else np.rint(np.clip(np.asarray(image, "float32"), 0, 1) * 255).astype("uint8")
    )
    levels = levels[..., 0] if levels.ndim == 3 and levels.shape[-1] == 1 else levels
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "PNG", compress_level=3)
    return data_uri(content.getvalue(), "png")
