"""A model written for other programs, and read back before it counts as written."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_vae.core import backend
from keras_vae.core.errors import InputError, RunError, first_line, unknown
from keras_vae.core.files import check_destination, replacing_folder, write_text
from keras_vae.core.progress import Progress, silent
from keras_vae.integrations.export.card import card
from keras_vae.integrations.export.format import Format
from keras_vae.integrations.export.formats import FORMATS
from keras_vae.integrations.export.graphs import Pixels, in_float32, trace
from keras_vae.integrations.export.manifest import manifest
from keras_vae.integrations.export.parity import Examples, compare
from keras_vae.runs.run import Run, load_model

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

EXAMPLES = 64
"""Images on which graphs and model are compared."""


def export(
    source: "Run | BaseVAE | str | Path",
    format: str,
    out: str | Path | None = None,
    *,
    prior: str | None = None,
    pixels: Pixels = "uint8",
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Write a model as deterministic graphs that run without this package, with a manifest and a model card.

    Each graph is read back in its own runtime and compared with the model, on test images of the run, or on random ones
    where there are none. Nothing is left behind where one disagrees.

    Args:
        source: A run or its folder, a `.keras` file, or a model.
        format: `"onnx"`, `"savedmodel"`, `"litert"` or `"keras"`.
        out: The folder to write; by default `export/FORMAT` in the run.
        prior: Which prior of a run `sampler` draws from: `"original"` or `"fitted"`; None takes the fitted one where
            there is one.
        pixels: The dtype in which graphs take images: `"uint8"`, levels 0…255, or `"float32"`, in [0, 1].
        force: Replaces an earlier export.
        progress: Shown while the graphs are written.

    Returns:
        The folder.

    Raises:
        InputError: An argument is none of these, the folder exists, a package is missing, or the run is not complete.
        RunError: A graph cannot be written, or disagrees with the model.

    Example:
        >>> export("runs/classic", "pickle")
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: format = 'pickle': unknown; accepted: keras, litert, onnx, savedmodel
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    form = FORMATS[format]
    form.check_installed()
    if form.backend not in (None, backend.name()):
        raise InputError(
            f"format = {format}: it is written through {form.backend}, and this program computes with "
            f"{backend.name()}; set KERAS_BACKEND={form.backend} before Keras is imported, or run `vae export`"
        )
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        source = load_model(path) if path.is_file() else Run.open(path)
    if out is None:
        if not isinstance(source, Run):
            raise InputError("out = None: name a folder to write")
        out = source.writable_copy().path / "export" / format
    out = Path(out).expanduser()
    check_destination(out, force=force, marker="manifest.json", kind="export")
    subject = _of_run(source, prior) if isinstance(source, Run) else _of_model(source)
    return _write(subject, form, out, pixels, progress)


class _Subject(NamedTuple):
    model: "BaseVAE"
    examples: Examples
    origin: dict[str, Any]


def _of_run(run: Run, prior: str | None) -> _Subject:
    run.check_complete()
    data = {name: run.environment["data"].get(name) for name in ("name", "checksum", "class_names")}
    origin = {"name": run.name, "model": run.model_fingerprint(prior), "data": data}
    model = in_float32(run.load_model(prior))
    return _Subject(model, _examples(run, model), origin)


def _of_model(model: "BaseVAE") -> _Subject:
    if not model.built:
        raise InputError("the model's sizes are not known yet: fit it first, or call build((None, H, W, C))")
    model = in_float32(model)
    return _Subject(model, _random_examples(model), {"name": model.name})


def _examples(run: Run, model: "BaseVAE") -> Examples:
    from keras_vae.models.inputs import dataset_condition

    try:
        splits, _ = run.experiment.load_splits()
        run.check_images(splits)
    except (InputError, RunError):
        return _random_examples(model)
    dataset = (splits.held_out or splits.train).subsample_evenly(EXAMPLES)
    told = dataset_condition(model, dataset)
    return Examples(
        dataset.images, None if told is None else told.astype("int32"), f"{dataset.name}, {dataset.split} split"
    )


def _random_examples(model: "BaseVAE") -> Examples:
    rng = np.random.default_rng(0)
    shape = [size or 28 for size in model.image_shape]
    images, told = rng.integers(0, 256, (EXAMPLES, *shape), dtype="uint8"), None
    if model.condition is not None:
        values = rng.integers(0, model.condition.dim, (EXAMPLES, *model.condition.value_shape))
        told = values.astype(model.condition.dtype)
    return Examples(images, told, "random pixels")


def _write(subject: _Subject, form: Format, out: Path, pixels: Pixels, progress: Progress) -> Path:
    model, examples, origin = subject
    graphs = trace(model, pixels)
    with replacing_folder(out) as folder:
        files = {name: folder / f"{name}{form.suffix}" for name in graphs.networks}
        read = {}
        for name, network in progress(graphs.networks.items(), f"writing {form.name}"):
            try:
                form.write(network, files[name])
                read[name] = form.load(str(files[name]))
            except Exception as error:
                # Whatever a converter or a runtime stumbles over.
                raise RunError(f"{name} cannot be written as {form.name}: {first_line(error)}") from error
        differences = compare(model, graphs, read, examples, pixels)
        content: Mapping[str, Any] = manifest(model, graphs, form, files, differences, examples, origin)
        write_text(folder / "manifest.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        write_text(folder / "README.md", card(content, form))
    return out
