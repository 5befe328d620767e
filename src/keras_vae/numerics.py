"""Arithmetic that keeps its gradients."""

from keras import ops

from keras_vae.types import Tensor


def clip_keeping_gradients(x: Tensor, low: float, high: float) -> Tensor:
    """Return x within bounds, differentiated as if there were none, so that what is outside can come back.

    Args:
        x: Any shape.
        low: The least value.
        high: The greatest value.

    Returns:
        The same shape; exactly x where it lies within the bounds.

    Example:
        >>> float(clip_keeping_gradients(ops.convert_to_tensor(3.0), 0.0, 1.0))
        1.0
    """
    return x + ops.stop_gradient(ops.clip(x, low, high) - x)


def scale_gradient(x: Tensor, factor: Tensor) -> Tensor:
    """Return x itself, its gradient multiplied by a factor.

    Args:
        x: Any shape.
        factor: Broadcastable to it; not differentiated.

    Returns:
        The same shape.

    Example:
        >>> float(scale_gradient(ops.convert_to_tensor(3.0), 0.5))
        3.0
    """
    constant = ops.stop_gradient(x)
    return constant + ops.stop_gradient(factor) * (x - constant)
