"""Loading of image files from a folder."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable, reading
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import ImageShape
from keras_vae.data.convert import Conversion, check_memory
from keras_vae.data.dataset import Dataset, LoadedData
from keras_vae.data.decoding import Decoder, parse_background, without_size_warnings
from keras_vae.data.headers import BrokenFile, broken_error, check_files, skipped_note, threaded
from keras_vae.data.layout import list_images

# Pillow decodes in parallel, but below this size threads cost more than they save.
MIN_THREADED_PIXELS = 128 * 128


def load_folder(
    folder: Path,
    conversion: Conversion,
    *,
    background: str | None = None,
    scale: float | None = None,
    skip_broken: bool = False,
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
    files = [listing.files[position] for position in checked.positions]
    read = read_images(files, checked.shape(conversion), decoder, progress)
    broken = [*checked.broken, *read.broken]
    if broken and not (skip_broken and read.positions):
        raise broken_error(folder, broken, len(listing.files))
    checked = checked.subset(read.positions)
    kept = listing.subset(checked.positions)
    labels = [label for part in kept.parts for label in part.labels or ()] or None
    name = printable(folder.resolve().name) or "images"
    with reading(folder):
        whole = Dataset.from_arrays(read.images, labels, name=name, classes=kept.classes)
    datasets, start = {}, 0
    for part in kept.parts:
        chosen = slice(start, start + len(part.files))
        start = chosen.stop
        numbers = None if whole.labels is None else whole.labels[chosen]
        datasets[part.split] = replace(whole, images=whole.images[chosen], labels=numbers, split=part.split)
    train = datasets["train"] if "train" in datasets else datasets["all"]
    notes = [*listing.notes, *checked.notes(decoder)]
    notes += [skipped_note(folder, broken, len(listing.files))] if broken else []
    return LoadedData(train, datasets.get("test"), tuple(notes), datasets.get("validation"))


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


def read_images(files: Sequence[Path], shape: ImageShape, decoder: Decoder, progress: Progress) -> ReadImages:
    """Decode image files.

    Args:
        files: At least one file, whose header has been checked.
        shape: (H, W, C) of the decoded images.
        decoder: Decodes a file.
        progress: Reports the progress of reading.

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
    decoded = threaded(decode, files) if math.prod(shape[:2]) >= MIN_THREADED_PIXELS else map(decode, files)
    with without_size_warnings():
        shown = progress(files, "reading images")
        for position, (_, result) in enumerate(zip(shown, decoded, strict=True)):
            if isinstance(result, BrokenFile):
                broken.append(result)
            else:
                images[len(positions)] = result
                positions.append(position)
    return ReadImages(images[: len(positions)], positions, broken)
