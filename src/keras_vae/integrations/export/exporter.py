"""Writing and verification of exports."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from keras_vae.core.errors import InputError, RunError, first_line, unknown
from keras_vae.core.files import check_destination, replacing_folder, write_text
from keras_vae.core.progress import Progress, silent
from keras_vae.evaluation.anomaly import REFERENCE_IMAGES, check_rate
from keras_vae.integrations.export.card import card
from keras_vae.integrations.export.formats import FORMATS
from keras_vae.integrations.export.formats.base import Format, InputDtype
from keras_vae.integrations.export.graphs import Graphs, in_float32, trace
from keras_vae.integrations.export.manifest import manifest
from keras_vae.integrations.export.parity import Examples, compare
from keras_vae.integrations.export.score import Reference, describe_score, score_graph
from keras_vae.runs.model_file import read_model
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

NUM_EXAMPLES = 64
"""Number of images on which graphs are compared with the model."""


def export(
    source: "Run | BaseVAE | str | Path",
    format: str,
    out: str | Path | None = None,
    *,
    prior: str | None = None,
    input_dtype: InputDtype = "uint8",
    false_positive_rate: float = 0.05,
    force: bool = False,
    progress: Progress = silent,
) -> Path:
    """Export a model as deterministic graphs that run without this package, with a manifest and a model card.

    Each graph is loaded in its own runtime and compared with the model, on test images of the run or, if it has none,
    on random images. If they disagree, no files are written. For a run whose training images are available, the
    manifest contains the percentiles of their scores, and a threshold.

    Args:
        source: A run or its folder, a `.keras` file, or a model.
        format: `"onnx"`, `"savedmodel"`, `"litert"` or `"keras"`.
        out: The folder to write; `export/FORMAT` in the run by default.
        prior: The prior of the run that `sampler` uses: `"original"` or `"fitted"`. None uses the fitted prior if the
            run has one.
        input_dtype: The dtype of input images: `"uint8"`, levels 0…255, or `"float32"`, in [0, 1].
        false_positive_rate: Fraction of the training images whose score exceeds the threshold in the manifest.
        force: Whether to replace an earlier export.
        progress: Reports the progress of writing.

    Returns:
        The folder.

    Raises:
        InputError: An argument is invalid, the folder exists, a package is missing, or the run is not complete.
        RunError: A graph cannot be written or disagrees with the model, or another process writes to the folder.

    Example:
        >>> export("runs/classic", "pickle")
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: format = 'pickle': unknown; accepted: keras, litert, onnx, savedmodel
    """
    if format not in FORMATS:
        raise unknown("format", format, FORMATS)
    check_rate(false_positive_rate)
    fmt = FORMATS[format]
    fmt.check_installed()
    fmt.check_backend()
    if isinstance(source, str | Path):
        path = Path(source).expanduser()
        source = read_model(path) if path.is_file() else Run.open(path)
    if out is None:
        if not isinstance(source, Run):
            raise InputError("out = None: required unless source is a run; pass a folder")
        out = source.writable_copy().path_to_write("export") / format
    out = Path(out).expanduser()
    check_destination(out, force=force, marker="manifest.json", kind="export")
    export_source = _from_run(source, prior, false_positive_rate) if isinstance(source, Run) else _from_model(source)
    return _write(export_source, fmt, out, input_dtype, force, progress)


class ExportSource(NamedTuple):
    """A model to export.

    Args:
        model: The model, in float32.
        examples: Images on which its graphs are verified.
        reference: Training images whose scores define percentiles, or the reason why there are none.
        origin: Its `name`, and for a run its `model` and `data`, for the manifest.
    """

    model: "BaseVAE"
    examples: Examples
    reference: Reference | str
    origin: dict[str, Any]


def _from_run(run: Run, prior: str | None, false_positive_rate: float) -> ExportSource:
    run.require_complete()
    data = {name: run.environment["data"].get(name) for name in ("name", "checksum", "class_names")}
    origin = {"name": run.name, "model": run.model_fingerprint(prior), "data": data}
    model = in_float32(run.load_model(prior))
    try:
        splits = run.load_splits()
    except (InputError, RunError) as error:
        return ExportSource(model, _random_examples(model), first_line(error), origin)
    examples = Examples.from_dataset(model, (splits.held_out or splits.train).subsample_evenly(NUM_EXAMPLES))
    training = Examples.from_dataset(model, splits.train.subsample_evenly(REFERENCE_IMAGES))
    return ExportSource(model, examples, Reference(training, false_positive_rate), origin)


def _from_model(model: "BaseVAE") -> ExportSource:
    if not model.built:
        raise InputError("source: the model is not built; fit it first, or call build((None, H, W, C))")
    model = in_float32(model)
    reason = "a model has no training images; export its run"
    return ExportSource(model, _random_examples(model), reason, {"name": model.name})


def _random_examples(model: "BaseVAE") -> Examples:
    rng = np.random.default_rng(0)
    shape = [size or 28 for size in model.image_shape]
    images, condition = rng.integers(0, 256, (NUM_EXAMPLES, *shape), dtype="uint8"), None
    if model.condition is not None:
        values = rng.integers(0, model.condition.dim, (NUM_EXAMPLES, *model.condition.value_shape))
        condition = values.astype(model.condition.dtype)
    return Examples(images, condition, "random pixels")


def _write(
    source: ExportSource, fmt: Format, out: Path, input_dtype: InputDtype, force: bool, progress: Progress
) -> Path:
    model, examples, reference, origin = source
    graphs = trace(model, input_dtype)
    if model.density != "direct":
        graphs.omitted["score"] = (
            "its prior has no log-density, or one that solves an ODE; export with prior = 'original'"
        )
    elif fmt.stores_operations:
        graphs.networks["score"] = score_graph(model, input_dtype)
    else:
        graphs.omitted["score"] = f"a {fmt.name} file stores layers, and those of the score need keras-vae"
    with replacing_folder(out, replace=force) as folder:
        files = {name: folder / f"{name}{fmt.suffix}" for name in graphs.networks}
        loaded = {}
        for name, network in progress(list(graphs.networks.items()), f"writing {fmt.name}"):
            try:
                fmt.write(network, files[name])
                loaded[name] = fmt.load(str(files[name]))
            except Exception as error:
                # Converters and runtimes raise many kinds of errors.
                if name != "score":
                    raise RunError(
                        f"format = {fmt.name!r}: the {name} graph cannot be written: {first_line(error)}"
                    ) from error
                _omit_score(graphs, files, f"it cannot be written: {first_line(error)}")
        differences = compare(model, graphs, loaded, examples, input_dtype)
        score = None
        if "score" in loaded:
            score = describe_score(model, loaded["score"], examples, reference, input_dtype)
            if isinstance(reference, str):
                graphs.omitted["percentiles"] = reference
        content: Mapping[str, Any] = manifest(model, graphs, fmt, files, differences, examples, origin, score)
        write_text(folder / "manifest.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        write_text(folder / "README.md", card(content, fmt))
    return out


def _omit_score(graphs: Graphs, files: dict[str, Path], reason: str) -> None:
    """Remove the score graph, whose operations some runtimes lack."""
    graphs.omitted["score"] = reason
    del graphs.networks["score"]
    file = files.pop("score")
    shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
