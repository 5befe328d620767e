"""Pixel encodings: what an image's numbers mean, and how they become what a likelihood expects."""

import keras
import numpy as np
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, Tensor


def to_unit(images: Tensor) -> Tensor:
    """Return images in [0, 1] as float32: uint8 levels divided by 255, floats as they are.

    Args:
        images: (…, H, W, C), uint8 or floating.

    Returns:
        The same shape, float32.

    Raises:
        InputError: The dtype is neither.
    """
    dtype = keras.backend.standardize_dtype(images.dtype)
    if dtype == "uint8":
        return ops.cast(images, "float32") / 255.0
    if "float" in dtype:
        return ops.cast(images, "float32")
    raise InputError(f"images of dtype {dtype}: pass uint8 levels 0…255, or floats in [0, 1]")


def check_images(images: Array, shape: tuple[int | None, ...]) -> None:
    """Refuse an array that a model of such images would misread.

    Args:
        images: What the caller passed.
        shape: (H, W, C) of the model, None where it takes any size.

    Raises:
        InputError: The shape or dtype differs, or floats lie outside [0, 1] or are not finite.
    """
    expected = "(" + ", ".join(["n", *("any" if size is None else str(size) for size in shape)]) + ")"
    fits = images.ndim == len(shape) + 1 and all(
        size in (None, got) for size, got in zip(shape, images.shape[1:], strict=True)
    )
    if not fits:
        raise InputError(f"images of shape {images.shape}: this model takes {expected}")
    if len(images) == 0:
        raise InputError(f"no images: the array has shape {images.shape}")
    if images.dtype != np.uint8 and np.issubdtype(images.dtype, np.floating):
        low, high = images.min(), images.max()
        if not (low >= 0 and high <= 1):
            raise InputError(
                f"float images from {low:g} to {high:g}: floats must lie in [0, 1]; divide by 255, or pass uint8 levels"
            )
