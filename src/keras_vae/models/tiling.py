"""Tiled encoding and decoding: convolutional networks on images that do not fit in memory at once.

Tiles overlap and are blended linearly. Group normalization uses the moments of the whole image, which tiles alone do
not have: a pass over all tiles sums the moments of every layer, and passes are repeated until they no longer change.
The first layer is exact after one pass, the second after two, and so on.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from keras_vae.core import tracing
from keras_vae.core.errors import InputError, is_integer, shown
from keras_vae.core.typing import Floats, Shape, Tensor

TOLERANCE = 2e-3
"""Change of the moments, in standard deviations, at which passes end."""


class Tiles(NamedTuple):
    """Positions and weights of overlapping tiles along one axis.

    Args:
        starts: First position of each tile.
        weights: Weights of the positions of each tile, (tiles, size). Those of all tiles sum to one at each position.
    """

    starts: tuple[int, ...]
    weights: Floats

    @classmethod
    def cover(cls, length: int, size: int, overlap: int) -> "Tiles":
        """Return tiles that cover an axis.

        Args:
            length: Number of positions.
            size: Positions per tile.
            overlap: Smallest number of positions that neighbors share.

        Example:
            >>> Tiles.cover(10, 6, 2).starts
            (0, 4)
        """
        size = min(size, length)
        count = 1 if size == length else math.ceil((length - size) / (size - overlap)) + 1
        starts = tuple(np.linspace(0, length - size, count).round().astype(int).tolist())
        # Near an edge inside of the image, a tile lacks its neighborhood: only the middle of the overlap is blended.
        margin = 3 * overlap // 8
        distance = np.arange(size) + 0.5
        ramp = np.clip((distance - margin) / max(overlap - 2 * margin, 1), 0.0, 1.0)
        weights = np.ones((count, size))
        weights[1:] *= ramp
        weights[:-1] *= ramp[::-1]
        total = np.zeros(length)
        for start, row in zip(starts, weights, strict=True):
            total[start : start + size] += row
        weights /= np.stack([total[start : start + size] for start in starts])
        return cls(starts, weights.astype("float32"))


class _GlobalNormalization(layers.Layer):
    """Group normalization by given moments; until they are known, by those of its inputs.

    Args:
        original: The layer whose weights to use.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, original: layers.GroupNormalization, **kwargs: Any) -> None:
        super().__init__(dtype=original.dtype_policy, **kwargs)
        self.original, self.groups = original, original.groups
        shape = (2, original.groups)
        self.moments = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="m", dtype="float32")
        self.is_known = self.add_weight(shape=(), initializer="zeros", trainable=False, name="k", dtype="float32")

    def call(self, features: Tensor) -> Tensor:
        *positions, channels = features.shape[1:]
        groups = ops.reshape(ops.cast(features, "float32"), (-1, *positions, self.groups, channels // self.groups))
        mean, variance = ops.moments(groups, axes=(1, 2, 4), keepdims=True)
        shape, known = (1, 1, 1, self.groups, 1), ops.convert_to_tensor(self.is_known)
        moments = ops.convert_to_tensor(self.moments)
        mean = known * ops.reshape(moments[0], shape) + (1 - known) * mean
        variance = known * ops.reshape(moments[1], shape) + (1 - known) * variance
        normalized = (groups - mean) * ops.rsqrt(variance + self.original.epsilon)
        outputs = ops.reshape(normalized, (-1, *positions, channels))
        if self.original.scale:
            outputs = outputs * ops.cast(self.original.gamma, "float32")
        if self.original.center:
            outputs = outputs + ops.cast(self.original.beta, "float32")
        return ops.cast(outputs, self.compute_dtype)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return input_shape


class _WeightedSums(layers.Layer):
    """Sums of features and of their squares per group, weighted by position: (1, 2, groups).

    Args:
        groups: Number of groups.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, groups: int, **kwargs: Any) -> None:
        super().__init__(dtype="float32", **kwargs)
        self.groups = groups

    def call(self, features: Tensor, weights: Tensor) -> Tensor:
        *positions, channels = features.shape[1:]
        scales = [size // count for size, count in zip(positions, weights.shape[1:3], strict=True)]
        for axis, scale in enumerate(scales, start=1):
            weights = ops.repeat(weights, scale, axis=axis)
        # Products of matrices need no weighted copy of the features.
        rows = ops.reshape(weights, (-1, 1, math.prod(positions)))
        values = ops.reshape(ops.cast(features, "float32"), (-1, math.prod(positions), channels))
        sums = ops.concatenate([ops.matmul(rows, values), ops.matmul(rows, ops.square(values))], axis=1)
        return ops.sum(ops.reshape(sums, (-1, 2, self.groups, channels // self.groups)), axis=-1)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        return (input_shape[0], 2, self.groups)


class TiledNetwork:
    """A convolutional network that maps an image tile by tile, as it maps the whole image.

    The result is that of the whole image up to rounding, if three eighths of the overlap cover the radius of the
    receptive field. Attention is limited to its tile.

    Args:
        network: A functional model without fixed height and width.
        unit: Height and width of the inputs per position of the code.
        size: Positions of a tile, (rows, columns).
        channels: Channels of the inputs.
    """

    def __init__(self, network: keras.Model, unit: tuple[int, int], size: tuple[int, int], channels: int) -> None:
        self.unit, self.size = unit, size
        inputs = keras.Input((size[0] * unit[0], size[1] * unit[1], channels), batch_size=1)
        weights = keras.Input((*size, 1), batch_size=1)
        self.norms: list[_GlobalNormalization] = []

        def convert(layer: layers.Layer) -> layers.Layer:
            if not isinstance(layer, layers.GroupNormalization):
                return layer
            self.norms.append(_GlobalNormalization(layer))
            return self.norms[-1]

        copy = keras.models.clone_model(network, input_tensors=inputs, clone_function=convert)
        sums = [_WeightedSums(norm.groups)(norm.input, weights) for norm in self.norms]
        self.counts = [math.prod(norm.input.shape[1:]) // norm.groups / math.prod(size) for norm in self.norms]
        outputs = keras.tree.flatten(copy.outputs)
        self.num_outputs = len(outputs)
        self.graph = keras.Model([inputs, weights], [*outputs, *sums])

    def __call__(
        self, image: Floats, overlap: tuple[int, int], finish: Callable[[Tensor], Tensor] = ops.convert_to_tensor
    ) -> list[Floats]:
        """Return the outputs (H, W, C) of an image.

        Args:
            image: (H, W, C).
            overlap: Positions that neighbors share, (rows, columns).
            finish: Function of each output, applied before blending.
        """
        positions = [side // unit for side, unit in zip(image.shape[:2], self.unit, strict=True)]
        axes = [Tiles.cover(*sizes) for sizes in zip(positions, self.size, overlap, strict=True)]
        for norm in self.norms:
            norm.is_known.assign(0.0)
        for _ in range(len(self.norms) + 1):
            outputs, sums = self._pass(image, axes, positions, finish)
            if not self._update(sums, math.prod(positions)):
                break
        return outputs

    def _pass(
        self, image: Floats, axes: Sequence[Tiles], positions: Sequence[int], finish: Callable[[Tensor], Tensor]
    ) -> tuple[list[Floats], list[Any]]:
        """Return the blended outputs of all tiles, and the sums of each normalization."""
        blended: list[Any] = []
        totals: list[Any] = [0.0] * len(self.norms)
        for row, column, weights in _grid(axes):
            top, left = row * self.unit[0], column * self.unit[1]
            height, width = self.graph.inputs[0].shape[1:3]
            tile = image[top : top + height, left : left + width]
            results = tracing.predict_on_batch(self.graph, [tile[None], weights[None, ..., None]])
            outputs, sums = results[: self.num_outputs], results[self.num_outputs :]
            totals = [total + np.asarray(part[0], "float64") for total, part in zip(totals, sums, strict=True)]
            for index, output in enumerate(outputs):
                values = ops.convert_to_numpy(finish(ops.convert_to_tensor(output)))[0]
                scale = [side // count for side, count in zip(values.shape[:2], self.size, strict=True)]
                if len(blended) <= index:
                    shape = [count * factor for count, factor in zip(positions, scale, strict=True)]
                    blended.append(np.zeros((*shape, values.shape[-1]), "float32"))
                top, left = row * scale[0], column * scale[1]
                region = blended[index][top : top + values.shape[0], left : left + values.shape[1]]
                region += np.repeat(np.repeat(weights, scale[0], 0), scale[1], 1)[..., None] * values
        return blended, totals

    def _update(self, sums: Sequence[Any], positions: int) -> bool:
        """Set the moments, and return whether they changed."""
        has_changed = False
        for norm, total, count in zip(self.norms, sums, self.counts, strict=True):
            mean, square = total / (count * positions)
            moments = np.stack([mean, np.maximum(square - mean**2, 0.0)])
            old = ops.convert_to_numpy(norm.moments)
            std = np.sqrt(moments[1] + norm.original.epsilon)
            change = np.max([np.abs(moments[0] - old[0]) / std, np.abs(moments[1] - old[1]) / std**2])
            has_changed |= bool(change > TOLERANCE or not float(norm.is_known))
            norm.moments.assign(moments.astype("float32"))
            norm.is_known.assign(1.0)
        return has_changed


def _grid(axes: Sequence[Tiles]) -> Iterator[tuple[int, int, Floats]]:
    """Yield the first row and column of each tile, and the weights of its positions."""
    for row, row_weights in zip(axes[0].starts, axes[0].weights, strict=True):
        for column, column_weights in zip(axes[1].starts, axes[1].weights, strict=True):
            yield row, column, np.outer(row_weights, column_weights)


def tile_sizes(tile: Any, overlap: Any, factors: tuple[int, int] | None) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the sizes of tiles and of their overlap in positions of the code.

    Args:
        tile: Height and width of tiles in pixels.
        overlap: Pixels that neighbors share; None for half of the tile.
        factors: Pixels per position, (rows, columns); None if the networks have a fixed size.

    Raises:
        InputError: The networks have a fixed size, or a number of pixels is invalid.
    """
    if factors is None:
        raise InputError(f"tile = {shown(tile)}: the networks accept only one size; leave out tile")
    overlap = tile // 2 if overlap is None and is_integer(tile) else overlap
    step = math.lcm(*factors)
    if not is_integer(tile) or tile < 2 * step or tile % step:
        raise InputError(
            f"tile = {shown(tile)}: not a multiple of {step} from {2 * step}; pass for example {32 * step}"
        )
    overlap = overlap // step * step if is_integer(overlap) else overlap
    if not is_integer(overlap) or not 0 <= overlap <= tile - step:
        raise InputError(f"overlap = {shown(overlap)}: not a number of pixels below tile; pass 0 to {tile - step}")
    return (tile // factors[0], tile // factors[1]), (overlap // factors[0], overlap // factors[1])
