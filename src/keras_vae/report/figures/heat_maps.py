"""Heat maps of reconstruction errors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.typing import Array
from keras_vae.report.figures.image_grids import image_rows, to_uint8

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def heat_maps(
    images: Array,
    reconstructions: Array,
    errors: Array,
    title: str | None = None,
    captions: Sequence[tuple[str, str]] | None = None,
) -> "Figure":
    """Return images above their reconstructions and heat maps of the error of each pixel.

    Args:
        images: Floats in [0, 1] or uint8, `(N, height, width, channels)`, 1 or 3 channels.
        reconstructions: The same shape.
        errors: Floats in [0, 1], `(N, height, width, 1)`.
        title: Title of the figure.
        captions: Two lines for each image, such as its name and its score.

    Returns:
        The figure; `save` writes it.

    Raises:
        InputError: As for `image_rows`.
    """
    image, reconstruction = (np.broadcast_to(array, (*array.shape[:3], 3)) for array in (images, reconstructions))
    rows = {"image": image, "reconstruction": reconstruction, "error": heat_colors(errors)}
    return image_rows(rows, title, captions=captions)


def heat_colors(errors: Array) -> NDArray[np.uint8]:
    """Return the colors of errors, from black at 0 to light yellow at 1, (N, H, W, 3).

    Args:
        errors: Floats in [0, 1], (N, H, W, 1).
    """
    from matplotlib import colormaps

    colors: NDArray[np.uint8] = colormaps["inferno"](to_uint8("errors", errors)[..., 0], bytes=True)[..., :3]
    return colors
