"""The codebook of a VQ-VAE, with exponential moving averages as its learning rule."""

import math
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_vae.core.errors import MAX_SIZE, InputError, check_count
from keras_vae.core.registry import PACKAGE, ComponentLayer
from keras_vae.core.typing import Shape, Tensor

_SMOOTHING = 1e-5
_RESTART_COUNT = 1.5
"""Count of a restarted code, as a multiple of the threshold: small, so that an unused code soon restarts again."""


class Quantized(NamedTuple):
    """A batch of quantized maps.

    Args:
        vectors: The code vector nearest to each encoder output, (N, rows, columns, D). The gradient passes straight
            through to the encoder output.
        indices: Index of that vector in the codebook, (N, rows, columns), int32.
        commitment_loss: Weighted squared distance of the encoder outputs from the vectors, summed over each map, (N,).
    """

    vectors: Tensor
    indices: Tensor
    commitment_loss: Tensor


@keras.saving.register_keras_serializable(PACKAGE)
class VectorQuantizerEMA(ComponentLayer):
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

    Call arguments:
        maps: Encoder outputs, (N, rows, columns, D).
        restart_noise: In a training step, uniform noise in [0, 1), (num_codes,), which selects the outputs for dead
            codes. With None, as outside of training, the averages do not change.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> codebook = VectorQuantizerEMA(num_codes=8)
        >>> tuple(codebook(ops.ones((2, 7, 7, 4)), restart_noise=ops.zeros((8,))).indices.shape)
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
        check_count("num_codes", num_codes, maximum=MAX_SIZE)
        if num_codes < 2:
            raise InputError(f"num_codes = {num_codes}: too few codes; pass an integer ≥ 2")
        if not 0 <= commitment < math.inf:
            raise InputError(f"commitment = {commitment}: not a valid weight; pass a finite number ≥ 0")
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

    def call(self, maps: Tensor, restart_noise: Tensor = None) -> Quantized:  # noqa: D102
        outputs = ops.reshape(ops.stop_gradient(maps), (-1, maps.shape[-1]))
        if restart_noise is not None:
            self._restart_dead_codes(outputs, restart_noise)
        indices = self.nearest_indices(ops.stop_gradient(maps))
        nearest = ops.take(self.vectors, indices, axis=0)
        if restart_noise is not None:
            self._update_averages(outputs, ops.reshape(indices, (-1,)))
        return Quantized(
            maps + ops.stop_gradient(nearest - maps),
            indices,
            self.commitment * ops.sum(ops.square(maps - nearest), axis=(1, 2, 3)),
        )

    def nearest_indices(self, maps: Tensor) -> Tensor:
        """Return the index of the code vector nearest to each vector of maps (N, rows, columns, D), int32."""
        return _nearest_indices(maps, self.vectors)

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


def codebook_usage(indices: Tensor, num_codes: int) -> tuple[Tensor, Tensor]:
    r"""Return the perplexity \(e^{H}\) of the codes in a batch, and the number of distinct codes.

    Args:
        indices: Indices of codes, of any shape.
        num_codes: Number of code vectors in the codebook.

    Example:
        >>> perplexity, used_codes = codebook_usage(ops.convert_to_tensor([[0, 1], [0, 1]]), num_codes=4)
        >>> round(float(perplexity), 3), int(used_codes)
        (2.0, 2)
    """
    frequencies = ops.mean(ops.one_hot(ops.reshape(indices, (-1,)), num_codes, dtype="float32"), axis=0)
    entropy = -ops.sum(frequencies * ops.log(ops.maximum(frequencies, 1e-20)))
    return ops.exp(entropy), ops.sum(ops.cast(frequencies > 0, "float32"))


def _nearest_indices(outputs: Tensor, vectors: Tensor) -> Tensor:
    """Return the index of the vector nearest to each output (…, D), int32."""
    # ‖output‖² is the same for all vectors, so it is omitted.
    proximity = 2.0 * ops.matmul(outputs, ops.transpose(vectors)) - ops.sum(ops.square(vectors), axis=-1)
    # Not `ops.argmin`, which compares the bits of signed zeros: exported graphs cannot do that.
    return ops.cast(ops.top_k(proximity, 1)[1][..., 0], "int32")


def _sample_distant(outputs: Tensor, vectors: Tensor, uniform: Tensor) -> Tensor:
    """Sample outputs, one per uniform number, in proportion to their squared distance from the nearest vector."""
    nearest = ops.take(vectors, _nearest_indices(outputs, vectors), axis=0)
    cumulative = ops.cumsum(ops.sum(ops.square(outputs - nearest), axis=-1))
    sampled = ops.cast(ops.searchsorted(cumulative, uniform * cumulative[-1], side="right"), "int32")
    return ops.take(outputs, ops.minimum(sampled, ops.shape(outputs)[0] - 1), axis=0)
