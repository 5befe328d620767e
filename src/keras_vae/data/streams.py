"""Images of any number, block by block, in memory that does not grow with them."""

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
from keras_vae.data.dataset import Dataset, require_alike
from keras_vae.data.folders import find_images, opaque, read_images

BLOCK = 512


class Block(NamedTuple):
    """Images that follow one another in a stream.

    Args:
        images: Levels, N x H x W x C.
        labels: One integer an image, or None.
        names: What each image is called.
    """

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    names: tuple[str, ...]


@dataclass(frozen=True)
class Stream:
    """Images that are read when they are asked for.

    Args:
        read: Returns a block by its number.
        sizes: How many images each block has.
        classes: The names of the labels 0, 1, …, where they are known.
        fingerprint: What tells these images from others, in hexadecimal.
    """

    read: Callable[[int], Block]
    sizes: tuple[int, ...]
    classes: tuple[str, ...]
    fingerprint: str

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(self.sizes)

    def take(self, positions: NDArray[np.integer[Any]]) -> Block:
        """Return images by their positions, in that order."""
        ends = np.cumsum(self.sizes)
        owners = np.searchsorted(ends, positions, side="right")
        blocks = {owner: self.read(owner) for owner in np.unique(owners).tolist()}
        places = (positions - ends[owners] + np.array(self.sizes)[owners]).tolist()
        chosen = [(blocks[owner], place) for owner, place in zip(owners.tolist(), places, strict=True)]
        labels = [block.labels[place] for block, place in chosen if block.labels is not None]
        return Block(
            np.stack([block.images[place] for block, place in chosen]),
            np.array(labels) if labels else None,
            tuple(block.names[place] for block, place in chosen),
        )


def of_datasets(datasets: Sequence[Dataset]) -> Stream:
    """Return the images of data sets, one set after the other, called by split and position.

    Args:
        datasets: At least one, of images of one shape.

    Example:
        >>> stream = of_datasets([Dataset.from_arrays(np.zeros((3, 4, 4, 1), "uint8"), name="black", split="test")])
        >>> stream.read(0).names
        ('test/0', 'test/1', 'test/2')
    """
    blocks = [
        (dataset, slice(start, min(start + BLOCK, len(dataset))))
        for dataset in datasets
        for start in range(0, len(dataset), BLOCK)
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


def of_arrays(path: Path, conversion: Conversion) -> Stream:
    """Return the images of a `.npz` or `.npy` file of any size, called by split and position.

    Args:
        path: As `arrays.load_arrays` takes it.
        conversion: The size and color to bring the images to.

    Raises:
        InputError: The file cannot be read or holds no images. Images that are no good are refused when they are read.
    """
    parts = open_arrays(path)
    firsts = [convert(rows.dataset(0, 1), conversion)[0] for rows in parts]
    with reading(path):
        require_alike(firsts[0], firsts[-1])
    blocks = [(rows, start, min(start + BLOCK, rows.count)) for rows in parts for start in range(0, rows.count, BLOCK)]

    def read(number: int) -> Block:
        rows, start, stop = blocks[number]
        dataset, _ = convert(rows.dataset(start, stop), conversion)
        names = tuple(f"{rows.split}/{position}" for position in range(start, stop))
        return Block(dataset.images, dataset.labels, names)

    facts = path.stat()
    digest = hashlib.sha256(repr((conversion, path.name, facts.st_size, facts.st_mtime_ns)).encode())
    return Stream(read, tuple(stop - start for _, start, stop in blocks), (), digest.hexdigest())


def of_folder(folder: Path, conversion: Conversion, *, background: str | None = None) -> Stream:
    """Return the images of a folder of any size, called by their paths in it.

    Args:
        folder: As `folders.load_folder` takes it.
        conversion: The size and color to bring the images to.
        background: Any color Pillow names, to put behind transparent pixels.

    Raises:
        InputError: There are no images. Files that are no good are refused when they are read.
    """
    found, paint = find_images(folder), None if background is None else opaque(background)
    names = [str(file.relative_to(folder)) for file in found.files]
    starts = range(0, len(names), BLOCK)

    def read(number: int) -> Block:
        chosen = slice(starts[number], starts[number] + BLOCK)
        images, _ = read_images(folder, found.files[chosen], conversion, paint, silent)
        labels = None if found.labels is None else np.array(found.labels[chosen], np.int64)
        return Block(images, labels, tuple(names[chosen]))

    digest = hashlib.sha256(repr((conversion, background)).encode())
    for name, file in zip(names, found.files, strict=True):
        digest.update(f"{name} {file.stat().st_size} {file.stat().st_mtime_ns}\n".encode())
    sizes = tuple(min(BLOCK, len(names) - start) for start in starts)
    return Stream(read, sizes, found.classes, digest.hexdigest())
