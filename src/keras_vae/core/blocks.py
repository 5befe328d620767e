"""Results of blocks of images, kept in a folder until all are computed: by one process, or in independent parts."""

import contextlib
import json
import shutil
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.files import reading, replacing, write_text, writing
from keras_vae.core.locks import locked
from keras_vae.core.parts import Part

_SECONDS_TO_BEGIN = 60.0
"""Time that a part waits for other parts that begin at the same moment."""


class _State(NamedTuple):
    """The key of the content of the blocks in a folder, their number, and that of the parts, if any."""

    key: Mapping[str, Any]
    blocks: int
    parts: int | None


@dataclass(frozen=True)
class BlockFolder:
    """A folder next to a file, which keeps the results of blocks until the file is written from all of them.

    A process that is killed loses the block that it computes. Each block is one file, written atomically, so that
    processes on several machines can compute parts of the blocks in one folder.

    Args:
        out: The file that is written in the end.
        key: JSON values by name that determine the results. Blocks of another key are never used.
        argument: Name of the argument `out`, for messages.
    """

    out: Path
    key: Mapping[str, Any]
    argument: str = "out"

    @property
    def path(self) -> Path:
        """The folder."""
        return self.out.with_name(f".{self.out.name}.part")

    def file(self, number: int) -> Path:
        """Return the file of a block."""
        return self.path / f"{number:09d}.npz"

    @contextlib.contextmanager
    def open(self, num_blocks: int, part: Part | None = None, *, force: bool = False) -> Iterator[list[int]]:
        """Yield the numbers of the blocks to compute, and lock the file, or the part of it, in the meantime.

        Args:
            num_blocks: Number of blocks of the file.
            part: The part to compute; None for the file. If there are parts, all of them must be complete.
            force: Whether to discard parts of another key.

        Yields:
            The numbers of those blocks of the part, or of the file, whose result does not exist.

        Raises:
            InputError: There are more parts than blocks, or the existing parts have another key or another number.
            RunError: Parts are missing, or another process computes this part, or the file.
        """
        if part is None:
            with locked(self.out, argument=self.argument):
                self._begin(num_blocks, None, force)
                self.check()
                yield self._missing(range(num_blocks))
            return
        if part.count > num_blocks:
            raise InputError(f"part = {part}: more parts than blocks of images; choose at most {num_blocks}")
        with locked(self.out.with_name(f"{self.out.name}-{part.number}-of-{part.count}"), argument="part"):
            with locked(self.out, argument=self.argument, timeout=_SECONDS_TO_BEGIN):
                self._begin(num_blocks, part, force)
            yield self._missing(part.select(num_blocks))

    def check(self, *, force: bool = False) -> None:
        """Check that the parts in the folder, if any, are complete and have this key.

        Args:
            force: Whether to accept parts of another key, which `open` then discards.

        Raises:
            InputError: The parts have another key.
            RunError: Parts are missing; the message lists them.
        """
        state = self._usable_state(None, force)
        if state is None or state.parts is None:
            return
        parts = [Part(number, state.parts) for number in range(1, state.parts + 1)]
        missing = [str(part.number) for part in parts if self._missing(part.select(state.blocks))]
        if missing:
            are = f"part {missing[0]} of {state.parts} is"
            if len(missing) > 1:
                are = f"parts {_enumerated(missing)} of {state.parts} are"
            raise RunError(
                f"{self.argument} = {self.out}: {are} missing; run {_commands(missing, state.parts)}, or remove "
                f"{self.path} to compute everything in one process"
            )

    def is_complete(self) -> bool:
        """Return whether all blocks exist."""
        state = self._state()
        return state is not None and not self._missing(range(state.blocks))

    def save(self, number: int, results: Mapping[str, NDArray[Any]]) -> None:
        """Write the results of a block.

        Args:
            number: Number of the block.
            results: Arrays by name.
        """
        with replacing(self.file(number)) as temporary:
            np.savez(temporary, allow_pickle=False, **results)

    def load(self, number: int) -> dict[str, NDArray[Any]]:
        """Return the results of a block."""
        file = self.file(number)
        with reading(file), np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}

    def remove(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _begin(self, num_blocks: int, part: Part | None, force: bool) -> None:
        """Create the folder, or check that its blocks belong to this computation."""
        state = self._usable_state(num_blocks, force)
        if state is None:
            self.remove()
            with writing(self.path):
                self.path.mkdir()
        parts = None if state is None else state.parts
        if part is not None:
            if parts not in (None, part.count) and not force:
                raise InputError(
                    f"part = {part}: {self.out} is divided into {parts} parts; pass K/{parts}, or divide it again with "
                    "--force"
                )
            parts = part.count
        wanted = _State(_as_json(self.key), num_blocks, parts)
        if wanted != state:
            write_text(self._state_file, json.dumps(wanted._asdict()))

    def _usable_state(self, num_blocks: int | None, force: bool) -> _State | None:
        """Return the state of the folder if its blocks belong to this computation; reject parts that do not."""
        state, key = self._state(), _as_json(self.key)
        if state is None or (state.key == key and num_blocks in (None, state.blocks)):
            return state
        if state.parts is not None and not force:
            raise InputError(
                f"{self.argument} = {self.out}: its parts were computed with {_difference(state.key, key)}; repeat the "
                "command of the parts without --part, or discard them with --force"
            )
        return None

    @property
    def _state_file(self) -> Path:
        return self.path / "state.json"

    def _state(self) -> _State | None:
        """Return the state of the folder; None if there is no folder, or a killed process has not completed it."""
        try:
            return _State(**json.loads(self._state_file.read_text("utf-8")))
        except (OSError, ValueError, TypeError):
            return None

    def _missing(self, numbers: Sequence[int]) -> list[int]:
        """Return the numbers of blocks without results; a damaged file has none."""
        return [number for number in numbers if not zipfile.is_zipfile(self.file(number))]


def _as_json(key: Mapping[str, Any]) -> Any:
    return json.loads(json.dumps(dict(key)))


def _enumerated(values: Sequence[str]) -> str:
    *others, last = values
    return f"{', '.join(others)} and {last}" if others else last


def _commands(missing: Sequence[str], count: int) -> str:
    """Return the options that compute missing parts, at most three."""
    options = [f"--part {number}/{count}" for number in missing[:3]]
    return "the same command with " + (f"{', '.join(options)}, …" if len(missing) > 3 else _enumerated(options))


def _difference(found: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """Return how the key of existing parts differs from that of a command, in words."""
    texts = []
    for name, value in found.items():
        if value == expected.get(name):
            continue
        # Checksums and fingerprints are too long to read.
        is_short = value is None or isinstance(value, int | float) or (isinstance(value, str) and len(value) <= 20)
        texts.append(f"{name} = {value} instead of {expected.get(name)}" if is_short else f"another {name}")
    return ", ".join(texts) or "other settings"
