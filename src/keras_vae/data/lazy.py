"""Images that are read when they are indexed, instead of being held in memory."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeGuard

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable
from keras_vae.core.typing import ImageShape
from keras_vae.data.arrivals import Signature
from keras_vae.data.validation import memory_limit

Load = Literal["auto", "memory", "stream"]
"""Place of the images of a folder or a `.npy` file during training; see `is_streamed`."""

_SHARE = 4


class Reader(Protocol):
    """A function that reads images; several threads may call it."""

    def __call__(self, positions: NDArray[np.int64], *, parallel: bool) -> NDArray[np.uint8]:
        """Return the images at the given positions of the source, in that order, (n, H, W, C).

        Args:
            positions: (n,).
            parallel: Whether to decode on all cores.
        """


@dataclass(frozen=True, eq=False)
class LazyImages:
    """Images that are read when they are indexed: uint8 levels, N x H x W x C, as an array of the same content.

    Args:
        read: Reads images of the source.
        image_shape: (H, W, C).
        source: Hexadecimal fingerprint of the source.
        rows: Positions of these images in the source, (N,).

    Example:
        >>> def read(rows, parallel):
        ...     return np.full((len(rows), 2, 2, 1), 255, "uint8")
        >>> white = LazyImages(read, (2, 2, 1), "", np.arange(9))
        >>> white.shape, white[3:5].shape, white[0].max()
        ((9, 2, 2, 1), (2, 2, 2, 1), np.uint8(255))
    """

    dtype: ClassVar = np.dtype(np.uint8)
    ndim: ClassVar = 4

    read: Reader
    image_shape: ImageShape
    source: str
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Number of images, height, width and channels."""
        return len(self.rows), *self.image_shape

    def __getitem__(self, key: Any) -> NDArray[np.uint8]:
        """Read one image (an integer) or several (a slice, indices or a mask), as NumPy does."""
        rows = self.rows[key]
        images = self.read(np.atleast_1d(rows), parallel=True)
        return images if np.ndim(rows) else images[0]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        """Read all images."""
        return self[:].astype(dtype or np.uint8, copy=False)

    def take(self, indices: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Read several images on one core, for threads of an input pipeline."""
        return self.read(self.rows[indices], parallel=False)

    def subset(self, indices: NDArray[np.integer]) -> "LazyImages":
        """Return the images at the given positions, without reading them."""
        return replace(self, rows=self.rows[indices])

    @cached_property
    def fingerprint(self) -> str:
        """Hexadecimal hash that identifies these images: the fingerprint of the source, and their positions in it."""
        return hashlib.sha256(self.source.encode() + self.rows.astype("<i8").tobytes()).hexdigest()


def is_lazy(images: Any) -> TypeGuard[LazyImages]:
    """Return whether images are read when they are indexed."""
    return isinstance(images, LazyImages)


def is_streamed(load: Load, num_bytes: int) -> bool:
    """Return whether images are read on demand during training.

    Args:
        load: `"stream"`, `"memory"`, or `"auto"`, which streams images that take more than a quarter of
            `memory_limit`: loading, splitting and feeding them needs up to three copies.
        num_bytes: Size of the decoded images or of their file, whichever is larger.
    """
    return load == "stream" or (load == "auto" and num_bytes > memory_limit() // _SHARE)


def streaming_note(num_bytes: int) -> str:
    """Return a note that `"auto"` streams images of this size."""
    size, limit = (f"{value / 2**30:,.1f} GiB" for value in (num_bytes, memory_limit()))
    return f"images are read from their files in every epoch: {size}, more than a quarter of the {limit} of memory"


def check_unchanged(path: Path, expected: Signature) -> None:
    """Reject a file that was changed or removed after it was opened first.

    Args:
        path: The file.
        expected: Its size and time when it was opened first.

    Raises:
        InputError: The file has another size or time, or does not exist.
    """
    found = Signature.of(path)
    if found is None:
        raise InputError(f"{printable(path)}: no longer exists; restore it")
    if found != expected:
        raise InputError(f"{printable(path)}: changed while it was in use; restore it")
