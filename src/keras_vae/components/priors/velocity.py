"""Networks of velocity fields: a residual MLP for vectors, and a U-Net for maps."""

import abc
import math
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vae.core.registry import ComponentLayer
from keras_vae.core.typing import Shape, Tensor

_FREQUENCIES = np.geomspace(1.0, 100.0, 16).astype("float32")
# Small, so that training starts near the standard normal; not zero, so that every weight has a gradient.
_SMALL = 0.01


class VelocityNetwork(ComponentLayer, abc.ABC):
    """Base class of networks of points (N, D), times and conditions (N, size) or None, with outputs (N, D).

    Times are (N, 1) or, for all points, (1, 1).

    Layers are built in the constructor and called one by one, so that exported graphs contain layers of Keras only.

    Args:
        condition_dim: Size of the condition; 0 for none.
        width: Four times the size of the vector that encodes time and condition.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, condition_dim: int, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.condition_dim, self.width = condition_dim, width
        self.embedding_dim = max(8, width // 4)
        self.embed_time = dense(2 * len(_FREQUENCIES), self.embedding_dim)
        self.embed_condition = dense(condition_dim, self.embedding_dim, use_bias=False) if condition_dim else None

    @abc.abstractmethod
    def apply(self, u: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return the outputs, (N, D)."""

    def embed(self, time: Tensor, condition: Tensor) -> Tensor:
        """Return the vectors that encode time and condition, (N, embedding_dim) or (1, embedding_dim)."""
        angles = ops.multiply(time, _FREQUENCIES)
        embedding = self.embed_time(ops.concatenate([ops.sin(angles), ops.cos(angles)], axis=-1))
        if self.embed_condition is not None:
            embedding = self.embed_condition(condition) + embedding
        return ops.silu(embedding)


class VelocityMLP(VelocityNetwork):
    r"""A residual MLP, \(h \leftarrow h + W' s(W s(h) + b + M e) + b'\) with the SiLU s and the embedding e.

    Args:
        latent_dim: Number of dimensions D.
        condition_dim: Size of the condition; 0 for none.
        width: Units of all hidden layers.
        num_blocks: Number of residual blocks.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, latent_dim: int, condition_dim: int, width: int, num_blocks: int, **kwargs: Any) -> None:
        super().__init__(condition_dim, width, **kwargs)
        self.enter = dense(latent_dim, width)
        self.inner = [dense(width, width) for _ in range(num_blocks)]
        self.modulate = [dense(self.embedding_dim, width, use_bias=False) for _ in range(num_blocks)]
        self.outer = [dense(width, width) for _ in range(num_blocks)]
        self.leave = dense(width, latent_dim, kernel_initializer=keras.initializers.RandomNormal(stddev=_SMALL))
        self.built = True

    def apply(self, u: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return the outputs, (N, D)."""
        embedding, hidden = self.embed(time, condition), self.enter(u)
        for inner, modulate, outer in zip(self.inner, self.modulate, self.outer, strict=True):
            hidden = hidden + outer(ops.silu(inner(ops.silu(hidden)) + modulate(embedding)))
        return self.leave(ops.silu(hidden))

    def apply_with_divergence(self, u: Tensor, time: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        r"""Return the outputs f, (N, D), and \(\sum_i \partial f_i / \partial u_i\), (N,).

        The tangents of all D directions pass through the layers as a further axis, on every backend.
        """
        embedding, hidden = self.embed(time, condition), self.enter(u)
        # (D, width): the same for all points, until the first nonlinearity.
        tangents = ops.convert_to_tensor(self.enter.kernel)
        for inner, modulate, outer in zip(self.inner, self.modulate, self.outer, strict=True):
            before, inside = hidden, inner(ops.silu(hidden)) + modulate(embedding)
            hidden = hidden + outer(ops.silu(inside))
            change = ops.matmul(_silu_slope(before)[:, None] * tangents, ops.convert_to_tensor(inner.kernel))
            change = ops.matmul(_silu_slope(inside)[:, None] * change, ops.convert_to_tensor(outer.kernel))
            tangents = tangents + change
        slopes = _silu_slope(hidden)[:, None] * tangents
        divergence = ops.sum(slopes * ops.transpose(ops.convert_to_tensor(self.leave.kernel)), axis=(1, 2))
        return self.leave(ops.silu(hidden)), divergence


class VelocityUNet(VelocityNetwork):
    """A U-Net of residual blocks (Ronneberger et al., arXiv 1505.04597; Ho et al., 2006.11239).

    Sides are halved as long as they are even and above 4, at most twice.

    Args:
        map_shape: (h, w, c) of the maps, which are passed as vectors of D = h·w·c values.
        condition_dim: Size of the condition; 0 for none.
        width: Four times the size of the vector that encodes time and condition.
        channels: Channels of the largest maps; smaller maps have twice as many.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, map_shape: Shape, condition_dim: int, width: int, channels: int, **kwargs: Any) -> None:
        super().__init__(condition_dim, width, **kwargs)
        self.map_shape = height, width_, depth = tuple(map_shape)
        levels = 1
        while levels < 3 and all(side % 2**levels == 0 and side // 2**levels >= 4 for side in (height, width_)):
            levels += 1
        sizes = [channels if level == 0 else 2 * channels for level in range(levels)]
        self.enter = convolution(depth, channels)
        self.down = [
            ResidualBlock(before, after, self.embedding_dim)
            for before, after in zip([channels, *sizes], sizes, strict=False)
        ]
        self.middle = ResidualBlock(sizes[-1], sizes[-1], self.embedding_dim)
        outputs = [sizes[max(level - 1, 0)] for level in range(levels)]
        self.up = [
            ResidualBlock(2 * size, output, self.embedding_dim) for size, output in zip(sizes, outputs, strict=True)
        ]
        self.norm = group_norm(channels)
        self.leave = convolution(channels, depth, kernel_initializer=keras.initializers.RandomNormal(stddev=_SMALL))
        self.pool = layers.AveragePooling2D(2, dtype="float32")
        self.grow = layers.UpSampling2D(2, dtype="float32")
        self.built = True

    def apply(self, u: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        """Return the outputs, (N, D)."""
        embedding = self.embed(time, condition)
        hidden, skips = self.enter(ops.reshape(u, (-1, *self.map_shape))), []
        for level, block in enumerate(self.down):
            hidden = block.apply(self.pool(hidden) if level else hidden, embedding)
            skips.append(hidden)
        hidden = self.middle.apply(hidden, embedding)
        for level, block in reversed(list(enumerate(self.up))):
            hidden = block.apply(ops.concatenate([hidden, skips[level]], axis=-1), embedding)
            hidden = self.grow(hidden) if level else hidden
        return ops.reshape(self.leave(ops.silu(self.norm(hidden))), (-1, math.prod(self.map_shape)))


class ResidualBlock(ComponentLayer):
    """Two convolutions with group normalization; the embedding is added between them.

    Args:
        before: Channels of the inputs.
        after: Channels of the outputs.
        embedding_dim: Size of the embedding.
        **kwargs: Arguments of every Keras layer.
    """

    def __init__(self, before: int, after: int, embedding_dim: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.before, self.after, self.embedding_dim = before, after, embedding_dim
        self.norms = [group_norm(before), group_norm(after)]
        # The embedding contributes the bias of the first convolution, because the conversion to ONNX fails if two
        # constants are added to a convolution.
        self.convolutions = [convolution(before, after, use_bias=False), convolution(after, after)]
        self.modulate = dense(embedding_dim, after)
        self.shortcut = None if before == after else convolution(before, after, size=1)
        self.built = True

    def apply(self, hidden: Tensor, embedding: Tensor) -> Tensor:
        """Return the outputs, (N, h, w, after)."""
        first, second = self.convolutions
        inside = first(ops.silu(self.norms[0](hidden)))
        inside = inside + ops.reshape(self.modulate(embedding), (-1, 1, 1, self.after))
        inside = second(ops.silu(self.norms[1](inside)))
        return inside + (hidden if self.shortcut is None else self.shortcut(hidden))


def dense(inputs: int, units: int, **kwargs: Any) -> layers.Dense:
    """Return a built dense layer that computes in float32 under every precision policy."""
    layer = layers.Dense(units, dtype="float32", **kwargs)
    layer.build((None, inputs))
    return layer


def convolution(inputs: int, filters: int, *, size: int = 3, **kwargs: Any) -> layers.Conv2D:
    """Return a built convolution that keeps the size of maps and computes in float32 under every precision policy."""
    layer = layers.Conv2D(filters, size, padding="same", dtype="float32", **kwargs)
    layer.build((None, None, None, inputs))
    return layer


def group_norm(channels: int) -> layers.GroupNormalization:
    """Return a built group normalization with up to 8 groups."""
    layer = layers.GroupNormalization(math.gcd(8, channels), dtype="float32")
    layer.build((None, None, None, channels))
    return layer


def _silu_slope(x: Tensor) -> Tensor:
    """Return the derivative of the SiLU."""
    gate = ops.sigmoid(x)
    return gate * (1.0 + x * (1.0 - gate))
