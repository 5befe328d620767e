"""Files that arrive in a folder, found by polling."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable
from keras_vae.data.layout import find_images


class Signature(NamedTuple):
    """Size and time of a file, which change when it is written to.

    Args:
        size: In bytes.
        modified: Time of the last change, in nanoseconds.
    """

    size: int
    modified: int

    @classmethod
    def of(cls, path: Path) -> "Signature | None":
        """Return the signature of a file; None if it does not exist."""
        try:
            status = path.stat()
        except OSError:
            return None
        return cls(status.st_size, status.st_mtime_ns)


class Arrival(NamedTuple):
    """An image file that did not change between two polls.

    Args:
        path: The file.
        name: Its path relative to the folder, as `printable` escapes it.
        signature: Its signature.
        age: Seconds since the first poll that found this signature.
    """

    path: Path
    name: str
    signature: Signature
    age: float

    @property
    def is_unchanged(self) -> bool:
        """Whether the file still has this signature."""
        return Signature.of(self.path) == self.signature


@dataclass
class _Seen:
    signature: Signature
    since: float


class Arrivals:
    """Image files of a folder that are complete and not finished yet.

    A file counts as complete once its size and time are the same in two polls. A finished file that changes arrives
    again.

    Args:
        folder: The folder, searched recursively by the rules of `layout.find_images`. It may disappear for a while.
        finished: The signatures of the finished files by name.
        clock: Returns the time in seconds.
    """

    def __init__(
        self, folder: Path, finished: Mapping[str, Signature], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.folder, self._clock = folder, clock
        self._finished = dict(finished)
        self._seen: dict[str, _Seen] = {}
        self.is_available = True
        """Whether the last poll could read the folder."""

    def poll(self) -> list[Arrival]:
        """Return the files that are complete, in the order of their paths."""
        try:
            files = find_images(self.folder)
        except InputError:
            self.is_available = False
            return []
        self.is_available = True
        now, seen, arrived = self._clock(), dict[str, _Seen](), []
        for path in files:
            name, signature = printable(path.relative_to(self.folder)), Signature.of(path)
            if signature is None or self._finished.get(name) == signature:
                continue
            earlier = self._seen.get(name)
            if earlier is not None and earlier.signature == signature:
                seen[name] = earlier
                arrived.append(Arrival(path, name, signature, now - earlier.since))
            else:
                seen[name] = _Seen(signature, now)
        self._seen = seen
        return arrived

    def finish(self, arrival: Arrival) -> None:
        """Mark a file as finished, so that it does not arrive again unless it changes."""
        self._finished[arrival.name] = arrival.signature
