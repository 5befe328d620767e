"""Streams of images, read block by block with an amount of memory that does not depend on their number."""

import hashlib
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.files import printable, reading, samples
from keras_vae.core.progress import Progress, silent
from keras_vae.data.arrays import level_notes, open_arrays
from keras_vae.data.convert import Changes, Conversion, convert
from keras_vae.data.dataset import Dataset, check_compatible, evenly_spaced
from keras_vae.data.folders import make_decoder, read_images
from keras_vae.data.headers import broken_error, check_files, skipped_note
from keras_vae.data.layout import list_images

BLOCK_SIZE = 512
# Samples of 4 KiB of an array file, which take a few milliseconds to read.
_SAMPLES = 64


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
        return Block(
            np.stack([block.images[offset] for block, offset in chosen]),
            np.array(labels) if labels else None,
            tuple(block.names[offset] for block, offset in chosen),
        )

    def subsample_evenly(self, count: int) -> Block:
        """Return at most `count` evenly spaced images."""
        return self.subset(evenly_spaced(len(self), count))


def stream_datasets(datasets: Sequence[Dataset], notes: Sequence[str] = ()) -> Stream:
    """Return a stream over the images of data sets, one after the other; names are `split/position`.

    Args:
        datasets: At least one data set; all images have the same shape.
        notes: One note per change made to the images.

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
        tuple(notes),
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
        for other in first_images[1:]:
            check_compatible(first_images[0], other)
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

    digest = hashlib.sha256(repr((conversion, os.path.realpath(path), path.stat().st_mtime_ns)).encode())
    with reading(path), path.open("rb") as opened:
        for part in samples(opened, _SAMPLES):
            digest.update(part)
    for rows in parts:
        digest.update(repr((rows.split, rows.classes)).encode())
        digest.update(b"" if rows.labels is None else rows.labels.tobytes())
    shape, total = first_images[0].image_shape, sum(rows.count for rows in parts)
    height, width, channels = parts[0].dataset(0, 1).image_shape
    changes = Changes(total * (shape[:2] != (height, width)), total * (shape[2] != channels))
    notes = (*parts[0].notes, *level_notes(rows.dtype for rows in parts), *changes.notes(conversion, shape, total))
    return Stream(read, tuple(stop - start for _, start, stop in blocks), parts[0].classes, digest.hexdigest(), notes)


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

    Of a folder with splits, the test images come first, then the validation and the training images. The headers of
    all files are checked first. To skip broken files, all files are decoded first.

    Args:
        folder: A folder as described in `folders.load_folder`.
        conversion: Size and color of the returned images.
        background: Color behind transparent pixels, as a color name of Pillow or as `#rrggbb`.
        scale: Value of white in images of more than 8 bits per channel.
        skip_broken: Whether to leave out files that cannot be used.
        progress: Reports the progress of checking the files.

    Raises:
        InputError: There are no images, or files cannot be used. Damage that headers do not show raises when a file is
            read.
    """
    decoder = make_decoder(conversion, background, scale)
    listing = list_images(folder)
    checked = check_files(
        folder, listing.files, decoder, decode_all=skip_broken, skip_broken=skip_broken, progress=progress
    )
    kept, shape = listing.subset(checked.positions), checked.shape(conversion)
    parts = kept.parts[::-1]
    files = [file for part in parts for file in part.files]
    labels = [label for part in parts for label in part.labels or ()]
    names = [printable(file.relative_to(folder)) for file in files]
    starts = range(0, len(names), BLOCK_SIZE)

    def read(number: int) -> Block:
        chosen = slice(starts[number], starts[number] + BLOCK_SIZE)
        decoded = read_images(files[chosen], shape, decoder, silent)
        if decoded.broken:
            raise broken_error(folder, decoded.broken, len(files[chosen]))
        return Block(decoded.images, np.array(labels[chosen], np.int64) if labels else None, tuple(names[chosen]))

    digest = hashlib.sha256(repr((decoder, os.path.realpath(folder))).encode())
    for file, header in zip(kept.files, checked.headers, strict=True):
        name = os.fsencode(file.relative_to(folder))
        digest.update(repr((name, file.stat().st_mtime_ns, header.digest)).encode())
    sizes = tuple(min(BLOCK_SIZE, len(names) - start) for start in starts)
    skipped = [skipped_note(folder, checked.broken, len(listing.files))] if checked.broken else []
    notes = (*listing.notes, *checked.notes(decoder), *skipped)
    return Stream(read, sizes, kept.classes, digest.hexdigest(), notes)
