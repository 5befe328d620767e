"""Loading of image files from a folder."""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable, reading
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import ImageShape
from keras_vae.data.arrivals import Signature
from keras_vae.data.convert import Conversion, check_memory
from keras_vae.data.dataset import Dataset, LoadedData
from keras_vae.data.decoding import Decoder, parse_background, without_size_warnings
from keras_vae.data.headers import BrokenFile, CheckedFiles, broken_error, check_files, skipped_note, threaded
from keras_vae.data.layout import FolderListing, list_images
from keras_vae.data.lazy import LazyImages, Load, check_unchanged, is_lazy, is_streamed, streaming_note

# Pillow decodes in parallel, but below this size threads cost more than they save.
MIN_THREADED_PIXELS = 128 * 128


def load_folder(
    folder: Path,
    conversion: Conversion,
    *,
    background: str | None = None,
    scale: float | None = None,
    skip_broken: bool = False,
    load: Load = "memory",
    progress: Progress = silent,
) -> LoadedData:
    """Load the images of a folder, in the order of their paths.

    Sub-folders of the first level become the classes, sorted by name; images directly in the folder have no labels.
    Folders named train, validation and test are splits, whose sub-folders become the classes; see `layout.list_images`.
    Links are followed. EXIF orientation is applied. Gray files stay gray; all others become RGB. The headers of all
    files are checked first.

    Args:
        folder: Searched recursively for files with the suffixes of PNG, JPEG, WebP, BMP, GIF, TIFF and PGM/PPM.
        conversion: Target size and color; without them, all images must agree.
        background: Color behind transparent pixels, as a color name of Pillow or as `#rrggbb`.
        scale: Value of white in images of more than 8 bits per channel.
        skip_broken: Whether to leave out files that cannot be used.
        load: Whether to hold the images in memory; see `lazy.is_streamed`.
        progress: Reports the progress of reading.

    Returns:
        The images, with the splits of the folder, if any, and notes on files that were ignored, resized, converted or
        skipped.

    Raises:
        InputError: There are no images, they differ in size or color, or, unless they are skipped, files are damaged,
            are animated, have transparent pixels but no background is given, or have more than 8 bits per channel but
            no scale is given. The message lists these files.
    """
    decoder = make_decoder(conversion, background, scale)
    listing = list_images(folder)
    checked = check_files(folder, listing.files, decoder, skip_broken=skip_broken, progress=progress)
    shape = checked.shape(conversion)
    if is_streamed(load, size := len(checked.positions) * math.prod(shape)):
        if skip_broken:
            # Only decoding finds all broken files.
            checked = check_files(folder, listing.files, decoder, decode_all=True, skip_broken=True, progress=progress)
        opened = _opened(folder, listing, checked, decoder)
        notes = opened.notes + ((streaming_note(size),) if load == "auto" else ())
        return _loaded(opened.datasets, notes)
    files = [listing.files[position] for position in checked.positions]
    read = read_images(files, shape, decoder, progress)
    broken = [*checked.broken, *read.broken]
    if broken and not (skip_broken and read.positions):
        raise broken_error(folder, broken, len(listing.files))
    checked = checked.subset(read.positions)
    kept = listing.subset(checked.positions)
    with reading(folder):
        levels = Dataset.from_arrays(read.images, name="").images
    notes = _notes(folder, listing, checked._replace(broken=broken), decoder)
    return _loaded(_datasets(folder, kept, levels, checked.are_lossy), notes)


class OpenedFolder(NamedTuple):
    """Images of a folder that are read on demand.

    Args:
        datasets: One per split, training images first.
        files: The file of each image, in the order of the data sets.
        notes: Notes on files that were ignored, resized, converted or skipped.
    """

    datasets: list[Dataset]
    files: list[Path]
    notes: tuple[str, ...]


def open_folder(
    folder: Path,
    conversion: Conversion,
    *,
    background: str | None = None,
    scale: float | None = None,
    skip_broken: bool = False,
    progress: Progress = silent,
) -> OpenedFolder:
    """Open a folder to read its images on demand.

    The headers of all files are checked first. To skip broken files, all files are decoded first. Arguments are those
    of `load_folder`.

    Raises:
        InputError: There are no images, or files cannot be used. Damage that headers do not show raises when a file is
            read, and so do files that changed.
    """
    decoder = make_decoder(conversion, background, scale)
    listing = list_images(folder)
    checked = check_files(
        folder, listing.files, decoder, decode_all=skip_broken, skip_broken=skip_broken, progress=progress
    )
    return _opened(folder, listing, checked, decoder)


def _opened(folder: Path, listing: FolderListing, checked: CheckedFiles, decoder: Decoder) -> OpenedFolder:
    """Return the images of checked files."""
    kept = listing.subset(checked.positions)
    files = [file for part in kept.parts for file in part.files]
    signatures = [Signature.of(file) or Signature(0, 0) for file in files]
    digest = hashlib.sha256(repr(decoder).encode())
    for file, header, signature in zip(files, checked.headers, signatures, strict=True):
        name = os.fsencode(file.relative_to(folder))
        digest.update(repr((name, signature.modified, header.digest)).encode())
    shape = checked.shape(decoder.conversion)
    reader = _FolderReader(folder, files, np.array(signatures, np.int64), shape, decoder)
    images = LazyImages(reader, shape, digest.hexdigest(), np.arange(len(files)))
    notes = _notes(folder, listing, checked, decoder)
    return OpenedFolder(_datasets(folder, kept, images, checked.are_lossy), files, notes)


@dataclass(frozen=True, eq=False)
class _FolderReader:
    """Reads the images of a folder.

    Args:
        folder: The folder, for messages.
        files: Image files, whose headers have been checked.
        signatures: Size and time of each file, (N, 2).
        shape: (H, W, C) of the decoded images.
        decoder: Decodes a file.
    """

    folder: Path
    files: list[Path]
    signatures: NDArray[np.int64]
    shape: ImageShape
    decoder: Decoder

    def __call__(self, positions: NDArray[np.int64], *, parallel: bool) -> NDArray[np.uint8]:
        """Return images; see `lazy.Reader`."""
        files = [self.files[position] for position in positions.tolist()]
        for file, signature in zip(files, self.signatures[positions].tolist(), strict=True):
            check_unchanged(file, Signature(*signature))
        decoded = read_images(files, self.shape, self.decoder, silent, parallel=parallel)
        if decoded.broken:
            raise broken_error(self.folder, decoded.broken, len(files))
        return decoded.images


def _notes(folder: Path, listing: FolderListing, checked: CheckedFiles, decoder: Decoder) -> tuple[str, ...]:
    skipped = [skipped_note(folder, checked.broken, len(listing.files))] if checked.broken else []
    return (*listing.notes, *checked.notes(decoder), *skipped)


def _datasets(folder: Path, kept: FolderListing, images: Any, is_lossy: bool) -> list[Dataset]:
    """Return the data sets of the splits of a folder, of which `images` are all images in the order of their files."""
    datasets, start = list[Dataset](), 0
    for part in kept.parts:
        rows = np.arange(start, start + len(part.files))
        chosen: Any = images.subset(rows) if is_lazy(images) else images[start : start + len(part.files)]
        start += len(part.files)
        labels = None if part.labels is None else np.array(part.labels, np.int64)
        name = printable(folder.resolve().name) or "images"
        datasets.append(Dataset(chosen, labels, name, part.split, kept.classes, is_lossy=is_lossy))
    return datasets


def _loaded(datasets: Sequence[Dataset], notes: tuple[str, ...]) -> LoadedData:
    named = {dataset.split: dataset for dataset in datasets}
    return LoadedData(datasets[0], named.get("test"), notes, named.get("validation"))


def make_decoder(conversion: Conversion, background: str | None, scale: float | None) -> Decoder:
    """Return the decoder with the given options; see `load_folder`."""
    return Decoder(conversion, None if background is None else parse_background(background), scale)


class ReadImages(NamedTuple):
    """Decoded image files.

    Args:
        images: N x H x W x C.
        positions: Position of the file of each image.
        broken: Files that cannot be decoded.
    """

    images: NDArray[np.uint8]
    positions: list[int]
    broken: list[BrokenFile]


def read_images(
    files: Sequence[Path], shape: ImageShape, decoder: Decoder, progress: Progress, *, parallel: bool = True
) -> ReadImages:
    """Decode image files.

    Args:
        files: At least one file, whose header has been checked.
        shape: (H, W, C) of the decoded images.
        decoder: Decodes a file.
        progress: Reports the progress of reading.
        parallel: Whether large images are decoded on all cores.

    Raises:
        InputError: The images do not fit in memory.
    """

    def decode(file: Path) -> NDArray[np.uint8] | BrokenFile:
        try:
            with reading(file):
                pixels = decoder(file).pixels
                if pixels.shape != shape:
                    raise InputError("changed while it was read; try again")
                return pixels
        except InputError as error:
            return BrokenFile(file, str(error))

    check_memory(len(files), shape, is_resized=decoder.conversion.image_size is not None)
    images, positions, broken = np.empty((len(files), *shape), np.uint8), list[int](), list[BrokenFile]()
    parallel &= math.prod(shape[:2]) >= MIN_THREADED_PIXELS
    decoded = threaded(decode, files) if parallel else map(decode, files)
    with without_size_warnings():
        shown = progress(files, "reading images")
        for position, (_, result) in enumerate(zip(shown, decoded, strict=True)):
            if isinstance(result, BrokenFile):
                broken.append(result)
            else:
                images[len(positions)] = result
                positions.append(position)
    return ReadImages(images[: len(positions)], positions, broken)
