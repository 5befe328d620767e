"""Base class of quantizers, and the search for the nearest code vector."""

import abc
import math
from typing import Any, ClassVar, NamedTuple

from keras import ops

from keras_vae.components.quantizers.gradients import GRADIENTS, Gradient, pass_gradient
from keras_vae.core.errors import MAX_SIZE, InputError, check_count, unknown
from keras_vae.core.registry import ComponentLayer
from keras_vae.core.typing import Shape, Tensor


class Quantized(NamedTuple):
    """A batch of quantized maps.

    Args:
        vectors: Code vector of each encoder output, (N, rows, columns, D).
        indices: Index of that vector, (N, rows, columns), int32; (N, rows, columns, depth) if there are several.
        loss: Loss that draws outputs and code vectors together, summed over each map, (N,).
    """

    vectors: Tensor
    indices: Tensor
    loss: Tensor


class Quantizer(ComponentLayer, abc.ABC):
    """Base class of quantizers, which replace each vector of a map by one of finitely many code vectors.

    A quantizer implements `nearest`, `distance_loss` and `vectors`, and creates its weights in `build(map_shape)`.

    Call arguments:
        maps: Encoder outputs, (N, rows, columns, D).
        noise: In a training step, uniform noise in [0, 1) of the shape `noise_shape`, if the quantizer needs it. With
            None, as outside of training, nothing is learned by averages.
        gradient: Gradient estimator; see `pass_gradient`.

    Returns:
        `Quantized`, whose vectors pass gradients to the maps.
    """

    kind: ClassVar[str] = "quantizer"

    no_rotation: ClassVar[str] = ""
    """Why the gradient `"rotation"` is undefined; empty if it is defined."""

    map_deviation: float | None = None
    """Deviation to which `VQVAE.from_network` standardizes the channels of encoder maps; None if it does not."""

    num_codes: int
    """Number of values of an index."""

    depth: int = 1
    """Number of indices per position."""

    def call(self, maps: Tensor, noise: Tensor = None, gradient: Gradient = "straight-through") -> Quantized:  # noqa: D102
        maps = self.bound(maps)
        vectors, indices = self.nearest(maps, noise)
        passed = pass_gradient(maps, self._total(vectors), gradient)
        return Quantized(passed, indices, self.distance_loss(maps, vectors))

    @abc.abstractmethod
    def nearest(self, maps: Tensor, noise: Tensor = None) -> tuple[Tensor, Tensor]:
        """Return code vectors (N, rows, columns, [depth,] D) and indices of bounded maps (N, rows, columns, D)."""

    @abc.abstractmethod
    def distance_loss(self, maps: Tensor, vectors: Tensor) -> Tensor:
        """Return the loss, summed over each map, (N,), of the results of `bound` and `nearest`."""

    @property
    @abc.abstractmethod
    def vectors(self) -> Tensor:
        """All code vectors, (depth · num_codes, D), in the order of `number_codes`."""

    def lookup(self, indices: Tensor) -> Tensor:
        """Return the code vectors (N, rows, columns, D) of indices as in `Quantized`."""
        return self._total(ops.take(self.vectors, self.number_codes(indices), axis=0))

    def bound(self, maps: Tensor) -> Tensor:
        """Return maps in the range of the code vectors. By default, return them unchanged."""
        return maps

    def nearest_indices(self, maps: Tensor) -> Tensor:
        """Return the indices of maps (N, rows, columns, D), as in `Quantized`."""
        return self.nearest(self.bound(maps))[1]

    def number_codes(self, indices: Tensor) -> Tensor:
        """Return indices of the same shape that number the codes of all codebooks, 0 to depth · num_codes − 1.

        Args:
            indices: As in `Quantized`.
        """
        return indices if self.depth == 1 else indices + self.num_codes * ops.arange(self.depth, dtype="int32")

    def _total(self, vectors: Tensor) -> Tensor:
        return vectors if self.depth == 1 else ops.sum(vectors, axis=-2)

    @property
    def code_dim(self) -> int | None:
        """Size D that the code vectors must have; None if any size is possible."""
        return None

    @property
    def noise_shape(self) -> Shape | None:
        """Shape of the noise of a training step; None if it needs none."""
        return None

    def check_gradient(self, gradient: str) -> None:
        """Reject a gradient estimator that does not exist, or that is undefined for this quantizer.

        Raises:
            InputError: The estimator is unknown or undefined.
        """
        if gradient not in GRADIENTS:
            raise unknown("gradient", gradient, GRADIENTS)
        if gradient == "rotation" and self.no_rotation:
            raise InputError(f"gradient = 'rotation': {self.no_rotation}; use gradient = 'straight-through'")

    def check_code_dim(self, code_dim: int | None, default: int) -> int:
        """Return the size D of the code vectors.

        Args:
            code_dim: The size given by the user, or None.
            default: Size if none is given and any size is possible.

        Raises:
            InputError: The quantizer requires another size.
        """
        if code_dim is None:
            return self.code_dim or default
        if self.code_dim not in (None, code_dim):
            raise InputError(
                f"code_dim = {code_dim}: {type(self).__name__} has one dimension per level; pass {self.code_dim}, or "
                "leave it out"
            )
        return code_dim


def check_codebook(num_codes: Any, commitment: float) -> None:
    """Reject an invalid number of code vectors, or an invalid weight of the commitment loss.

    Args:
        num_codes: Number of code vectors.
        commitment: Weight.

    Raises:
        InputError: A value is out of its range.
    """
    check_count("num_codes", num_codes, maximum=MAX_SIZE)
    if num_codes < 2:
        raise InputError(f"num_codes = {num_codes}: too few codes; pass an integer ≥ 2")
    if not 0 <= commitment < math.inf:
        raise InputError(f"commitment = {commitment}: not a valid weight; pass a finite number ≥ 0")


def nearest_indices(outputs: Tensor, vectors: Tensor) -> Tensor:
    """Return the index of the code vector nearest to each output, int32.

    Args:
        outputs: Vectors (…, D).
        vectors: Code vectors, (num_codes, D).
    """
    # ‖output‖² is the same for all vectors, so it is omitted.
    proximity = 2.0 * ops.matmul(outputs, ops.transpose(vectors)) - ops.sum(ops.square(vectors), axis=-1)
    # Not `ops.argmin`, which compares the bits of signed zeros: exported graphs cannot do that.
    return ops.cast(ops.top_k(proximity, 1)[1][..., 0], "int32")


def squared_distance(maps: Tensor, vectors: Tensor) -> Tensor:
    """Return the squared distances of maps (N, rows, columns, D), summed over each map, (N,)."""
    return ops.sum(ops.square(maps - vectors), axis=(1, 2, 3))
