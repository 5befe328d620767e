"""Tables of any length, written block by block and resumed after an interruption."""

import csv
import importlib.util
import itertools
import re
import zipfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.blocks import BlockFolder
from keras_vae.core.errors import InputError, alternatives
from keras_vae.core.files import replacing
from keras_vae.core.parts import Part
from keras_vae.core.progress import Progress, silent

Columns = Mapping[str, NDArray[Any]]
"""Columns by name, one row per image. Formats without arrays use one column per element of further axes."""


def write(
    out: Path,
    blocks: Sequence[Callable[[], Columns]],
    *,
    key: Mapping[str, Any],
    title: str,
    progress: Progress = silent,
    part: Part | None = None,
    force: bool = False,
) -> Path:
    """Write a table whose blocks are computed one at a time.

    Finished blocks are kept in a folder next to the file. After an interruption, the same call computes only the
    missing blocks. Several processes can compute the blocks in parts; the call without a part then joins them. CSV
    files contain texts as `escape_cell` returns them.

    Args:
        out: A `.npz`, `.csv` or `.parquet` file, which is replaced if it exists.
        blocks: Functions that compute the blocks, in order; all blocks have the same columns.
        key: JSON values by name that identify the content; finished blocks with another key are discarded.
        title: Label of the progress report.
        progress: Reports the progress over the blocks.
        part: The part of the blocks to compute, without writing the file; None for the file.
        force: Whether to discard parts with another key, instead of raising an error.

    Returns:
        `out`.

    Raises:
        InputError: The suffix is unknown, the package for the format is missing, there are more parts than blocks, or
            existing parts have another key.
        RunError: Parts are missing, another process writes the file or this part, or it cannot be written.
    """
    check_format(out)
    folder = BlockFolder(out, key)
    with folder.open(len(blocks), part, force=force) as missing:
        for number in progress(missing, title):
            try:
                columns = blocks[number]()
            except InputError:
                # The user must correct the images, which changes the key and makes these blocks useless.
                if part is None:
                    folder.remove()
                raise
            folder.save(number, columns)
        if part is None:
            with replacing(out) as temporary:
                FORMATS[out.suffix].join(temporary, [folder.file(number) for number in range(len(blocks))])
            folder.remove()
    return out


def check_format(out: Path) -> None:
    """Reject a file whose format cannot be written.

    Args:
        out: The file.

    Raises:
        InputError: The suffix is unknown, or the package for the format is missing.
    """
    if out.suffix not in FORMATS:
        raise InputError(f"out = {out}: unknown format; choose a name that ends in {alternatives(list(FORMATS))}")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError(f"out = {out}: needs the package pyarrow; pip install 'keras-vae[parquet]', or write .csv")


def _write_npz(out: Path, files: Sequence[Path]) -> None:
    """Join the blocks column by column, with one block in memory at a time."""
    with zipfile.ZipFile(out, "w") as archive:
        for name in _read(files[0]):
            parts = [_placeholder(file, name) for file in files]
            # The width of a string column is that of its longest string, which differs between blocks.
            dtype = np.result_type(*parts)
            shape = (sum(map(len, parts)), *parts[0].shape[1:])
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
                np.lib.format.write_array_header_2_0(member, header)
                for file in files:
                    member.write(_read(file, name)[name].astype(dtype).tobytes())


def _write_csv(out: Path, files: Sequence[Path]) -> None:
    with out.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened, lineterminator="\n")
        for number, file in enumerate(files):
            columns = _read(file)
            if number == 0:
                writer.writerow(_flatten_columns(columns))
            writer.writerows(csv_rows(columns))


def csv_rows(columns: Columns) -> Iterable[tuple[Any, ...]]:
    """Return the cells of each row of a CSV file."""
    return zip(*map(_format_values, _flatten_columns(columns).values()), strict=True)


def _csv_column(path: Path, name: str) -> NDArray[np.float64]:
    with path.open(encoding="utf-8", newline="") as opened:
        return np.array([float(row[name]) for row in csv.DictReader(opened)])


def _write_parquet(out: Path, files: Sequence[Path]) -> None:
    import pyarrow
    from pyarrow import parquet

    tables = (pyarrow.table(dict(_flatten_columns(_read(file)))) for file in files)
    first = next(tables)
    with parquet.ParquetWriter(out, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def _parquet_column(path: Path, name: str) -> NDArray[np.float64]:
    from pyarrow import parquet

    return np.asarray(parquet.read_table(path, columns=[name])[name].to_numpy(), "float64")


class Format(NamedTuple):
    """The functions of a file format: one joins the files of all blocks, the other reads a numeric column."""

    join: Callable[[Path, Sequence[Path]], None]
    read_column: Callable[[Path, str], NDArray[np.float64]]


FORMATS = {
    ".npz": Format(_write_npz, lambda path, name: _read(path, name)[name].astype("float64")),
    ".csv": Format(_write_csv, _csv_column),
    ".parquet": Format(_write_parquet, _parquet_column),
}
"""Formats by suffix."""


def read_column(path: Path, name: str) -> NDArray[np.float64]:
    """Read a numeric column of a table, (N,).

    Args:
        path: A file that `write` returned.
        name: Name of the column.
    """
    return FORMATS[path.suffix].read_column(path, name)


def _read(file: Path, *names: str) -> dict[str, NDArray[Any]]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in names or archive.files}


def _placeholder(file: Path, name: str) -> NDArray[Any]:
    """Return an array with the shape and dtype of a column, but without memory of its own."""
    column = _read(file, name)[name]
    return np.broadcast_to(np.empty((), column.dtype), column.shape)


def _flatten_columns(columns: Columns) -> dict[str, NDArray[Any]]:
    flat = {}
    for name, array in columns.items():
        if array.ndim == 1:
            flat[name] = array
        else:
            flat |= {f"{name}_{index}": column for index, column in enumerate(array.reshape(len(array), -1).T)}
    return flat


def _format_values(column: NDArray[Any]) -> list[Any]:
    if column.dtype.kind == "f":
        # Nine digits represent every float32 exactly.
        return [f"{value:.9g}" for value in column.tolist()]
    return [escape_cell(value) if isinstance(value, str) else value for value in column.tolist()]


_CONTROLS = r"\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff"
_NUMBER = re.compile(r"[+-]?\d+(\.\d+)?")
# Spreadsheets also accept the full-width forms of the signs, and spaces before them.
_RISKY = re.compile(rf"\s*[=+\-@'\uff1d\uff0b\uff0d\uff20]|.*[{_CONTROLS}]", re.DOTALL)


def escape_cell(text: str) -> str:
    r"""Return a text as a cell of a CSV file that no spreadsheet evaluates as a formula.

    Texts that start with `=`, `+`, `-`, `@` or `'`, or contain control characters, get a leading `'`, and backslashes
    and control characters in them become escapes such as `\x0a`. Numbers and other texts stay the same.
    `unescape_cell` is the inverse.

    Args:
        text: Any text.

    Example:
        >>> escape_cell("=1+1"), escape_cell("cat-1.png"), escape_cell("two\nlines")
        ("'=1+1", 'cat-1.png', "'two\\x0alines")
    """
    if _NUMBER.fullmatch(text) or not _RISKY.match(text):
        return text
    return "'" + re.sub(rf"[\\{_CONTROLS}]", lambda found: _escape_character(found[0]), text)


def _escape_character(character: str) -> str:
    code = ord(character)
    return r"\\" if character == "\\" else f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def unescape_cell(cell: str) -> str:
    """Return the text that `escape_cell` escaped.

    Args:
        cell: A cell of a text column in a CSV file that `write` wrote.

    Example:
        >>> unescape_cell(escape_cell("-dash")), unescape_cell("plain")
        ('-dash', 'plain')
    """
    if not cell.startswith("'"):
        return cell
    return re.sub(r"\\(?:\\|x(..)|u(....))", lambda found: chr(int(found[1] or found[2] or "5c", 16)), cell[1:])
