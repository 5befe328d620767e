"""A codebook that one linear layer transforms as a whole."""

from typing import Any

import keras
from keras import ops

from keras_vae.components.quantizers.base import (
    Quantizer,
    check_codebook,
    nearest_indices,
    squared_distance,
)
from keras_vae.core.registry import register
from keras_vae.core.typing import Shape, Tensor


@register("simvq")
class SimVQ(Quantizer):
    r"""A frozen random codebook C and a learned linear transform W: the code vectors are the rows of CW.

    Gradients of the codes in use change W and thereby all code vectors, so that unused codes move along with the
    encoder (Zhu et al., arXiv 2411.02038). The loss of an output e with the code vector q is

    \[\|\mathrm{sg}(e) - q\|^2 + c \, \|e - \mathrm{sg}(q)\|^2.\]

    Args:
        num_codes: Number of code vectors.
        commitment: Weight c of the commitment loss.
        **kwargs: Arguments of every Keras layer.

    Raises:
        InputError: A value is out of its range.

    Example:
        >>> quantizer = SimVQ(num_codes=8)
        >>> tuple(quantizer(ops.ones((2, 7, 7, 4))).indices.shape)
        (2, 7, 7)
    """

    # The channels of images are more peaked than the normal code vectors, whose deviation is 1. Otherwise, no output
    # would be near the outer vectors.
    map_deviation: float | None = 1.5

    def __init__(self, num_codes: int = 512, commitment: float = 0.25, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_codebook(num_codes, commitment)
        self.num_codes, self.commitment = num_codes, commitment

    def build(self, map_shape: Shape) -> None:
        """Create the codebook and its transform for maps (N, rows, columns, D)."""
        size = map_shape[-1]
        self.codebook = self.add_weight(
            shape=(self.num_codes, size),
            initializer=keras.initializers.RandomNormal(stddev=size**-0.5),
            trainable=False,
            name="codebook",
        )
        # At first, the code vectors keep the angles of the codebook, and have variance 1 in each dimension.
        initializer = keras.initializers.Orthogonal(gain=size**0.5)
        self.transform = self.add_weight(shape=(size, size), initializer=initializer, name="transform")

    @property
    def vectors(self) -> Tensor:
        """Code vectors, (num_codes, D)."""
        return ops.matmul(ops.convert_to_tensor(self.codebook), ops.convert_to_tensor(self.transform))

    def nearest(self, maps: Tensor, noise: Tensor = None) -> tuple[Tensor, Tensor]:
        """Return code vectors and indices of maps (N, rows, columns, D)."""
        vectors = self.vectors
        indices = nearest_indices(ops.stop_gradient(maps), ops.stop_gradient(vectors))
        return ops.take(vectors, indices, axis=0), indices

    def distance_loss(self, maps: Tensor, vectors: Tensor) -> Tensor:
        """Return the losses of transform and encoder, (N,)."""
        transform_loss = squared_distance(ops.stop_gradient(maps), vectors)
        return transform_loss + self.commitment * squared_distance(maps, ops.stop_gradient(vectors))
