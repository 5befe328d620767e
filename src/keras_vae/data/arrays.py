"""Image arrays in `.npz` and `.npy` files."""

import math
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import reading
from keras_vae.data.dataset import Dataset, Factors, LoadedData

IMAGES = ("images", "x", "data", "imgs", "arr_0")
LABELS = ("labels", "label", "targets", "target", "y", "arr_1")
FACTORS = ("factors", "latents_classes")
FACTOR_NAMES = "factor_names"

# The layout of dSprites: its images are 0 and 1, and the names of its factors lie in a pickled object.
_DSPRITES = ("imgs", "latents_classes")
_DSPRITES_NAMES = ("color", "shape", "scale", "orientation", "x", "y")

_ACCEPTED = f"accepted: x_train (and y_train, x_test, y_test), one of {', '.join(IMAGES)}, or one array of rank 3 or 4"


class _Keys(NamedTuple):
    """The names of the arrays of one part: training, test or all images."""

    images: str
    labels: str | None
    factors: str | None


class _Part(NamedTuple):
    """The arrays of one part."""

    images: NDArray[np.generic]
    labels: NDArray[np.generic] | None = None
    factors: Factors | None = None


def load_arrays(path: Path, *, name: str = "", classes: Sequence[str] = ()) -> LoadedData:
    """Return the images in a `.npz` or `.npy` file.

    A `.npz` in Keras's layout (`x_train`, `x_test`, and `y_train`, `y_test` or no labels) has training and test
    images. Any other has one array of images (one of `IMAGES`, or its only array of rank 3 or 4), and labels where
    it holds one of `LABELS`. A `.npy` has images only. Pickled objects are never loaded.

    Where the factors of the images are known, `factors` holds them as integers N x F (`factors_train` and
    `factors_test` beside `x_train` and `x_test`), and `factor_names` their names, if they are to have any. The layout
    of dSprites, `imgs` and `latents_classes`, is understood too.

    Args:
        path: The file.
        name: What the images are called in records; the file's stem unless given.
        classes: The names of the labels 0, 1, …, where they are known.

    Returns:
        The images as `Dataset.from_arrays` makes them; a note on arrays that were not used.

    Raises:
        InputError: When the file cannot be read, is damaged or holds no images.
    """
    # NumPy leaves a damaged file open when it is the one to open it.
    with reading(path), path.open("rb") as opened:
        file = np.load(opened, allow_pickle=False)
        if isinstance(file, np.ndarray):
            return _loaded([_Part(file)], path, name, classes, [])
        with file:
            shapes = _shapes(file)
            chosen = _choose(shapes)
            named = FACTOR_NAMES if FACTOR_NAMES in shapes and chosen[0].factors else None
            unused = sorted(set(shapes) - {key for keys in chosen for key in keys} - {named})
            notes = [f"arrays of {path.name} that were not used: {', '.join(unused)}"] if unused else []
            return _loaded(_read(file, chosen, named), path, name, classes, notes)


@dataclass(frozen=True, eq=False)
class Rows:
    """Images in a file, read a few at a time.

    Args:
        path: The file.
        split: What they are called in records.
        count: How many there are.
        read: Returns those from the first position to before the second.
        labels: As the file has them, or None.
        are_dsprites: Whether 0 and 1 stand for black and white.
    """

    path: Path
    split: str
    count: int
    read: Callable[[int, int], NDArray[np.generic]]
    labels: NDArray[np.generic] | None = None
    are_dsprites: bool = False

    def dataset(self, start: int, stop: int) -> Dataset:
        """Return some of the images as `load_arrays` would.

        Args:
            start: Position of the first.
            stop: Position after the last.

        Raises:
            InputError: The file is damaged, or these are no images.
        """
        with reading(self.path):
            images, labels, scale = self.read(start, stop), self.labels, self._scale
            if self.are_dsprites and not len(scale):
                images = images.astype("uint8") * np.uint8(255)
            if labels is not None:
                labels = np.concatenate([labels[: len(scale)], labels[start:stop]])
            try:
                both = Dataset.from_arrays(
                    np.concatenate([scale, images]), labels, name=self.path.stem, split=self.split
                )
            except InputError as error:
                if (start, stop) == (0, self.count):
                    raise
                raise InputError(f"from {self.split}/{start} to {self.split}/{stop - 1}: {error}") from error
            return both.take(np.arange(len(scale), len(both)), self.split)

    @cached_property
    def _scale(self) -> NDArray[np.generic]:
        """An image of more levels than 0 and 1, or none: black images are known as such beside it alone."""
        for start in range(0, self.count, _LOOK):
            images = self.read(start, min(start + _LOOK, self.count))
            if images.dtype.kind in "iu" and (bright := images.reshape(len(images), -1).max(axis=1) > 1).any():
                return images[bright][:1]
        return self.read(0, 0)


_LOOK = 256


def open_arrays(path: Path) -> list[Rows]:
    """Return the images of a `.npz` or `.npy` file, to be read a few at a time; test images come first.

    A `.npy` is mapped into memory, a member of a `.npz` inflated from where the last reading ended. Labels are read at
    once.

    Args:
        path: The file, as `load_arrays` takes it.

    Raises:
        InputError: The file cannot be read, or holds no images.
    """
    with reading(path):
        if not zipfile.is_zipfile(path):
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            return [Rows(path, "all", _count(array.shape), lambda start, stop: array[start:stop])]
        with np.load(path, allow_pickle=False) as file:
            chosen = _choose(_shapes(file))
            labels = [file[keys.labels] if keys.labels else None for keys in chosen]
        splits = ("train", "test") if len(chosen) == 2 else ("all",)
        parts = [
            Rows(path, split, *_member(path, keys.images), numbers, (keys.images, keys.factors) == _DSPRITES)
            for split, keys, numbers in zip(splits, chosen, labels, strict=True)
        ]
        for rows in parts:
            if rows.labels is not None and rows.labels.shape[:1] != (rows.count,):
                raise InputError(
                    f"labels: shape {rows.labels.shape} for {rows.count} images; accepted: one integer an image"
                )
        return parts[::-1]


def _member(path: Path, key: str) -> tuple[int, Callable[[int, int], NDArray[np.generic]]]:
    """Return how many images a member of a `.npz` holds, and what reads some of them."""
    member = zipfile.ZipFile(path).open(f"{key}.npy")
    shape, column_major, dtype = _header(member)
    if column_major:
        with np.load(path, allow_pickle=False) as file:
            array = file[key]
        return _count(shape), lambda start, stop: array[start:stop]
    first, size = member.tell(), math.prod(shape[1:]) * dtype.itemsize

    def read(start: int, stop: int) -> NDArray[np.generic]:
        member.seek(first + start * size)
        return np.frombuffer(member.read((stop - start) * size), dtype).reshape(stop - start, *shape[1:])

    return _count(shape), read


def _count(shape: tuple[int, ...]) -> int:
    if not shape:
        raise InputError("images: a single number; accepted: N x H x W or N x H x W x C, C = 1 or 3")
    return shape[0]


def _loaded(parts: Sequence[_Part], path: Path, name: str, classes: Sequence[str], notes: list[str]) -> LoadedData:
    splits = ("train", "test") if len(parts) == 2 else ("all",)
    datasets = [
        Dataset.from_arrays(
            part.images, part.labels, name=name or path.stem, split=split, classes=classes, factors=part.factors
        )
        for part, split in zip(parts, splits, strict=True)
    ]
    kinds = {part.images.dtype for part in parts}
    notes += [f"{kind} images were rounded to 256 levels" for kind in sorted(map(str, kinds)) if kind[0] == "f"]
    notes += ["bool images became levels 0 and 255"] * (np.dtype(bool) in kinds)
    return LoadedData(datasets[0], datasets[1] if len(datasets) == 2 else None, tuple(notes))


def _read(file: "np.lib.npyio.NpzFile", chosen: Sequence[_Keys], named: str | None) -> list[_Part]:
    """Return the chosen arrays; the factors of all parts have the same names and sizes."""
    names = [str(factor) for factor in file[named].ravel()] if named else []
    parts = []
    for keys in chosen:
        images, labels = file[keys.images], file[keys.labels] if keys.labels else None
        factors = None
        if keys.factors:
            values = file[keys.factors]
            if (keys.images, keys.factors) == _DSPRITES:
                names = names or list(_DSPRITES_NAMES) * (values.shape[1:] == (len(_DSPRITES_NAMES),))
                if images.dtype == np.uint8 and images.max() == 1:
                    # In place, as it is three gigabytes.
                    np.multiply(images, 255, out=images)
            factors = Factors.from_array(values, names)
        parts.append(_Part(images, labels, factors))
    sizes = [part.factors.sizes for part in parts if part.factors]
    largest = tuple(max(column) for column in zip(*sizes, strict=False))
    return [part._replace(factors=part.factors and replace(part.factors, sizes=largest)) for part in parts]


def _shapes(file: "np.lib.npyio.NpzFile") -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a `.npz` from its header, so that only the chosen ones are read."""
    assert file.zip is not None
    members = set(file.zip.namelist())
    shapes = {}
    for key in file.files:
        if f"{key}.npy" not in members:
            continue
        with file.zip.open(f"{key}.npy") as member:
            shapes[key] = _header(member)[0]
    return shapes


def _header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Return the shape, whether columns come first, and the dtype of an array whose file is at its start."""
    first = np.lib.format.read_magic(member) == (1, 0)
    return (np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0)(member)


def _choose(shapes: dict[str, tuple[int, ...]]) -> list[_Keys]:
    """Return the names of the arrays of training and test images, or of the one part there is."""
    if "x_train" in shapes:
        parts = [part for part in ("train", "test") if f"x_{part}" in shapes]

        def beside(prefix: str, what: str) -> list[str] | list[None]:
            keys = [f"{prefix}_{part}" for part in parts if f"{prefix}_{part}" in shapes]
            if 0 < len(keys) < len(parts):
                raise InputError(f"only {keys[0]} is there: give {what} for train and test, or for neither")
            return keys or [None] * len(parts)

        images = [f"x_{part}" for part in parts]
        return list(map(_Keys, images, beside("y", "labels"), beside("factors", "factors")))
    named = [key for key in IMAGES if key in shapes]
    ranked = [key for key, shape in shapes.items() if len(shape) in (3, 4)]
    # A named array of another rank is still meant as the images: its shape is then what is wrong.
    candidates = [key for key in named if key in ranked][:1] or ranked or named[:1]
    if len(candidates) != 1:
        held = ", ".join(f"{key} {shape}" for key, shape in shapes.items()) or "no arrays"
        several = "several arrays could be the images" if candidates else "no images"
        raise InputError(f"{several}: it holds {held}; {_ACCEPTED}")
    others = [next((key for key in keys if key in shapes and key != candidates[0]), None) for keys in (LABELS, FACTORS)]
    return [_Keys(candidates[0], *others)]
