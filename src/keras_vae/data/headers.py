"""Headers of image files, which reveal most unusable files before any is decoded."""

import hashlib
import os
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import numpy as np

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable, reading, samples
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import ImageShape
from keras_vae.data.convert import CHANNELS, Changes, Conversion
from keras_vae.data.decoding import (
    Decoder,
    is_deep,
    is_gray,
    is_lossy,
    open_image,
    without_size_warnings,
)

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile
    from PIL.TiffImagePlugin import TiffImageFile

Item = TypeVar("Item")
Result = TypeVar("Result")

_SAMPLES = 3
_MAX_LISTED = 30
# Large enough to keep all cores busy, and small enough to keep few decoded images in memory.
_THREADED_BATCH = 64
_PALETTE_CHANNELS = {"RGB": 3, "BGR": 3, "BGRX": 4, "RGBA": 4}


class Header(NamedTuple):
    """Properties of an image file.

    Args:
        size: Height and width, in the EXIF orientation.
        color: `"gray"` or `"rgb"`.
        is_deep: Whether the image has more than 8 bits per channel.
        is_lossy: Whether the file was compressed with loss.
        digest: Hash of the number of bytes of the file, and of parts at its start, in its middle and at its end.
    """

    size: tuple[int, int]
    color: str
    is_deep: bool
    is_lossy: bool
    digest: bytes


class BrokenFile(NamedTuple):
    """A file that cannot be used: its path, and a message with the problem and its remedy."""

    file: Path
    message: str


class CheckedFiles(NamedTuple):
    """Files that can be used, and those that cannot.

    Args:
        positions: Positions of the usable files in the list of all files.
        headers: Headers of the usable files.
        broken: The other files.
    """

    positions: list[int]
    headers: list[Header]
    broken: list[BrokenFile]

    @property
    def are_lossy(self) -> bool:
        """Whether usable files were compressed with loss."""
        return any(header.is_lossy for header in self.headers)

    def subset(self, positions: Sequence[int]) -> "CheckedFiles":
        """Return the files at the given positions among the usable files."""
        return self._replace(
            positions=[self.positions[position] for position in positions],
            headers=[self.headers[position] for position in positions],
        )

    def shape(self, conversion: Conversion) -> ImageShape:
        """Return the (H, W, C) of the converted images."""
        first = self.headers[0]
        return (*(conversion.image_size or first.size), CHANNELS[conversion.color or first.color])

    def notes(self, decoder: Decoder) -> tuple[str, ...]:
        """Return one note on each kind of change that the decoder makes."""
        shape = self.shape(decoder.conversion)
        changes = Changes(
            resized=sum(header.size != shape[:2] for header in self.headers),
            recolored=sum(CHANNELS[header.color] != shape[2] for header in self.headers),
            scaled=sum(header.is_deep for header in self.headers),
        )
        return changes.notes(decoder.conversion, shape, len(self.headers), decoder.scale)


def check_files(
    folder: Path,
    files: Sequence[Path],
    decoder: Decoder,
    *,
    decode_all: bool = False,
    skip_broken: bool = False,
    progress: Progress = silent,
) -> CheckedFiles:
    """Read the headers of image files.

    Files that may be truncated or have transparent pixels, which headers do not show, are decoded.

    Args:
        folder: The folder of the files, for messages.
        files: At least one file.
        decoder: The decoder of the images.
        decode_all: Whether to decode all files, to find any damage.
        skip_broken: Whether to leave out unusable files instead of raising an error.
        progress: Reports the progress.

    Raises:
        InputError: Files cannot be used, or all of them are left out; or the images differ in size or color, and the
            decoder does not convert them.
    """

    def inspect(file: Path) -> Header | BrokenFile:
        try:
            with reading(file):
                return _inspect(file, decoder, decode_all)
        except InputError as error:
            return BrokenFile(file, str(error))

    with without_size_warnings():
        # Headers are read in Python, which threads only slow down.
        inspected = threaded(inspect, files) if decode_all else map(inspect, files)
        shown = progress(files, "checking images")
        results = [result for _, result in zip(shown, inspected, strict=True)]
    positions = [position for position, result in enumerate(results) if isinstance(result, Header)]
    headers = [result for result in results if isinstance(result, Header)]
    broken = [result for result in results if isinstance(result, BrokenFile)]
    if broken and not (skip_broken and headers):
        raise broken_error(folder, broken, len(files))
    checked = CheckedFiles(positions, headers, broken)
    check_same(folder, [files[position] for position in positions], headers, decoder)
    return checked


def threaded(function: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """Yield the result of a function for each item, such as a file, computed on all cores."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(items), _THREADED_BATCH):
            yield from pool.map(function, items[start : start + _THREADED_BATCH])


def broken_error(folder: Path, broken: Sequence[BrokenFile], total: int) -> InputError:
    """Return the error for files that cannot be used; it lists the first ones.

    Args:
        folder: The folder of the files.
        broken: At least one file.
        total: Number of all files of the folder.
    """
    if len(broken) == 1:
        return InputError(f"{broken[0].message}{'' if '; ' in broken[0].message else _OR_SKIP}")
    remedies = [broken_file.message.partition("; ")[2] for broken_file in broken]
    remedy = "; ".join([*dict.fromkeys(filter(None, remedies)), "repair or remove the files, or add --skip-broken"])
    return InputError(
        f"{printable(folder)}: {len(broken):,} of {total:,} files cannot be used: "
        f"{_list_by_problem(folder, broken)}; {remedy}"
    )


_OR_SKIP = "; repair or remove the file, or add --skip-broken"


def skipped_note(folder: Path, broken: Sequence[BrokenFile], total: int) -> str:
    """Return a note on the files that were skipped.

    Args:
        folder: The folder of the files.
        broken: At least one file.
        total: Number of all files of the folder.
    """
    return f"skipped, cannot be used: {len(broken):,} of {total:,} files: {_list_by_problem(folder, broken)}"


def _list_by_problem(folder: Path, broken: Sequence[BrokenFile]) -> str:
    """Return the problems of unusable files and their names, relative to their folder; of many, the first ones."""
    names: dict[str, list[str]] = {}
    for file, message in broken[:_MAX_LISTED]:
        problem = message.removeprefix(f"{printable(file)}: ").removeprefix("cannot be read: ").partition("; ")[0]
        # Pillow counts the bytes that are left, which differ from file to file.
        problem = re.sub(r" \(\d+ bytes not processed\)", "", problem)
        names.setdefault(problem, []).append(printable(file.relative_to(folder)))
    shown = [f"{', '.join(found)} ({problem})" for problem, found in names.items()]
    return ", ".join(shown) + (", …" if len(broken) > _MAX_LISTED else "")


def _inspect(file: Path, decoder: Decoder, decode: bool) -> Header:
    """Read the header of a file, and decode the file if its header does not show whether it can be used."""
    with file.open("rb") as opened:
        size, *parts = samples(opened, _SAMPLES)
        digest = hashlib.blake2b(b"".join([size, *parts]), digest_size=16).digest()
        lossy = is_lossy(parts[0])
        opened.seek(0)
        with open_image(opened, decoder) as image:
            deep, color = is_deep(image), None if decode else _color(image, decoder)
            if color is not None and _seems_complete(image, int.from_bytes(size, "little"), parts[0], parts[-1]):
                return Header(_upright_size(image), color, deep, lossy, digest)
        opened.seek(0)
        decoded = decoder(opened)
        return Header(decoded.size, decoded.color, deep, lossy, digest)


def _color(image: "ImageFile", decoder: Decoder) -> str | None:
    """Return the color of the decoded image; None if it depends on whether pixels are transparent."""
    gray = _has_gray_palette(image) if image.mode == "P" else is_gray(image)
    if image.has_transparency_data and (
        decoder.background is None or (gray and len(set(decoder.background)) > 1) or image.mode == "PA"
    ):
        return None
    return "gray" if gray else "rgb"


def _has_gray_palette(image: "Image") -> bool:
    """Return whether the palette of an image that is not decoded yet is gray."""
    assert image.palette is not None
    mode, data = image.palette.getdata()
    levels = np.frombuffer(bytes(data), np.uint8)
    if mode == "RGB;L":
        channels = levels.reshape(3, -1)
    elif width := _PALETTE_CHANNELS.get(mode):
        channels = levels[: len(levels) // width * width].reshape(-1, width).T[:3]
    else:
        image.load()
        return is_gray(image)
    return bool((channels == channels[0]).all())


def _upright_size(image: "ImageFile") -> tuple[int, int]:
    from PIL import ExifTags

    # Pillow has already turned the size of a TIFF file, and would decode a PNG file without EXIF data in its header.
    has_exif = image.format != "PNG" or image.info.keys() & {"exif", "Raw profile type exif"}
    if image.format == "TIFF" or not has_exif:
        return image.height, image.width
    is_turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
    return (image.width, image.height) if is_turned else (image.height, image.width)


def _seems_complete(image: "ImageFile", size: int, start: bytes, end: bytes) -> bool:
    """Return whether a file ends where its format ends; a file with appended data seems incomplete."""
    match image.format:
        case "PNG":
            # EXIF data may also follow the pixels.
            return b"IEND" in end and b"eXIf" not in end
        case "JPEG" | "MPO":
            return b"\xff\xd9" in end
        case "GIF":
            return end.endswith(b";")
        case "WEBP":
            return int.from_bytes(start[4:8], "little") + 8 <= size
        case "BMP":
            return int.from_bytes(start[2:6], "little") <= size
        case "TIFF":
            # Offsets and sizes of the strips, or of the tiles.
            tags = cast("TiffImageFile", image).tag_v2
            offsets, sizes = tags.get(273) or tags.get(324, ()), tags.get(279) or tags.get(325, ())
            return bool(offsets) and all(map(lambda *ends: sum(ends) <= size, offsets, sizes))
    return False


def check_same(folder: Path, files: Sequence[Path], headers: Sequence[Header], decoder: Decoder) -> None:
    """Reject images of different sizes or colors if they are not converted.

    Args:
        folder: The folder of the files, for messages.
        files: The files.
        headers: Their headers.
        decoder: The decoder of the images.

    Raises:
        InputError: The images differ.
    """
    first, conversion = headers[0], decoder.conversion
    for file, header in zip(files, headers, strict=True):
        if conversion.image_size is None and header.size != first.size:
            sizes = " and ".join(
                f"{printable(path)} {h}x{w}" for path, (h, w) in ((files[0], first.size), (file, header.size))
            )
            raise InputError(
                f"{printable(folder)}: images of different sizes (H x W), {sizes}; resize them with --image-size HxW"
            )
        if conversion.color is None and header.color != first.color:
            colors = " and ".join(
                f"{printable(path)} is {color}" for path, color in ((files[0], first.color), (file, header.color))
            )
            raise InputError(
                f"{printable(folder)}: both gray and color images, {colors}; convert them with --color gray or --color"
                " rgb"
            )
