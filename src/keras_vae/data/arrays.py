"""Image arrays in `.npz` and `.npy` files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from keras_vae.data.dataset import Dataset, Loaded
from keras_vae.errors import InputError

IMAGES = ("images", "x", "data", "arr_0")
LABELS = ("labels", "label", "targets", "target", "y", "arr_1")

_ACCEPTED = f"accepted: x_train (and y_train, x_test, y_test), one of {', '.join(IMAGES)}, or one array of rank 3 or 4"


def load_arrays(path: Path, *, name: str = "", classes: Sequence[str] = ()) -> Loaded:
    """Return the images in a `.npz` or `.npy` file.

    A `.npz` in Keras's layout (`x_train`, `x_test`, and `y_train`, `y_test` or no labels) has training and test
    images. Any other has one array of images (one of `IMAGES`, or its only array of rank 3 or 4), and labels where
    it holds one of `LABELS`. A `.npy` has images only. Pickled objects are never loaded.

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
    with readable(path), path.open("rb") as opened:
        file = np.load(opened, allow_pickle=False)
        if isinstance(file, np.ndarray):
            return _loaded([(file, None)], path, name, classes, [])
        with file:
            shapes = _shapes(file)
            chosen = _choose(shapes)
            unused = sorted(set(shapes) - {key for pair in chosen for key in pair if key})
            notes = [f"arrays of {path.name} that were not used: {', '.join(unused)}"] if unused else []
            parts = [(file[images], file[labels] if labels else None) for images, labels in chosen]
            return _loaded(parts, path, name, classes, notes)


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Turn whatever the bytes of a file provoke into one line that names the file.

    Args:
        path: The file that is read inside the `with` block.

    Yields:
        Nothing.

    Raises:
        InputError: When the block fails.
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except MemoryError as error:
        raise InputError(f"{path}: its images do not fit in memory") from error
    # NumPy, zipfile, zlib and Pillow raise a dozen kinds of error for damaged files.
    except Exception as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
        if isinstance(error, ValueError) and "allow_pickle" in reason:
            reason = "it holds Python objects or is not a NumPy file; save numeric arrays with numpy.savez"
        raise InputError(f"{path} cannot be read: {reason}") from error


def _loaded(
    parts: Sequence[tuple[NDArray[np.generic], NDArray[np.generic] | None]],
    path: Path,
    name: str,
    classes: Sequence[str],
    notes: list[str],
) -> Loaded:
    splits = ("train", "test") if len(parts) == 2 else ("all",)
    datasets = [
        Dataset.from_arrays(images, labels, name=name or path.stem, split=split, classes=classes)
        for (images, labels), split in zip(parts, splits, strict=True)
    ]
    kinds = {images.dtype for images, _ in parts}
    notes += [f"{kind} images were rounded to 256 levels" for kind in sorted(map(str, kinds)) if kind[0] == "f"]
    notes += ["bool images became levels 0 and 255"] * (np.dtype(bool) in kinds)
    return Loaded(datasets[0], datasets[1] if len(datasets) == 2 else None, tuple(notes))


def _shapes(file: "np.lib.npyio.NpzFile") -> dict[str, tuple[int, ...]]:
    """Return the shape of each array of a `.npz` from its header, so that only the chosen ones are read."""
    assert file.zip is not None
    members = set(file.zip.namelist())
    shapes = {}
    for key in file.files:
        if f"{key}.npy" not in members:
            continue
        with file.zip.open(f"{key}.npy") as member:
            first = np.lib.format.read_magic(member) == (1, 0)
            read = np.lib.format.read_array_header_1_0 if first else np.lib.format.read_array_header_2_0
            shapes[key] = read(member)[0]
    return shapes


def _choose(shapes: dict[str, tuple[int, ...]]) -> list[tuple[str, str | None]]:
    """Return the names of images and labels: of training and test, or of the one part there is."""
    if "x_train" in shapes:
        parts = [part for part in ("train", "test") if f"x_{part}" in shapes]
        labelled = [part for part in parts if f"y_{part}" in shapes]
        if labelled not in ([], parts):
            raise InputError(f"only y_{labelled[0]} is there: give labels for train and test, or for neither")
        return [(f"x_{part}", f"y_{part}" if labelled else None) for part in parts]
    named = [key for key in IMAGES if key in shapes]
    ranked = [key for key, shape in shapes.items() if len(shape) in (3, 4)]
    # A named array of another rank is still meant as the images: its shape is then what is wrong.
    candidates = [key for key in named if key in ranked][:1] or ranked or named[:1]
    if len(candidates) != 1:
        held = ", ".join(f"{key} {shape}" for key, shape in shapes.items()) or "no arrays"
        several = "several arrays could be the images" if candidates else "no images"
        raise InputError(f"{several}: it holds {held}; {_ACCEPTED}")
    return [(candidates[0], next((key for key in LABELS if key in shapes and key != candidates[0]), None))]
