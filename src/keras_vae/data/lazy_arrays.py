"""Images of `.npz` and `.npy` files that are read on demand."""

import hashlib
import itertools
import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable, reading, samples
from keras_vae.data.arrays import (
    DSPRITES,
    FACTOR_NAMES,
    check_arrays,
    describe_unused,
    level_notes,
    read_header,
    read_shapes,
    select_keys,
)
from keras_vae.data.arrivals import Signature
from keras_vae.data.combining import check_compatible
from keras_vae.data.convert import CHANNELS, Changes, Conversion, convert
from keras_vae.data.dataset import Dataset
from keras_vae.data.labels import encode_labels, renumber, united
from keras_vae.data.lazy import LazyImages, check_unchanged
from keras_vae.data.packed import PackedFile, open_packed

# Samples of 4 KiB of a file, which take a few milliseconds to read.
_SAMPLES = 64
_SCAN_BLOCK = 256

Rows = Callable[[NDArray[np.int64]], NDArray[np.generic]]
"""Returns the rows of an array in a file at given positions, in the dtype of the file."""


class _Member(NamedTuple):
    """An array in a file: its shape, its dtype, and a function that reads rows."""

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Rows


@dataclass(frozen=True, eq=False)
class _ArrayReader:
    """Reads images of one array and converts them as `load_arrays` and `convert` do.

    Args:
        path: The file.
        signature: Its size and time.
        split: Name of the split.
        member: The array.
        are_dsprites: Whether the pixels 0 and 1 stand for black and white.
        conversion: Size and color of the images.
    """

    path: Path
    signature: Signature
    split: str
    member: _Member
    are_dsprites: bool
    conversion: Conversion

    def __call__(self, positions: NDArray[np.int64], *, parallel: bool) -> NDArray[np.uint8]:
        """Return images; see `lazy.Reader`."""
        check_unchanged(self.path, self.signature)
        with reading(self.path):
            return convert(self.original(positions), self.conversion)[0].images

    def original(self, positions: NDArray[np.int64]) -> Dataset:
        """Return images in the size and color of the file.

        Raises:
            InputError: The images are invalid.
        """
        images, reference = self.member.read(positions), self._reference
        if self.are_dsprites and not len(reference):
            images = images.astype("uint8") * np.uint8(255)
        elif images.dtype == np.uint8 and len(reference):
            # Levels of this type are valid. In `from_arrays`, finding their range would take longer than reading them.
            height, width, channels = Dataset.from_arrays(reference, name=self.path.stem).image_shape
            levels = cast("NDArray[np.uint8]", images.reshape(len(images), height, width, channels))
            return Dataset(levels, None, self.path.stem, self.split)
        try:
            dataset = Dataset.from_arrays(np.concatenate([reference, images]), name=self.path.stem, split=self.split)
        except InputError as error:
            if len(positions) == self.member.shape[0]:
                raise
            first, last = int(positions.min()), int(positions.max())
            raise InputError(f"from {self.split}/{first} to {self.split}/{last}: {error}") from error
        return Dataset(dataset.images[len(reference) :], None, self.path.stem, self.split)

    @cached_property
    def _reference(self) -> NDArray[np.generic]:
        """The first integer image with a level above 1, (1, H, W[, C]), or no image, (0, H, W[, C]).

        `Dataset.from_arrays` rejects integers that are all 0 or 1; this image shows that the scale is 0..255.
        """
        count = self.member.shape[0]
        for start in range(0, count, _SCAN_BLOCK):
            images = self.member.read(np.arange(start, min(start + _SCAN_BLOCK, count)))
            if images.dtype.kind not in "iu":
                break
            bright = images.reshape(len(images), -1).max(axis=1) > 1
            if bright.any():
                return images[bright][:1]
        return np.empty((0, *self.member.shape[1:]), self.member.dtype)


class OpenedArrays(NamedTuple):
    """Data sets of a file whose images are read on demand, training images first, and notes on changes."""

    datasets: list[Dataset]
    notes: tuple[str, ...]


def open_arrays(path: Path, conversion: Conversion) -> OpenedArrays:
    """Open a `.npz` or `.npy` file to read its images on demand.

    Rows of a `.npy` file are read in any order. A member of a `.npz` file is decompressed from the end of the last
    read, or from its start. The labels are read immediately.

    Args:
        path: A file as described in `arrays.load_arrays`.
        conversion: Size and color of the images.

    Raises:
        InputError: The file cannot be read, contains no images, or its first image is invalid. Others raise when they
            are read.
    """
    with reading(path):
        check_arrays(path, in_memory=False)
        signature = cast(Signature, Signature.of(path))
        if not zipfile.is_zipfile(path):
            member = _npy_rows(path)
            reader = _ArrayReader(path, signature, "all", member, False, conversion)
            whole = _opened([reader], [None], (), ())
            packed = open_packed(path)
            return whole if packed is None else _split_packed(whole.datasets[0], whole.notes, packed)
        with np.load(path, allow_pickle=False) as file:
            shapes = read_shapes(file)
            keys_of_splits = select_keys(shapes)
            found = [file[keys.labels] if keys.labels else None for keys in keys_of_splits]
        members = [_member_rows(path, keys.images) for keys in keys_of_splits]
        encoded = [
            None if values is None else encode_labels(values, member.shape[0])
            for values, member in zip(found, members, strict=True)
        ]
        classes = united(*(part[1] for part in encoded if part is not None))
        labels = [None if part is None else renumber(*part, classes) for part in encoded]
        readers = [
            _ArrayReader(path, signature, keys.split, member, (keys.images, keys.factors) == DSPRITES, conversion)
            for keys, member in zip(keys_of_splits, members, strict=True)
        ]
        return _opened(readers, labels, classes, tuple(describe_unused(path, shapes, keys_of_splits, FACTOR_NAMES)))


def _split_packed(whole: Dataset, notes: tuple[str, ...], packed: PackedFile) -> OpenedArrays:
    """Return the splits of packed images, with their labels and factors."""
    labels, classes = packed.labels, tuple(packed.info.classes)
    described = replace(whole, labels=labels, classes=classes, factors=packed.factors, is_lossy=packed.info.lossy)
    parts = []
    for split, chosen in packed.ranges:
        positions = np.arange(chosen.start, chosen.stop)
        parts.append(replace(described.subset(positions, split), positions=None))
    return OpenedArrays(parts, (*packed.notes, *notes))


def _opened(
    readers: list[_ArrayReader],
    labels: list[NDArray[np.int64] | None],
    classes: tuple[str, ...],
    notes: tuple[str, ...],
) -> OpenedArrays:
    path, conversion = readers[0].path, readers[0].conversion
    digest = hashlib.sha256(repr((conversion, path.stat().st_mtime_ns)).encode())
    with path.open("rb") as opened:
        for part in samples(opened, _SAMPLES):
            digest.update(part)
    datasets = []
    for reader, numbers in zip(readers, labels, strict=True):
        height, width, channels = reader.original(np.arange(1)).image_shape
        size = conversion.image_size or (height, width)
        shape = (*size, CHANNELS[conversion.color] if conversion.color else channels)
        source = hashlib.sha256(f"{digest.hexdigest()} {reader.split} {classes}".encode()).hexdigest()
        images = LazyImages(reader, shape, source, np.arange(reader.member.shape[0]))
        name = printable(path.stem)
        datasets.append(Dataset(cast("NDArray[np.uint8]", images), numbers, name, reader.split, classes))
    for other in datasets[1:]:
        check_compatible(datasets[0], other)
    total, target = sum(map(len, datasets)), datasets[0].image_shape
    height, width, channels = readers[0].original(np.arange(1)).image_shape
    changes = Changes(total * (target[:2] != (height, width)), total * (target[2] != channels))
    dtypes = [reader.member.dtype for reader in readers]
    return OpenedArrays(datasets, (*notes, *level_notes(dtypes), *changes.notes(conversion, target, total)))


def _npy_rows(path: Path) -> _Member:
    """Return the array of a `.npy` file.

    Its rows are read, not mapped: mapped pages count as memory of the process, and a file that shrinks while it is
    mapped ends the process.
    """
    with path.open("rb") as opened:
        shape, column_major, dtype = read_header(opened)
        first = opened.tell()
    _check_count(shape)
    if dtype.hasobject:
        raise ValueError("allow_pickle")
    if column_major:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
        return _Member(shape, dtype, lambda positions: np.ascontiguousarray(array[positions]))
    size = math.prod(shape[1:]) * dtype.itemsize

    def read(positions: NDArray[np.int64]) -> NDArray[np.generic]:
        rows = np.empty((len(positions), *shape[1:]), dtype)
        levels: Any = rows.reshape(-1).view(np.uint8)
        view = memoryview(levels)
        with path.open("rb", buffering=0) as opened:
            for start, stop in _runs(positions, size):
                target = view[start * size : stop * size]
                if os.preadv(opened.fileno(), [target], first + int(positions[start]) * size) < len(target):
                    raise ValueError("shorter than its header claims")
        return rows

    return _Member(shape, dtype, read)


def _member_rows(path: Path, key: str) -> _Member:
    """Return an array of a `.npz` file."""
    member = zipfile.ZipFile(path).open(f"{key}.npy")
    shape, column_major, dtype = read_header(member)
    _check_count(shape)
    if column_major:
        with np.load(path, allow_pickle=False) as file:
            array = file[key]
        return _Member(shape, dtype, lambda positions: array[positions])
    first, size = member.tell(), math.prod(shape[1:]) * dtype.itemsize

    def read(positions: NDArray[np.int64]) -> NDArray[np.generic]:
        rows = np.empty((len(positions), *shape[1:]), dtype)
        for start, stop in _runs(positions, size):
            member.seek(first + int(positions[start]) * size)
            values = np.frombuffer(member.read((stop - start) * size), dtype)
            rows[start:stop] = values.reshape(stop - start, *shape[1:])
        return rows

    return _Member(shape, dtype, read)


# A single read returns at most 2 GiB.
_MAX_READ = 2**30


def _runs(positions: NDArray[np.int64], size: int) -> list[tuple[int, int]]:
    """Return the ends of runs of consecutive positions that a single read returns.

    Args:
        positions: Positions of rows, (n,).
        size: Bytes per row.

    Example:
        >>> _runs(np.array([4, 5, 6, 1, 2]), 784), _runs(np.array([4, 5, 6, 1, 2]), 2**29)
        ([(0, 3), (3, 5)], [(0, 2), (2, 3), (3, 4), (4, 5)])
    """
    breaks = np.flatnonzero(np.diff(positions) != 1) + 1
    longest = max(1, _MAX_READ // size)
    ends = np.union1d(breaks, np.arange(0, len(positions) + 1, longest)[1:])
    edges = [0, *ends[ends < len(positions)].tolist(), len(positions)]
    return list(itertools.pairwise(edges)) if len(positions) else []


def _check_count(shape: tuple[int, ...]) -> None:
    if not shape:
        raise InputError("images: a single number; pass N x H x W or N x H x W x C, C = 1 or 3")
    if 0 in shape:
        raise InputError(f"images.shape = {shape}: no pixels; pass at least one image")
