"""Files that contain many encoded images: WebDataset tars, Parquet files, and saved Hugging Face data sets.

They are read from start to end, so that training on them needs `vae data pack` first.
"""

import hashlib
import json
import os
import re
import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from keras_vae.core.errors import InputError, alternatives
from keras_vae.core.files import printable, reading
from keras_vae.data.arrivals import Signature
from keras_vae.data.decoding import Decoder
from keras_vae.data.labels import encode_labels
from keras_vae.data.layout import SPLIT_FOLDERS, SUFFIXES, find_images
from keras_vae.data.lazy import check_unchanged
from keras_vae.data.sequential import EncodedImage, SequentialImages, decode_blocks, find_first

TAR, PARQUET, ARROW = ".tar", ".parquet", ".arrow"

_KINDS = {TAR: "a WebDataset tar", PARQUET: "a Parquet file", ARROW: "a saved Hugging Face data set"}
_SPLITS = ("train", "validation", "test")
_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")

# Files of a saved data set, and of one with splits.
_STATE, _INFO, _DICT = "state.json", "dataset_info.json", "dataset_dict.json"


class RecordFiles(NamedTuple):
    """Files of records.

    Args:
        root: Path of the source, for messages.
        kind: `TAR`, `PARQUET` or `ARROW`.
        parts: The files of each split, in order: train, validation and test, or all.
        notes: A description of the splits.
    """

    root: Path
    kind: str
    parts: dict[str, list[Path]]
    notes: tuple[str, ...] = ()

    @property
    def files(self) -> list[Path]:
        """The files of all parts."""
        return [file for files in self.parts.values() for file in files]


def find_records(path: Path) -> RecordFiles | None:
    """Return the files of records that a path stands for; None if it stands for something else.

    Args:
        path: A tar or Parquet file; a pattern such as `shard-{000..003}.tar`; a folder of tars or of Parquet files,
            directly in it or, as on the Hugging Face Hub, in a folder named data, but without images; or a folder that
            `datasets.save_to_disk` wrote. Files named as splits, such as `train-00000-of-00002.parquet`, are splits.

    Raises:
        InputError: A file of a pattern or a saved data set is missing, or a data set has an unknown split.
    """
    # Unlike `Path.is_dir`, these accept names that are too long.
    if os.path.isdir(path):
        return _find_saved(path) or _find_in_folder(path) or _find_in_folder(path / "data", path)
    kind = path.suffix.lower()
    if kind not in (TAR, PARQUET) or not (os.path.isfile(path) or _RANGE.search(path.name)):
        return None
    if os.path.isfile(path):
        return RecordFiles(path, kind, {"all": [path]})
    files = [path.with_name(name) for name in _expanded(path.name)]
    missing = [file for file in files if not os.path.isfile(file)]
    if missing:
        raise InputError(
            f"data = {printable(path)}: {len(missing)} of {len(files)} files are missing, such as {missing[0]}"
        )
    return _with_splits(path.parent, kind, files)


def refuse_records(source: str | os.PathLike[str], records: RecordFiles) -> InputError:
    """Return the error for training on files of records; it contains the command that packs them.

    Args:
        source: The source.
        records: Its files.
    """
    return InputError(
        f"data = {printable(os.fspath(source))}: {_KINDS[records.kind]} is read from start to end; {pack_first(source)}"
    )


def pack_first(source: str | os.PathLike[str]) -> str:
    """Return what to do with a source that cannot be read in any order.

    Args:
        source: The source.

    Example:
        >>> pack_first("shards/cats-{000..003}.tar")
        "run `vae data pack 'shards/cats-{000..003}.tar' cats.npy`, and use cats.npy as the source"
    """
    name = printable(os.fspath(source))
    stem = re.sub(r"[-_.]?\{.*?\}", "", Path(name).stem) or "images"
    out = shlex.quote(f"{stem}.npy")
    return f"run `vae data pack {shlex.quote(name)} {out}`, and use {out} as the source"


@dataclass(frozen=True)
class Records:
    """The content of files of records.

    Args:
        counts: Number of images in each file.
        read: Yields the images of a file, given its number, from a position on.
        labels: Class numbers or names, one per image; None without labels.
        classes: Names of the classes, if the files state them.
        notes: Notes on the content.
    """

    counts: Sequence[int]
    read: Callable[[int, int], Iterator[EncodedImage]]
    labels: Sequence[int | str] | None
    classes: tuple[str, ...]
    notes: tuple[str, ...]


def open_records(found: RecordFiles, content: Records, decoder: Decoder) -> SequentialImages:
    """Return the images of files of records.

    Args:
        found: The files.
        content: Their content.
        decoder: Decodes the images.

    Raises:
        InputError: There are no images, none can be used, or the labels are invalid. A file that changes raises when it
            is read.
    """
    files, root = found.files, found.root
    signatures = [Signature.of(file) or Signature(0, 0) for file in files]
    digest = hashlib.sha256(
        repr([(file.name, *signature) for file, signature in zip(files, signatures, strict=True)]).encode()
    )

    def items(start: int) -> Iterator[EncodedImage]:
        for number, (file, count) in enumerate(zip(files, content.counts, strict=True)):
            left = content.read(number, start) if start < count else iter(())
            while True:
                check_unchanged(file, signatures[number])
                with reading(file):
                    item = next(left, None)
                if item is None:
                    break
                yield item
            start = max(0, start - count)

    if not sum(content.counts):
        raise InputError(f"{printable(root)}: no images; pass files with at least one")
    counts = iter(content.counts)
    splits = {split: sum(next(counts) for _ in part) for split, part in found.parts.items()}
    labels, classes = None, content.classes
    if content.labels is not None:
        with reading(root):
            labels, classes = encode_labels(np.array(content.labels), sum(content.counts), content.classes)
            if labels.max() >= len(classes):
                raise InputError(f"labels: up to {labels.max()} with {len(classes)} classes; correct the names")
    first = find_first(root, items(0), decoder)
    return SequentialImages(
        root,
        {split: count for split, count in splits.items() if count},
        first.shape(decoder),
        lambda start: decode_blocks(root, items(start), decoder, first),
        digest.hexdigest(),
        labels,
        classes,
        is_closed=bool(content.classes),
        notes=(*found.notes, *content.notes),
        is_lossy=first.header.is_lossy,
    )


def _find_in_folder(folder: Path, root: Path | None = None) -> RecordFiles | None:
    """Return the tars or Parquet files directly in a folder; None if there are none, or if there are images, too."""
    files = dict[str, list[Path]]()
    if not folder.is_dir():
        return None
    with reading(folder), os.scandir(folder) as entries:
        for entry in entries:
            suffix = os.path.splitext(entry.name)[1].lower()
            if suffix in SUFFIXES:
                return None
            if suffix in (TAR, PARQUET) and not entry.name.startswith(".") and entry.is_file():
                files.setdefault(suffix, []).append(folder / entry.name)
    if not files or find_images(folder):
        return None
    if len(files) > 1:
        raise InputError(f"{printable(folder)}: both tars and Parquet files; move them apart")
    ((kind, found),) = files.items()
    return _with_splits(root or folder, kind, sorted(found))


def _with_splits(root: Path, kind: str, files: list[Path]) -> RecordFiles:
    """Assign files to the splits that their names start with, if all do and there are training images."""
    words = [re.match("[A-Za-z]*", file.name) for file in files]
    splits = [SPLIT_FOLDERS.get(word[0].lower()) if word else None for word in words]
    if None in splits or "train" not in splits:
        return RecordFiles(root, kind, {"all": files})
    parts = {name: [file for file, split in zip(files, splits, strict=True) if split == name] for name in _SPLITS}
    return _split_records(root, kind, {name: part for name, part in parts.items() if part})


def _split_records(root: Path, kind: str, parts: dict[str, list[Path]]) -> RecordFiles:
    counts = ", ".join(f"{name} {len(part)}" for name, part in parts.items())
    return RecordFiles(root, kind, parts, (f"files are splits: {counts}",))


def _find_saved(folder: Path) -> RecordFiles | None:
    """Return the files of a data set, or of the splits of one, that `datasets.save_to_disk` wrote."""
    if not (folder / _DICT).is_file():
        is_saved = (folder / _STATE).is_file() and (folder / _INFO).is_file()
        return RecordFiles(folder, ARROW, {"all": _saved_files(folder)}) if is_saved else None
    with reading(folder / _DICT):
        names = [str(name) for name in json.loads((folder / _DICT).read_text("utf-8"))["splits"]]
    named = {SPLIT_FOLDERS.get(name.lower()): name for name in names}
    if None in named or len(named) < len(names) or "train" not in named:
        choices = alternatives([printable(folder / name) for name in names])
        raise InputError(f"data = {printable(folder)}: its splits are not train, validation and test; pass {choices}")
    return _split_records(
        folder, ARROW, {name: _saved_files(folder / named[name]) for name in _SPLITS if name in named}
    )


def _saved_files(folder: Path) -> list[Path]:
    with reading(folder / _STATE):
        state: Mapping[str, Sequence[Mapping[str, str]]] = json.loads((folder / _STATE).read_text("utf-8"))
        files = [folder / Path(part["filename"]).name for part in state["_data_files"]]
    for file in files:
        if not file.is_file():
            raise InputError(f"{printable(file)}: does not exist; restore it")
    return files


def _expanded(pattern: str) -> list[str]:
    """Return the names that a pattern stands for.

    Example:
        >>> _expanded("shard-{08..11}.tar")
        ['shard-08.tar', 'shard-09.tar', 'shard-10.tar', 'shard-11.tar']
    """
    match = _RANGE.search(pattern)
    if match is None:
        return [pattern]
    first, last = match.groups()
    numbers = [str(number).zfill(len(first)) for number in range(int(first), int(last) + 1)]
    return [
        name for number in numbers for name in _expanded(f"{pattern[: match.start()]}{number}{pattern[match.end() :]}")
    ]
