"""Opening of any source to read its images once, from the first to the last."""

import os
import zipfile
from dataclasses import replace

from keras_vae.core.progress import Progress
from keras_vae.data import sources
from keras_vae.data.arrays import read_factors
from keras_vae.data.convert import Conversion
from keras_vae.data.folders import make_decoder
from keras_vae.data.lazy_arrays import open_arrays
from keras_vae.data.packed import open_packed
from keras_vae.data.parquet import read_tables
from keras_vae.data.records import TAR, find_records, open_records
from keras_vae.data.sequential import SequentialImages, from_datasets, open_image_files
from keras_vae.data.tars import read_tars


def open_source(
    source: str | os.PathLike[str],
    conversion: Conversion,
    *,
    background: str | None,
    scale: float | None,
    skip_broken: bool,
    progress: Progress,
) -> SequentialImages:
    """Open a source to read its images once.

    Args:
        source: A source as in `sources.load`, or files as in `records.find_records`.
        conversion: Size and color of the images.
        background: Color behind transparent pixels; not for arrays.
        scale: Value of white in images of more than 8 bits per channel; not for arrays.
        skip_broken: Whether images that cannot be used will be left out; not for arrays.
        progress: Reports the progress.

    Raises:
        InputError: There is no such source, or its content is invalid.
    """
    name, path, is_named = sources.resolve(source)
    if not is_named and (found := find_records(path)):
        content = (read_tars if found.kind == TAR else read_tables)(found, progress)
        return open_records(found, content, make_decoder(conversion, background, scale))
    sources.check_options(path, is_named, background=background, scale=scale, skip_broken=skip_broken)
    if is_named:
        loaded = sources.load(
            name, image_size=conversion.image_size, color=conversion.color, fit=conversion.fit, progress=progress
        )
        parts = [part for part in (loaded.train, loaded.validation, loaded.test) if part is not None]
        return from_datasets(path, parts, loaded.notes)
    if path.is_dir():
        return open_image_files(path, make_decoder(conversion, background, scale))
    opened, packed = open_arrays(path, conversion), open_packed(path)
    datasets = opened.datasets
    if zipfile.is_zipfile(path):
        datasets = [replace(part, factors=factors) for part, factors in zip(datasets, read_factors(path), strict=True)]
    return from_datasets(path, datasets, opened.notes, *([] if packed is None else [packed.names]))
