"""Streams of images, read block by block with an amount of memory that does not depend on their number."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.files import reading
from keras_vae.core.progress import silent
from keras_vae.data.arrays import open_arrays
from keras_vae.data.convert import Conversion, convert
from keras_vae.data.dataset import Dataset, check_compatible, evenly_spaced
from keras_vae.data.folders import parse_background, read_images
from keras_vae.data.layout import list_images

BLOCK_SIZE = 512


class Block(NamedTuple):
    """Consecutive images of a stream.

    Args:
        images: Levels, N x H x W x C.
        labels: One class number per image, or None.
        names: Name of each image.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    names: tuple[str, ...]


@dataclass(frozen=True)
class Stream:
    """Images that are read on demand.

    Args:
        read: Returns a block by its number.
        sizes: Number of images in each block.
        classes: Names of the classes 0, 1, …; empty without labels.
        fingerprint: Hexadecimal hash that identifies these images.
    """

    read: Callable[[int], Block]
    sizes: tuple[int, ...]
    classes: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(self.sizes)

    def subset(self, positions: NDArray[np.integer[Any]]) -> Block:
        """Return the images at the given positions, in that order."""
        ends = np.cumsum(self.sizes)
        numbers = np.searchsorted(ends, positions, side="right")
        blocks = {number: self.read(number) for number in np.unique(numbers).tolist()}
        offsets = (positions - ends[numbers] + np.array(self.sizes)[numbers]).tolist()
        chosen = [(blocks[number], offset) for number, offset in zip(numbers.tolist(), offsets, strict=True)]
        labels = [block.labels[offset] for block, offset in chosen if block.labels is not None]
        return Block(
            np.stack([block.images[offset] for block, offset in chosen]),
            np.array(labels) if labels else None,
            tuple(block.names[offset] for block, offset in chosen),
        )

    def subsample_evenly(self, count: int) -> Block:
        """Return at most `count` evenly spaced images."""
        return self.subset(evenly_spaced(len(self), count))


def stream_datasets(datasets: Sequence[Dataset]) -> Stream:
    """Return a stream over the images of data sets, one after the other; names are `split/position`.

    Args:
        datasets: At least one data set; all images have the same shape.

    Example:
        >>> stream = stream_datasets([Dataset.from_arrays(np.ones((3, 4, 4, 1), bool), name="white", split="test")])
        >>> stream.read(0).names
        ('test/0', 'test/1', 'test/2')
    """
    blocks = [
        (dataset, slice(start, min(start + BLOCK_SIZE, len(dataset))))
        for dataset in datasets
        for start in range(0, len(dataset), BLOCK_SIZE)
    ]

    def read(number: int) -> Block:
        dataset, chosen = blocks[number]
        names = tuple(f"{dataset.split}/{position}" for position in range(chosen.start, chosen.stop))
        return Block(dataset.images[chosen], None if dataset.labels is None else dataset.labels[chosen], names)

    return Stream(
        read,
        tuple(chosen.stop - chosen.start for _, chosen in blocks),
        datasets[0].classes,
        hashlib.sha256("-".join(dataset.checksum for dataset in datasets).encode()).hexdigest(),
    )


def stream_arrays(path: Path, conversion: Conversion) -> Stream:
    """Return a stream over the images of a `.npz` or `.npy` file of any size; names are `split/position`.

    Args:
        path: A file as described in `arrays.load_arrays`.
        conversion: Size and color of the returned images.

    Raises:
        InputError: The file cannot be read or contains no images. Invalid images raise when they are read.
    """
    parts = open_arrays(path)
    first_images = [convert(rows.dataset(0, 1), conversion)[0] for rows in parts]
    with reading(path):
        check_compatible(first_images[0], first_images[-1])
    blocks = [
        (rows, start, min(start + BLOCK_SIZE, rows.count))
        for rows in parts
        for start in range(0, rows.count, BLOCK_SIZE)
    ]

    def read(number: int) -> Block:
        rows, start, stop = blocks[number]
        dataset, _ = convert(rows.dataset(start, stop), conversion)
        names = tuple(f"{rows.split}/{position}" for position in range(start, stop))
        return Block(dataset.images, dataset.labels, names)

    status = path.stat()
    digest = hashlib.sha256(repr((conversion, path.name, status.st_size, status.st_mtime_ns)).encode())
    return Stream(read, tuple(stop - start for _, start, stop in blocks), parts[0].classes, digest.hexdigest())


def stream_folder(folder: Path, conversion: Conversion, *, background: str | None = None) -> Stream:
    """Return a stream over the images of a folder of any size; names are paths relative to the folder.

    Of a folder with splits, the test images come first, then the validation and the training images.

    Args:
        folder: A folder as described in `folders.load_folder`.
        conversion: Size and color of the returned images.
        background: Color behind transparent pixels, as a color name of Pillow or as `#rrggbb`.

    Raises:
        InputError: There are no images. Invalid files raise when they are read.
    """
    listing = list_images(folder)
    fill = None if background is None else parse_background(background)
    parts = listing.parts[::-1]
    files = [file for part in parts for file in part.files]
    labels = [label for part in parts for label in part.labels or ()]
    names = [str(file.relative_to(folder)) for file in files]
    starts = range(0, len(names), BLOCK_SIZE)

    def read(number: int) -> Block:
        chosen = slice(starts[number], starts[number] + BLOCK_SIZE)
        images, _ = read_images(folder, files[chosen], conversion, fill, silent)
        return Block(images, np.array(labels[chosen], np.int64) if labels else None, tuple(names[chosen]))

    digest = hashlib.sha256(repr((conversion, background)).encode())
    for name, file in zip(names, files, strict=True):
        digest.update(f"{name} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
    sizes = tuple(min(BLOCK_SIZE, len(names) - start) for start in starts)
    return Stream(read, sizes, listing.classes, digest.hexdigest())
