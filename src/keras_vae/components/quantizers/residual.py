"""Residual quantization: several quantizers in a row, each of what the previous ones left over."""

from typing import Any

from keras import ops

from keras_vae.components.quantizers.base import Quantizer
from keras_vae.components.quantizers.ema import VectorQuantizerEMA
from keras_vae.components.quantizers.fsq import FiniteScalarQuantizer
from keras_vae.core.errors import InputError, check_count
from keras_vae.core.registry import check_component, register
from keras_vae.core.typing import Shape, Tensor

MAX_DEPTH = 64
"""Largest number of quantizers: their indices multiply the length of the prior's sequence."""


@register("residual")
class ResidualQuantizer(Quantizer):
    r"""A stack of quantizers: the code vector is a sum with one term per quantizer (arXiv 2107.03312).

    The first quantizer replaces the encoder output, and each other one the remainder of the quantizers before it,

    \[r_1 = e, \quad r_{i+1} = r_i - \mathrm{sg}(q_i(r_i)), \quad q = \sum_i q_i(r_i).\]

    Every position has one index per quantizer, coarse to fine. The loss is the sum of the quantizers' losses. The
    gradient estimator applies once, to the sum (Zeghidour et al., IEEE TASLP 2022).

    Args:
        quantizer: Settings of all quantizers, such as `SimVQ(num_codes=256)`; each has its own codebook.
        num_quantizers: Number of quantizers.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: There are too many quantizers, or they are of a kind that cannot be stacked.

    Example:
        >>> quantizer = ResidualQuantizer(VectorQuantizerEMA(num_codes=8), num_quantizers=3)
        >>> tuple(quantizer(ops.ones((2, 7, 7, 4))).indices.shape)
        (2, 7, 7, 3)
    """

    def __init__(self, quantizer: Quantizer | None = None, num_quantizers: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_component("quantizer", quantizer, Quantizer)
        check_count("num_quantizers", num_quantizers, maximum=MAX_DEPTH)
        quantizer = quantizer or VectorQuantizerEMA()
        if isinstance(quantizer, FiniteScalarQuantizer):
            raise InputError(
                "quantizer = fsq: its levels are as far apart for the remainders as for the outputs; give fsq more "
                "levels, or stack 'ema' or 'simvq'"
            )
        if isinstance(quantizer, ResidualQuantizer):
            raise InputError("quantizer = residual: already a stack; raise num_quantizers instead")
        self.quantizer, self.num_quantizers = quantizer, num_quantizers
        self.num_codes, self.depth = quantizer.num_codes, num_quantizers
        self.map_deviation = quantizer.map_deviation
        settings = {**quantizer.get_config(), "name": None}
        copies = (type(quantizer).from_config(settings) for _ in range(num_quantizers - 1))
        self.stages = [quantizer, *copies]

    def build(self, map_shape: Shape) -> None:
        """Create the weights of all quantizers for maps (N, rows, columns, D)."""
        for stage in self.stages:
            if not stage.built:
                stage.build(map_shape)

    @property
    def vectors(self) -> Tensor:
        """Code vectors of all quantizers, (num_quantizers · num_codes, D)."""
        return ops.concatenate([stage.vectors for stage in self.stages], axis=0)

    @property
    def noise_shape(self) -> Shape | None:
        """Shape of the noise of all quantizers, the first axis counting them; None if they need none."""
        shape = self.quantizer.noise_shape
        return None if shape is None else (self.num_quantizers, *shape)

    def nearest(self, maps: Tensor, noise: Tensor = None) -> tuple[Tensor, Tensor]:
        """Return code vectors (N, rows, columns, num_quantizers, D) and indices of maps (N, rows, columns, D)."""
        remainder, results = maps, list[tuple[Tensor, Tensor]]()
        for index, stage in enumerate(self.stages):
            results.append(stage.nearest(remainder, None if noise is None else noise[index]))
            remainder = remainder - ops.stop_gradient(results[-1][0])
        vectors, indices = zip(*results, strict=True)
        return ops.stack(vectors, axis=-2), ops.stack(indices, axis=-1)

    def distance_loss(self, maps: Tensor, vectors: Tensor) -> Tensor:
        """Return the sum of the losses of all quantizers, (N,)."""
        remainder, losses = maps, list[Tensor]()
        for index, stage in enumerate(self.stages):
            losses.append(stage.distance_loss(remainder, vectors[..., index, :]))
            remainder = remainder - ops.stop_gradient(vectors[..., index, :])
        return ops.sum(ops.stack(losses, axis=-1), axis=-1)
