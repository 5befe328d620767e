"""The codebook of a VQ-VAE, with exponential moving averages as its learning rule."""

from typing import Any

from keras import ops

from keras_vae.components.quantizers.base import (
    Quantizer,
    check_codebook,
    nearest_indices,
    squared_distance,
)
from keras_vae.core.errors import InputError
from keras_vae.core.registry import register
from keras_vae.core.typing import Shape, Tensor

_SMOOTHING = 1e-5
_RESTART_COUNT = 1.5
"""Count of a restarted code, as a multiple of the threshold: small, so that an unused code soon restarts again."""


@register("ema")
class VectorQuantizerEMA(Quantizer):
    r"""A codebook whose vectors are moving averages of the encoder outputs assigned to them.

    In each training step, \(n_i\) encoder outputs with the sum \(s_i\) are nearest to code vector \(e_i\), and

    \[N_i \leftarrow \gamma N_i + (1 - \gamma) n_i, \quad m_i \leftarrow \gamma m_i + (1 - \gamma) s_i, \quad
    e_i = m_i / N_i,\]

    with Laplace smoothing of \(N_i\) (van den Oord et al., arXiv 1711.00937, appendix A). A dead code, one that is
    hardly used, restarts at an encoder output of the batch (Dhariwal et al., arXiv 2005.00341), which is drawn in
    proportion to its squared distance from the codebook. All vectors are zero until the first batch restarts them.

    Args:
        num_codes: Number of code vectors.
        decay: Decay rate γ of the averages, per step.
        commitment: Weight of the commitment loss.
        dead_code_threshold: A code is dead if its average count is at most this fraction of the mean count. With 0,
            no code restarts after the first batch.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> codebook = VectorQuantizerEMA(num_codes=8)
        >>> tuple(codebook(ops.ones((2, 7, 7, 4)), noise=ops.zeros((8,))).indices.shape)
        (2, 7, 7)
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
        check_codebook(num_codes, commitment)
        for name, value in {"decay": decay, "dead_code_threshold": dead_code_threshold}.items():
            if not 0 <= value < 1:
                raise InputError(f"{name} = {value}: out of range; pass a number in [0, 1)")
        self.num_codes, self.decay = num_codes, decay
        self.commitment, self.dead_code_threshold = commitment, dead_code_threshold

    def build(self, map_shape: Shape) -> None:
        """Create the averages for maps (N, rows, columns, D)."""
        shape = (self.num_codes, map_shape[-1])
        self.counts = self.add_weight(shape=shape[:1], initializer="zeros", trainable=False, name="counts")
        self.sums = self.add_weight(shape=shape, initializer="zeros", trainable=False, name="sums")

    @property
    def vectors(self) -> Tensor:
        """Code vectors, (num_codes, D)."""
        counts = ops.convert_to_tensor(self.counts)
        total = ops.sum(counts)
        smoothed = (counts + _SMOOTHING) * total / (total + self.num_codes * _SMOOTHING)
        return ops.convert_to_tensor(self.sums) / ops.maximum(smoothed, 1e-20)[:, None]

    @property
    def noise_shape(self) -> Shape:
        """Shape of the noise that selects the outputs at which dead codes restart: (num_codes,)."""
        return (self.num_codes,)

    def nearest(self, maps: Tensor, noise: Tensor = None) -> tuple[Tensor, Tensor]:
        """Return code vectors and indices of maps (N, rows, columns, D); with noise, also update the averages."""
        outputs = ops.reshape(ops.stop_gradient(maps), (-1, maps.shape[-1]))
        if noise is not None:
            self._restart_dead_codes(outputs, noise)
        indices = nearest_indices(ops.stop_gradient(maps), self.vectors)
        nearest = ops.take(self.vectors, indices, axis=0)
        if noise is not None:
            self._update_averages(outputs, ops.reshape(indices, (-1,)))
        return nearest, indices

    def distance_loss(self, maps: Tensor, vectors: Tensor) -> Tensor:
        """Return the commitment loss, (N,)."""
        return self.commitment * squared_distance(maps, vectors)

    def _restart_dead_codes(self, outputs: Tensor, noise: Tensor) -> None:
        counts, sums = ops.convert_to_tensor(self.counts), ops.convert_to_tensor(self.sums)
        dead = counts <= self.dead_code_threshold * ops.mean(counts)
        count_per_output = _RESTART_COUNT * max(self.dead_code_threshold, 0.01) / self.num_codes
        count = count_per_output * ops.cast(ops.shape(outputs)[0], "float32")
        self.sums.assign(ops.where(dead[:, None], count * _sample_distant(outputs, self.vectors, noise), sums))
        self.counts.assign(ops.where(dead, count, counts))

    def _update_averages(self, outputs: Tensor, indices: Tensor) -> None:
        assignments = ops.one_hot(indices, self.num_codes, dtype="float32")
        counts, sums = ops.sum(assignments, axis=0), ops.matmul(ops.transpose(assignments), outputs)
        for average, value in ((self.counts, counts), (self.sums, sums)):
            average.assign(self.decay * ops.convert_to_tensor(average) + (1 - self.decay) * value)


def _sample_distant(outputs: Tensor, vectors: Tensor, uniform: Tensor) -> Tensor:
    """Sample outputs, one per uniform number, in proportion to their squared distance from the nearest vector."""
    nearest = ops.take(vectors, nearest_indices(outputs, vectors), axis=0)
    cumulative = ops.cumsum(ops.sum(ops.square(outputs - nearest), axis=-1))
    sampled = ops.cast(ops.searchsorted(cumulative, uniform * cumulative[-1], side="right"), "int32")
    return ops.take(outputs, ops.minimum(sampled, ops.shape(outputs)[0] - 1), axis=0)
