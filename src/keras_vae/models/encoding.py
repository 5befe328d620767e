"""Codes of images, and the statistics that normalize them."""

from typing import Any, NamedTuple, Self

import numpy as np

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, Floats


class Encoding(NamedTuple):
    """Codes of images. A field that a model does not have is None.

    Args:
        z_mean: Means of q(z|x), (N, latent_dim) or maps (N, rows, columns, c), float32.
        z_log_var: Logarithms of the variances of q(z|x), in the shape of `z_mean`, float32.
        indices: Indices of the code vectors, (N, rows, columns), int32; (N, rows, columns, depth) for residual
            quantizers.
    """

    z_mean: Any = None
    z_log_var: Any = None
    indices: Any = None

    @property
    def codes(self) -> Any:
        """Input of `decode`: `indices` if the model has code vectors, otherwise `z_mean`."""
        return self.z_mean if self.indices is None else self.indices

    def as_dict(self) -> dict[str, Array]:
        """Return the fields that the model has, by name."""
        return {name: values for name, values in self._asdict().items() if values is not None}

    def flattened(self) -> Self:
        """Return the encoding with its maps as vectors (N, D)."""
        return type(self)(**{name: values.reshape(len(values), -1) for name, values in self.as_dict().items()})


class LatentStatistics(NamedTuple):
    """Means and standard deviations of samples from q(z|x): per channel of maps, or per dimension of vectors.

    Args:
        mean: Means.
        std: Standard deviations.
        images: Number of images that they were measured on; 0 for the factors of a model of diffusers.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    images: int

    @classmethod
    def of(cls, codes: Floats) -> Self:
        """Return the statistics of codes (N, …, c) along their last axis.

        Example:
            >>> import numpy as np
            >>> LatentStatistics.of(np.array([[0.0, 1.0], [2.0, 1.0]]))
            LatentStatistics(mean=(1.0, 1.0), std=(1.0, 0.0), images=2)
        """
        rows = codes.reshape(-1, codes.shape[-1])
        mean, std = rows.mean(axis=0, dtype="float64"), rows.std(axis=0, dtype="float64")
        return cls(tuple(mean.tolist()), tuple(std.tolist()), len(codes))

    def normalize(self, encoding: Encoding) -> Encoding:
        r"""Return the moments of \((z - \mu)/\sigma\).

        Raises:
            InputError: A standard deviation is zero.
        """
        mean, std = self._floats()
        if not std.all():
            raise InputError(
                f"normalized = True: dimension {int(std.argmin())} of the codes is constant; pass normalized=False"
            )
        log_var = encoding.z_log_var
        return Encoding((encoding.z_mean - mean) / std, None if log_var is None else log_var - 2 * np.log(std))

    def denormalize(self, codes: Any) -> Floats:
        """Return the codes (N, …, c) of normalized codes."""
        mean, std = self._floats()
        return codes * std + mean

    def _floats(self) -> tuple[Floats, Floats]:
        return np.asarray(self.mean, "float32"), np.asarray(self.std, "float32")
