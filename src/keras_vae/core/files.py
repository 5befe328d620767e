"""Names of files, reading of files with one-line errors, and atomic writing of files and folders."""

import contextlib
import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from keras_vae.core.errors import InputError, RunError, first_line
from keras_vae.core.locks import locked

CACHE_VARIABLE = "KERAS_VAE_CACHE"
"""Environment variable that names the folder of cached files."""

_UNFINISHED = re.compile(r"\..*\.(\d+)\.part(\.\w+)?", re.DOTALL)
"""Names of the temporary files of `replacing`."""

_MAX_NAME = 200
"""Largest number of bytes of a name, so that there is room for prefixes and suffixes; file systems allow 255."""

_BIDIRECTIONAL_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_SAMPLE_BYTES = 4096
_ESCAPES = re.compile(r"\\(?:x([0-9a-f]{2})|u([0-9a-f]{4})|([nrt]))")


def printable(name: str | os.PathLike[str]) -> str:
    r"""Return the name of a file as one line of valid Unicode.

    Bytes that are not UTF-8, control characters, line separators and characters that reverse the direction of text
    become escapes such as `\xe9` and `\n`. Other names remain as they are.

    Args:
        name: A name or a path.

    Example:
        >>> print(printable("caf\udce9\n.png"))
        caf\xe9\n.png
    """
    text = os.fspath(name)
    return text if text.isascii() and text.isprintable() else "".join(map(_escape, text))


def _escape(character: str) -> str:
    if "\udc80" <= character <= "\udcff":
        # Python represents the byte b of a name that is not UTF-8 as U+DC00 + b.
        return f"\\x{ord(character) - 0xDC00:02x}"
    if unicodedata.category(character) in ("Cc", "Cs", "Zl", "Zp") or character in _BIDIRECTIONAL_CONTROLS:
        # `\\x85` is a byte, so that the control character U+0085 has another escape.
        code = ord(character)
        return f"\\u{code:04x}" if code >= 0x80 else character.encode("unicode_escape").decode()
    return character


def to_path(name: str | os.PathLike[str]) -> Path:
    """Return the path with a name, or with the name that `printable` escaped to it if only that path exists.

    Args:
        name: A name or a path; `~` is expanded.
    """
    text = os.path.expanduser(os.fspath(name))
    if "\\" in text and not os.path.exists(text):
        original = _ESCAPES.sub(_unescape, text)
        if os.path.exists(original):
            return Path(original)
    return Path(text)


def _unescape(match: re.Match[str]) -> str:
    byte, code, letter = match.groups()
    if byte:
        return chr(number + 0xDC00 if (number := int(byte, 16)) >= 0x80 else number)
    return chr(int(code, 16)) if code else {"n": "\n", "r": "\r", "t": "\t"}[letter]


def cache_folder() -> Path:
    """Return the folder for files that can be computed or downloaded again.

    This is `$KERAS_VAE_CACHE`, or `~/.cache/keras-vae` by default.
    """
    return Path(os.environ.get(CACHE_VARIABLE) or os.path.join("~", ".cache", "keras-vae")).expanduser()


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
    # Opening a pipe or a device could wait forever.
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: not a regular file; pass one")
    try:
        yield
    except InputError as error:
        raise InputError(f"{printable(path)}: {error}") from error
    except MemoryError as error:
        raise InputError(f"{printable(path)}: does not fit in memory; use a part of it") from error
    # NumPy, zipfile, zlib and Pillow raise a dozen kinds of errors for damaged files.
    except Exception as error:
        reason = getattr(error, "strerror", None) or first_line(error)
        if isinstance(error, ValueError) and "allow_pickle" in reason:
            reason = "it contains Python objects or is not a NumPy file; save numeric arrays with numpy.savez"
        raise InputError(f"{printable(path)}: cannot be read: {printable(reason)}") from error


def samples(opened: BinaryIO, count: int) -> list[bytes]:
    """Return the size of an open file, and parts of 4 KiB that are evenly spaced from its start to its end.

    Args:
        opened: The file.
        count: Number of parts, at least 2; a file of fewer parts is read completely.
    """
    size = os.fstat(opened.fileno()).st_size
    last = max(0, size - _SAMPLE_BYTES)
    intervals = min(count - 1, -(-last // _SAMPLE_BYTES))
    parts = [size.to_bytes(8, "little")]
    for number in range(intervals + 1):
        opened.seek(number * last // max(1, intervals))
        parts.append(opened.read(_SAMPLE_BYTES))
    return parts


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Convert an `OSError` of a block that writes a file to a one-line `RunError` that starts with the path.

    Args:
        path: The file or folder that the block writes.

    Yields:
        None.

    Raises:
        RunError: The block failed.

    Example:
        >>> with writing(Path("note.txt")):
        ...     raise OSError(28, "No space left on device")
        Traceback (most recent call last):
        keras_vae.core.errors.RunError: note.txt: cannot be written: No space left on device; correct this and try again
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise RunError(f"{path}: cannot be written: {reason}; correct this and try again") from error


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that replaces `path` atomically when the block ends.

    If the process is killed, the disk is full or the block raises, `path` remains unchanged.

    Args:
        path: The file to write; its folder must exist.

    Yields:
        A path in the same folder and with the same suffix, which the block must write.

    Raises:
        RunError: The file cannot be written.

    Example:
        >>> import tempfile
        >>> with replacing(Path(tempfile.mkdtemp()) / "note.txt") as temporary:
        ...     _ = temporary.write_text("whole")
    """
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        with writing(path):
            yield temporary
            _sync(temporary)
            temporary.replace(path)
            _sync(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove temporary files that killed processes left in a folder and its folders.

    Args:
        folder: The folder.
    """
    for parent, folders, names in os.walk(folder):
        # Other machines, whose processes are unknown here, may be computing blocks.
        folders[:] = [name for name in folders if not name.endswith(".part")]
        for name in names:
            found = _UNFINISHED.fullmatch(name)
            if found and not _is_running(int(found[1])):
                with contextlib.suppress(OSError):
                    Path(parent, name).unlink()


def _is_running(pid: int) -> bool:
    """Return whether a process of this machine has a number; on Windows, where a signal would end it, assume so."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (ProcessLookupError, OverflowError):
        return False
    return True


@contextlib.contextmanager
def replacing_folder(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield an empty temporary folder that replaces `path` when the block ends.

    If the block raises or the process is killed, `path` remains unchanged, except if it is killed between two renames:
    the old folder is then next to `path`, under a name that ends in `.old`. Other processes cannot write to `path` at
    the same time.

    Args:
        path: The folder to write; its parents are created if necessary.
        replace: Whether to replace an existing folder.

    Yields:
        A folder next to `path`, which the block fills.

    Raises:
        InputError: The folder exists, and `replace` is not set.
        RunError: Another process writes the folder, or it cannot be written.

    Example:
        >>> import tempfile
        >>> with replacing_folder(Path(tempfile.mkdtemp()) / "notes") as temporary:
        ...     write_text(temporary / "note.txt", "whole")
    """
    target = path.resolve()
    temporary, old = (target.with_name(f".{target.name}.{suffix}") for suffix in ("part", "old"))
    with locked(path):
        if target.exists() and not replace:
            raise InputError(f"out = {path}: exists; choose another name")
        # An earlier process may have been killed.
        for leftover in (temporary, old):
            shutil.rmtree(leftover, ignore_errors=True)
        try:
            with writing(path):
                temporary.mkdir()
            yield temporary
            with writing(path):
                for written in (*temporary.rglob("*"), temporary):
                    _sync(written)
                if target.exists():
                    target.rename(old)
                temporary.rename(target)
                _sync(target.parent)
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


def check_name(argument: str, name: str) -> None:
    """Reject a name that would not be the name of a file or folder, but a path or a hidden file.

    Args:
        argument: Name of the argument, for messages.
        name: The name.

    Raises:
        InputError: `name_problem` finds a problem.

    Example:
        >>> check_name("figure", "../elsewhere")
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: figure = '../elsewhere': contains '/'; choose a name, not a path
    """
    if problem := name_problem(name):
        raise InputError(f"{argument} = {name!r}: {problem}")


def name_problem(name: str) -> str | None:
    """Return why a string cannot be the name of a file or folder, and what to do, `problem; remedy`; None if it can.

    Args:
        name: The string. It must not be empty or too long, start with a dot, or contain a slash, a backslash or a
            control character.
    """
    if not name.strip():
        return "empty; choose a name"
    if len(name.encode("utf-8", "surrogatepass")) > _MAX_NAME:
        return f"longer than {_MAX_NAME} bytes; choose a shorter name"
    for character in name:
        if character in "/\\" or _is_control(character):
            return f"contains {character!r}; choose a name, not a path"
    return "starts with a dot; choose a name that does not" if name.startswith(".") else None


def _is_control(character: str) -> bool:
    return unicodedata.category(character) in ("Cc", "Zl", "Zp")


def require_inside(file: Path, folder: Path) -> None:
    """Reject a file that a link leads out of a folder.

    Args:
        file: A path that starts with that of the folder.
        folder: The folder.

    Raises:
        InputError: The file lies elsewhere.
    """
    target = file.resolve()
    if not target.is_relative_to(folder.resolve()):
        raise InputError(f"{file}: a link that leaves {folder}, to {target}; replace the link by what it points to")


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
