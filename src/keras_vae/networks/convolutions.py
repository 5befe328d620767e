"""Convolution layers of Keras, computed as matrix products on CPUs if that is faster.

On a CPU, XLA (JAX) runs plain convolutions at a fraction of the speed of matrix products, and strided and transposed
convolutions and their gradients at a hundredth of it. TensorFlow is slow only for convolutions with few filters, which
leave most of its vector registers empty. The layers have the same weights, outputs and configuration as Keras's layers,
but their images are always (N, H, W, C), whatever `keras.config.image_data_format()` is.
"""

from typing import Any

import keras
from keras import layers, ops

from keras_vae.core import backend
from keras_vae.core.convolution import convolve_im2col, matmul_2d, same_padding
from keras_vae.core.math import with_gradient
from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Tensor


@keras.saving.register_keras_serializable(PACKAGE)
class Conv2D(layers.Conv2D):
    """`keras.layers.Conv2D`, computed as one matrix product if that is faster.

    A strided convolution gathers the neighborhoods of all pixels first (im2col). A convolution with few filters
    multiplies each pixel by all taps of the kernel first, then shifts and adds the products.

    Example:
        >>> tuple(Conv2D(8, 3, strides=2, padding="same")(ops.zeros((1, 7, 5, 3))).shape)
        (1, 4, 3, 8)
    """

    def __init__(self, filters: int, kernel_size: Any, *, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, data_format=data_format, **kwargs)

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Return the convolution of inputs (N, H, W, C) with a kernel (h, w, C, F)."""
        if not _has_product_form(self, inputs):
            return super().convolution_op(inputs, kernel)
        height, width, channels, filters = kernel.shape
        if self.strides != (1, 1):
            if backend.prefers_matmul_to_convolution():
                return convolve_im2col(inputs, kernel, self.strides)
        elif height * width * filters <= channels and backend.prefers_matmul_for_few_filters():
            return convolve_shift_and_add(inputs, kernel)
        return super().convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable(PACKAGE)
class Conv2DTranspose(layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose`, computed as one matrix product if that is faster.

    Example:
        >>> tuple(Conv2DTranspose(8, 3, strides=2, padding="same")(ops.zeros((1, 7, 5, 3))).shape)
        (1, 14, 10, 8)
    """

    def __init__(self, filters: int, kernel_size: Any, *, data_format: str = "channels_last", **kwargs: Any) -> None:
        super().__init__(filters, kernel_size, data_format=data_format, **kwargs)

    def call(self, inputs: Tensor) -> Tensor:
        """Return the transposed convolution of inputs (N, H, W, C)."""
        has_no_gaps = self.output_padding is None and all(
            size >= stride for size, stride in zip(self.kernel_size, self.strides, strict=True)
        )
        if not (has_no_gaps and backend.prefers_matmul_to_convolution() and _has_product_form(self, inputs)):
            return super().call(inputs)
        outputs = convolve_transposed(inputs, self.kernel, self.strides)
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)


def _has_product_form(layer: Conv2D | Conv2DTranspose, inputs: Tensor) -> bool:
    """Return whether the functions below support the configuration of the layer."""
    return (
        None not in inputs.shape[1:]
        and layer.padding == "same"
        and layer.data_format == "channels_last"
        and set(layer.dilation_rate) == {1}
        and getattr(layer, "groups", 1) == 1
    )


def convolve_shift_and_add(inputs: Tensor, kernel: Tensor) -> Tensor:
    """Compute a convolution with padding "same" and stride 1 as one matrix product and a sum of its shifted parts.

    The gradients are explicit matrix products with the neighborhoods of the upstream gradient, because a backend would
    differentiate every shifted part separately. The taps are on the first axis, so that the parts, which have few
    channels, are copied by rows instead of pixels.

    Args:
        inputs: (N, H, W, C).
        kernel: (h, w, C, F).

    Returns:
        (N, H, W, F).
    """
    (rows, columns), (height, width, channels, filters) = inputs.shape[1:3], kernel.shape
    (_, *pad_y), (_, *pad_x) = same_padding(rows, height, 1), same_padding(columns, width, 1)
    taps = [divmod(tap, width) for tap in range(height * width)]

    def gradients(upstream: Tensor, pixels: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        padded = ops.transpose(upstream, (3, 0, 1, 2))
        padded = ops.pad(padded, ((0, 0), (0, 0), pad_y[::-1], pad_x[::-1]))
        mirrored_taps = [(height - 1 - y, width - 1 - x) for y, x in taps]
        neighbors = ops.concatenate([padded[:, :, y : y + rows, x : x + columns] for y, x in mirrored_taps], axis=0)
        neighbors = ops.reshape(neighbors, (len(taps) * filters, -1))
        return ops.matmul(ops.transpose(neighbors), matrix), ops.matmul(neighbors, pixels)

    @with_gradient(gradients)
    def convolve(pixels: Tensor, matrix: Tensor) -> Tensor:
        products = ops.reshape(ops.matmul(matrix, ops.transpose(pixels)), (len(taps) * filters, -1, rows, columns))
        padded = ops.pad(products, ((0, 0), (0, 0), pad_y, pad_x))
        outputs = None
        for tap, (y, x) in enumerate(taps):
            part = padded[tap * filters : (tap + 1) * filters, :, y : y + rows, x : x + columns]
            outputs = part if outputs is None else outputs + part
        return ops.transpose(outputs, (1, 2, 3, 0))

    matrix = ops.reshape(ops.transpose(kernel, (0, 1, 3, 2)), (-1, channels))
    return convolve(ops.reshape(inputs, (-1, channels)), matrix)


def convolve_transposed(inputs: Tensor, kernel: Tensor, strides: tuple[int, int]) -> Tensor:
    """Compute a transposed convolution with padding "same" as one matrix product.

    Along one axis with stride s, y[s·q + r] = Σ_d x[q − d] · kernel[s·d + r + crop] for each phase r in 0…s−1. Along
    the width, the neighbors x[q − d] are gathered before the product, whose outputs are the phases. Along the height,
    the products of neighboring rows are added after the product. One method for both axes would move more memory.

    Args:
        inputs: (N, H, W, C).
        kernel: (h, w, F, C), each side at least as long as the stride.
        strides: Strides along the height and the width.

    Returns:
        (N, H·stride, W·stride, F).
    """
    (rows, columns, channels), (height, width, filters, _) = inputs.shape[1:], kernel.shape
    crop, first, last = _neighbor_range(width, strides[1])
    num_neighbors = last - first + 1
    pad_left = -(strides[1] * first + crop)
    kernel = ops.pad(kernel, ((0, 0), (pad_left, strides[1] * num_neighbors - width - pad_left), (0, 0), (0, 0)))
    kernel = ops.reshape(kernel, (height, num_neighbors, strides[1], filters, channels))
    kernel = ops.reshape(ops.transpose(kernel, (1, 4, 0, 2, 3)), (num_neighbors * channels, -1))
    padded = ops.pad(inputs, ((0, 0), (0, 0), (last, -first), (0, 0)))
    neighbors = [padded[:, :, last - d : last - d + columns] for d in range(first, last + 1)]
    products = matmul_2d(ops.concatenate(neighbors, axis=-1), kernel)

    crop, first, last = _neighbor_range(height, strides[0])
    size = strides[1] * filters
    padded = ops.pad(products, ((0, 0), (last, -first), (0, 0), (0, 0)))
    phases = []
    for phase in range(strides[0]):
        total = None
        for d in range(first, last + 1):
            tap = strides[0] * d + phase + crop
            if 0 <= tap < height:
                part = padded[:, last - d : last - d + rows, :, tap * size : (tap + 1) * size]
                total = part if total is None else total + part
        phases.append(total)
    return ops.reshape(ops.stack(phases, axis=2), (-1, strides[0] * rows, strides[1] * columns, filters))


def _neighbor_range(taps: int, stride: int) -> tuple[int, int, int]:
    """Return the crop at the start of the full transposed convolution, and the first and last neighbor offset d."""
    crop = (taps - stride) // 2
    return crop, -((stride - 1 + crop) // stride), (taps - 1 - crop) // stride
