"""Convolutions as functions, and the groups of group normalization.

Convolutions are computed as matrix products if that is faster; `networks/convolutions.py` explains why.
"""

from keras import ops

from keras_vae.core import backend
from keras_vae.core.typing import Tensor


def convolve(inputs: Tensor, kernel: Tensor, strides: tuple[int, int]) -> Tensor:
    """Compute a convolution with padding "same".

    Args:
        inputs: (N, H, W, C).
        kernel: (h, w, C, F).
        strides: Strides along the height and the width.

    Returns:
        (N, ⌈H/stride⌉, ⌈W/stride⌉, F).
    """
    if None not in inputs.shape[1:] and strides != (1, 1) and backend.prefers_matmul_to_convolution():
        return convolve_im2col(inputs, kernel, strides)
    return ops.conv(inputs, kernel, strides, "same", "channels_last")


def convolve_im2col(inputs: Tensor, kernel: Tensor, strides: tuple[int, int]) -> Tensor:
    """Compute a strided convolution with padding "same" as one matrix product (im2col).

    Args:
        inputs: (N, H, W, C).
        kernel: (h, w, C, F).
        strides: Strides along the height and the width.

    Returns:
        (N, ⌈H/stride⌉, ⌈W/stride⌉, F).
    """
    (height, width), (stride_y, stride_x) = kernel.shape[:2], strides
    rows, *pad_y = same_padding(inputs.shape[1], height, stride_y)
    columns, *pad_x = same_padding(inputs.shape[2], width, stride_x)
    padded = ops.pad(inputs, ((0, 0), pad_y, pad_x, (0, 0)))
    neighborhoods = [
        padded[:, y : y + rows * stride_y : stride_y, x : x + columns * stride_x : stride_x]
        for y in range(height)
        for x in range(width)
    ]
    return matmul_2d(ops.concatenate(neighborhoods, axis=-1), ops.reshape(kernel, (-1, kernel.shape[-1])))


def same_padding(size: int, taps: int, stride: int) -> tuple[int, int, int]:
    """Return the output size along an axis under padding "same", and the padding before and after the input."""
    outputs = -(-size // stride)
    padding = max((outputs - 1) * stride + taps - size, 0)
    return outputs, padding // 2, padding - padding // 2


def matmul_2d(vectors: Tensor, matrix: Tensor) -> Tensor:
    """Multiply the last axis by a matrix; on a CPU, XLA is several times faster with two axes than with more."""
    flat = ops.matmul(ops.reshape(vectors, (-1, vectors.shape[-1])), matrix)
    return ops.reshape(flat, (-1, *vectors.shape[1:-1], matrix.shape[-1]))


def num_groups(channels: int, groups: int, min_channels: int = 4) -> int:
    """Return the number of groups of a group normalization (arXiv 1803.08494), which divides the channels.

    Args:
        channels: Number of channels.
        groups: Maximum number of groups.
        min_channels: Minimum number of channels per group, unless there is one group.

    Example:
        >>> num_groups(24, groups=8), num_groups(6, groups=8)
        (6, 1)
    """
    most = max(1, min(groups, channels // min_channels))
    return next(count for count in range(most, 0, -1) if channels % count == 0)
