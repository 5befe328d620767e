"""Aligned arrays in batches: the batch size that fits in memory, functions over batches, and a validation split."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, Shape, Tensor

Result = TypeVar("Result")

_PIXELS_AT_ONCE = 1024 * 28 * 28


def split_off(x: Any, share: float) -> tuple[Any, Any]:
    """Split the last share off aligned arrays.

    Args:
        x: A nest of arrays.
        share: From 0 to 1.

    Returns:
        Two nests: the rest, and the share. If `x` holds no arrays, or if one part would be empty, `x` itself and None.

    Example:
        >>> split_off(np.arange(4), 0.25)
        (array([0, 1, 2]), array([3]))
    """
    first = keras.tree.flatten(x)[:1]
    count = len(first[0]) if first and isinstance(first[0], np.ndarray) else 0
    kept = math.floor(count * (1 - share))
    if not 0 < kept < count:
        return x, None
    return keras.tree.map_structure(lambda array: array[:kept], x), keras.tree.map_structure(
        lambda array: array[kept:], x
    )


def fitting_batch_size(image_shape: Shape, draws: int = 1) -> int:
    """Return the batch size with which memory does not grow with the size of the images.

    Args:
        image_shape: (H, W, C), None for an unknown size.
        draws: The number of codes that are decoded per image.

    Returns:
        1024 for images of 28×28, fewer for larger ones.

    Example:
        >>> fitting_batch_size((28, 28, 1)), fitting_batch_size((256, 256, 3))
        (1024, 12)
    """
    height, width = (size or 28 for size in image_shape[:2])
    return max(1, min(1024, _PIXELS_AT_ONCE // (height * width)) // draws)


def in_batches(function: Callable[..., Result], arrays: Any, *, batch_size: int) -> Result:
    """Apply a function batch by batch and concatenate its results, so that memory does not grow with the data.

    Args:
        function: A nest of arrays of at most `batch_size` rows → a nest of tensors with as many rows.
        arrays: The nest of arrays, all of the same length.
        batch_size: Rows at a time.

    Returns:
        The nest, of NumPy arrays, floats as float32.

    Raises:
        InputError: `batch_size` is below one.
    """
    if batch_size < 1:
        raise InputError(f"batch_size = {batch_size}: must be ≥ 1; leave it out for one that fits in memory")
    count = len(keras.tree.flatten(arrays)[0])
    parts = [
        keras.tree.map_structure(
            _to_numpy,
            function(keras.tree.map_structure(lambda array: array[start : start + batch_size], arrays)),  # noqa: B023
        )
        for start in range(0, count, batch_size)
    ]
    joined: Result = keras.tree.map_structure(lambda *rows: np.concatenate(rows), *parts)
    return joined


def _to_numpy(tensor: Tensor) -> Array:
    is_float = "float" in keras.backend.standardize_dtype(tensor.dtype)
    return ops.convert_to_numpy(ops.cast(tensor, "float32") if is_float else tensor)
