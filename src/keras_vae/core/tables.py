"""Tables of any length: written block by block, and interrupted, gone on with."""

import csv
import hashlib
import importlib.util
import itertools
import json
import shutil
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import replacing, write_text
from keras_vae.core.progress import Progress, silent

Columns = Mapping[str, NDArray[Any]]
"""Name → one row an image; further axes become further columns where a format has no arrays."""


def write(
    out: Path,
    blocks: Sequence[Callable[[], Columns]],
    *,
    key: Any,
    title: str,
    progress: Progress = silent,
) -> Path:
    """Write a table whose blocks are computed one at a time.

    What is computed so far lies in a folder beside the file. Asked for the same again after an interruption, the work
    goes on with the first block that is missing.

    Args:
        out: A `.npz`, `.csv` or `.parquet` file; one that exists is replaced.
        blocks: What compute the blocks, in order, with the same columns each.
        key: What the content depends on, as JSON has it; blocks of another key are not gone on with.
        title: What the progress is of.
        progress: Shown over the blocks.

    Returns:
        `out`.

    Raises:
        InputError: The file has another suffix, or its format needs a package that is missing.
    """
    check_format(out)
    folder = out.with_name(f".{out.name}.part")
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    label = folder / "key"
    if folder.is_dir() and not (label.is_file() and label.read_text("utf-8") == digest):
        shutil.rmtree(folder)
    files = [folder / f"{number:09d}.npz" for number in range(len(blocks))]
    missing = [(block, file) for block, file in zip(blocks, files, strict=True) if not file.is_file()]
    for block, file in progress(missing, title):
        try:
            columns = block()
        except InputError:
            # The images will be others when they are put right, so that nothing here could be gone on with.
            shutil.rmtree(folder, ignore_errors=True)
            raise
        if not folder.is_dir():
            folder.mkdir()
            write_text(label, digest)
        with replacing(file) as temporary:
            np.savez(temporary, allow_pickle=False, **columns)
    with replacing(out) as temporary:
        FORMATS[out.suffix].join(temporary, files)
    shutil.rmtree(folder)
    return out


def check_format(out: Path) -> None:
    """Refuse a file whose format cannot be written.

    Raises:
        InputError: The suffix is another, or a package is missing.
    """
    if out.suffix not in FORMATS:
        raise InputError(f"out = {out}: must end in {', '.join(FORMATS)}")
    if out.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise InputError(f"out = {out}: the package pyarrow is missing; pip install 'keras-vae[parquet]', or take .csv")


def _write_npz(out: Path, files: Sequence[Path]) -> None:
    """Join the blocks column by column, so that one block at a time is in memory."""
    with zipfile.ZipFile(out, "w") as archive:
        for name in _read(files[0]):
            parts = [_empty(file, name) for file in files]
            # Texts are as wide as the longest of their block.
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
            columns = _flat(_read(file))
            if number == 0:
                writer.writerow(columns)
            writer.writerows(zip(*map(_texts, columns.values()), strict=True))


def _csv_column(path: Path, name: str) -> NDArray[np.float64]:
    with path.open(encoding="utf-8", newline="") as opened:
        return np.array([float(row[name]) for row in csv.DictReader(opened)])


def _write_parquet(out: Path, files: Sequence[Path]) -> None:
    import pyarrow
    from pyarrow import parquet

    tables = (pyarrow.table(dict(_flat(_read(file)))) for file in files)
    first = next(tables)
    with parquet.ParquetWriter(out, first.schema) as writer:
        for table in itertools.chain([first], tables):
            writer.write_table(table)


def _parquet_column(path: Path, name: str) -> NDArray[np.float64]:
    from pyarrow import parquet

    return np.asarray(parquet.read_table(path, columns=[name])[name].to_numpy(), "float64")


class Format(NamedTuple):
    """What joins the files of the blocks into one file, and what reads a column of numbers of that."""

    join: Callable[[Path, Sequence[Path]], None]
    column: Callable[[Path, str], NDArray[np.float64]]


FORMATS = {
    ".npz": Format(_write_npz, lambda path, name: _read(path, name)[name].astype("float64")),
    ".csv": Format(_write_csv, _csv_column),
    ".parquet": Format(_write_parquet, _parquet_column),
}
"""The formats by suffix."""


def column(path: Path, name: str) -> NDArray[np.float64]:
    """Return a column of numbers of a table, (N,).

    Args:
        path: What `write` returned.
        name: The column's name.
    """
    return FORMATS[path.suffix].column(path, name)


def _read(file: Path, *names: str) -> dict[str, NDArray[Any]]:
    with np.load(file, allow_pickle=False) as archive:
        return {name: archive[name] for name in names or archive.files}


def _empty(file: Path, name: str) -> NDArray[Any]:
    """Return an array of a column's shape and type that takes no memory."""
    column = _read(file, name)[name]
    return np.broadcast_to(np.empty((), column.dtype), column.shape)


def _flat(columns: Columns) -> dict[str, NDArray[Any]]:
    flat = {}
    for name, array in columns.items():
        if array.ndim == 1:
            flat[name] = array
        else:
            flat |= {f"{name}_{index}": column for index, column in enumerate(array.reshape(len(array), -1).T)}
    return flat


def _texts(column: NDArray[Any]) -> list[Any]:
    # Nine digits tell every float32 from its neighbors.
    return [f"{value:.9g}" for value in column.tolist()] if column.dtype.kind == "f" else column.tolist()
