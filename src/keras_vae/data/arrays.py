"""Image arrays in `.npz` and `.npy` files."""

import math
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, alternatives
from keras_vae.core.files import printable, reading
from keras_vae.data.combining import with_same_classes
from keras_vae.data.dataset import Dataset, LoadedData
from keras_vae.data.factors import Factors
from keras_vae.data.packed import open_packed
from keras_vae.data.validation import total_memory

IMAGES = ("images", "x", "data", "imgs", "arr_0")
LABELS = ("labels", "label", "targets", "target", "y", "arr_1")
FACTORS = ("factors", "latents_classes")
FACTOR_NAMES = "factor_names"
MASK = "mask"

# In dSprites, pixels are 0 and 1. The names of its factors are listed here, because they are pickled in the file.
DSPRITES = ("imgs", "latents_classes")
_DSPRITES_NAMES = ("color", "shape", "scale", "orientation", "x", "y")

_SPLITS = {"train": ("train",), "validation": ("val", "valid", "validation", "dev"), "test": ("test",)}
"""Suffixes of the arrays of each split in the layout of Keras, such as `x_val`."""

_LAYOUTS = (
    f"pass x_train (and y_train, x_val, y_val, x_test, y_test), one of {', '.join(IMAGES)}, or one array of rank 3 or 4"
)


class SplitKeys(NamedTuple):
    """Names of one split and of its arrays."""

    split: str
    images: str
    labels: str | None
    factors: str | None
    mask: str | None = None


class _SplitArrays(NamedTuple):
    """The name of one split, and its arrays."""

    split: str
    images: NDArray[np.generic]
    labels: NDArray[np.generic] | None = None
    factors: Factors | None = None
    mask: NDArray[np.generic] | None = None


def load_arrays(path: Path, *, name: str = "", classes: Sequence[str] = (), has_missing: bool = False) -> LoadedData:
    """Load the images of a `.npz` or `.npy` file.

    A `.npz` file in the layout of Keras has training images, `x_train`, and optionally test images, `x_test`,
    validation images, `x_val` (or `x_valid`, `x_validation`, `x_dev`), and labels, `y_train` and so on. Any other
    `.npz` file has one array of images (one of `IMAGES`, or its only array of rank 3 or 4) and optional labels (one of
    `LABELS`). A `.npy` file has images only. Pickled objects are never loaded.

    Labels are integers, texts or one-hot vectors; their distinct values are the classes, as in `labels.encode_labels`.

    Factors of variation, if known, are integers N x F under `factors`, or `factors_train` and `factors_test` in the
    layout of Keras, and their names, if any, are under `factor_names`. The layout of dSprites, `imgs` and
    `latents_classes`, is also supported.

    Missing pixels, if accepted, are NaN, or False in boolean arrays N x H x W or N x H x W x C: `mask_train` and so on
    in the layout of Keras, otherwise `mask`.

    Args:
        path: The file.
        name: Name of the data set in records; the file's stem by default.
        classes: Names of the classes 0, 1, …, if known.
        has_missing: Whether images with missing pixels are accepted; otherwise, NaN raises an error.

    Returns:
        The images, converted as in `Dataset.from_arrays`, and a note on unused arrays.

    Raises:
        InputError: The file cannot be read or contains no images.
    """
    # np.load leaves a damaged file open if it opens the file itself.
    with reading(path):
        check_arrays(path, in_memory=True)
        if packed := open_packed(path):
            return packed.load(name=name)
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if isinstance(file, np.ndarray):
                return _datasets([_SplitArrays("all", file)], path, name, classes, [], has_missing)
            with file:
                shapes = read_shapes(file)
                keys_of_splits = select_keys(shapes, with_masks=has_missing)
                names_key = FACTOR_NAMES if FACTOR_NAMES in shapes and keys_of_splits[0].factors else None
                notes = describe_unused(path, shapes, keys_of_splits, names_key)
                return _datasets(_read(file, keys_of_splits, names_key), path, name, classes, notes, has_missing)


def describe_unused(
    path: Path, shapes: Mapping[str, object], keys_of_splits: Sequence[SplitKeys], names_key: str | None
) -> list[str]:
    """Return a note on the arrays of a file that are not used; nothing if there are none.

    Args:
        path: The file.
        shapes: Shapes of its arrays by name.
        keys_of_splits: Names of the arrays of each split.
        names_key: Name of the array of the names of the factors, if it is used.
    """
    unused = sorted(set(shapes) - {key for keys in keys_of_splits for key in keys[1:]} - {names_key})
    names = ", ".join(map(printable, unused))
    return [f"arrays of {printable(path.name)} that were not used: {names}"] if unused else []


def level_notes(dtypes: Iterable[np.dtype]) -> list[str]:
    """Return one note per kind of conversion of arrays to levels 0..255.

    Args:
        dtypes: Data types of arrays of images.
    """
    kinds = set(dtypes)
    notes = [f"{kind} images were rounded to 256 levels" for kind in sorted(map(str, kinds)) if kind[0] == "f"]
    return notes + ["bool images became levels 0 and 255"] * (np.dtype(bool) in kinds)


def _datasets(
    parts: Sequence[_SplitArrays],
    path: Path,
    name: str,
    classes: Sequence[str],
    notes: list[str],
    has_missing: bool,
) -> LoadedData:
    name, datasets = name or printable(path.stem), {}
    for part in parts:
        images = part.images
        if has_missing and images.dtype.kind == "f":
            images = np.ma.masked_where(np.isnan(images), images)
        datasets[part.split] = Dataset.from_arrays(
            images,
            part.labels,
            name=name,
            split=part.split,
            classes=classes,
            factors=part.factors,
            mask=part.mask,
        )
    notes += level_notes(part.images.dtype for part in parts)
    first, *others = with_same_classes(*datasets.values())
    named = dict(zip(datasets, (first, *others), strict=True))
    return LoadedData(first, named.get("test"), tuple(notes), named.get("validation"))


def _read(
    file: "np.lib.npyio.NpzFile", keys_of_splits: Sequence[SplitKeys], names_key: str | None
) -> list[_SplitArrays]:
    """Read the arrays of all splits."""
    parts = []
    for keys, factors in zip(keys_of_splits, _read_factors(file, keys_of_splits, names_key), strict=True):
        images, labels = file[keys.images], file[keys.labels] if keys.labels else None
        if (keys.images, keys.factors) == DSPRITES and images.dtype == np.uint8 and images.max() == 1:
            # Multiply in place, because dSprites takes three gigabytes.
            np.multiply(images, 255, out=images)
        parts.append(_SplitArrays(keys.split, images, labels, factors, file[keys.mask] if keys.mask else None))
    return parts


def read_factors(path: Path) -> list[Factors | None]:
    """Return the factors of variation of each split of a `.npz` file, in the order of `select_keys`.

    Args:
        path: A file as described in `load_arrays`.

    Raises:
        InputError: The file cannot be read, or the factors are invalid.
    """
    with reading(path), path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
        shapes = read_shapes(file)
        keys_of_splits = select_keys(shapes)
        return _read_factors(file, keys_of_splits, FACTOR_NAMES if FACTOR_NAMES in shapes else None)


def _read_factors(
    file: "np.lib.npyio.NpzFile", keys_of_splits: Sequence[SplitKeys], names_key: str | None
) -> list[Factors | None]:
    """Return the factors of all splits, which have the same names and sizes."""
    names = [str(factor) for factor in file[names_key].ravel()] if names_key and keys_of_splits[0].factors else []
    found: list[Factors | None] = []
    for keys in keys_of_splits:
        values = file[keys.factors] if keys.factors else None
        if values is not None and (keys.images, keys.factors) == DSPRITES:
            names = names or list(_DSPRITES_NAMES) * (values.shape[1:] == (len(_DSPRITES_NAMES),))
        found.append(None if values is None else Factors.from_array(values, names))
    sizes = [factors.sizes for factors in found if factors]
    largest = tuple(max(column) for column in zip(*sizes, strict=False))
    return [factors and replace(factors, sizes=largest) for factors in found]


def read_shapes(file: "np.lib.npyio.NpzFile") -> dict[str, tuple[int, ...]]:
    """Return the shapes of the arrays of an open `.npz` file, reading the headers only.

    Args:
        file: The file.
    """
    assert file.zip is not None
    members = set(file.zip.namelist())
    shapes = {}
    for key in file.files:
        if f"{key}.npy" not in members:
            continue
        with file.zip.open(f"{key}.npy") as member:
            shapes[key] = read_header(member)[0]
    return shapes


def read_header(member: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Read the header of an open `.npy` file: the shape, whether the order is column-major, and the dtype.

    Args:
        member: The file, at its start.
    """
    first = np.lib.format.read_magic(member) == (1, 0)
    return (np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0)(member)


def check_arrays(path: Path, *, in_memory: bool) -> None:
    """Reject a file whose headers claim more data than it contains, or than fits in memory.

    Args:
        path: A `.npz` or `.npy` file.
        in_memory: Whether whole arrays will be loaded.

    Raises:
        InputError: The path is not a regular file, or the arrays do not fit in memory.
        ValueError: A header is wrong.
        OSError: The file cannot be read.
    """
    if not path.is_file():
        raise InputError("not a regular file; pass a .npz or .npy file, or a folder of images")
    total = 0
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if info.filename.endswith(".npy"):
                    with archive.open(info) as member:
                        total += _check_claim(member, info.file_size, info.filename)
    else:
        with path.open("rb") as opened:
            if opened.peek(len(_MAGIC)).startswith(_MAGIC):
                total = _check_claim(opened, path.stat().st_size, path.name)
    if in_memory and total > total_memory():
        needed, available = (f"{size / 2**30:,.0f} GiB" for size in (total, total_memory()))
        raise InputError(f"arrays of {needed}, and this machine has {available} of memory; use a part of them")


_MAGIC = b"\x93NUMPY"


def _check_claim(member: IO[bytes], size: int, name: str) -> int:
    """Return the number of bytes that the header of an open `.npy` file of a given size claims; 0 for objects."""
    shape, _, dtype = read_header(member)
    if dtype.hasobject:
        return 0
    claimed = math.prod(shape) * max(1, dtype.itemsize)
    if min(shape, default=0) < 0 or member.tell() + claimed > size:
        raise ValueError(f"the header of {printable(name)} claims {claimed:,} bytes, {shape}; there are {size:,}")
    return claimed


def select_keys(shapes: dict[str, tuple[int, ...]], *, with_masks: bool = False) -> list[SplitKeys]:
    """Return the names of the arrays of each split: training, validation and test, or all images.

    Args:
        shapes: Shapes of the arrays of a file by name.
        with_masks: Whether to look for masks of observed pixels.

    Raises:
        InputError: It is not clear which arrays are the images, or labels are incomplete.
    """
    if "x_train" in shapes:
        parts = {
            split: found[0]
            for split, suffixes in _SPLITS.items()
            if (found := [suffix for suffix in suffixes if f"x_{suffix}" in shapes])
        }

        def matching_keys(prefix: str, content: str) -> list[str] | list[None]:
            keys = [f"{prefix}_{part}" for part in parts.values() if f"{prefix}_{part}" in shapes]
            if 0 < len(keys) < len(parts):
                splits = alternatives(list(parts)).replace(" or ", " and ")
                raise InputError(f"only {' and '.join(keys)} is present; pass {content} for {splits}, or for none")
            return keys or [None] * len(parts)

        images = [f"x_{part}" for part in parts.values()]
        labels, factors = matching_keys("y", "labels"), matching_keys("factors", "factors")
        masks = matching_keys("mask", "masks") if with_masks else [None] * len(parts)
        return list(map(SplitKeys, parts if len(parts) > 1 else ["all"], images, labels, factors, masks))
    mask = MASK if with_masks and MASK in shapes else None
    named = [key for key in IMAGES if key in shapes]
    ranked = [key for key, shape in shapes.items() if len(shape) in (3, 4) and key != mask]
    # Keep an array with a known name but another rank, so that the error refers to its shape.
    candidates = [key for key in named if key in ranked][:1] or ranked or named[:1]
    if len(candidates) != 1:
        content = ", ".join(f"{printable(key)} {shape}" for key, shape in shapes.items()) or "no arrays"
        problem = "several arrays could be the images" if candidates else "no images"
        raise InputError(f"{problem}: the file contains {content}; {_LAYOUTS}")
    others = [next((key for key in keys if key in shapes and key != candidates[0]), None) for keys in (LABELS, FACTORS)]
    return [SplitKeys("all", candidates[0], others[0], others[1], mask)]
