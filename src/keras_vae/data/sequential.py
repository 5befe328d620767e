"""Images of a source that are read once, from the first to the last."""

import hashlib
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable, reading
from keras_vae.core.typing import ImageShape
from keras_vae.data.arrivals import Signature
from keras_vae.data.convert import CHANNELS, Changes
from keras_vae.data.dataset import Dataset
from keras_vae.data.decoding import DecodedImage, Decoder, without_size_warnings
from keras_vae.data.factors import Factors
from keras_vae.data.folders import MIN_THREADED_PIXELS
from keras_vae.data.headers import BrokenFile, Header, broken_error, check_same, threaded
from keras_vae.data.layout import list_images
from keras_vae.data.lazy import check_unchanged

_BLOCK_SIZE = 512
_BLOCK_BYTES = 2**24


class SequentialBlock(NamedTuple):
    """Consecutive images of a source, decoded.

    Args:
        total: Number of images of the source that the block stands for.
        images: The usable ones, n x H x W x C.
        names: Names of the usable ones; None if names follow from positions.
        broken: The others: the position of each in the block, and the problem.
        changes: Numbers of changed images.
    """

    total: int
    images: NDArray[np.uint8]
    names: tuple[str, ...] | None = None
    broken: tuple[tuple[int, BrokenFile], ...] = ()
    changes: Changes = Changes()


@dataclass(frozen=True, eq=False)
class SequentialImages:
    """Images of a source that are read once, from the first to the last.

    Args:
        root: Path of the source, for messages.
        splits: Number of images of each split, in order: train, validation and test, or all.
        shape: (H, W, C) of the images.
        read: Yields the images from a position on.
        fingerprint: Hexadecimal hash that identifies these images.
        labels: Class numbers of all images, or None.
        classes: Names of the classes.
        factors: Factors of variation, or None.
        is_closed: Whether the source names its classes, so that they remain even without images.
        notes: One note per change made to the images, other than those that the blocks count.
        is_lossy: Whether the files were compressed with loss, as determined from the first one.
    """

    root: Path
    splits: dict[str, int]
    shape: ImageShape
    read: Callable[[int], Iterator[SequentialBlock]]
    fingerprint: str
    labels: NDArray[np.int64] | None = None
    classes: tuple[str, ...] = ()
    factors: Factors | None = None
    is_closed: bool = False
    notes: tuple[str, ...] = ()
    is_lossy: bool = False

    def __len__(self) -> int:
        """Return the number of images."""
        return sum(self.splits.values())


def from_datasets(
    root: Path,
    datasets: Sequence[Dataset],
    notes: tuple[str, ...],
    names: Callable[[int, int], tuple[str, ...] | None] = lambda start, stop: None,
) -> SequentialImages:
    """Return the images of data sets, one after the other.

    Args:
        root: Path of the source, for messages.
        datasets: At least one data set, training images first; all have the same shape and classes.
        notes: One note per change made to the images.
        names: Returns the names of the images from a position up to, but not including, another; None without names.
    """
    first, ends = datasets[0], np.cumsum([0, *map(len, datasets)]).tolist()
    size = block_size(math.prod(first.image_shape))

    def read(position: int) -> Iterator[SequentialBlock]:
        for dataset, start, stop in zip(datasets, ends[:-1], ends[1:], strict=True):
            for row in range(max(position, start), stop, size):
                end = min(row + size, stop)
                images = np.asarray(dataset.images[row - start : end - start])
                yield SequentialBlock(end - row, images, names(row, end))

    labels = [dataset.labels for dataset in datasets if dataset.labels is not None]
    factors = [dataset.factors for dataset in datasets if dataset.factors is not None]
    return SequentialImages(
        root,
        {dataset.split: len(dataset) for dataset in datasets},
        first.image_shape,
        read,
        hashlib.sha256(" ".join(dataset.checksum for dataset in datasets).encode()).hexdigest(),
        np.concatenate(labels) if labels else None,
        first.classes if labels else (),
        replace(factors[0], values=np.concatenate([part.values for part in factors])) if factors else None,
        is_closed=True,
        notes=notes,
        is_lossy=any(dataset.is_lossy for dataset in datasets),
    )


def open_image_files(folder: Path, decoder: Decoder) -> SequentialImages:
    """Open a folder of image files, which are read in the order of their paths.

    Args:
        folder: A folder as described in `folders.load_folder`.
        decoder: Decodes the images.

    Raises:
        InputError: There are no images, or none can be used. Others raise when they are read, and so do files that
            changed.
    """
    listing = list_images(folder)
    files = listing.files
    signatures = np.array([Signature.of(file) or Signature(0, 0) for file in files], np.int64)
    digest = hashlib.sha256(signatures.tobytes())
    for file in files:
        digest.update(os.fsencode(file.relative_to(folder)) + b"\0")

    def items(start: int) -> Iterator[EncodedImage]:
        for file, signature in zip(files[start:], signatures[start:].tolist(), strict=True):
            check_unchanged(file, Signature(*signature))
            yield EncodedImage(file, printable(file.relative_to(folder)))

    first = find_first(folder, items(0), decoder)
    labels = [label for part in listing.parts for label in part.labels or ()]
    return SequentialImages(
        folder,
        {part.split: len(part.files) for part in listing.parts},
        first.shape(decoder),
        lambda start: decode_blocks(folder, items(start), decoder, first),
        digest.hexdigest(),
        np.array(labels, np.int64) if labels else None,
        listing.classes,
        notes=listing.notes,
        is_lossy=first.header.is_lossy,
    )


class EncodedImage(NamedTuple):
    """An image file, or the content of one in an archive.

    Args:
        file: Its path; in an archive, the path of the archive and the name inside.
        name: Its name in tables; None if the name follows from its position.
        content: The content, or None to read the file.
    """

    file: Path
    name: str | None
    content: bytes | None = None


class FirstImage(NamedTuple):
    """The first image that can be used, whose size and color all others must have if they are not converted."""

    file: Path
    header: Header

    def shape(self, decoder: Decoder) -> ImageShape:
        """Return the (H, W, C) of the converted images."""
        conversion = decoder.conversion
        return (*(conversion.image_size or self.header.size), CHANNELS[conversion.color or self.header.color])


def find_first(root: Path, items: Iterable[EncodedImage], decoder: Decoder) -> FirstImage:
    """Return the first image that can be used.

    Args:
        root: Path of the source, for messages.
        items: At least one image.
        decoder: Decodes the images.

    Raises:
        InputError: No image can be used.
    """
    broken = []
    with without_size_warnings():
        for item in items:
            decoded = _decode(item, decoder)
            if not isinstance(decoded, BrokenFile):
                return FirstImage(item.file, _header(decoded))
            broken.append(decoded)
    raise broken_error(root, broken, len(broken))


def decode_blocks(
    root: Path, items: Iterable[EncodedImage], decoder: Decoder, first: FirstImage
) -> Iterator[SequentialBlock]:
    """Decode images, and yield them in blocks.

    Args:
        root: Path of the source, for messages.
        items: The images.
        decoder: Decodes the images.
        first: The first image that can be used.

    Raises:
        InputError: The images differ in size or color, and the decoder does not convert them.
    """
    shape, left = first.shape(decoder), iter(items)
    size = block_size(math.prod(shape))
    with without_size_warnings():
        while block := list(islice(left, size)):
            yield _decode_block(root, block, decoder, first, shape)


def block_size(image_bytes: int) -> int:
    """Return the number of images of a block, of which a few fit into memory at any size of the images.

    Args:
        image_bytes: Number of bytes of one image.
    """
    return max(1, min(_BLOCK_SIZE, _BLOCK_BYTES // max(1, image_bytes)))


def _decode_block(
    root: Path, items: Sequence[EncodedImage], decoder: Decoder, first: FirstImage, shape: ImageShape
) -> SequentialBlock:
    def decode(item: EncodedImage) -> DecodedImage | BrokenFile:
        return _decode(item, decoder)

    is_threaded = math.prod(first.header.size) >= MIN_THREADED_PIXELS
    images, names, broken = np.empty((len(items), *shape), np.uint8), list[str](), list[tuple[int, BrokenFile]]()
    changes = np.zeros(len(Changes._fields), int)
    for position, decoded in enumerate(threaded(decode, items) if is_threaded else map(decode, items)):
        item, row = items[position], position - len(broken)
        if isinstance(decoded, BrokenFile):
            broken.append((position, decoded))
            continue
        header = _header(decoded)
        if decoded.pixels.shape != shape:
            check_same(root, [first.file, item.file], [first.header, header], decoder)
        images[row] = decoded.pixels
        names += [] if item.name is None else [item.name]
        changes += header.size != shape[:2], CHANNELS[header.color] != shape[2], header.is_deep
    return SequentialBlock(
        len(items),
        images[: len(items) - len(broken)],
        None if items[0].name is None else tuple(names),
        tuple(broken),
        Changes(*changes.tolist()),
    )


def _decode(item: EncodedImage, decoder: Decoder) -> DecodedImage | BrokenFile:
    try:
        with reading(item.file):
            return decoder(item.file if item.content is None else BytesIO(item.content))
    except InputError as error:
        return BrokenFile(item.file, str(error))


def _header(decoded: DecodedImage) -> Header:
    return Header(decoded.size, decoded.color, decoded.is_deep, decoded.is_lossy, b"")
