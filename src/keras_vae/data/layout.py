"""The layout of a folder of images: splits, classes, and files that are not images of the data set."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_vae.core.errors import InputError
from keras_vae.core.files import reading

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif")

SPLIT_FOLDERS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing"), "test"),
}
"""The split of each folder name, in lower case."""

MASK_FOLDERS = ("ground_truth", "ground-truth", "groundtruth", "mask", "masks")
"""Names of folders of segmentation masks, in lower case."""

_MASK_SUFFIX = "_mask"


class FolderPart(NamedTuple):
    """Image files of one split, in the order of their paths.

    Args:
        split: `"train"`, `"validation"`, `"test"` or `"all"`.
        files: At least one file.
        labels: Class number of each file, or None.
    """

    split: str
    files: list[Path]
    labels: list[int] | None


class FolderListing(NamedTuple):
    """Image files of a folder.

    Args:
        parts: The splits in the order train, validation, test; or all images.
        classes: Names of the classes: those of the training images, then those of other images only.
        notes: Descriptions of the splits and of ignored files.
    """

    parts: tuple[FolderPart, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...]


class _Found(NamedTuple):
    """Entries below a folder, each list sorted by path."""

    images: list[Path]
    masks: list[Path]
    ignored: list[Path]


def list_images(folder: Path) -> FolderListing:
    """List the image files of a folder without opening them.

    Without splits, the sub-folders of the first level are the classes. Folders of the first level named train or
    training; val, valid, validation or dev; and test or testing, in any case, are splits, and the classes are one level
    below. A single folder of such a name, with images directly in it and with other folders next to it, is a class.
    Masks are ignored: images in folders named as in `MASK_FOLDERS`, and `NAME_mask.png` next to `NAME.png`.

    Args:
        folder: A folder as described in `folders.load_folder`.

    Raises:
        InputError: There are no images, splits or classes are mixed with other images, there are splits without
            training images, or folders below have splits of their own.

    Example:
        >>> list_images(Path("photos")).parts[0].split  # doctest: +SKIP
        'train'
    """
    with reading(folder):
        found = _scan(folder, frozenset())
        files, masks = _without_masks(found.images)
        masks = sorted(found.masks + masks)
    if not files:
        content = f", only {_first(path.name for path in found.ignored)}" if found.ignored else ""
        content = f", only masks: {_first(_relative(folder, masks))}" if masks else content
        raise InputError(f"{folder}: no images{content}; accepted: {', '.join(SUFFIXES)} files")
    _reject_nested_splits(folder, files)
    splits = _split_folders(folder, files)
    names = [_class_of_each(folder / name, inside) for name, inside in splits.values()] or [
        _class_of_each(folder, files)
    ]
    _reject_partial_labels(folder, splits, names)
    classes = tuple(dict.fromkeys(name for part in names for name in sorted(set(part or ()))))
    numbers = {name: number for number, name in enumerate(classes)}
    contents = [(split, inside) for split, (_, inside) in splits.items()] or [("all", files)]
    parts = tuple(
        FolderPart(split, inside, None if part is None else [numbers[name] for name in part])
        for (split, inside), part in zip(contents, names, strict=True)
    )
    ignored = found.ignored
    notes = [
        *_split_notes(parts, classes),
        *([f"ignored, masks: {len(masks)} ({_first(_relative(folder, masks))})"] if masks else []),
        *([f"ignored, not images: {len(ignored)} ({_first(path.name for path in ignored)})"] if ignored else []),
    ]
    return FolderListing(parts, classes, tuple(notes))


def find_images(folder: Path) -> list[Path]:
    """Return the paths of the image files in a folder by the rules of `list_images`, without splits and classes.

    Args:
        folder: Searched recursively; it may contain no images.

    Raises:
        InputError: The folder cannot be read.
    """
    with reading(folder):
        return _without_masks(_scan(folder, frozenset()).images)[0]


def _scan(folder: Path, above: frozenset[str], *, in_masks: bool = False) -> _Found:
    """Return the entries below a folder."""
    real = os.path.realpath(folder)
    found = _Found([], [], [])
    if real in above:
        found.ignored.append(folder)
        return found
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            found.ignored.append(entry)
        elif entry.is_dir():
            is_mask = in_masks or entry.name.lower() in MASK_FOLDERS
            inner = _scan(entry, above | {real}, in_masks=is_mask)
            for own, new in zip(found, inner, strict=True):
                own.extend(new)
            if not any(inner):
                found.ignored.append(entry)
        elif entry.suffix.lower() in SUFFIXES and entry.is_file():
            (found.masks if in_masks else found.images).append(entry)
        else:
            found.ignored.append(entry)
    return found


def _without_masks(files: Sequence[Path]) -> tuple[list[Path], list[Path]]:
    """Return the images, and the masks that are next to the images they belong to."""
    stems = {file.with_suffix("") for file in files}
    masks = {
        file
        for file in files
        if file.stem.lower().endswith(_MASK_SUFFIX) and file.with_name(file.stem[: -len(_MASK_SUFFIX)]) in stems
    }
    return [file for file in files if file not in masks], sorted(masks)


def _split_folders(folder: Path, files: Sequence[Path]) -> dict[str, tuple[str, list[Path]]]:
    """Return the name and the files of the folder of each split, in order; nothing if there are no splits."""
    inside: defaultdict[str, list[Path]] = defaultdict(list)
    direct: list[Path] = []
    for file in files:
        names = file.relative_to(folder).parts
        (inside[names[0]] if len(names) > 1 else direct).append(file)
    found = {name: SPLIT_FOLDERS[name.lower()] for name in inside if name.lower() in SPLIT_FOLDERS}
    others = [*(f"{name}/" for name in inside if name not in found), *(file.name for file in direct)]
    has_classes = any(file.parent != folder / name for name in found for file in inside[name])
    if not found or (len(found) == 1 and others and not has_classes):
        return {}
    folders = " and ".join(f"{name}/" for name in found)
    if others:
        raise InputError(
            f"{folder}: splits ({folders}) next to other images ({_first(others)}); move them apart, or pass "
            f"{_one_of(folder / name for name in found)}"
        )
    if len(set(found.values())) < len(found):
        raise InputError(f"{folder}: two folders of the same split ({folders}); keep one of them, or rename the other")
    if "train" not in found.values():
        raise InputError(
            f"{folder}: {folders} without images in train/; pass {_one_of(folder / name for name in found)}"
        )
    named = {split: name for name, split in found.items()}
    return {split: (named[split], inside[named[split]]) for split in ("train", "validation", "test") if split in named}


def _reject_nested_splits(folder: Path, files: Sequence[Path]) -> None:
    """Reject folders below the first level that contain splits, such as the categories of a collection."""
    splits = defaultdict(set)
    for file in files:
        names = file.relative_to(folder).parts
        for depth in range(1, len(names) - 1):
            split = SPLIT_FOLDERS.get(names[depth].lower())
            if split is not None:
                splits[folder.joinpath(*names[:depth])].add(split)
    nested = [path for path, found in splits.items() if "train" in found and len(found) > 1]
    if nested:
        raise InputError(f"{folder}: folders in it have splits of their own; pass {_one_of(nested)}")


def _class_of_each(folder: Path, files: Sequence[Path]) -> list[str] | None:
    """Return the sub-folder of each file, or None if all files are directly in the folder."""
    parts = [file.relative_to(folder).parts for file in files]
    direct = [names for names in parts if len(names) == 1]
    nested = [names for names in parts if len(names) > 1]
    if not nested:
        return None
    if direct:
        raise InputError(
            f"{folder}: images both directly in it ({direct[0][0]}) and in sub-folders ({'/'.join(nested[0])});"
            " put all directly in it, or all into one sub-folder per class"
        )
    return [names[0] for names in parts]


def _reject_partial_labels(
    folder: Path, splits: dict[str, tuple[str, list[Path]]], names: Sequence[list[str] | None]
) -> None:
    """Reject splits of which some have classes and others have none."""
    labeled = [name for (name, _), part in zip(splits.values(), names, strict=False) if part is not None]
    unlabeled = [name for (name, _), part in zip(splits.values(), names, strict=False) if part is None]
    if labeled and unlabeled:
        raise InputError(
            f"{folder}: {labeled[0]}/ has one sub-folder per class, and {unlabeled[0]}/ has none; sort all splits into "
            f"classes, or pass {_one_of([folder / splits['train'][0]])}"
        )


def _split_notes(parts: Sequence[FolderPart], classes: Sequence[str]) -> list[str]:
    """Return a description of the splits and of classes without training images; nothing without splits."""
    if parts[0].split == "all":
        return []
    counts = ", ".join(f"{part.split} {len(part.files):,}" for part in parts)
    number = f", {len(classes)} {'class' if len(classes) == 1 else 'classes'}" if classes else ""
    notes = [f"folders are splits: {sum(len(part.files) for part in parts):,} images, {counts}{number}"]
    new = classes[len(set(parts[0].labels or ())) :]
    return notes + ([f"classes without training images: {', '.join(new)}"] if new else [])


def _relative(folder: Path, paths: Iterable[Path]) -> list[str]:
    return [str(path.relative_to(folder)) for path in paths]


def _one_of(paths: Iterable[Path]) -> str:
    """Return a choice between paths; of many, the first ones."""
    shown = list(map(str, paths))
    return " or ".join(shown) if len(shown) < 3 else f"one of {_first(shown)}"


def _first(names: Iterable[str]) -> str:
    """Return the first few names."""
    shown = list(names)
    return ", ".join(shown[:3]) + (", …" if len(shown) > 3 else "")
