"""Images in Parquet files, and in the Arrow files of saved Hugging Face data sets."""

import json
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from keras_vae.core.errors import InputError
from keras_vae.core.files import printable, reading
from keras_vae.core.progress import Progress
from keras_vae.data.arrays import IMAGES, LABELS
from keras_vae.data.records import PARQUET, RecordFiles, Records
from keras_vae.data.sequential import EncodedImage

_BATCH = 64
_BUFFER_BYTES = 2**20
# An Arrow stream ends with an empty message.
_END = b"\xff\xff\xff\xff\0\0\0\0"


def read_tables(found: RecordFiles, progress: Progress) -> Records:
    """Read the columns of images and of labels in Parquet or Arrow files.

    Images are encoded, as binary values or as the struct of Hugging Face, `{bytes, path}`. Labels are integers or
    texts; the metadata of Hugging Face names the classes.

    Args:
        found: The files; all have the same columns.
        progress: Reports the progress of reading the labels.

    Raises:
        InputError: A package is missing, a file is damaged, or it is not clear which column contains the images.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ModuleNotFoundError:
        extra = "parquet" if found.kind == PARQUET else "datasets"
        raise InputError(
            f"data = {printable(found.root)}: pyarrow is not installed; pip install 'keras-vae[{extra}]'"
        ) from None
    with reading(found.files[0]):
        schema = _schema(found.files[0])
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        image, label = _image_column(schema, features), _label_column(schema, features)
    counts, labels = [], list[Any]()
    for file in progress(found.files, "reading labels"):
        with reading(file):
            missing = {image, label or image} - set(_schema(file).names)
            if missing:
                raise InputError(f"no column {' and '.join(sorted(missing))}, which {found.files[0].name} has")
            counts.append(0)
            for batch in _batches(file, 0, [label or image], is_mapped=True):
                counts[-1] += batch.num_rows
                labels += [] if label is None else batch.column(label).to_pylist()
    if None in labels:
        raise InputError(f"{printable(found.root)}: {labels.count(None):,} of {len(labels):,} labels are missing")
    names = features.get(label, {}).get("names", ()) if label else ()
    unused = [name for name in schema.names if name not in (image, label)]
    notes = [f"columns that were not used: {', '.join(map(printable, unused))}"] if unused else []

    def read(number: int, start: int) -> Iterator[EncodedImage]:
        yield from _images(found.files[number], start, image)

    return Records(counts, read, labels if label else None, tuple(map(printable, names)), tuple(notes))


def _images(file: Path, start: int, column: str) -> Iterator[EncodedImage]:
    for batch in _batches(file, start, [column]):
        values = batch.column(column)
        for row in range(batch.num_rows):
            value, name = values[row].as_py(), None
            if "path" in (values.type.field(at).name for at in range(values.type.num_fields)):
                path = (value or {}).get("path")
                name = printable(Path(path).name) if path else f"{start}"
            content = value.get("bytes") if isinstance(value, dict) else value
            if content is None and isinstance(value, dict) and value.get("path"):
                # A data set that refers to image files.
                external = file.parent / value["path"]
                with reading(external):
                    content = external.read_bytes()
            yield EncodedImage(file / f"{name or start}", name, content or b"")
            start += 1


def _schema(file: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix.lower() == PARQUET:
        return pq.read_schema(file)
    with file.open("rb") as opened:
        opened.seek(-len(_END), 2)
        if opened.read() != _END:
            raise InputError("no end mark: truncated or damaged; download or write it again")
    with pa.OSFile(str(file)) as source, pa.ipc.open_stream(source) as stream:
        return stream.schema


def _batches(file: Path, start: int, columns: Sequence[str], *, is_mapped: bool = False) -> Iterator[Any]:
    """Yield the rows of a file from a position on, in batches.

    Args:
        file: A Parquet file or an Arrow stream.
        start: Number of rows to skip.
        columns: Names of columns; others may be included.
        is_mapped: Whether to map an Arrow stream into memory, so that other columns are not read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if file.suffix.lower() == PARQUET:
        with pq.ParquetFile(file, pre_buffer=False, buffer_size=_BUFFER_BYTES) as opened:
            sizes = [opened.metadata.row_group(number).num_rows for number in range(opened.num_row_groups)]
            ends = list(accumulate(sizes))
            first = bisect_right(ends, start)
            start -= ends[first - 1] if first else 0
            groups = list(range(first, len(sizes)))
            batches = opened.iter_batches(_BATCH, row_groups=groups, columns=list(columns), use_threads=False)
            yield from _after(batches if groups else (), start)
        return
    with (pa.memory_map if is_mapped else pa.OSFile)(str(file)) as source, pa.ipc.open_stream(source) as stream:
        yield from _after(stream, start)


def _after(batches: Any, start: int) -> Iterator[Any]:
    """Yield batches without their first rows."""
    for batch in batches:
        if start < batch.num_rows:
            yield batch.slice(start)
        start = max(0, start - batch.num_rows)


def _image_column(schema: Any, features: dict[str, Any]) -> str:
    """Return the name of the column of images."""
    import pyarrow.types as types

    def is_encoded(field: Any) -> bool:
        if types.is_struct(field.type):
            return "bytes" in (field.type.field(at).name for at in range(field.type.num_fields))
        return bool(types.is_binary(field.type) or types.is_large_binary(field.type))

    names = [name for name in schema.names if features.get(name, {}).get("_type") == "Image"]
    names = names or [field.name for field in schema if is_encoded(field)]
    preferred = [name for name in ("image", "img", *IMAGES) if name in names]
    chosen = names if len(names) == 1 else preferred[:1]
    if not chosen:
        columns = ", ".join(f"{printable(field.name)} ({field.type})" for field in schema)
        problem = "several columns could be the images" if names else "no column of encoded images"
        raise InputError(f"{problem}: {columns}; name one of binary values, or of {{bytes, path}}, image")
    return chosen[0]


def _label_column(schema: Any, features: dict[str, Any]) -> str | None:
    """Return the name of the column of labels, if any."""
    import pyarrow.types as types

    def is_label(name: str) -> bool:
        kind = schema.field(name).type
        kind = kind.value_type if types.is_dictionary(kind) else kind
        return bool(types.is_integer(kind) or types.is_string(kind) or types.is_large_string(kind))

    named = [name for name in LABELS if name in schema.names and is_label(name)]
    classes = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    return named[0] if named else classes[0] if len(classes) == 1 else None
