"""Packed images: a `.npy` file of levels, and a folder next to it with their labels, names and splits.

Next to `photos.npy`, uint8 levels N x H x W x C, lies the folder `photos.pack`:

    pack.json      sizes, splits, names of classes and factors, origin, notes, and a fingerprint of photos.npy
    labels.npy     int64, N: class numbers, if the images have labels
    factors.npy    int64, N x F: factors of variation, if they are known
    names.txt      one name per line, if the images have names
"""

import hashlib
import json
import mmap
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.config import ConfigModel
from keras_vae.core.errors import InputError
from keras_vae.core.files import printable, reading, samples
from keras_vae.core.typing import ImageShape
from keras_vae.data.dataset import SPLITS, Dataset, LoadedData
from keras_vae.data.factors import Factors

SUFFIX = ".pack"
INFO, LABELS, FACTORS, NAMES = "pack.json", "labels.npy", "factors.npy", "names.txt"

# Samples of 4 KiB of the array, which take a few milliseconds to read.
_SAMPLES = 256
_NEWLINE = ord("\n")


class PackInfo(ConfigModel):
    """The content of `pack.json`.

    Args:
        images: Number of images, N.
        image_shape: [H, W, C].
        splits: Number of images of each split, in the order of the array: train, validation and test, or all.
        classes: Names of the classes 0, 1, …; empty without labels.
        factors: Number of values of each factor, by name; empty without factors.
        source: The packed source.
        notes: One note per change made to the images.
        lossy: Whether the packed files were compressed with loss, as determined from the first one.
        fingerprint: Hexadecimal hash of the size of the array file and of samples of its content.
    """

    images: int
    image_shape: list[int]
    splits: dict[str, int]
    classes: list[str]
    factors: dict[str, int]
    source: str
    notes: list[str]
    lossy: bool = False
    fingerprint: str


@dataclass(frozen=True, eq=False)
class PackedFile:
    """Packed images, mapped into memory.

    Args:
        path: The `.npy` file.
        info: Description of the images.
        images: uint8 levels, N x H x W x C; read from the file on access.
        labels: int64 class numbers, (N,), or None.
        factors: Factors of variation, or None.
    """

    path: Path
    info: PackInfo
    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    factors: Factors | None

    @property
    def image_shape(self) -> ImageShape:
        """Height, width and channels of each image."""
        height, width, channels = self.info.image_shape
        return height, width, channels

    @property
    def notes(self) -> tuple[str, ...]:
        """The origin of the images, and one note per change made to them."""
        return f"packed from {self.info.source}", *self.info.notes

    @property
    def ranges(self) -> Iterator[tuple[str, slice]]:
        """The name and the positions of each split, in the order of the array."""
        start = 0
        for split, count in self.info.splits.items():
            yield split, slice(start, start + count)
            start += count

    def load(self, *, in_memory: bool = True, name: str = "") -> LoadedData:
        """Return the images as data sets.

        Args:
            in_memory: False leaves the images in the file, from which they are read on access.
            name: Name of the data set in records; the file's stem by default.

        Raises:
            InputError: The images are invalid.
        """
        images = np.array(self.images) if in_memory else self.images
        # Checks all images together, because a split may be dark.
        whole = Dataset.from_arrays(images, name="all") if in_memory else None
        parts = {
            split: Dataset(
                (images if whole is None else whole.images)[chosen],
                None if self.labels is None else self.labels[chosen],
                name or printable(self.path.stem),
                split,
                tuple(self.info.classes),
                self.factors and self.factors.subset(np.arange(chosen.start, chosen.stop)),
                is_lossy=self.info.lossy,
            )
            for split, chosen in self.ranges
        }
        train = parts["train"] if "train" in parts else parts["all"]
        return LoadedData(train, parts.get("test"), self.notes, parts.get("validation"))

    def names(self, start: int, stop: int) -> tuple[str, ...] | None:
        """Return the names of the images from position `start` up to, but not including, `stop`; None without names."""
        if self._lines is None:
            return None
        content, ends = self._lines
        first = 0 if start == 0 else int(ends[start - 1]) + 1
        return tuple(content[first : int(ends[stop - 1])].decode("utf-8").split("\n"))

    @cached_property
    def _lines(self) -> tuple[mmap.mmap, NDArray[np.int64]] | None:
        """The content of the file of names, and the position of the end of each line."""
        file = sidecar(self.path) / NAMES
        if not file.is_file():
            return None
        with reading(file):
            with file.open("rb") as opened:
                content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
            ends = np.flatnonzero(np.frombuffer(content, np.uint8) == _NEWLINE)
            if len(ends) != self.info.images:
                raise InputError(f"{len(ends):,} names for {self.info.images:,} images; {_REMEDY}")
        return content, ends


_REMEDY = "pack the source again, or remove the folder"


def sidecar(path: Path) -> Path:
    """Return the folder next to a packed array that describes it.

    Args:
        path: The `.npy` file.

    Example:
        >>> sidecar(Path("data/photos.npy")).as_posix()
        'data/photos.pack'
    """
    return path.with_suffix(SUFFIX)


def fingerprint(path: Path) -> str:
    """Return a hexadecimal hash of the size of a file and of samples of its content; small files count completely."""
    with path.open("rb") as opened:
        return hashlib.sha256(b"".join(samples(opened, _SAMPLES))).hexdigest()


def open_packed(path: Path) -> PackedFile | None:
    """Open packed images; None if there is no folder that describes the array.

    Args:
        path: A `.npy` file.

    Raises:
        InputError: The folder is damaged, or does not describe this array.
    """
    folder = sidecar(path)
    if path.suffix.lower() != ".npy" or not os.path.lexists(folder / INFO):
        return None
    with reading(folder / INFO):
        info = PackInfo.from_tables(json.loads((folder / INFO).read_text("utf-8")))
    with reading(path):
        images = np.load(path, mmap_mode="r", allow_pickle=False)
        expected = (info.images, *info.image_shape)
        if images.dtype != np.uint8 or images.shape != expected:
            raise InputError(f"{_described(images)}, but {printable(folder)} describes uint8 {expected}; {_REMEDY}")
        if fingerprint(path) != info.fingerprint:
            raise InputError(f"changed since {printable(folder)} was written; {_REMEDY}")
    with reading(folder):
        _check_splits(info)
        labels, values = (_member(folder / name, info.images) for name in (LABELS, FACTORS))
        for name, array, named in ((LABELS, labels, info.classes), (FACTORS, values, info.factors)):
            if (array is None) == bool(named):
                raise InputError(f"{name} or its names are missing; {_REMEDY}")
        factors = None if values is None else Factors(tuple(info.factors), tuple(info.factors.values()), values)
    return PackedFile(path, info, images, labels, factors)


def _check_splits(info: PackInfo) -> None:
    named = [split for split in SPLITS if split in info.splits]
    is_whole = named == ["all"] or (named[:1] == ["train"] and "all" not in named)
    if list(info.splits) != named or not is_whole or sum(info.splits.values()) != info.images:
        raise InputError(f"splits {info.splits} of {info.images:,} images; {_REMEDY}")


def _member(file: Path, count: int) -> NDArray[np.int64] | None:
    """Return an array with one row per image; None if there is none."""
    if not file.is_file():
        return None
    values: NDArray[Any] = np.array(np.load(file, mmap_mode="r", allow_pickle=False))
    if values.dtype != np.int64 or values.shape[:1] != (count,):
        raise InputError(f"{file.name}: {_described(values)}, for {count:,} images; {_REMEDY}")
    return values


def _described(array: NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
