"""Batching of aligned arrays: batch sizes that fit in memory, batched function calls, and validation splits."""

import math
from collections.abc import Callable
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from keras_vae.core import backend, tracing
from keras_vae.core.errors import InputError, alternatives, check_count
from keras_vae.core.progress import reported
from keras_vae.core.typing import Array, Shape, Tensor

Result = TypeVar("Result")

_PIXELS_AT_ONCE = 1024 * 28 * 28


def split_off(x: Any, share: float) -> tuple[Any, Any]:
    """Split aligned arrays into a first and a last part.

    Args:
        x: A nested structure of arrays of equal length.
        share: Fraction of the rows in the last part, from 0 to 1.

    Returns:
        Two nested structures: the first and the last part. If `x` contains no arrays, or one part would be empty, `x`
        and None.

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
    """Return a batch size whose memory use does not grow with the size of the images.

    Args:
        image_shape: (H, W, C); None for an unknown size.
        draws: Number of codes decoded per image.

    Returns:
        At most 1024, which is the batch size for one draw of 28×28 images; less for larger images and more draws.

    Example:
        >>> fitting_batch_size((28, 28, 1)), fitting_batch_size((256, 256, 3))
        (1024, 12)
    """
    height, width = (size or 28 for size in image_shape[:2])
    return max(1, min(1024, _PIXELS_AT_ONCE // (height * width)) // draws)


def check_divisible(argument: str, x: Any, batch_size: int | None) -> None:
    """Reject arrays whose batches cannot be divided evenly among the devices; do nothing on one device.

    Args:
        argument: Name of the argument, for messages.
        x: A nested structure of arrays of equal length; anything else is not checked.
        batch_size: Rows per batch; None means 32, as in Keras.

    Raises:
        InputError: The number of rows, or of rows per batch, is not a multiple of the number of devices.
    """
    replicas = backend.num_replicas()
    arrays = [array for array in keras.tree.flatten(x) if array is not None]
    if replicas == 1 or not arrays or not all(hasattr(array, "shape") for array in arrays):
        return
    count, size = len(arrays[0]), batch_size or 32
    if count % replicas:
        raise InputError(
            f"{argument}: {count} images cannot be divided evenly among {replicas} devices; pass "
            f"{alternatives(multiples_around(count, replicas))} images"
        )
    if size < count and size % replicas:
        raise InputError(
            f"batch_size = {size}: cannot be divided evenly among {replicas} devices; choose "
            f"{alternatives(multiples_around(size, replicas))}"
        )


def multiples_around(count: int, divisor: int) -> list[str]:
    """Return the multiples next to a number, without zero, as texts.

    Args:
        count: A positive number that is not a multiple.
        divisor: The number to divide by.

    Example:
        >>> multiples_around(119, 2), multiples_around(1, 2)
        (['118', '120'], ['2'])
    """
    below = count - count % divisor
    return [str(size) for size in (below, below + divisor) if size]


def in_batches(function: Callable[..., Result], arrays: Any, *, batch_size: int) -> Result:
    """Apply a function batch by batch and concatenate its results, so that memory does not grow with the data.

    Args:
        function: Maps a nested structure of arrays with at most `batch_size` rows to a nested structure of tensors
            with the same number of rows.
        arrays: A nested structure of arrays of equal length.
        batch_size: Number of rows per call.

    Returns:
        The results as a nested structure of NumPy arrays; floats are float32.

    Raises:
        InputError: `batch_size` is below one.
    """
    check_count("batch_size", batch_size)
    count = len(keras.tree.flatten(arrays)[0])
    with tracing.expected_tracing():
        batch_results = [
            keras.tree.map_structure(
                _to_numpy,
                function(keras.tree.map_structure(lambda array: array[start : start + batch_size], arrays)),  # noqa: B023
            )
            for start in reported(range(0, count, batch_size), "computing batches")
        ]
    results: Result = keras.tree.map_structure(lambda *rows: np.concatenate(rows), *batch_results)
    return results


def _to_numpy(tensor: Tensor) -> Array:
    is_float = "float" in keras.backend.standardize_dtype(tensor.dtype)
    return ops.convert_to_numpy(ops.cast(tensor, "float32") if is_float else tensor)
