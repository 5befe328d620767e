"""Codes by number: a codebook of vectors, and a prior over maps of their indices."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers, ops

from keras_vae.core.errors import InputError
from keras_vae.core.registry import PACKAGE, ComponentLayer
from keras_vae.core.typing import Array, Shape, Tensor

_SMOOTHING = 1e-5
_PROBATION = 1.5
"""Usage that a revived code starts with, in those below which it is dead: one that nobody takes soon goes again."""


class Quantized(NamedTuple):
    """A batch of maps as a codebook has them.

    Args:
        vectors: The nearest codes, (N, rows, columns, D), differentiated as if they were the encoder's outputs.
        indices: Their numbers, (N, rows, columns), int32.
        distance: Squared distance of the encoder's outputs from them, summed over each map, (N,).
    """

    vectors: Tensor
    indices: Tensor
    distance: Tensor


@keras.saving.register_keras_serializable(PACKAGE)
class VectorQuantizerEMA(ComponentLayer):
    r"""Vectors that stand for what is near them, and follow it: \(N_i \leftarrow \gamma N_i + (1 - \gamma) n_i\).

    van den Oord et al. (arXiv 1711.00937), appendix A: \(n_i\) counts those outputs of the encoder, in a batch, that
    code i is nearest to; \(m_i\) averages their sums as \(N_i\) does their counts, and the code is \(m_i / N_i\), the
    counts smoothed after Laplace. A code that is hardly used is replaced by an output of the batch (Dhariwal et al.,
    arXiv 2005.00341), drawn in proportion to its squared distance from the codes. The first batch replaces all; until
    then every code is zero.

    Args:
        num_codes: Number of code vectors.
        decay: γ, by step.
        commitment: Weight of the squared distance that the encoder pays.
        revive_below: The usage, as a share of the mean usage, from which on down a code is replaced; 0 keeps them all.
        **kwargs: As for every Keras layer.

    Call arguments:
        maps: Outputs of the encoder, (N, rows, columns, D).
        uniform: In a step of training, noise uniform on [0, 1), (codes,), by which replacements are drawn; else None.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> VectorQuantizerEMA(num_codes=8)(ops.ones((2, 7, 7, 4)), uniform=ops.zeros((8,))).indices.shape[1:] == (7, 7)
        True
    """

    def __init__(
        self,
        num_codes: int = 512,
        decay: float = 0.99,
        commitment: float = 0.25,
        dead_code_threshold: float = 0.1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if num_codes < 2 or not 0 <= commitment < math.inf:
            raise InputError(
                f"codebook: num_codes = {num_codes}, commitment = {commitment}: at least 2, and finite and ≥ 0"
            )
        if not (0 <= decay < 1 and 0 <= dead_code_threshold < 1):
            raise InputError(
                f"codebook: decay = {decay}, revive_below = {dead_code_threshold}: each must lie in [0, 1)"
            )
        self.num_codes, self.decay, self.commitment, self.dead_code_threshold = (
            num_codes,
            decay,
            commitment,
            dead_code_threshold,
        )

    def build(self, map_shape: Shape) -> None:
        """Make the averages for maps (N, rows, columns, D)."""
        shape = (self.num_codes, map_shape[-1])
        self.counts = self.add_weight(shape=shape[:1], initializer="zeros", trainable=False, name="counts")
        self.sums = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="sums")

    @property
    def vectors(self) -> Tensor:
        """The codes, (codes, D)."""
        counts = ops.convert_to_tensor(self.counts)
        total = ops.sum(counts)
        smoothed = (counts + _SMOOTHING) * total / (total + self.num_codes * _SMOOTHING)
        return ops.convert_to_tensor(self.sums) / ops.maximum(smoothed, 1e-20)[:, None]

    def call(self, maps: Tensor, uniform: Tensor = None) -> Quantized:  # noqa: D102
        outputs = ops.reshape(ops.stop_gradient(maps), (-1, maps.shape[-1]))
        if uniform is not None:
            self._revive(outputs, uniform)
        indices = self.nearest(ops.stop_gradient(maps))
        nearest = ops.take(self.vectors, indices, axis=0)
        if uniform is not None:
            self._follow(outputs, ops.reshape(indices, (-1,)))
        return Quantized(
            maps + ops.stop_gradient(nearest - maps),
            indices,
            ops.sum(ops.square(maps - nearest), axis=(1, 2, 3)),
        )

    def nearest(self, maps: Tensor) -> Tensor:
        """Return the number of the code nearest to each vector of maps (N, rows, columns, D), int32."""
        return _nearest(maps, self.vectors)

    def _revive(self, outputs: Tensor, uniform: Tensor) -> None:
        counts, sums = ops.convert_to_tensor(self.counts), ops.convert_to_tensor(self.sums)
        dead = counts <= self.dead_code_threshold * ops.mean(counts)
        least = _PROBATION * max(self.dead_code_threshold, 0.01) / self.num_codes
        start = least * ops.cast(ops.shape(outputs)[0], "float32")
        self.sums.assign(ops.where(dead[:, None], start * _far(outputs, self.vectors, uniform), sums))
        self.counts.assign(ops.where(dead, start, counts))

    def _follow(self, outputs: Tensor, numbers: Tensor) -> None:
        chosen = ops.one_hot(numbers, self.num_codes, dtype="float32")
        sums = ops.matmul(ops.transpose(chosen), outputs)
        for average, value in ((self.counts, ops.sum(chosen, axis=0)), (self.sums, sums)):
            average.assign(self.decay * ops.convert_to_tensor(average) + (1 - self.decay) * value)


@keras.saving.register_keras_serializable(PACKAGE)
class AutoregressivePrior(ComponentLayer, keras.Model):
    r"""An autoregressive prior over maps of indices in raster order, \(p(k) = \prod_i p(k_i | k_{<i})\).

    A causal transformer (Vaswani et al., arXiv 1706.03762), normalized before attention and dense layers. The
    condition, where there is one, enters at every position.

    Args:
        width: Of the vectors that stand for positions; a multiple of `heads`.
        blocks: How many blocks of attention and dense layers.
        heads: Of each attention.
        **kwargs: As for every Keras model.

    Call arguments:
        inputs: A dict of `indices` (N, rows, columns), int32, and under a condition `condition`, (N, size).

    Returns:
        Of each position its log-probabilities given the positions before, (N, rows, columns, codes).

    Raises:
        InputError: A size is below one, or `width` is no multiple of `heads`.
    """

    def __init__(self, width: int = 64, blocks: int = 3, heads: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if min(width, blocks, heads) < 1 or width % heads:
            raise InputError(
                f"code prior: width = {width}, blocks = {blocks}, heads = {heads}: each must be ≥ 1, and width a "
                "multiple of heads"
            )
        self.width, self.blocks, self.heads = width, blocks, heads

    def build(self, logits_shape: Shape, condition_shape: Shape) -> None:
        """Make the weights for logits (N, rows, columns, codes) and conditions (N, size)."""
        self.map_shape = tuple(logits_shape[1:])
        rows, columns, codes = self.map_shape
        small = keras.initializers.RandomNormal(stddev=0.02)
        shape = (rows * columns, self.width)
        self.positions = self.add_weight(shape=shape, initializer=small, name="positions")
        self.embedding = layers.Embedding(codes, self.width, embeddings_initializer=small, dtype="float32")
        self.inner = [_Block(self.width, self.heads, name=f"block_{index}") for index in range(self.blocks)]
        self.norm = layers.LayerNormalization(dtype="float32")
        self.head = layers.Dense(codes, kernel_initializer=small, dtype="float32")
        self.embedding.build((None, rows * columns))
        for layer in (*self.inner, self.norm, self.head):
            layer.build((None, *shape))
        self.told = layers.Dense(self.width, use_bias=False, dtype="float32") if condition_shape[-1] else None
        if self.told is not None:
            self.told.build(condition_shape)

    def call(self, inputs: Mapping[str, Tensor]) -> Tensor:  # noqa: D102
        rows, columns, codes = self.map_shape
        tokens = self.embedding(ops.reshape(inputs["indices"], (-1, rows * columns)))
        # Nothing comes before the first position, and each sees the one before it.
        hidden = ops.pad(tokens[:, :-1], ((0, 0), (1, 0), (0, 0))) + ops.convert_to_tensor(self.positions)
        if self.told is not None:
            hidden = hidden + self.told(inputs["condition"])[:, None]
        for block in self.inner:
            hidden = block(hidden)
        return ops.reshape(ops.log_softmax(self.head(self.norm(hidden))), (-1, rows, columns, codes))

    def log_prob(self, indices: Tensor, condition: Tensor = None) -> Tensor:
        """Return log p of maps of indices (N, rows, columns), in nats, (N,)."""
        log_probs = self(_inputs(indices, condition))
        return ops.sum(ops.take_along_axis(log_probs, indices[..., None], axis=-1), axis=(1, 2, 3))

    def sample(self, n: int, generator: np.random.Generator, condition: Array | None = None) -> Array:
        """Return n maps of indices, (n, rows, columns), int32, drawn position by position, all maps at once.

        Args:
            n: How many.
            generator: Draws them: NumPy's, so that every backend draws the same.
            condition: What they are drawn under, (n, size), or None.
        """
        indices = np.zeros((n, *self.map_shape[:2]), "int32")
        for place in np.ndindex(*self.map_shape[:2]):
            log_probs = self.predict_on_batch(_inputs(indices, condition))[:, *place]
            indices[:, *place] = np.argmax(log_probs + generator.gumbel(size=log_probs.shape), axis=-1)
        return indices


def codebook_usage(indices: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    r"""Return the perplexity \(e^{H}\) of the codes in a batch of maps, and how many of them it uses.

    Args:
        indices: Maps of indices, of any shape.
        num_codes: Number of codes.

    Example:
        >>> perplexity, used = codebook_usage(ops.convert_to_tensor([[0, 1], [0, 1]]), num_codes=4)
        >>> round(float(perplexity), 3), int(used)
        (2.0, 2)
    """
    shares = ops.mean(ops.one_hot(ops.reshape(indices, (-1,)), num_codes, dtype="float32"), axis=0)
    entropy = -ops.sum(shares * ops.log(ops.maximum(shares, 1e-20)))
    return ops.exp(entropy), ops.sum(ops.cast(shares > 0, "float32"))


class _Block(layers.Layer):
    """Causal attention, then two dense layers, each added to what comes in."""

    def __init__(self, width: int, heads: int, **kwargs: Any) -> None:
        super().__init__(**{**kwargs, "dtype": "float32"})
        # A bias of the keys shifts every score of a position alike, and would never learn.
        self.attention = layers.MultiHeadAttention(heads, width // heads, use_bias=False, dtype="float32")
        self.norms = [layers.LayerNormalization(dtype="float32") for _ in range(2)]
        self.wide = layers.Dense(4 * width, activation="gelu", dtype="float32")
        self.narrow = layers.Dense(width, dtype="float32")

    def build(self, shape: Shape) -> None:
        self.attention.build(shape, shape)
        for layer in (*self.norms, self.wide):
            layer.build(shape)
        self.narrow.build((*shape[:-1], self.wide.units))

    def call(self, hidden: Tensor) -> Tensor:
        normed = self.norms[0](hidden)
        hidden = hidden + self.attention(normed, normed, use_causal_mask=True)
        return hidden + self.narrow(self.wide(self.norms[1](hidden)))


def _nearest(outputs: Tensor, vectors: Tensor) -> Tensor:
    """Return the number of the code nearest to each output (…, D), int32; ‖output‖² is the same for all codes."""
    nearness = 2.0 * ops.matmul(outputs, ops.transpose(vectors)) - ops.sum(ops.square(vectors), axis=-1)
    # Keras's argmin looks at the bits of zeros, which exported graphs cannot.
    return ops.cast(ops.top_k(nearness, 1)[1][..., 0], "int32")


def _far(outputs: Tensor, vectors: Tensor, uniform: Tensor) -> Tensor:
    """Return outputs drawn in proportion to their squared distance from the nearest vector, one for each number."""
    nearest = ops.take(vectors, _nearest(outputs, vectors), axis=0)
    cumulative = ops.cumsum(ops.sum(ops.square(outputs - nearest), axis=-1))
    places = ops.cast(ops.searchsorted(cumulative, uniform * cumulative[-1], side="right"), "int32")
    return ops.take(outputs, ops.minimum(places, ops.shape(outputs)[0] - 1), axis=0)


def _inputs(indices: Tensor, condition: Tensor) -> dict[str, Tensor]:
    return {"indices": indices} if condition is None else {"indices": indices, "condition": condition}
