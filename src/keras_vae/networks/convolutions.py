"""Keras's convolutions, written as matrix products where its backend is slow at them: on a CPU.

Under JAX, XLA runs plain convolutions there at a fraction of the speed of its matrix products, and strided ones, their
transposes and their gradients at a hundredth. TensorFlow is slow only at those into a few channels, of which no vector
is full. The layers have the weights, the outputs and the configuration of Keras's own.
"""

import keras
from keras import layers, ops

from keras_vae.core import backend
from keras_vae.core.math import differentiated_by
from keras_vae.core.registry import PACKAGE
from keras_vae.core.typing import Tensor


@keras.saving.register_keras_serializable(PACKAGE)
class Conv2D(layers.Conv2D):
    """`keras.layers.Conv2D`, as matrix products where that is faster.

    With strides, the neighborhoods of all pixels become the rows of one product; with so few filters that a pixel's
    contributions to its neighbors take less room than the pixel, these come of one product and are added up.

    Example:
        >>> Conv2D(8, 3, strides=2, padding="same")(ops.zeros((1, 7, 5, 3))).shape[1:]
        (4, 3, 8)
    """

    def convolution_op(self, inputs: Tensor, kernel: Tensor) -> Tensor:
        """Return the convolution of inputs (N, H, W, C) with a kernel (h, w, C, F)."""
        if not _has_product_form(self, inputs):
            return super().convolution_op(inputs, kernel)
        height, width, channels, filters = kernel.shape
        if self.strides != (1, 1):
            if backend.prefers_matmul_to_convolution():
                return convolve_by_neighborhoods(inputs, kernel, self.strides)
        elif height * width * filters <= channels and backend.prefers_matmul_for_few_filters():
            return convolve_by_contributions(inputs, kernel)
        return super().convolution_op(inputs, kernel)


@keras.saving.register_keras_serializable(PACKAGE)
class Conv2DTranspose(layers.Conv2DTranspose):
    """`keras.layers.Conv2DTranspose`, as one matrix product where that is faster.

    Example:
        >>> Conv2DTranspose(8, 3, strides=2, padding="same")(ops.zeros((1, 7, 5, 3))).shape[1:]
        (14, 10, 8)
    """

    def call(self, inputs: Tensor) -> Tensor:
        """Return the transposed convolution of inputs (N, H, W, C)."""
        fits = self.output_padding is None and all(
            size >= stride for size, stride in zip(self.kernel_size, self.strides, strict=True)
        )
        if not (fits and backend.prefers_matmul_to_convolution() and _has_product_form(self, inputs)):
            return super().call(inputs)
        outputs = convolve_transposed(inputs, self.kernel, self.strides)
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)


def _has_product_form(layer: Conv2D | Conv2DTranspose, inputs: Tensor) -> bool:
    return (
        None not in inputs.shape[1:]
        and layer.padding == "same"
        and layer.data_format == "channels_last"
        and set(layer.dilation_rate) == {1}
        and getattr(layer, "groups", 1) == 1
    )


def convolve_by_neighborhoods(inputs: Tensor, kernel: Tensor, strides: tuple[int, int]) -> Tensor:
    """Return a strided convolution with padding "same" as one matrix product.

    Args:
        inputs: (N, H, W, C).
        kernel: (h, w, C, F).
        strides: Along the height and the width.

    Returns:
        (N, ⌈H/stride⌉, ⌈W/stride⌉, F).
    """
    (height, width), (step_down, step_right) = kernel.shape[:2], strides
    rows, *vertical = _same(inputs.shape[1], height, step_down)
    columns, *horizontal = _same(inputs.shape[2], width, step_right)
    padded = ops.pad(inputs, ((0, 0), vertical, horizontal, (0, 0)))
    neighborhoods = [
        padded[:, i : i + rows * step_down : step_down, j : j + columns * step_right : step_right]
        for i in range(height)
        for j in range(width)
    ]
    return _product(ops.concatenate(neighborhoods, axis=-1), ops.reshape(kernel, (-1, kernel.shape[-1])))


def convolve_by_contributions(inputs: Tensor, kernel: Tensor) -> Tensor:
    """Return a convolution with padding "same" and no strides as one matrix product and a sum of its shifted parts.

    Its gradients are products as well, both with the neighborhoods in the gradient of the outputs. A backend would
    find its way back through every single part. The taps lie along the first axis, so that a part, which is as thin as
    the outputs, is copied by rows and not by pixels.

    Args:
        inputs: (N, H, W, C).
        kernel: (h, w, C, F).

    Returns:
        (N, H, W, F).
    """
    (rows, columns), (height, width, channels, filters) = inputs.shape[1:3], kernel.shape
    (_, *vertical), (_, *horizontal) = _same(rows, height, 1), _same(columns, width, 1)
    taps = [divmod(tap, width) for tap in range(height * width)]

    def gradients(upstream: Tensor, vectors: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
        padded = ops.transpose(upstream, (3, 0, 1, 2))
        padded = ops.pad(padded, ((0, 0), (0, 0), vertical[::-1], horizontal[::-1]))
        ends = [(height - 1 - i, width - 1 - j) for i, j in taps]
        neighbors = ops.concatenate([padded[:, :, i : i + rows, j : j + columns] for i, j in ends], axis=0)
        sums = ops.reshape(neighbors, (len(taps) * filters, -1))
        return ops.matmul(ops.transpose(sums), matrix), ops.matmul(sums, vectors)

    @differentiated_by(gradients)
    def convolve(vectors: Tensor, matrix: Tensor) -> Tensor:
        products = ops.reshape(ops.matmul(matrix, ops.transpose(vectors)), (len(taps) * filters, -1, rows, columns))
        padded = ops.pad(products, ((0, 0), (0, 0), vertical, horizontal))
        outputs = None
        for tap, (i, j) in enumerate(taps):
            part = padded[tap * filters : (tap + 1) * filters, :, i : i + rows, j : j + columns]
            outputs = part if outputs is None else outputs + part
        return ops.transpose(outputs, (1, 2, 3, 0))

    matrix = ops.reshape(ops.transpose(kernel, (0, 1, 3, 2)), (-1, channels))
    return convolve(ops.reshape(inputs, (-1, channels)), matrix)


def convolve_transposed(inputs: Tensor, kernel: Tensor, strides: tuple[int, int]) -> Tensor:
    """Return a transposed convolution with padding "same" as one matrix product.

    Along one axis, with stride s, y[s·q + r] = Σ_d x[q − d] · kernel[s·d + r + crop] for each phase r in 0…s−1. Across
    the width the neighbors x[q − d] are gathered before the product, whose outputs are then the phases themselves;
    along the height the products of the rows are added up after it. Either way alone moves more memory.

    Args:
        inputs: (N, H, W, C).
        kernel: (h, w, F, C), each side at least as long as the stride.
        strides: Along the height and the width.

    Returns:
        (N, H·stride, W·stride, F).
    """
    (rows, columns, channels), (height, width, filters, _) = inputs.shape[1:], kernel.shape
    crop, first, last = _neighbors(width, strides[1])
    across = last - first + 1
    spare = -(strides[1] * first + crop)
    kernel = ops.pad(kernel, ((0, 0), (spare, strides[1] * across - width - spare), (0, 0), (0, 0)))
    kernel = ops.reshape(kernel, (height, across, strides[1], filters, channels))
    kernel = ops.reshape(ops.transpose(kernel, (1, 4, 0, 2, 3)), (across * channels, -1))
    padded = ops.pad(inputs, ((0, 0), (0, 0), (last, -first), (0, 0)))
    neighbors = [padded[:, :, last - d : last - d + columns] for d in range(first, last + 1)]
    products = _product(ops.concatenate(neighbors, axis=-1), kernel)

    crop, first, last = _neighbors(height, strides[0])
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


def _same(size: int, taps: int, stride: int) -> tuple[int, int, int]:
    """Return the outputs along an axis, and how far padding "same" reaches beyond its two ends."""
    outputs = -(-size // stride)
    reach = max((outputs - 1) * stride + taps - size, 0)
    return outputs, reach // 2, reach - reach // 2


def _neighbors(taps: int, stride: int) -> tuple[int, int, int]:
    """Return how much of the full transposed convolution is cropped in front, and the least and greatest neighbor."""
    crop = (taps - stride) // 2
    return crop, -((stride - 1 + crop) // stride), (taps - 1 - crop) // stride


def _product(vectors: Tensor, matrix: Tensor) -> Tensor:
    # XLA runs products of matrices on a CPU several times as fast as those of arrays with more axes.
    flat = ops.matmul(ops.reshape(vectors, (-1, vectors.shape[-1])), matrix)
    return ops.reshape(flat, (-1, *vectors.shape[1:-1], matrix.shape[-1]))
