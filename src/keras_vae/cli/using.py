"""Commands that put a trained model to use on images: codes, anomaly scores, reconstructions."""

from enum import StrEnum
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
    import_keras,
    label_number,
    load_own_splits,
    progress,
    say,
    with_data,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_vae.data.sources import Stream
    from keras_vae.data.streams import Block
    from keras_vae.models.base import BaseVAE
    from keras_vae.runs.run import Run

DataOption = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="A source (`vae data`), a .npz, a .npy, or a folder. Default: the run's own."),
]
ToldOption = Annotated[
    str | None,
    typer.Option(
        "--label", help="What a model with labels is told of every image: a number or a name. Default: each one's own."
    ),
]


class Score(StrEnum):
    """By what `vae score` judges."""

    NLL = "nll"
    NEGATIVE_ELBO = "negative_elbo"
    RECONSTRUCTION_LOSS = "reconstruction_loss"
    KL_LOSS = "kl_loss"
    TYPICALITY = "typicality"


def encode(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="A .npz, .csv or .parquet file.")],
    data: DataOption = None,
    label: ToldOption = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    background: BackgroundOption = None,
    force: ForceOption = False,
) -> None:
    """Write the code of every image of a source: posterior mean and log-variance, label and name."""
    check_table(out, force)
    opened, stream = _open(run, data, image_size, color, background)
    import_keras()
    model = opened.load_model()
    condition = _teller(opened, model, stream, label)

    def columns(block: "Block") -> dict[str, Any]:
        codes = model.encode(block.images, condition=condition(block))
        return _named(stream, block) | getattr(codes, "_asdict", lambda: {"z": codes})()

    _write(opened, stream, out, "encoding", columns, label)
    print(out)


def score(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="A .csv, .npz or .parquet file.")],
    data: DataOption = None,
    label: ToldOption = None,
    by: Annotated[Score | None, typer.Option(help="What --threshold and --heat-maps go by. Default: nll.")] = None,
    samples: Annotated[int, typer.Option(metavar="K", min=1, help="Draws an image.")] = 64,
    threshold: Annotated[
        float | None,
        typer.Option(metavar="RATE", min=0, max=1, help="Mark what this share of training images would exceed."),
    ] = None,
    heat_maps: Annotated[
        Path | None, typer.Option(metavar="FILE.png", help="Draw where the strangest images differ.")
    ] = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="--heat-maps: how many images.")] = 20,
    seed: SeedOption = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    background: BackgroundOption = None,
    force: ForceOption = False,
) -> None:
    """Write how strange every image of a source is to a model, beside the share of training images that score less."""
    check_table(out, force)
    check_out(heat_maps, (".png",), force)
    opened, stream = _open(run, data, image_size, color, background)
    splits = load_own_splits(opened)
    opened.check_images(splits)
    import_keras()
    import numpy as np

    from keras_vae.core import tables
    from keras_vae.evaluation.anomaly import Scorer, differences
    from keras_vae.models.inputs import dataset_condition
    from keras_vae.report import figures

    model, known = opened.load_model(), splits.train.subsample_evenly(_KNOWN)
    condition = _teller(opened, model, stream, label)
    seed = opened.experiment.seed if seed is None else seed
    scorer = Scorer.fitted(model, known.images, condition=dataset_condition(model, known), samples=samples, seed=seed)
    judge = by.value if by else next(iter(scorer.known))
    limit = None if threshold is None else scorer.threshold(judge, threshold)

    def columns(block: "Block") -> dict[str, Any]:
        scores = scorer(block.images, condition=condition(block))
        percentiles = {f"{name}_percentile": scorer.percentile(name, values) for name, values in scores.items()}
        marks = {} if limit is None else {"anomaly": scores[judge] > limit}
        return {**_named(stream, block), **scores, **percentiles, **marks}

    _write(opened, stream, out, "scoring", columns, label, seed, samples, judge, threshold)
    print(out)
    if limit is not None:
        say(f"an anomaly has {judge} above {limit:.2f} nats, which {threshold:.1%} of the training images exceed")
    if heat_maps is not None:
        strangest = np.argsort(tables.read_column(out, judge))[::-1][:n]
        chosen = stream.subset(strangest)
        reconstructed = model.reconstruct(chosen.images, condition=condition(chosen))
        figure = figures.heat_maps(
            chosen.images,
            reconstructed,
            differences(chosen.images, reconstructed),
            title=f"{opened.name}: the {len(strangest)} strangest of {len(stream):,} images, by {judge} in nats",
        )
        print(figures.save(figure, heat_maps))


def reconstruct(
    run: RunArgument,
    out: Annotated[Path, typer.Option(help="A .png with the originals above, or a .npz of floats.")],
    data: DataOption = None,
    label: ToldOption = None,
    n: Annotated[int, typer.Option("-n", "--n", min=1, help="How many, evenly spaced over the source.")] = 20,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    background: BackgroundOption = None,
    force: ForceOption = False,
) -> None:
    """Reconstruct images of a source, and print where they are."""
    check_out(out, (".png", ".npz"), force)
    opened, stream = _open(run, data, image_size, color, background)
    import_keras()
    import numpy as np

    from keras_vae.core.files import replacing
    from keras_vae.report import figures

    model = opened.load_model()
    condition = _teller(opened, model, stream, label)
    chosen = stream.subsample_evenly(n)
    images = model.reconstruct(chosen.images, condition=condition(chosen))
    if out.suffix == ".npz":
        with replacing(out) as temporary:
            np.savez(temporary, images=images, names=np.array(chosen.names))
    else:
        rows = {"original": chosen.images, "reconstruction": images}
        figures.save(figures.stacks(rows, title=f"{opened.name}: reconstructions"), out)
    print(out)


_KNOWN = 2000
"""Training images whose scores stand for those of all."""


def check_table(out: Path, force: bool) -> None:
    """Refuse a table to write whose format or place is no good."""
    from keras_vae.core import tables

    check_out(out, tuple(tables.FORMATS), force)
    tables.check_format(out)


def _open(
    run: Path, data: str | None, image_size: str | None, color: Color | None, background: str | None
) -> "tuple[Run, Stream]":
    """Open a run and the images to use it on, brought to its size and color where it was trained so."""
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    opened.check_complete()
    if data is None:
        opened.check_data()
    experiment = with_data(opened.experiment, data, image_size, color, background)
    stream = experiment.open_stream(progress())
    say(f"{opened.name} · {len(stream):,} images of {experiment.data.source}")
    return opened, stream


def _teller(run: "Run", model: "BaseVAE", stream: "Stream", label: str | None) -> "Callable[[Block], Any]":
    """Return what says what a model is told of a block: one label of all, or its labels as the run numbers them.

    A folder without a class numbers the others anew.
    """
    import numpy as np

    from keras_vae.core.errors import InputError

    if model.condition is None:
        if label is not None:
            raise InputError(f"--label {label}: the model of {run.name} is told none")
        return lambda block: None
    if label is not None:
        number = label_number(run, label)
        model.condition.check(np.array([number]))
        return lambda block: number
    known = tuple(run.environment["data"].get("class_names") or ())
    renumbered = bool(known and stream.classes and known != stream.classes)
    if renumbered and (unknown := sorted(set(stream.classes) - set(known))):
        raise InputError(f"--data: labels {', '.join(unknown)}; the run knows {', '.join(known)}")

    def told(block: "Block") -> Any:
        if block.labels is None:
            raise InputError(f"--data: images without labels, and the model is told {model.condition}: give --label")
        return np.array([known.index(name) for name in stream.classes])[block.labels] if renumbered else block.labels

    return told


def _named(stream: "Stream", block: "Block") -> dict[str, Any]:
    import numpy as np

    named = {"name": np.array(block.names)}
    if block.labels is not None:
        named["label"] = np.array(stream.classes)[block.labels] if stream.classes else block.labels
    return named


def _write(
    run: "Run",
    stream: "Stream",
    out: Path,
    title: str,
    columns: "Callable[[Block], dict[str, Any]]",
    *how: float | str | None,
) -> None:
    from keras_vae.core import tables

    blocks = [lambda number=number: columns(stream.read(number)) for number in range(len(stream.sizes))]
    key = [title, stream.fingerprint, run.model_fingerprint(), *how]
    tables.write(out, blocks, key=key, progress=progress(), title=title)
