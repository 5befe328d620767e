"""Reading of archives whose content may be damaged or hostile: sizes are checked before memory is allocated."""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import reading

MAX_RATIO = 50
"""Largest ratio of the size of the content to that of the file; images and weights are compressed far less."""

ALWAYS_ALLOWED = 2**28
"""Size of the content, in bytes, that is accepted at any ratio."""

_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
"""Readers of the header of an array, by version."""


def check_size(content: int, stored: int) -> None:
    """Reject content that is far larger than the file that contains it, such as a zip bomb.

    Args:
        content: Size of the content in bytes, as the file states it.
        stored: Size of the file in bytes.

    Raises:
        InputError: The content is too large.

    Example:
        >>> check_size(10**12, 10**6)
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: damaged or hostile: 1 MB that expand to 1,000,000 MB; restore the file
    """
    if content > max(ALWAYS_ALLOWED, MAX_RATIO * stored):
        sizes = f"{stored / 1e6:,.0f} MB that expand to {content / 1e6:,.0f} MB"
        raise InputError(f"damaged or hostile: {sizes}; restore the file")


def check_zip(file: Path) -> None:
    """Reject a zip bomb.

    Args:
        file: A zip archive. No member can expand to more than the size that the archive states.

    Raises:
        InputError: The file is not a zip archive, or its content is too large.
    """
    with reading(file):
        with zipfile.ZipFile(file) as archive:
            content = sum(member.file_size for member in archive.infolist())
        check_size(content, file.stat().st_size)


def read_npz(file: Path) -> dict[str, NDArray[Any]]:
    """Return the arrays of a `.npz` file by name, in the order in which they were written.

    Args:
        file: The file.

    Raises:
        InputError: The file is damaged, contains Python objects, or states sizes that it does not have.
    """
    check_zip(file)
    with reading(file), zipfile.ZipFile(file) as archive:
        for member in archive.infolist():
            with archive.open(member) as opened:
                _check_header(opened, member)
        # Open the file here: if np.load opens a damaged file, it does not close it.
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}


def _check_header(opened: IO[bytes], member: zipfile.ZipInfo) -> None:
    """Reject an array whose header states another size than the array has."""
    read_header = _HEADERS.get(np.lib.format.read_magic(opened))
    if read_header is None:
        raise InputError(f"{member.filename}: not a numeric array; restore the file")
    shape, _, dtype = read_header(opened)
    fits = min(shape, default=0) >= 0 and math.prod(shape) * dtype.itemsize == member.file_size - opened.tell()
    # np.load rejects Python objects.
    if not (fits or dtype.hasobject):
        raise InputError(f"{member.filename}: states the shape {shape}, but has another size; restore the file")
