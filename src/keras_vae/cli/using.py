"""Commands that apply a trained model to images: encode and reconstruct, and what `score` shares with them."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_vae.cli import completion
from keras_vae.cli.common import (
    BackgroundOption,
    Color,
    ColorOption,
    DevicesOption,
    Fit,
    FitOption,
    ForceOption,
    ForceTableOption,
    ImageSizeOption,
    PartOption,
    RunArgument,
    ScaleOption,
    SkipBrokenOption,
    check_out,
    class_name,
    import_keras,
    load_model,
    progress,
    say,
    say_part,
    with_data,
)
from keras_vae.core.errors import InputError
from keras_vae.core.parts import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from keras_vae.data.sources import Stream
    from keras_vae.data.streams import Block
    from keras_vae.models.base import BaseVAE
    from keras_vae.runs.run import Run

DataOption = Annotated[
    str | None,
    typer.Option(
        metavar="SOURCE",
        help="A source listed by `vae data`, a .npz or .npy file, or a folder. Default: the images of the run.",
        autocompletion=completion.sources,
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


def encode(
    run: RunArgument,
    out: Annotated[Path, typer.Option(metavar="FILE", help="A .npz, .csv or .parquet file.")],
    data: DataOption = None,
    label: ConditionOption = None,
    part: PartOption = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    fit: FitOption = None,
    background: BackgroundOption = None,
    scale: ScaleOption = None,
    skip_broken: SkipBrokenOption = False,
    devices: DevicesOption = None,
    normalized: Annotated[
        bool,
        typer.Option(
            "--normalized", help="Subtract the mean of the codes of the training images and divide by their deviation."
        ),
    ] = False,
    force: ForceTableOption = False,
) -> None:
    """Encode images: write a table with the name, label, posterior mean and log-variance of each image."""
    chosen = Part.of(part, "--part")
    check_table(out, force, chosen)
    opened, stream = open_images(run, data, image_size, color, background, fit, scale, skip_broken)
    import_keras(devices=devices)
    model = load_model(opened)
    condition = condition_of_blocks(opened, model, stream, label)

    def columns(block: "Block") -> dict[str, Any]:
        encoding = model.encode(block.images, condition=condition(block), normalized=normalized)
        return name_and_label(stream, block) | encoding.as_dict()

    write_table(opened, stream, out, "encoding", columns, chosen, force, label=label, normalized=normalized)
    if chosen is None:
        print(out)


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
    fit: FitOption = None,
    background: BackgroundOption = None,
    scale: ScaleOption = None,
    skip_broken: SkipBrokenOption = False,
    force: ForceOption = False,
) -> None:
    """Reconstruct images and print the path of the file."""
    check_out(out, (".png", ".npz"), force)
    opened, stream = open_images(run, data, image_size, color, background, fit, scale, skip_broken)
    import_keras()
    import numpy as np

    from keras_vae.core.files import replacing
    from keras_vae.report import figures

    model = load_model(opened)
    condition = condition_of_blocks(opened, model, stream, label)
    block = stream.subsample_evenly(n)
    images = model.reconstruct(block.images, condition=condition(block))
    if out.suffix == ".npz":
        with replacing(out) as temporary:
            np.savez(temporary, images=images, names=np.array(block.names))
    else:
        rows = {"original": block.images, "reconstruction": images}
        figures.save(figures.image_rows(rows, title=f"{opened.name}: reconstructions"), out)
    print(out)


def check_table(out: Path, force: bool, part: Part | None = None) -> None:
    """Reject a table whose format is unknown or whose file cannot be written; lock it, unless a part is computed."""
    from keras_vae.core import tables

    check_out(out, tuple(tables.FORMATS), force, lock=part is None)
    tables.check_format(out)


def open_images(
    run: Path,
    data: str | None,
    image_size: str | None,
    color: Color | None,
    background: str | None,
    fit: Fit | None,
    scale: float | None,
    skip_broken: bool,
) -> "tuple[Run, Stream]":
    """Open a complete run and the images to apply it to, resized and converted like its training images."""
    from keras_vae.data.sources import open_stream
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    opened.require_complete()
    if data is None:
        opened.require_source()
    experiment = with_data(opened.experiment, data, image_size, color, background, fit, scale, skip_broken)
    stream = open_stream(experiment.data, progress())
    for note in stream.notes:
        say(note)
    say(f"{opened.name} · {len(stream):,} images of {experiment.data.source}")
    return opened, stream


def condition_of_blocks(run: "Run", model: "BaseVAE", stream: "Stream", label: str | None) -> "Callable[[Block], Any]":
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


def name_and_label(stream: "Stream", block: "Block") -> dict[str, Any]:
    """Return the columns of a table that identify the images of a block."""
    import numpy as np

    columns = {"name": np.array(block.names)}
    if block.labels is not None:
        columns["label"] = np.array(stream.classes)[block.labels] if stream.classes else block.labels
    return columns


def write_table(
    run: "Run",
    stream: "Stream",
    out: Path,
    title: str,
    columns: "Callable[[Block], dict[str, Any]]",
    part: Part | None,
    force: bool,
    **settings: float | str | None,
) -> None:
    """Write a table block by block, or a part of it; a call with the same images, model and settings resumes."""
    from keras_vae.core import backend, tables
    from keras_vae.core.blocks import BlockFolder

    blocks = [lambda number=number: columns(stream.read(number)) for number in range(len(stream.sizes))]
    identity = {"images": stream.fingerprint, "model": run.model_fingerprint(), "backend": backend.name()}
    key = {"command": title, **identity, **settings}
    tables.write(out, blocks, key=key, progress=progress(), title=title, part=part, force=force)
    if part is not None:
        say_part(part, BlockFolder(out, key))
