"""The prior of a VQ-VAE: a causal transformer over maps of code indices."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vae.core import backend, tracing
from keras_vae.core.errors import MAX_SIZE, InputError, check_count
from keras_vae.core.progress import reported
from keras_vae.core.registry import PACKAGE, ComponentLayer
from keras_vae.core.typing import Array, Shape, Tensor

_CACHE_BYTES = 2**29
"""Size of the keys and values of the maps that are sampled at once."""

_NOISE_VALUES = 2**23
"""Number of values of noise for the positions of one call."""


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
            check_count(name, value, maximum=MAX_SIZE)
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
        return ops.log_softmax(self._logits(inputs["indices"], inputs.get("condition")))

    def log_prob(self, indices: Tensor, condition: Tensor = None) -> Tensor:
        """Return the log-probabilities, (N,), in nats, of maps of indices (N, rows, columns)."""
        log_probs = ops.log_softmax(self._logits(indices, condition))
        # Not by `ops.sparse_categorical_crossentropy`: if TensorFlow's operations are deterministic, as after a
        # training, ONNX Runtime computes NaN from its graph.
        chosen = ops.one_hot(indices, log_probs.shape[-1]) * log_probs
        return ops.sum(ops.sum(chosen, axis=-1), axis=(1, 2))

    def sample(self, n: int, generator: np.random.Generator, condition: Array | None = None) -> Array:
        r"""Sample maps of indices, position by position, in a compiled loop.

        The index at each position is \(\arg\max_k (\log p(k | k_{<i}) + g_{ik})\) with Gumbel noise g. The keys and
        values of the attention are kept, so that each position is computed once.

        Args:
            n: Number of maps.
            generator: NumPy's generator of the noise, which is the same on all backends.
            condition: Encoded conditions, (n, size), or None.

        Returns:
            Indices (n, rows, columns), int32.
        """
        rows, columns, _ = self.map_shape
        size = max(1, _CACHE_BYTES // (8 * self.num_blocks * rows * columns * self.width))
        maps = [
            self._sample_batch(min(size, n - start), generator, None if condition is None else condition[start:][:size])
            for start in reported(range(0, n, size), "drawing codes")
        ]
        return np.concatenate(maps).reshape(n, rows, columns)

    def _sample_batch(self, n: int, generator: np.random.Generator, condition: Array | None) -> Array:
        """Sample sequences of indices, (n, rows · columns), in calls whose noise fits in memory."""
        rows, columns, num_codes = self.map_shape
        length = rows * columns
        calls = math.ceil(length / max(1, _NOISE_VALUES // (n * num_codes)))
        per_call = math.ceil(length / calls)
        shape = (n, length, self.num_heads, self.width // self.num_heads)
        inputs: dict[str, Any] = {
            "caches": [(np.zeros(shape, "float32"), np.zeros(shape, "float32")) for _ in self.blocks],
            "indices": np.zeros((n, length), "int32"),
        }
        if condition is not None:
            inputs["condition"] = condition
        for start in range(0, length, per_call):
            stop = min(start + per_call, length)
            # The last call has the same shape, so that it is not compiled again.
            noise = np.zeros((n, per_call, num_codes), "float32")
            noise[:, : stop - start] = _gumbel(generator, (stop - start, n, num_codes)).swapaxes(0, 1)
            positions = np.broadcast_to(np.array([start, stop], "int32"), (n, 2))
            with tracing.expected_tracing():
                results = self._compiled_positions({**inputs, "noise": noise, "positions": positions})
            inputs.update(results)
        indices: Array = ops.convert_to_numpy(inputs["indices"])
        return indices

    @functools.cached_property
    def _compiled_positions(self) -> Callable[[Any], Any]:
        return backend.compiled(self._sample_positions, self.variables, xla=True)

    def _sample_positions(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Sample the indices at the positions from `positions[0, 0]` to `positions[0, 1]`, exclusive.

        Args:
            inputs: The `indices` (N, length) and `caches` of the earlier positions, the `noise` of the new ones, and
                the `condition`, if any.

        Returns:
            The new `indices` and `caches`.
        """
        start, stop = inputs["positions"][0, 0], inputs["positions"][0, 1]
        embedding, offset = ops.convert_to_tensor(self.position_embedding), 0.0
        if self.condition_projection is not None:
            offset = self.condition_projection(inputs["condition"])

        def sample_position(position: Tensor, state: Any) -> Any:
            indices, caches = state
            before = ops.take(indices, ops.maximum(position - 1, 0), axis=1)
            token = ops.where(position > 0, self.code_embedding(before), 0.0)
            hidden = token + ops.take(embedding, position, axis=0) + offset
            updated = []
            for block, cache in zip(self.blocks, caches, strict=True):
                hidden, cache = block.step(hidden, cache, position)
                updated.append(cache)
            logits = self.head(self.norm(hidden)) + ops.take(inputs["noise"], position - start, axis=1)
            sampled = ops.cast(ops.argmax(logits, axis=-1), "int32")
            return backend.write_position(indices, position, sampled), updated

        indices, caches = ops.fori_loop(start, stop, sample_position, (inputs["indices"], inputs["caches"]))
        return {"indices": indices, "caches": caches}

    def _logits(self, indices: Tensor, condition: Tensor) -> Tensor:
        """Return unnormalized log-probabilities, (N, rows, columns, num_codes)."""
        rows, columns, num_codes = self.map_shape
        tokens = self.code_embedding(ops.reshape(indices, (-1, rows * columns)))
        # Shift by one, so that each position depends only on the codes before it.
        hidden = ops.pad(tokens[:, :-1], ((0, 0), (1, 0), (0, 0))) + ops.convert_to_tensor(self.position_embedding)
        if self.condition_projection is not None:
            hidden = hidden + self.condition_projection(condition)[:, None]
        for block in self.blocks:
            hidden = block(hidden)
        return ops.reshape(self.head(self.norm(hidden)), (-1, rows, columns, num_codes))


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

    def step(self, hidden: Tensor, cache: tuple[Tensor, Tensor], position: Tensor) -> tuple[Tensor, Any]:
        """Return the output at one position, (N, width), and the keys and values with those of the position.

        Args:
            hidden: The input at the position, (N, width).
            cache: Keys and values of the positions before it, (N, length, num_heads, width / num_heads).
            position: The position, an integer or a scalar tensor.
        """
        attention, normed = self.attention, self.norms[0](hidden)[:, None]
        query, key, value = (
            dense(normed)[:, 0] for dense in (attention.query_dense, attention.key_dense, attention.value_dense)
        )
        keys, values = (
            backend.write_position(old, position, new) for old, new in zip(cache, (key, value), strict=True)
        )
        scores = ops.einsum("nhd,nphd->nhp", query, keys) / math.sqrt(attention.key_dim)
        weights = ops.softmax(ops.where(ops.arange(keys.shape[1]) <= position, scores, -1e30))
        attended = ops.einsum("nhp,nphd->nhd", weights, values)
        hidden = hidden + attention.output_dense(attended[:, None])[:, 0]
        return hidden + self.project(self.expand(self.norms[1](hidden))), (keys, values)


def _gumbel(generator: np.random.Generator, shape: Shape) -> Array:
    """Return the values of `generator.gumbel`, up to rounding, in a fourth of its time."""
    noise = generator.random(shape)
    np.subtract(1, noise, out=noise)
    np.negative(np.log(noise, out=noise), out=noise)
    # Only a uniform number of exactly 0 gives less.
    np.maximum(noise, 1e-16, out=noise)
    np.negative(np.log(noise, out=noise), out=noise)
    return noise
