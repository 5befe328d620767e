"""The layout of a folder of images: splits, classes, and files that are not images of the data set."""

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable, reading

SUFFIXES = (
    *(".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif"),
    *(".tif", ".tiff", ".pgm", ".ppm", ".pbm", ".pnm"),
)

OTHER_SUFFIXES = (
    *(".avif", ".heic", ".heif", ".jp2", ".jxl", ".psd", ".svg", ".ico", ".tga", ".exr", ".hdr", ".dcm"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw"),
)
"""Suffixes of image formats that are not read."""

SYSTEM_NAMES = (
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "$recycle.bin", "system volume information"),
    *("__macosx", "icon\r", "lost+found", "@eadir", "@__thumb", "@recycle", "@tmp", "#recycle", "#snapshot"),
)
"""Names of thumbnails and metadata of desktop and network storage systems, in lower case."""

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

    @property
    def files(self) -> list[Path]:
        """The files of all parts."""
        return [file for part in self.parts for file in part.files]

    def subset(self, positions: Sequence[int]) -> "FolderListing":
        """Return the listing without the other files, and without the parts and classes that become empty.

        Args:
            positions: Positions in `files`, in increasing order.

        Raises:
            InputError: There are splits, and no training images are left.
        """
        if len(positions) == len(self.files):
            return self
        chosen, parts, start = set(positions), [], 0
        for part in self.parts:
            inside = [index for index in range(len(part.files)) if start + index in chosen]
            start += len(part.files)
            labels = None if part.labels is None else [part.labels[index] for index in inside]
            parts += [FolderPart(part.split, [part.files[index] for index in inside], labels)] if inside else []
        if parts[0].split not in ("all", "train"):
            raise InputError(f"{printable(self.parts[0].files[0].parent)}: no usable training images")
        present = sorted({label for part in parts for label in part.labels or ()})
        numbers = {label: number for number, label in enumerate(present)}
        parts = [part._replace(labels=part.labels and [numbers[label] for label in part.labels]) for part in parts]
        return FolderListing(tuple(parts), tuple(self.classes[label] for label in present), self.notes)


class _Found(NamedTuple):
    """Entries below a folder, each list sorted by path."""

    images: list[Path]
    masks: list[Path]
    system: list[Path]
    unread: list[Path]
    ignored: list[Path]


def list_images(folder: Path) -> FolderListing:
    """List the image files of a folder without opening them.

    Without splits, the sub-folders of the first level are the classes. Folders of the first level named train or
    training; val, valid, validation or dev; and test or testing, in any case, are splits, and the classes are one level
    below. A single folder of such a name, with images directly in it and with other folders next to it, is a class.
    Masks are ignored: images in folders named as in `MASK_FOLDERS`, and `NAME_mask.png` next to `NAME.png`. So are
    hidden files and folders, and those named as in `SYSTEM_NAMES`. Names of classes are escaped by `printable`.

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
        others = sorted([*found.system, *found.unread, *found.ignored])
        content = f", only {_first(path.name for path in others)}" if others else ""
        content = f", only masks: {_first(_relative(folder, masks))}" if masks else content
        kind = "no images that can be read" if found.unread else "no images"
        raise InputError(f"{printable(folder)}: {kind}{content}; accepted: {', '.join(SUFFIXES)} files")
    _reject_nested_splits(folder, files)
    splits = _split_folders(folder, files)
    names = [_class_of_each(folder / name, inside) for name, inside in splits.values()] or [
        _class_of_each(folder, files)
    ]
    _reject_partial_labels(folder, splits, names)
    _reject_equal_names(folder, {name for part in names for name in part or ()})
    names = [part and [printable(name) for name in part] for part in names]
    classes = tuple(dict.fromkeys(name for part in names for name in sorted(set(part or ()))))
    numbers = {name: number for number, name in enumerate(classes)}
    contents = [(split, inside) for split, (_, inside) in splits.items()] or [("all", files)]
    parts = tuple(
        FolderPart(split, inside, None if part is None else [numbers[name] for name in part])
        for (split, inside), part in zip(contents, names, strict=True)
    )
    ignored = {
        "masks": _relative(folder, masks),
        "hidden or system files": [path.name for path in found.system],
        "image formats that are not read": [path.name for path in found.unread],
        "not images": [path.name for path in found.ignored],
    }
    notes = [f"ignored, {kind}: {len(listed)} ({_first(listed)})" for kind, listed in ignored.items() if listed]
    return FolderListing(parts, classes, (*_split_notes(parts, classes), *notes))


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
    found = _Found([], [], [], [], [])
    if real in above:
        found.ignored.append(folder)
        return found
    for entry in sorted(folder.iterdir()):
        suffix = entry.suffix.lower()
        if entry.name.startswith(".") or entry.name.lower() in SYSTEM_NAMES:
            found.system.append(entry)
        elif entry.is_dir():
            is_mask = in_masks or entry.name.lower() in MASK_FOLDERS
            inner = _scan(entry, above | {real}, in_masks=is_mask)
            for own, new in zip(found, inner, strict=True):
                own.extend(new)
            if not any(inner):
                found.ignored.append(entry)
        elif suffix in SUFFIXES and entry.is_file():
            (found.masks if in_masks else found.images).append(entry)
        elif suffix in OTHER_SUFFIXES and entry.is_file():
            found.unread.append(entry)
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
            f"{printable(folder)}: splits ({folders}) next to other images ({_first(others)}); move them apart, or"
            f" pass {_one_of(folder / name for name in found)}"
        )
    if len(set(found.values())) < len(found):
        raise InputError(
            f"{printable(folder)}: two folders of the same split ({folders}); keep one of them, or rename the other"
        )
    if "train" not in found.values():
        raise InputError(
            f"{printable(folder)}: {folders} without images in train/; pass {_one_of(folder / name for name in found)}"
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
        raise InputError(f"{printable(folder)}: folders in it have splits of their own; pass {_one_of(nested)}")


def _class_of_each(folder: Path, files: Sequence[Path]) -> list[str] | None:
    """Return the sub-folder of each file, or None if all files are directly in the folder."""
    parts = [file.relative_to(folder).parts for file in files]
    direct = [names for names in parts if len(names) == 1]
    nested = [names for names in parts if len(names) > 1]
    if not nested:
        return None
    if direct:
        raise InputError(
            f"{printable(folder)}: images both directly in it ({printable(direct[0][0])}) and in sub-folders"
            f" ({printable('/'.join(nested[0]))});"
            " put all directly in it, or all into one sub-folder per class"
        )
    return [names[0] for names in parts]


def _reject_equal_names(folder: Path, names: Iterable[str]) -> None:
    """Reject classes whose names become equal when they are escaped."""
    shown = [printable(name) for name in names]
    equal = sorted({name for name in shown if shown.count(name) > 1})
    if equal:
        raise InputError(f"{printable(folder)}: two classes are named {equal[0]} when escaped; rename one of them")


def _reject_partial_labels(
    folder: Path, splits: dict[str, tuple[str, list[Path]]], names: Sequence[list[str] | None]
) -> None:
    """Reject splits of which some have classes and others have none."""
    labeled = [name for (name, _), part in zip(splits.values(), names, strict=False) if part is not None]
    unlabeled = [name for (name, _), part in zip(splits.values(), names, strict=False) if part is None]
    if labeled and unlabeled:
        raise InputError(
            f"{printable(folder)}: {labeled[0]}/ has one sub-folder per class, and {unlabeled[0]}/ has none; sort all"
            f" splits into classes, or pass {_one_of([folder / splits['train'][0]])}"
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
    shown = list(map(printable, paths))
    return " or ".join(shown) if len(shown) < 3 else f"one of {_first(shown)}"


def _first(names: Iterable[str]) -> str:
    """Return the first few names, escaped."""
    shown = list(map(printable, names))
    return ", ".join(shown[:3]) + (", …" if len(shown) > 3 else "")
