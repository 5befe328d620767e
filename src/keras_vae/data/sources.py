"""Loading of images from a named source, a file or a folder."""

import math
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np

from keras_vae.core.errors import InputError, suggestion, unknown
from keras_vae.core.files import printable, reading, to_path
from keras_vae.core.progress import Progress, silent
from keras_vae.data import dataset, sprites, streams
from keras_vae.data.arrays import load_arrays
from keras_vae.data.combining import check_compatible
from keras_vae.data.config import DataConfig, Missing
from keras_vae.data.convert import Color, Conversion, Fit, convert
from keras_vae.data.dataset import Dataset, LoadedData, Splits
from keras_vae.data.decoding import Decoder
from keras_vae.data.folders import load_folder, make_decoder
from keras_vae.data.layout import SUFFIXES
from keras_vae.data.lazy import Load, is_streamed, streaming_note
from keras_vae.data.lazy_arrays import open_arrays
from keras_vae.data.published import FASHION_MNIST, MNIST
from keras_vae.data.records import find_records, pack_first, refuse_records
from keras_vae.data.streams import Stream

__all__ = [
    "SOURCES",
    "LoadedData",
    "Source",
    "SourceLocation",
    "Stream",
    "available",
    "load",
    "load_source",
    "load_splits",
    "open_stream",
    "stream",
]


_ARRAYS = (".npz", ".npy")


@dataclass(frozen=True)
class Source:
    """A named set of images.

    Args:
        name: Name that the user types.
        description: One-line description.
        load: Loads the images, and downloads them if necessary; the argument reports the progress.
        locate: Returns the current origin of the images, such as `"download, 11 MB"`.
    """

    name: str
    description: str
    load: Callable[[Progress], LoadedData]
    locate: Callable[[], str]


class SourceLocation(NamedTuple):
    """A named source, its description, and the current origin of its images."""

    name: str
    description: str
    origin: str


def load(
    source: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    color: Color | None = None,
    fit: Fit = "crop",
    background: str | None = None,
    scale: float | None = None,
    skip_broken: bool = False,
    missing: Missing = "refuse",
    load: Load = "auto",
    progress: Progress | None = None,
) -> LoadedData:
    """Load the images of a named source, a `.npz` or `.npy` file, or a folder.

    Args:
        source: A name in `SOURCES`, or a path. A name takes precedence over a file of the same name; write `./name`
            for the file.
        image_size: Height and width of the returned images.
        color: `"gray"` or `"rgb"`; required for folders that mix the two.
        fit: How images get another aspect ratio: `"crop"` scales them to cover `image_size` and crops them centrally,
            `"pad"` scales them to fit inside and pads them with `background` or black, `"stretch"` distorts them.
        background: Color behind transparent pixels; only for folders.
        scale: Value of white in images of more than 8 bits per channel, such as 65535; only for folders. The maximum of
            a PGM file counts as 65535.
        skip_broken: Whether to leave out files that cannot be used; only for folders.
        missing: `"mask"` accepts images with missing pixels in files; see `load_arrays`.
        load: `"memory"` holds all images in memory. `"stream"` reads them when they are indexed; only for folders and
            `.npy` files. `"auto"` streams images that take more than a quarter of the memory; see `lazy.is_streamed`.
        progress: Reports the progress of downloading, reading and converting.

    Returns:
        Training images, the source's own test and validation images if any, and one note per change made.

    Raises:
        InputError: There is no such source, or its content is invalid.
        RunError: A download fails.
    """
    conversion = Conversion(image_size, color, fit)
    show = progress or silent
    name, path, is_named = resolve(source)
    check_options(path, is_named, background=background, scale=scale, skip_broken=skip_broken)
    _check_load(load, name, path, is_named)
    _check_missing(missing, load, path, is_named)
    if is_named:
        loaded = SOURCES[name].load(show)
    elif path.is_dir():
        loaded = load_folder(
            path, conversion, background=background, scale=scale, skip_broken=skip_broken, load=load, progress=show
        )
    else:
        loaded = _load_file(path, conversion, load, has_missing=missing == "mask")
    train, notes = convert(loaded.train, conversion, show)
    others: list[Dataset | None] = []
    for part in (loaded.test, loaded.validation):
        other, more = (None, ()) if part is None else convert(part, conversion, show)
        if other is not None:
            with reading(path):
                check_compatible(train, other)
        others.append(other)
        notes += more
    return LoadedData(train, others[0], loaded.notes + notes, others[1])


def stream(
    source: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    color: Color | None = None,
    fit: Fit = "crop",
    background: str | None = None,
    scale: float | None = None,
    skip_broken: bool = False,
    missing: Missing = "refuse",
    progress: Progress | None = None,
) -> Stream:
    """Return a stream over the images of a source; files and folders are read block by block, on demand.

    Arguments and errors are those of `load`. Test images of the source, if any, come first.
    """
    _, path, is_named = resolve(source)
    check_options(path, is_named, background=background, scale=scale, skip_broken=skip_broken)
    conversion, show = Conversion(image_size, color, fit), progress or silent
    if not is_named and path.is_dir():
        return streams.stream_folder(
            path, conversion, background=background, scale=scale, skip_broken=skip_broken, progress=show
        )
    _check_missing(missing, "auto", path, is_named)
    if not is_named and missing == "refuse":
        return streams.stream_arrays(path, conversion)
    loaded = load(source, image_size=image_size, color=color, fit=fit, missing=missing, progress=progress)
    parts = (loaded.test, loaded.validation, loaded.train)
    return streams.stream_datasets([part for part in parts if part is not None], loaded.notes)


def load_splits(config: DataConfig, seed: int = 0, progress: Progress | None = None) -> tuple[Splits, tuple[str, ...]]:
    """Load the images of a `[data]` table, and hold out the validation and test images.

    Args:
        config: The table.
        seed: Seed of the random choice of the held-out images.
        progress: Reports the progress of downloading, reading and converting.

    Returns:
        The splits, and one note per change made to the images.

    Raises:
        InputError: There is no such source, or its content is invalid.
        RunError: A download fails.

    Example:
        >>> splits, notes = load_splits(DataConfig(source="digits", test=97))
        >>> len(splits.train), len(splits.validation), len(splits.test)
        (1520, 180, 97)
    """
    loaded = load_source(config, progress)
    splits = dataset.split(
        loaded.train,
        loaded.test,
        validation=config.validation,
        test_size=config.test,
        holdout=config.holdout,
        seed=seed,
        own_validation=loaded.validation,
    )
    return splits, loaded.notes


def load_source(config: DataConfig, progress: Progress | None = None) -> LoadedData:
    """Load all images of a `[data]` table without splitting them; see `load_splits`."""
    return load(config.source, load=config.load, progress=progress, **_conversion(config))


def open_stream(config: DataConfig, progress: Progress | None = None) -> Stream:
    """Return a stream over the images of a `[data]` table; see `load_splits`."""
    return stream(config.source, progress=progress, **_conversion(config))


def decoder_of(config: DataConfig) -> Decoder:
    """Return the decoder of single files with the options of a `[data]` table."""
    options = _conversion(config)
    conversion = Conversion(options["image_size"], options["color"], options["fit"])
    return make_decoder(conversion, options["background"], options["scale"])


def _conversion(config: DataConfig) -> dict[str, Any]:
    return {
        "image_size": None if config.image_size == "keep" else (config.image_size[0], config.image_size[1]),
        "color": None if config.color == "keep" else config.color,
        "fit": config.fit,
        "background": None if config.background == "refuse" else config.background,
        "scale": None if config.scale == "refuse" else config.scale,
        "skip_broken": config.skip_broken,
        "missing": config.missing,
    }


def _load_file(path: Path, conversion: Conversion, load: Load, *, has_missing: bool) -> LoadedData:
    """Load the images of a `.npz` or `.npy` file, or open a `.npy` file to read them on demand."""
    if has_missing:
        return load_arrays(path, has_missing=True)
    # Opening a pipe would wait forever.
    if load == "memory" or not path.is_file() or zipfile.is_zipfile(path):
        return load_arrays(path)
    datasets, notes = open_arrays(path, conversion)
    size = max(path.stat().st_size, sum(math.prod(part.images.shape) for part in datasets))
    if not is_streamed(load, size):
        return load_arrays(path)
    parts = {part.split: part for part in datasets}
    notes += (streaming_note(size),) if load == "auto" else ()
    return LoadedData(datasets[0], parts.get("test"), notes, parts.get("validation"))


def _check_load(load: Load, name: str, path: Path, is_named: bool) -> None:
    """Reject streaming of sources without random access."""
    if load not in get_args(Load):
        raise unknown("load", load, get_args(Load))
    if load != "stream" or not (is_named or path.is_file()):
        return
    if is_named or zipfile.is_zipfile(path):
        kind = "made in memory" if is_named else "compressed, and cannot be read in any order"
        shown = name if is_named else printable(path)
        raise InputError(f"load = 'stream': {shown} is {kind}; {pack_first(shown)}")


def _check_missing(missing: Missing, load: Load, path: Path, is_named: bool) -> None:
    """Reject missing pixels in sources other than arrays in memory."""
    if missing not in get_args(Missing):
        raise unknown("missing", missing, get_args(Missing))
    if missing == "mask" and (is_named or path.is_dir()):
        raise InputError("missing = 'mask': only .npz and .npy files can have missing pixels; leave it out")
    if missing == "mask" and load == "stream":
        raise InputError("missing = 'mask': images that are read on demand have no masks; use load = 'memory'")


def check_options(path: Path, is_named: bool, **options: Any) -> None:
    """Reject files that are not images, and options of folders with other sources.

    Args:
        path: The source.
        is_named: Whether it is a named source.
        **options: Options that only folders have.

    Raises:
        InputError: The source or an option is rejected.
    """
    if not is_named and (records := find_records(path)):
        raise refuse_records(path, records)
    if not is_named and path.is_dir():
        return
    for name, value in options.items():
        if value not in (None, False):
            raise InputError(f"{name} = {value!r}: arrays have {_LACKS[name]}; pass it with folders only")
    if is_named or path.suffix.lower() in _ARRAYS:
        return
    what, remedy = "not images", "pass a .npz or .npy file, a folder of images, or a named source"
    if path.suffix.lower() in SUFFIXES:
        what, remedy = "a single image", "pass a folder of images"
    raise InputError(f"data = {printable(path.absolute())}: {what}; {remedy}")


_LACKS = {"background": "no transparency", "scale": "8 bits per channel", "skip_broken": "no files to skip"}


def resolve(source: str | os.PathLike[str]) -> tuple[str, Path, bool]:
    """Return a source as a name and as a path, and whether it refers to a named source.

    Args:
        source: As in `load`.

    Raises:
        InputError: There is no such source.
    """
    name = os.fspath(source)
    path = to_path(name)
    is_named = name in SOURCES and not isinstance(source, os.PathLike)
    if not is_named and not (name and (os.path.exists(path) or find_records(path))):
        raise _not_found(name, path)
    return name, path, is_named


def available() -> tuple[SourceLocation, ...]:
    """Return all named sources, with the current origin of their images."""
    return tuple(SourceLocation(source.name, source.description, source.locate()) for source in SOURCES.values())


def _not_found(name: str, path: Path) -> InputError:
    where = f", and no file or folder {printable(path.absolute())}" if name else ""
    return InputError(
        f"data = {name!r}: no such source{where}; {suggestion(name.lower(), SOURCES)}accepted: {', '.join(SOURCES)},"
        " or a path to a .npz or .npy file or a folder of images"
    )


def _load_digits(progress: Progress) -> LoadedData:
    """Load scikit-learn's 1,797 handwritten digits, 8 x 8 pixels of 17 levels, enlarged to 28 x 28.

    Each image is padded by one black pixel, so that strokes end inside the image as in MNIST, and resampled from
    10 x 10 to 28 x 28 (Lanczos). To sharpen the edges that enlarging blurs, its levels v in [0, 1] become t²(3 − 2t)
    with t = (v − 0.2) / 0.7 clipped to [0, 1].
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    padded = np.pad(bunch.images.astype(np.float32) / 16, ((0, 0), (1, 1), (1, 1)))
    enlarged = np.empty((len(padded), 28, 28), np.float32)
    for index, image in enumerate(padded):
        enlarged[index] = np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.LANCZOS))
    t = np.clip((enlarged - 0.2) / 0.7, 0, 1)
    images = t * t * (3 - 2 * t)
    note = "digits were resampled from 8x8 to 28x28, and their edges sharpened"
    return LoadedData(
        Dataset.from_arrays(images, bunch.target, name="digits", classes=tuple("0123456789")), None, (note,)
    )


SOURCES = {
    source.name: source
    for source in (
        Source("mnist", "handwritten digits, 60,000 + 10,000 test images, 28x28 gray", MNIST.load, MNIST.locate),
        Source(
            "fashion_mnist",
            "pieces of clothing, 60,000 + 10,000 test images, 28x28 gray",
            FASHION_MNIST.load,
            FASHION_MNIST.locate,
        ),
        Source(
            "digits",
            "small handwritten digits, 1,797 images, enlarged to 28x28 gray; no download",
            _load_digits,
            lambda: "embedded in scikit-learn",
        ),
        Source(
            "sprites",
            "white shapes with known factors, 60,000 + 20,000 test images, 64x64 black and white; no download",
            sprites.load,
            lambda: "drawn when loaded",
        ),
    )
}
