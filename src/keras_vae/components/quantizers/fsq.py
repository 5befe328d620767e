"""Finite scalar quantization: a grid of codes without a codebook."""

import math
from typing import Any, ClassVar

import numpy as np
from keras import ops

from keras_vae.components.quantizers.base import Quantizer
from keras_vae.core.errors import MAX_SIZE, InputError, is_integer, require_list, shown
from keras_vae.core.registry import register
from keras_vae.core.typing import Shape, Tensor

_MARGIN = 1e-3
"""Relative margin by which the bound exceeds the outermost levels, so that they can be reached."""


@register("fsq")
class FiniteScalarQuantizer(Quantizer):
    r"""A grid of code vectors: each dimension is bounded and rounded to one of its levels (arXiv 2309.15505).

    For a dimension with L levels, \(h = (L - 1)(1 + 10^{-3}) / 2\), and o = ½ if L is even and 0 otherwise,

    \[b(z) = h \tanh(z + \operatorname{artanh}(o / h)) - o, \quad
    q = \operatorname{round}(b(z)) / \lfloor L / 2 \rfloor.\]

    There is nothing to learn and no commitment loss, so codes cannot die. The index of a code counts its levels in a
    mixed radix; the first dimension changes fastest (Mentzer et al., ICLR 2024).

    Args:
        levels: Number of levels of each dimension, at least 3. The paper recommends 5 or more; `[8, 5, 5, 5]` has
            1,000 codes, and `[8, 8, 8, 8]` has 4,096. Code vectors have one dimension per level.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: A number of levels is below 3, or there are too many codes.

    Example:
        >>> quantizer = FiniteScalarQuantizer(levels=(3, 3))
        >>> quantized = quantizer(ops.convert_to_tensor([[[[-9.0, 0.1]]]]))
        >>> [float(value) for value in quantized.vectors[0, 0, 0]], int(quantized.indices[0, 0, 0])
        ([-1.0, 0.0], 3)
    """

    # The first outputs of a network are small. They would all round to the same code. The channels of images are more
    # peaked than a normal distribution, so that a deviation above 1 spreads them more evenly over the levels.
    map_deviation: float | None = 1.5
    no_rotation: ClassVar[str] = "undefined for fsq, which rounds each dimension and has a code vector of length 0"

    def __init__(self, levels: tuple[int, ...] = (8, 5, 5, 5), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        require_list("levels", levels)
        for level in levels:
            if not is_integer(level) or level < 3:
                raise InputError(
                    f"levels = {shown(list(levels))}: {shown(level)} is not a number of levels; pass integers ≥ 3, "
                    "such as [8, 5, 5, 5]"
                )
        if not levels or math.prod(levels) > MAX_SIZE:
            problem = f"{math.prod(levels):,} codes do not fit in memory" if levels else "no dimensions"
            raise InputError(f"levels = {shown(list(levels))}: {problem}; pass 1 to {MAX_SIZE:,} codes, the product")
        self.levels = tuple(map(int, levels))
        self.num_codes = math.prod(self.levels)

    def build(self, map_shape: Shape) -> None:
        """Check the shape of maps (N, rows, columns, D)."""
        if map_shape[-1] != len(self.levels):
            raise InputError(
                f"levels = {list(self.levels)}: {len(self.levels)} dimensions, but the encoder's map has "
                f"{map_shape[-1]} channels; build an encoder with {len(self.levels)}"
            )

    @property
    def code_dim(self) -> int:
        """Size of the code vectors: the number of dimensions that have levels."""
        return len(self.levels)

    @property
    def vectors(self) -> Tensor:
        """Code vectors, (num_codes, D)."""
        digits = np.stack(np.unravel_index(np.arange(self.num_codes), self.levels, order="F"), axis=-1)
        return ops.convert_to_tensor((digits.astype("float32") - self._radius) / self._radius)

    def bound(self, maps: Tensor) -> Tensor:
        """Return b(z) / ⌊L / 2⌋, which `nearest` rounds."""
        levels = np.array(self.levels, "float32")
        half, offset = (levels - 1) * (1 + _MARGIN) / 2, np.where(levels % 2 == 0, np.float32(0.5), np.float32(0))
        scale, shift = _constant(half / self._radius), _constant(np.arctanh(offset / half))
        return ops.tanh(maps + shift) * scale - _constant(offset / self._radius)

    def nearest(self, maps: Tensor, noise: Tensor = None) -> tuple[Tensor, Tensor]:
        """Return code vectors and indices of bounded maps (N, rows, columns, D)."""
        radius = _constant(self._radius)
        rounded = ops.round(ops.stop_gradient(maps) * radius)
        place_values = ops.convert_to_tensor(np.cumprod((1, *self.levels[:-1])).astype("int32"))
        indices = ops.sum(ops.cast(rounded + radius, "int32") * place_values, axis=-1)
        return rounded / radius, ops.cast(indices, "int32")

    def distance_loss(self, maps: Tensor, vectors: Tensor) -> Tensor:
        """Return zeros, (N,): the bound keeps the maps near the levels."""
        return ops.sum(vectors * 0.0, axis=(1, 2, 3))

    @property
    def _radius(self) -> Any:
        return np.array(self.levels, "float32") // 2


def _constant(values: Any) -> Tensor:
    return ops.convert_to_tensor(values, dtype="float32")
