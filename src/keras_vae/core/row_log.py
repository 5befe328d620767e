"""CSV files to which rows are appended, so that a kill at any moment loses no row."""

import csv
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any

from keras_vae.core.errors import InputError
from keras_vae.core.files import reading, write_text
from keras_vae.core.tables import Columns, csv_rows, unescape_cell


class RowLog:
    """A CSV file that grows by whole rows.

    Rows are appended by a single write and synced. A row that a kill or a full disk cut off is removed when the file is
    opened again. A small file next to the table, `.NAME.key`, identifies its content.

    Args:
        out: The `.csv` file. If it exists, it is continued.
        columns: Names of the columns.
        key: JSON value that identifies the model and the settings that compute the rows.
        force: Whether to replace an existing file instead of continuing it.

    Raises:
        InputError: The file exists, but was not written with this key and these columns.
    """

    def __init__(self, out: Path, columns: tuple[str, ...], *, key: Any, force: bool = False) -> None:
        self.out = out
        digest = hashlib.sha256(json.dumps([key, columns], sort_keys=True).encode()).hexdigest()
        key_file = out.with_name(f".{out.name}.key")
        if out.exists() and not force:
            with reading(out):
                if not (key_file.is_file() and key_file.read_text("utf-8") == digest):
                    raise InputError(
                        "exists, and was not written by this model with these settings; choose another name, or "
                        "replace it with --force"
                    )
                self._remove_cut_row()
        else:
            # The key comes last: a file without its key is never continued.
            key_file.unlink(missing_ok=True)
            write_text(out, _text([columns]))
            write_text(key_file, digest)

    def _remove_cut_row(self) -> None:
        with self.out.open("r+b") as opened:
            content = opened.read()
            opened.truncate(content.rfind(b"\n") + 1)

    def rows(self) -> list[dict[str, str]]:
        """Return the rows of the file, as text by column."""
        with reading(self.out), self.out.open(encoding="utf-8", newline="") as opened:
            return [{name: unescape_cell(cell) for name, cell in row.items()} for row in csv.DictReader(opened)]

    def append(self, columns: Columns) -> None:
        """Append rows.

        Args:
            columns: Arrays by name, in the order of the columns of the file; text without line breaks.

        Raises:
            OSError: The disk is full or not available; no row was added.
        """
        content = _text(csv_rows(columns)).encode("utf-8")
        descriptor = os.open(self.out, os.O_WRONLY | os.O_APPEND)
        try:
            size = os.fstat(descriptor).st_size
            try:
                view = memoryview(content)
                while view:
                    view = view[os.write(descriptor, view) :]
                os.fsync(descriptor)
            except OSError:
                os.ftruncate(descriptor, size)
                raise
        finally:
            os.close(descriptor)


def _text(rows: Any) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()
