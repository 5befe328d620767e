"""Reading of files with one-line errors, and atomic writing of files and folders."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from keras_vae.core.errors import InputError, first_line


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert every error of a block that reads a file to a one-line `InputError` that starts with the path.

    Args:
        path: The file or folder that the block reads.

    Yields:
        None.

    Raises:
        InputError: The block failed.

    Example:
        >>> with reading(Path("settings.json")):
        ...     int("seven")
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: settings.json: cannot be read: invalid literal for int() with base 10: 'seven'
    """
    try:
        yield
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    except MemoryError as error:
        raise InputError(f"{path}: does not fit in memory; use a part of it") from error
    # NumPy, zipfile, zlib and Pillow raise a dozen kinds of errors for damaged files.
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        if isinstance(error, ValueError) and "allow_pickle" in reason:
            reason = "it contains Python objects or is not a NumPy file; save numeric arrays with numpy.savez"
        raise InputError(f"{path}: cannot be read: {reason}") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` atomically when the block ends.

    If the process is killed, the disk is full or the block raises, `path` remains unchanged.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        A path in the same folder and with the same suffix, which the block must write.

    Example:
        >>> import tempfile
        >>> with replacing(Path(tempfile.mkdtemp()) / "note.txt") as temporary:
        ...     _ = temporary.write_text("whole")
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
        _sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def replacing_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces `path` when the block ends.

    If the block raises or the process is killed, `path` remains unchanged, except if it is killed between two renames:
    the old folder is then next to `path`, under a name that ends in `.old`.

    Args:
        path: The folder to write; its parents are created if necessary.

    Yields:
        A folder next to `path`, which the block fills.

    Example:
        >>> import tempfile
        >>> with replacing_folder(Path(tempfile.mkdtemp()) / "notes") as temporary:
        ...     write_text(temporary / "note.txt", "whole")
    """
    temporary, old = (path.with_name(f".{path.name}.{suffix}") for suffix in ("part", "old"))
    # An earlier process may have been killed.
    for leftover in (temporary, old):
        shutil.rmtree(leftover, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for written in (*temporary.rglob("*"), temporary):
            _sync(written)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        _sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def check_destination(out: Path, *, force: bool, marker: str, kind: str) -> None:
    """Reject a folder to write if it exists and must not be replaced.

    Args:
        out: The folder to write.
        force: Whether to replace an earlier result of the same kind.
        marker: Name of a file that identifies results of this kind.
        kind: Name of this kind of result, for messages.

    Raises:
        InputError: The folder exists and `force` is not set, or it contains something else.
    """
    if not out.exists():
        return
    if not force:
        raise InputError(f"out = {out}: exists; choose another name, or replace it with --force")
    if not (out.is_dir() and ((out / marker).is_file() or not any(out.iterdir()))):
        raise InputError(f"out = {out}: not an earlier {kind}, so --force does not replace it; choose another name")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically.

    Args:
        path: The file; its folder must exist.
        text: The content.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
