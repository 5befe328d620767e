"""The prior of a VQ-VAE: a causal transformer over maps of code indices."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vae.core import backend
from keras_vae.core.errors import InputError
from keras_vae.core.registry import PACKAGE, ComponentLayer
from keras_vae.core.typing import Array, Shape, Tensor


@keras.saving.register_keras_serializable(PACKAGE)
class AutoregressivePrior(ComponentLayer, keras.Model):
    r"""An autoregressive prior over maps of indices in raster order, \(p(k) = \prod_i p(k_i | k_{<i})\).

    A causal transformer (Vaswani et al., arXiv 1706.03762) with layer normalization before attention and dense layers.
    The condition, if any, is added at every position.

    Args:
        width: Size of the hidden vectors, a multiple of `num_heads`.
        num_blocks: Number of transformer blocks.
        num_heads: Number of attention heads per block.
        **kwargs: Arguments of `keras.Model`.

    Call arguments:
        inputs: A dict with `indices`, (N, rows, columns), int32; with a condition, also `condition`, (N, size).

    Returns:
        Log-probabilities of all codes at each position, given the earlier positions, (N, rows, columns, num_codes).

    Raises:
        InputError: A size is below one, or `width` is not a multiple of `num_heads`.
    """

    def __init__(self, width: int = 64, num_blocks: int = 3, num_heads: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for name, value in {"width": width, "num_blocks": num_blocks, "num_heads": num_heads}.items():
            if value < 1:
                raise InputError(f"{name} = {value}: not positive; pass an integer ≥ 1")
        if width % num_heads:
            raise InputError(f"width = {width}: not divisible by num_heads; pass a multiple of {num_heads}")
        self.width, self.num_blocks, self.num_heads = width, num_blocks, num_heads

    def build(self, logits_shape: Shape, condition_shape: Shape) -> None:
        """Create the weights for logits (N, rows, columns, num_codes) and conditions (N, size)."""
        self.map_shape = tuple(logits_shape[1:])
        rows, columns, num_codes = self.map_shape
        small = keras.initializers.RandomNormal(stddev=0.02)
        shape = (rows * columns, self.width)
        self.position_embedding = self.add_weight(shape=shape, initializer=small, name="position_embedding")
        self.code_embedding = layers.Embedding(num_codes, self.width, embeddings_initializer=small, dtype="float32")
        self.blocks = [
            _TransformerBlock(self.width, self.num_heads, name=f"block_{index}") for index in range(self.num_blocks)
        ]
        self.norm = layers.LayerNormalization(dtype="float32")
        self.head = layers.Dense(num_codes, kernel_initializer=small, dtype="float32")
        self.code_embedding.build((None, rows * columns))
        for layer in (*self.blocks, self.norm, self.head):
            layer.build((None, *shape))
        self.condition_projection = None
        if condition_shape[-1]:
            self.condition_projection = layers.Dense(self.width, use_bias=False, dtype="float32")
            self.condition_projection.build(condition_shape)

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:  # noqa: D102
        rows, columns, num_codes = self.map_shape
        tokens = self.code_embedding(ops.reshape(inputs["indices"], (-1, rows * columns)))
        # Shift by one, so that each position depends only on the codes before it.
        hidden = ops.pad(tokens[:, :-1], ((0, 0), (1, 0), (0, 0))) + ops.convert_to_tensor(self.position_embedding)
        if self.condition_projection is not None:
            hidden = hidden + self.condition_projection(inputs["condition"])[:, None]
        for block in self.blocks:
            hidden = block(hidden)
        return ops.reshape(ops.log_softmax(self.head(self.norm(hidden))), (-1, rows, columns, num_codes))

    def log_prob(self, indices: Tensor, condition: Tensor = None) -> Tensor:
        """Return the log-probabilities, (N,), in nats, of maps of indices (N, rows, columns)."""
        log_probs = self(_inputs(indices, condition))
        return ops.sum(ops.take_along_axis(log_probs, indices[..., None], axis=-1), axis=(1, 2, 3))

    def sample(self, n: int, generator: np.random.Generator, condition: Array | None = None) -> Array:
        """Sample maps of indices, position by position.

        Args:
            n: Number of maps.
            generator: NumPy's generator of the noise, which is the same on all backends.
            condition: Encoded conditions, (n, size), or None.

        Returns:
            Indices (n, rows, columns), int32.
        """
        indices = np.zeros((n, *self.map_shape[:2]), "int32")
        for position in np.ndindex(*self.map_shape[:2]):
            log_probs = backend.predict_on_batch(self, _inputs(indices, condition))[:, *position]
            indices[:, *position] = np.argmax(log_probs + generator.gumbel(size=log_probs.shape), axis=-1)
        return indices


class _TransformerBlock(layers.Layer):
    """Causal attention, then two dense layers, each with a residual connection."""

    def __init__(self, width: int, num_heads: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        # Without biases: the softmax would cancel that of the keys, a weight without a gradient.
        self.attention = layers.MultiHeadAttention(num_heads, width // num_heads, use_bias=False, dtype="float32")
        self.norms = [layers.LayerNormalization(dtype="float32") for _ in range(2)]
        self.expand = layers.Dense(4 * width, activation="gelu", dtype="float32")
        self.project = layers.Dense(width, dtype="float32")

    def build(self, shape: Shape) -> None:
        self.attention.build(shape, shape)
        for layer in (*self.norms, self.expand):
            layer.build(shape)
        self.project.build((*shape[:-1], self.expand.units))

    def call(self, hidden: Tensor) -> Tensor:
        normed = self.norms[0](hidden)
        hidden = hidden + self.attention(normed, normed, use_causal_mask=True)
        return hidden + self.project(self.expand(self.norms[1](hidden)))


def _inputs(indices: Tensor, condition: Tensor) -> dict[str, Tensor]:
    return {"indices": indices} if condition is None else {"indices": indices, "condition": condition}
