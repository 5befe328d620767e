"""Names, files and folders → images."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_vae.core.errors import InputError, suggestion
from keras_vae.core.files import reading
from keras_vae.core.progress import Progress, silent
from keras_vae.data import sprites, streams
from keras_vae.data.arrays import load_arrays
from keras_vae.data.convert import Color, Conversion, convert
from keras_vae.data.dataset import Dataset, LoadedData, require_alike
from keras_vae.data.folders import load_folder
from keras_vae.data.published import FASHION_MNIST, MNIST
from keras_vae.data.streams import Stream

__all__ = ["SOURCES", "Available", "LoadedData", "Source", "Stream", "available", "load", "stream"]


_ARRAYS = (".npz", ".npy")


@dataclass(frozen=True)
class Source:
    """A named set of images.

    Args:
        name: What the user calls it.
        description: One line on what it holds.
        load: Reads, and fetches if need be, the images; shows its progress on the argument.
        locate: Says where the images would be taken from now.
    """

    name: str
    description: str
    load: Callable[[Progress], LoadedData]
    locate: Callable[[], str]


class Available(NamedTuple):
    """One row of the list of sources: where the images would be taken from now comes last."""

    name: str
    description: str
    origin: str


def load(
    source: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    color: Color | None = None,
    background: str | None = None,
    progress: Progress | None = None,
) -> LoadedData:
    """Return the images of a named source, a `.npz` or `.npy` file, or a folder.

    Args:
        source: A name in `SOURCES`, or a path; a name wins over a file of that name, which `./name` reaches.
        image_size: Height and width to bring all images to: scaled until they cover it, then cut evenly.
        color: `"gray"` or `"rgb"` to turn all images to; folders that mix the two need it.
        background: Color put behind the transparent pixels of a folder's images.
        progress: Shown while files are downloaded, read or converted.

    Returns:
        Training images, the source's own test images if it has any, and one line on each change made.

    Raises:
        InputError: When there is no such source, or what is there cannot be used as it is.
        RunError: When a download fails.
    """
    conversion = Conversion(image_size, color)
    show = progress or silent
    name, path, named = _resolve(source)
    if background is not None and (named or not path.is_dir()):
        raise InputError(f"background: '{background}'; accepted only with a folder of images, as arrays hold no alpha")
    if named:
        loaded = SOURCES[name].load(show)
    elif path.is_dir():
        loaded = load_folder(path, conversion, background=background, progress=show)
    elif path.suffix.lower() in _ARRAYS:
        loaded = load_arrays(path)
    else:
        raise InputError(
            f"data: {path.absolute()}; accepted: a .npz or .npy file, a folder of images, or a named source"
        )
    train, notes = convert(loaded.train, conversion, show)
    if loaded.test is None:
        return LoadedData(train, None, loaded.notes + notes)
    test, test_notes = convert(loaded.test, conversion, show)
    with reading(path):
        require_alike(train, test)
    return LoadedData(train, test, loaded.notes + notes + test_notes)


def stream(
    source: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    color: Color | None = None,
    background: str | None = None,
    progress: Progress | None = None,
) -> Stream:
    """Return the images of a source block by block: those of folders and files are read when they are asked for.

    Arguments and errors are those of `load`. A source with test images of its own gives those first.
    """
    _, path, named = _resolve(source)
    if not named and path.is_dir():
        return streams.of_folder(path, Conversion(image_size, color), background=background)
    if not named and path.suffix.lower() in _ARRAYS and background is None:
        return streams.of_arrays(path, Conversion(image_size, color))
    loaded = load(source, image_size=image_size, color=color, background=background, progress=progress)
    return streams.of_datasets([part for part in (loaded.test, loaded.train) if part is not None])


def _resolve(source: str | os.PathLike[str]) -> tuple[str, Path, bool]:
    """Return a source's name, the path that it would be, and whether it is the name that is meant."""
    name = os.fspath(source)
    path = Path(os.path.expanduser(name))
    named = name in SOURCES and not isinstance(source, os.PathLike)
    if not named and not (name and os.path.exists(path)):
        raise _not_found(name, path)
    return name, path, named


def available() -> tuple[Available, ...]:
    """Return every named source, and where its images would be taken from now."""
    return tuple(Available(source.name, source.description, source.locate()) for source in SOURCES.values())


def _not_found(name: str, path: Path) -> InputError:
    where = f", and no file or folder {path.absolute()}" if name else ""
    return InputError(
        f"data = {name!r}: no such source{where}; {suggestion(name.lower(), SOURCES)}accepted: {', '.join(SOURCES)},"
        " or a path to a .npz or .npy file or a folder of images"
    )


def _load_digits(progress: Progress) -> LoadedData:
    """Return scikit-learn's 1,797 handwritten digits, 8 x 8 pixels of 17 levels, drawn larger at 28 x 28.

    Each gets a border of one black pixel, so that strokes end inside the image as MNIST's do, is resampled from 10 x 10
    to 28 x 28 (Lanczos), and its levels v in [0, 1] become t²(3 − 2t) with t = (v − 0.2) / 0.7 clipped to [0, 1], which
    turns the blur of enlargement back into edges.
    """
    from PIL import Image
    from sklearn.datasets import load_digits

    bunch = load_digits()
    coarse = np.pad(bunch.images.astype(np.float32) / 16, ((0, 0), (1, 1), (1, 1)))
    fine = np.empty((len(coarse), 28, 28), np.float32)
    for index, image in enumerate(coarse):
        fine[index] = np.asarray(Image.fromarray(image).resize((28, 28), Image.Resampling.LANCZOS))
    t = np.clip((fine - 0.2) / 0.7, 0, 1)
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
