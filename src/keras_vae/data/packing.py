"""Packing: the images of a source are decoded once, into the files that `packed` describes.

Until it is complete, a pack is a folder: next to `photos.npy`, `.photos.npy.part` holds the array, the names, and the
state from which a killed pack continues.
"""

import hashlib
import json
import math
import os
import shutil
from collections import deque
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.files import printable, reading, replacing_folder, to_path, write_text, writing
from keras_vae.core.locks import locked
from keras_vae.core.progress import Progress, silent
from keras_vae.data.convert import Changes, Color, Conversion, Fit
from keras_vae.data.dataset import Dataset
from keras_vae.data.headers import BrokenFile, broken_error, skipped_note
from keras_vae.data.labels import renumber
from keras_vae.data.opening import open_source
from keras_vae.data.packed import FACTORS, INFO, LABELS, NAMES, PackedFile, PackInfo, fingerprint, open_packed, sidecar
from keras_vae.data.sequential import SequentialBlock, SequentialImages

SAVE_BYTES = 2**26
"""Number of bytes after which the state is saved."""

_ARRAY, _STATE = "images.npy", "state.json"


def pack(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    color: Color | None = None,
    fit: Fit = "crop",
    background: str | None = None,
    scale: float | None = None,
    skip_broken: bool = False,
    force: bool = False,
    progress: Progress | None = None,
) -> PackedFile:
    """Decode all images of a source once, into a file from which training reads them in any order.

    The file is `out`, uint8 levels N x H x W x C. The folder next to it, with the suffix `.pack`, holds labels,
    factors, names and splits. The images are those of `sources.load` with the same options. A pack that was
    interrupted continues where it last saved its state, and results in the same bytes.

    Args:
        source: A source as in `sources.load`, or files that are read from start to end: see `records.find_records`.
        out: The `.npy` file to write.
        image_size: Height and width of the packed images.
        color: `"gray"` or `"rgb"`.
        fit: How images get another aspect ratio.
        background: Color behind transparent pixels; not for arrays.
        scale: Value of white in images of more than 8 bits per channel; not for arrays.
        skip_broken: Whether to leave out files that cannot be used; not for arrays.
        force: Whether to replace an existing file, and to discard an interrupted pack of another source or with other
            options.
        progress: Reports the progress.

    Returns:
        The packed images, mapped into memory.

    Raises:
        InputError: There is no such source, its content is invalid, or `out` exists.
        RunError: `out` cannot be written, or another process writes it.

    Example:
        >>> import tempfile
        >>> pack("digits", Path(tempfile.mkdtemp()) / "digits.npy").images.shape
        (1797, 28, 28, 1)
    """
    path, show = to_path(out), progress or silent
    conversion = Conversion(image_size, color, fit)
    _check_out(path, to_path(source))
    with locked(path):
        if path.exists() and not force:
            raise InputError(f"out = {path}: exists; choose another name, or replace it with --force")
        opened = open_source(
            source, conversion, background=background, scale=scale, skip_broken=skip_broken, progress=show
        )
        identity = repr((opened.fingerprint, conversion, background, scale))
        work = _Work.open(path, opened, hashlib.sha256(identity.encode()).hexdigest(), force)
        with work:
            _pack_all(work, skip_broken, show)
            notes = _notes(work, conversion, scale)
            work.finish(printable(os.fspath(source)), notes)
    packed = open_packed(path)
    assert packed is not None
    return packed


def _check_out(path: Path, source: Path) -> None:
    """Reject an output that is not a new `.npy` file."""
    if path.suffix != ".npy":
        raise InputError(f"out = {path}: unknown format; choose a name that ends in .npy")
    if path.is_dir():
        raise InputError(f"out = {path}: a folder; choose another name")
    if path.exists() and source.exists() and path.samefile(source):
        raise InputError(f"out = {path}: the source itself; choose another name")
    folder = sidecar(path)
    if folder.exists() and not (folder.is_dir() and ((folder / INFO).is_file() or not any(folder.iterdir()))):
        raise InputError(f"out = {path}: {folder} exists and describes no packed images; choose another name")


def _pack_all(work: "_Work", skip_broken: bool, progress: Progress) -> None:
    """Decode the images that are not packed yet, and save the state at intervals."""
    opened, start = work.opened, work.state.position
    shown: Iterator[int] = iter(progress(range(start, len(opened)), "packing images"))
    for block in opened.read(start) if start < len(opened) else ():
        if block.broken and not skip_broken:
            work.save()
            raise broken_error(opened.root, [broken for _, broken in block.broken], len(opened))
        work.append(block)
        deque(islice(shown, block.total), 0)
    deque(shown, 0)
    work.save()
    if work.state.position != len(opened):
        raise InputError(
            f"{printable(opened.root)}: {work.state.position:,} of {len(opened):,} images; the source is damaged"
        )


def _notes(work: "_Work", conversion: Conversion, scale: float | None) -> tuple[str, ...]:
    """Return one note per change made to the images."""
    opened, state = work.opened, work.state
    if not state.rows:
        raise broken_error(opened.root, state.broken_files, len(opened))
    if state.brightest <= 1:
        # Loading would reject these images.
        with reading(opened.root):
            Dataset.from_arrays(np.full((1, *opened.shape), state.brightest, np.uint8), name="")
    changes = Changes(*state.changes).notes(conversion, opened.shape, state.rows, scale)
    skipped = [skipped_note(opened.root, state.broken_files, len(opened))] if state.broken else []
    return (*opened.notes, *changes, *skipped)


@dataclass
class _State:
    """Progress of a pack.

    Args:
        key: Hash of the source and of the options.
        position: Number of images of the source that are done.
        rows: Number of packed images.
        name_bytes: Size of the file of names.
        broken: Position, path and problem of each image that cannot be used.
        changes: The fields of `Changes`.
        brightest: Highest level so far.
    """

    key: str
    position: int = 0
    rows: int = 0
    name_bytes: int = 0
    broken: list[tuple[int, str, str]] = field(default_factory=list)
    changes: list[int] = field(default_factory=lambda: [0] * len(Changes._fields))
    brightest: int = 0

    @property
    def broken_files(self) -> list[BrokenFile]:
        return [BrokenFile(Path(file), message) for _, file, message in self.broken]


class _Work:
    """The unfinished files of a pack.

    Args:
        out: The file to write.
        opened: The source.
        state: The progress.
    """

    def __init__(self, out: Path, opened: SequentialImages, state: _State) -> None:
        self.out, self.opened, self.state = out, opened, state
        self._folder = _part(out)
        self._unsaved = 0
        self._array: BinaryIO
        self._names: BinaryIO

    @classmethod
    def open(cls, out: Path, opened: SequentialImages, key: str, force: bool) -> "_Work":
        """Open the files of an interrupted pack, or start a new one."""
        folder = _part(out)
        state = _read_state(folder) if (folder / _ARRAY).exists() else None
        if state is not None and state.key != key and not force:
            raise InputError(
                f"out = {out}: an interrupted pack of another source or with other options exists; repeat its command,"
                " or discard it with --force"
            )
        if state is None or state.key != key:
            shutil.rmtree(folder, ignore_errors=True)
            state = _State(key)
        work = cls(out, opened, state)
        work._check_space()
        return work

    def _check_space(self) -> None:
        """Reject a pack that does not fit on the disk."""
        size = math.prod(self.opened.shape)
        needed = (len(self.opened) - self.state.position) * size
        with writing(self.out):
            free = shutil.disk_usage(self.out.resolve().parent).free
        if needed > free:
            raise RunError(
                f"out = {self.out}: needs {needed / 2**30:,.1f} GiB, and its disk has {free / 2**30:,.1f} GiB left;"
                " remove files, or choose another disk"
            )

    def __enter__(self) -> "_Work":
        with writing(self.out):
            self._folder.mkdir(exist_ok=True)
            self._array, self._names = (
                os.fdopen(os.open(self._folder / name, os.O_RDWR | os.O_CREAT, 0o666), "r+b")
                for name in (_ARRAY, NAMES)
            )
            self._write_header()
            # Rows after the saved state may be incomplete.
            self._array.truncate(self._array.tell() + self.state.rows * math.prod(self.opened.shape))
            self._names.truncate(self.state.name_bytes)
            for file in (self._array, self._names):
                file.seek(0, os.SEEK_END)
        return self

    def __exit__(self, *_: object) -> None:
        self._array.close()
        self._names.close()

    def _write_header(self) -> None:
        """Write the header, whose size does not depend on the number of rows."""
        self._array.seek(0)
        header = {"descr": "|u1", "fortran_order": False, "shape": (self.state.rows, *self.opened.shape)}
        np.lib.format.write_array_header_1_0(self._array, header)

    def append(self, block: SequentialBlock) -> None:
        """Write the images of a block."""
        state = self.state
        with writing(self.out):
            self._array.write(np.ascontiguousarray(block.images).data)
            if block.names:
                state.name_bytes += self._names.write("".join(f"{name}\n" for name in block.names).encode("utf-8"))
        state.broken += [(state.position + row, os.fspath(file), text) for row, (file, text) in block.broken]
        state.changes = [old + new for old, new in zip(state.changes, block.changes, strict=True)]
        state.position += block.total
        state.rows += len(block.images)
        state.brightest = max(state.brightest, int(block.images.max(initial=0)))
        self._unsaved += block.images.nbytes
        if self._unsaved >= SAVE_BYTES:
            self.save()

    def save(self) -> None:
        """Save the state, after the images it describes."""
        with writing(self.out):
            for file in (self._array, self._names):
                file.flush()
                os.fsync(file.fileno())
        write_text(self._folder / _STATE, json.dumps(asdict(self.state)))
        self._unsaved = 0

    def finish(self, source: str, notes: tuple[str, ...]) -> None:
        """Write the description of the images, and then move the array to its place."""
        with writing(self.out):
            self._write_header()
            self._array.flush()
            os.fsync(self._array.fileno())
        opened, kept = self.opened, _without_broken(self.opened, self.state)
        info = PackInfo(
            images=self.state.rows,
            image_shape=list(opened.shape),
            splits=kept.splits,
            classes=list(kept.classes),
            factors=dict(zip(opened.factors.names, opened.factors.sizes, strict=True)) if opened.factors else {},
            source=source,
            notes=list(notes),
            lossy=opened.is_lossy,
            fingerprint=fingerprint(self._folder / _ARRAY),
        )
        with replacing_folder(sidecar(self.out)) as folder, writing(self.out):
            if kept.labels is not None:
                np.save(folder / LABELS, kept.labels)
            if opened.factors is not None:
                np.save(folder / FACTORS, opened.factors.values[kept.positions].astype(np.int64))
            if self.state.name_bytes:
                shutil.copyfile(self._folder / NAMES, folder / NAMES)
            (folder / INFO).write_text(json.dumps(info.model_dump(), indent=1, ensure_ascii=False), "utf-8")
        with writing(self.out):
            (self._folder / _ARRAY).replace(self.out)
        shutil.rmtree(self._folder, ignore_errors=True)


def _part(out: Path) -> Path:
    return out.with_name(f".{out.name}.part")


def _read_state(folder: Path) -> _State | None:
    """Return the state of an interrupted pack; None if there is none, or if it cannot be read."""
    try:
        state = _State(**json.loads((folder / _STATE).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return None
    state.broken = [(row, file, text) for row, file, text in state.broken]
    return state


@dataclass(frozen=True)
class _Kept:
    """Images that can be used: their positions, labels, and the classes and splits that are not empty."""

    positions: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    splits: dict[str, int]


def _without_broken(opened: SequentialImages, state: _State) -> _Kept:
    """Return the images that can be used; as in `layout.list_images`, classes and splits without images disappear."""
    positions = np.setdiff1d(np.arange(len(opened)), [position for position, _, _ in state.broken])
    ends = np.cumsum(list(opened.splits.values()))
    counts = np.bincount(np.searchsorted(ends, positions, side="right"), minlength=len(ends)).tolist()
    splits = {split: count for split, count in zip(opened.splits, counts, strict=True) if count}
    if not splits.keys() & {"train", "all"}:
        raise InputError(f"{printable(opened.root)}: no usable training images")
    labels, classes = opened.labels, opened.classes
    if labels is not None:
        labels = labels[positions]
        if not opened.is_closed:
            present = {classes[number] for number in np.unique(labels).tolist()}
            classes = tuple(name for name in classes if name in present)
            labels = renumber(labels, opened.classes, classes)
    return _Kept(positions, labels, classes, splits)
