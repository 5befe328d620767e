"""Streams of images, read block by block with an amount of memory that does not depend on their number."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.files import printable
from keras_vae.core.progress import Progress, silent
from keras_vae.data.convert import Conversion
from keras_vae.data.dataset import Dataset, evenly_spaced
from keras_vae.data.folders import open_folder
from keras_vae.data.lazy_arrays import open_arrays
from keras_vae.data.packed import open_packed

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
        fingerprint: Hexadecimal hash that identifies these images: their paths and times, and samples of their content.
        notes: One note per change made to the images.
    """

    read: Callable[[int], Block]
    sizes: tuple[int, ...]
    classes: tuple[str, ...]
    fingerprint: str
    notes: tuple[str, ...] = ()

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
        images = [block.images[offset] for block, offset in chosen]
        return Block(
            (np.ma if any(isinstance(image, np.ma.MaskedArray) for image in images) else np).stack(images),
            np.array(labels) if labels else None,
            tuple(block.names[offset] for block, offset in chosen),
        )

    def subsample_evenly(self, count: int) -> Block:
        """Return at most `count` evenly spaced images."""
        return self.subset(evenly_spaced(len(self), count))


def stream_datasets(
    datasets: Sequence[Dataset], notes: Sequence[str] = (), *, place: str = "", names: Sequence[str] = ()
) -> Stream:
    """Return a stream over the images of data sets, one after the other.

    Args:
        datasets: At least one data set; all images have the same shape.
        notes: One note per change made to the images.
        place: Path of the source; part of the fingerprint.
        names: Name of each image; `split/position` by default.

    Example:
        >>> stream = stream_datasets([Dataset.from_arrays(np.ones((3, 4, 4, 1), bool), name="white", split="test")])
        >>> stream.read(0).names
        ('test/0', 'test/1', 'test/2')
    """
    ends = np.cumsum([0, *map(len, datasets)]).tolist()
    blocks = [
        (dataset, first, slice(start, min(start + BLOCK_SIZE, len(dataset))))
        for dataset, first in zip(datasets, ends, strict=False)
        for start in range(0, len(dataset), BLOCK_SIZE)
    ]

    def read(number: int) -> Block:
        dataset, first, chosen = blocks[number]
        positions = range(chosen.start, chosen.stop)
        named = tuple(names[first + row] if names else f"{dataset.split}/{row}" for row in positions)
        return Block(dataset.images[chosen], None if dataset.labels is None else dataset.labels[chosen], named)

    identity = [place, repr(datasets[0].classes), *(dataset.checksum for dataset in datasets)]
    return Stream(
        read,
        tuple(chosen.stop - chosen.start for _, _, chosen in blocks),
        datasets[0].classes,
        hashlib.sha256(os.fsencode("-".join(identity))).hexdigest(),
        tuple(notes),
    )


def stream_arrays(path: Path, conversion: Conversion) -> Stream:
    """Return a stream over the images of a `.npz` or `.npy` file of any size.

    Names are those of packed images; otherwise `split/position`.

    Args:
        path: A file as described in `arrays.load_arrays`.
        conversion: Size and color of the returned images.

    Raises:
        InputError: The file cannot be read or contains no images. Invalid images raise when they are read.
    """
    opened = open_arrays(path, conversion)
    packed, names = open_packed(path), list[str]()
    if packed is not None:
        for _, chosen in reversed(list(packed.ranges)):
            names += packed.names(chosen.start, chosen.stop) or ()
    return stream_datasets(opened.datasets[::-1], opened.notes, place=os.path.realpath(path), names=names)


def stream_folder(
    folder: Path,
    conversion: Conversion,
    *,
    background: str | None = None,
    scale: float | None = None,
    skip_broken: bool = False,
    progress: Progress = silent,
) -> Stream:
    """Return a stream over the images of a folder of any size; names are paths relative to the folder.

    If the folder has splits, the test images come first, then the validation and the training images.

    Args:
        folder: A folder as described in `folders.load_folder`.
        conversion: Size and color of the returned images.
        background: Color behind transparent pixels, as a color name of Pillow or as `#rrggbb`.
        scale: Value of white in images of more than 8 bits per channel.
        skip_broken: Whether to leave out files that cannot be used.
        progress: Reports the progress of checking the files.

    Raises:
        InputError: See `open_folder`.
    """
    opened = open_folder(
        folder, conversion, background=background, scale=scale, skip_broken=skip_broken, progress=progress
    )
    names, stop = list[str](), len(opened.files)
    for dataset in opened.datasets[::-1]:
        files = opened.files[stop - len(dataset) : stop]
        names += [printable(file.relative_to(folder)) for file in files]
        stop -= len(dataset)
    return stream_datasets(opened.datasets[::-1], opened.notes, place=os.path.realpath(folder), names=names)
