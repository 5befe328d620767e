"""Locks that keep two processes from writing to one run, file or folder at the same time."""

import contextlib
import datetime
import errno
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.core.errors import RunError, first_line, hide_passwords

if TYPE_CHECKING:
    from filelock import BaseFileLock

_MAX_LENGTH = 100
"""Length to which the command of the other process is cut in messages."""


@contextlib.contextmanager
def locked(path: Path, *, argument: str = "out", inside: bool = False, timeout: float = 0) -> Iterator[None]:
    """Lock a file or folder while a block writes to it.

    The operating system releases the lock when the process ends, however it ends. A thread may lock a path repeatedly.

    Args:
        path: The file or folder; its parents are created if necessary.
        argument: Name of the argument, for messages.
        inside: Whether the lock file is in the folder, instead of next to it. A folder that is replaced as a whole
            needs it next to it.
        timeout: Seconds to wait for another process.

    Yields:
        None.

    Raises:
        RunError: Another process holds the lock, or the lock file cannot be written.

    Example:
        >>> import tempfile
        >>> with locked(Path(tempfile.mkdtemp()) / "codes.npz"):
        ...     pass
    """
    import filelock

    target = path.resolve()
    file = target / ".lock" if inside else target.with_name(f".{target.name}.lock")
    lock = filelock.FileLock(file, is_singleton=True)
    try:
        if not inside:
            target.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=timeout)
    except filelock.Timeout:
        raise RunError(f"{argument} = {path}: in use by {_holder(file)}; wait until it ends") from None
    except OSError as error:
        # `mkdir` reports that it exists if one of the parents is a file.
        reason = os.strerror(errno.ENOTDIR) if isinstance(error, FileExistsError) else error.strerror
        reason = reason or first_line(error)
        raise RunError(f"{argument} = {path}: cannot be written: {reason}; choose a folder that is writable") from error
    try:
        if lock.lock_counter == 1:
            _describe_holder(lock, file)
        yield
    finally:
        # A process that has opened the file already finds that it was removed, and opens a new one.
        if lock.lock_counter == 1:
            with contextlib.suppress(OSError):
                file.unlink()
        lock.release()


def _describe_holder(lock: "BaseFileLock", file: Path) -> None:
    """Write which process holds the lock, for the messages of others; file systems without locks use the content."""
    from filelock import SoftFileLock

    if isinstance(lock, SoftFileLock):
        return
    now = datetime.datetime.now().astimezone().isoformat(" ", "minutes")
    command = hide_passwords(shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]))
    holder = {"pid": os.getpid(), "host": platform.node(), "command": command, "since": now}
    with contextlib.suppress(OSError):
        file.write_text(json.dumps(holder), "utf-8")


def _holder(file: Path) -> str:
    """Return which process holds the lock, in words."""
    try:
        holder = json.loads(file.read_text("utf-8")) if file.is_file() else {}
        pid, host, since = int(holder["pid"]), str(holder["host"]), str(holder["since"])
        command = str(holder["command"])
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
    if len(command) > _MAX_LENGTH:
        command = f"{command[:_MAX_LENGTH]} …"
    described = f"process {pid} on {host} (`{command}`, since {since})"
    return "".join(character if character.isprintable() else "?" for character in described)
