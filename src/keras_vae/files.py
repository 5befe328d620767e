"""Files that are whole or not there."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path that takes the place of `path` when the block ends, whole and on disk.

    A kill, a full disk or an exception at any moment leaves what stood at `path` before.

    Args:
        path: The file to write; its folder exists.

    Yields:
        A path in the same folder and with the same suffix, for the block to write.

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


def write_text(path: Path, text: str) -> None:
    """Write a text file, whole or not at all.

    Args:
        path: The file; its folder exists.
        text: What it is to hold.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
