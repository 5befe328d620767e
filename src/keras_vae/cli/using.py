"""Commands that apply a trained model to images: encode, score, reconstruct."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_vae.cli.common import (
    BackgroundOption,
    Color,
    ColorOption,
    ForceOption,
    ImageSizeOption,
    RunArgument,
    SeedOption,
    check_out,
    class_name,
    import_keras,
    load_own_splits,
    progress,
    say,
    with_data,
)
from keras_vae.core.errors import InputError, unknown

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_vae.data.sources import Stream
    from keras_vae.data.streams import Block
    from keras_vae.evaluation.anomaly import Scorer
    from keras_vae.models.base import BaseVAE
    from keras_vae.runs.run import Run

DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="A source listed by `vae data`, a .npz or .npy file, or a folder. Default: the images of the run.",
    ),
]
ConditionOption = Annotated[
    str | None,
    typer.Option(
        "--label",
        metavar="LABEL",
        help="Conditional models: label of all images, a class name or number. Default: the label of each image.",
    ),
]
# The help lists the scores as text because their registry takes too long to import; the tests compare the two.
ScoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="SCORE",
        help="Score for --threshold and --heat-maps: nll, negative_elbo, reconstruction_loss, kl_loss or typicality. "
        "Default: nll, or negative_elbo if the model has no nll.",
    ),
]
ThresholdOption = Annotated[
    float | None,
    typer.Option(
        metavar="RATE",
        min=0,
        max=1,
        help="Mark images with a higher score than all but this fraction of the training images.",
    ),
]
HeatMapsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE.png",
        help="Plot the images with the highest scores, their reconstructions and heat maps of the errors.",
    ),
]


def encode(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .npz, .csv or .parquet file.")],
    data: DataOption = None,
    label: ConditionOption = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    background: BackgroundOption = None,
    force: ForceOption = False,
) -> None:
    """Encode images: write a table with the name, label, posterior mean and log-variance of each image."""
    check_table(out, force)
    opened, stream = _open(run, data, image_size, color, background)
    import_keras()
    model = opened.load_model()
    condition = _condition_of_blocks(opened, model, stream, label)

    def columns(block: "Block") -> dict[str, Any]:
        encoding = model.encode(block.images, condition=condition(block))
        return _name_and_label(stream, block) | encoding.as_dict()

    _write_table(opened, stream, out, "encoding", columns, label)
    print(out)


def score(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .csv, .npz or .parquet file.")],
    data: DataOption = None,
    label: ConditionOption = None,
    score: ScoreOption = None,
    samples: Annotated[int, typer.Option(metavar="K", min=1, help="Importance samples per image.")] = 64,
    threshold: ThresholdOption = None,
    heat_maps: HeatMapsOption = None,
    n: Annotated[int, typer.Option("-n", "--n", metavar="N", min=1, help="Number of images for --heat-maps.")] = 20,
    seed: SeedOption = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    background: BackgroundOption = None,
    force: ForceOption = False,
) -> None:
    """Compute anomaly scores of images, with their percentiles among the scores of training images."""
    from keras_vae.evaluation.anomaly import REFERENCE_IMAGES, SCORES, Scorer

    check_table(out, force)
    check_out(heat_maps, (".png",), force)
    if score is not None and score not in SCORES:
        raise unknown("--score", score, SCORES)
    opened, stream = _open(run, data, image_size, color, background)
    splits = load_own_splits(opened)
    opened.require_same_images(splits)
    import_keras()
    from keras_vae.models.inputs import dataset_condition

    model, reference = opened.load_model(), splits.train.subsample_evenly(REFERENCE_IMAGES)
    condition = _condition_of_blocks(opened, model, stream, label)
    seed = opened.experiment.seed if seed is None else seed
    scorer = Scorer.fit(
        model, reference.images, condition=dataset_condition(model, reference), samples=samples, seed=seed
    )
    score = score or next(iter(scorer.reference))
    limit = None if threshold is None else scorer.threshold(score, threshold)

    def columns(block: "Block") -> dict[str, Any]:
        return _name_and_label(stream, block) | _score_columns(scorer, block, condition(block), score, limit)

    _write_table(opened, stream, out, "scoring", columns, label, seed, samples, score, threshold)
    print(out)
    if limit is not None:
        say(f"anomaly: {score} above {limit:.2f} nats, which {threshold:.1%} of the training images exceed")
    if heat_maps is not None:
        _plot_heat_maps(opened, model, stream, condition, out, score, n, heat_maps)
        print(heat_maps)


def _score_columns(scorer: "Scorer", block: "Block", condition: Any, score: str, limit: float | None) -> dict[str, Any]:
    """Return the scores of a block of images, their percentiles and, given a limit, whether each is an anomaly."""
    scores = scorer(block.images, condition=condition)
    percentiles = {f"{name}_percentile": scorer.percentile(name, values) for name, values in scores.items()}
    return {**scores, **percentiles, **({} if limit is None else {"anomaly": scores[score] > limit})}


def _plot_heat_maps(
    run: "Run",
    model: "BaseVAE",
    stream: "Stream",
    condition: "Callable[[Block], Any]",
    table: Path,
    score: str,
    n: int,
    out: Path,
) -> None:
    """Plot the n images with the highest scores in a table, their reconstructions and heat maps of the errors."""
    import numpy as np

    from keras_vae.core import tables
    from keras_vae.evaluation.anomaly import error_map
    from keras_vae.report import figures

    highest = stream.subset(np.argsort(tables.read_column(table, score))[::-1][:n])
    reconstructed = model.reconstruct(highest.images, condition=condition(highest))
    figure = figures.heat_maps(
        highest.images,
        reconstructed,
        error_map(highest.images, reconstructed),
        title=f"{run.name}: the {len(highest.names)} of {len(stream):,} images with the highest {score}",
    )
    figures.save(figure, out)


def reconstruct(
    run: RunArgument,
    out: Annotated[
        Path,
        typer.Option(metavar="FILE", help="A .png file with originals and reconstructions, or a .npz file of floats."),
    ],
    data: DataOption = None,
    label: ConditionOption = None,
    n: Annotated[
        int, typer.Option("-n", "--n", metavar="N", min=1, help="Number of images, evenly spaced over the source.")
    ] = 20,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    background: BackgroundOption = None,
    force: ForceOption = False,
) -> None:
    """Reconstruct images and print the path of the file."""
    check_out(out, (".png", ".npz"), force)
    opened, stream = _open(run, data, image_size, color, background)
    import_keras()
    import numpy as np

    from keras_vae.core.files import replacing
    from keras_vae.report import figures

    model = opened.load_model()
    condition = _condition_of_blocks(opened, model, stream, label)
    block = stream.subsample_evenly(n)
    images = model.reconstruct(block.images, condition=condition(block))
    if out.suffix == ".npz":
        with replacing(out) as temporary:
            np.savez(temporary, images=images, names=np.array(block.names))
    else:
        rows = {"original": block.images, "reconstruction": images}
        figures.save(figures.image_rows(rows, title=f"{opened.name}: reconstructions"), out)
    print(out)


def check_table(out: Path, force: bool) -> None:
    """Reject a table whose format is unknown or whose file cannot be written."""
    from keras_vae.core import tables

    check_out(out, tuple(tables.FORMATS), force)
    tables.check_format(out)


def _open(
    run: Path, data: str | None, image_size: str | None, color: Color | None, background: str | None
) -> "tuple[Run, Stream]":
    """Open a complete run and the images to apply it to, resized and converted like its training images."""
    from keras_vae.data.sources import open_stream
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    opened.require_complete()
    if data is None:
        opened.require_source()
    experiment = with_data(opened.experiment, data, image_size, color, background)
    stream = open_stream(experiment.data, progress())
    say(f"{opened.name} · {len(stream):,} images of {experiment.data.source}")
    return opened, stream


def _condition_of_blocks(run: "Run", model: "BaseVAE", stream: "Stream", label: str | None) -> "Callable[[Block], Any]":
    """Return a function from a block of images to the condition of the model.

    The condition is the given label or, without one, the labels of the images, renumbered as in the run: a folder that
    lacks one of the classes numbers the others differently.
    """
    from keras_vae.data.labels import check_known, renumber

    if label is not None:
        name = class_name(run, label)
        return lambda block: name
    if model.condition is None:
        return lambda block: None
    check_known(stream.classes, run.class_names, argument="--data", run=run.name)

    def condition(block: "Block") -> Any:
        if block.labels is None:
            raise InputError(f"--data: the images have no labels; give the label that {run.name} needs with --label")
        return renumber(block.labels, stream.classes, run.class_names)

    return condition


def _name_and_label(stream: "Stream", block: "Block") -> dict[str, Any]:
    """Return the columns of a table that identify the images of a block."""
    import numpy as np

    columns = {"name": np.array(block.names)}
    if block.labels is not None:
        columns["label"] = np.array(stream.classes)[block.labels] if stream.classes else block.labels
    return columns


def _write_table(
    run: "Run",
    stream: "Stream",
    out: Path,
    title: str,
    columns: "Callable[[Block], dict[str, Any]]",
    *settings: float | str | None,
) -> None:
    """Write a table block by block; an interrupted call with the same images, model and settings resumes."""
    from keras_vae.core import tables

    blocks = [lambda number=number: columns(stream.read(number)) for number in range(len(stream.sizes))]
    key = [title, stream.fingerprint, run.model_fingerprint(), *settings]
    tables.write(out, blocks, key=key, progress=progress(), title=title)
