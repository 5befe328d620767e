"""Commands that apply a model to images: encode, reconstruct and impute, and what `score` shares with them."""

import warnings
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
    SeedOption,
    SkipBrokenOption,
    check_out,
    class_name,
    import_keras,
    load_model,
    progress,
    say,
    say_part,
    with_data,
    working,
)
from keras_vae.cli.measuring import ProposalOption
from keras_vae.core.errors import InputError
from keras_vae.core.files import to_path
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
MaskOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="The observed pixels: a picture with white for observed, or a .npy or .npz file of booleans, H x W for "
        "all images, or one mask per image of the source.",
    ),
]
CountOption = Annotated[
    int, typer.Option("-n", "--n", metavar="N", min=1, help="Number of images, evenly spaced over the source.")
]
IMPUTATION_SAMPLES, INTERVAL = 500, 0.9
"""Defaults of `vae impute`."""


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
    mask: MaskOption = None,
    label: ConditionOption = None,
    n: CountOption = 20,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    fit: FitOption = None,
    background: BackgroundOption = None,
    scale: ScaleOption = None,
    skip_broken: SkipBrokenOption = False,
    force: ForceOption = False,
) -> None:
    """Reconstruct images and print the path of the file; with --mask, fill missing pixels as `vae impute` does."""
    check_out(out, (".png", ".npz"), force)
    if mask is not None:
        conversion = (image_size, color, background, fit, scale, skip_broken)
        _write_imputation(run, out, data, mask, label, n, conversion, IMPUTATION_SAMPLES, INTERVAL, 0, None)
        return
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


def impute(
    run: RunArgument,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="A .png file with observed and imputed images and the bounds of intervals, or a .npz file of floats.",
        ),
    ],
    data: DataOption = None,
    mask: MaskOption = None,
    label: ConditionOption = None,
    n: CountOption = 20,
    samples: Annotated[
        int, typer.Option("--samples", metavar="K", min=1, help="Number of importance samples per image.")
    ] = IMPUTATION_SAMPLES,
    interval: Annotated[float, typer.Option(help="Probability of the interval of each pixel.")] = INTERVAL,
    proposal: ProposalOption = None,
    seed: SeedOption = 0,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    fit: FitOption = None,
    background: BackgroundOption = None,
    scale: ScaleOption = None,
    skip_broken: SkipBrokenOption = False,
    force: ForceOption = False,
) -> None:
    """Fill the missing pixels of images, with an interval for each, and print the path of the file.

    Missing pixels are those of --mask, and in .npy and .npz files NaN and those of the arrays `mask`, `mask_test`, ….
    """
    check_out(out, (".png", ".npz"), force)
    conversion = (image_size, color, background, fit, scale, skip_broken)
    _write_imputation(run, out, data, mask, label, n, conversion, samples, interval, seed or 0, proposal)


def _write_imputation(
    run: Path,
    out: Path,
    data: str | None,
    mask: Path | None,
    label: str | None,
    n: int,
    conversion: tuple[Any, ...],
    samples: int,
    interval: float,
    seed: int,
    proposal: str | None,
) -> None:
    """Fill the missing pixels of images of a source, write the file of `--out` and print its path."""
    opened, stream = open_images(run, data, *conversion, missing=True)
    import_keras()
    import numpy as np

    from keras_vae.cli.imputing import imputation_figure, observed_pixels
    from keras_vae.core.files import replacing
    from keras_vae.models.imputation import LOW_SAMPLE_SIZE
    from keras_vae.report import figures

    block = stream.subsample_evenly(n)
    observed = observed_pixels(block.images, mask, len(stream))
    model = load_model(opened)
    condition = condition_of_blocks(opened, model, stream, label)(block)
    options: dict[str, Any] = {"samples": samples, "interval": interval, "seed": seed, "proposal": proposal}
    with warnings.catch_warnings(action="ignore", category=UserWarning), working("imputing"):
        imputed = model.impute(np.ma.getdata(block.images), observed, condition=condition, **options)
    if model.is_stochastic:
        sizes = imputed.effective_sample_size.astype("float64")
        say(f"effective sample size of {samples:,}: median {np.median(sizes):.0f}, lowest {sizes.min():.0f}")
        if low := int((sizes < LOW_SAMPLE_SIZE).sum()):
            say(f"below {LOW_SAMPLE_SIZE:g} for {low} of {len(sizes)} images, which are unreliable; use more --samples")
    if out.suffix == ".npz":
        with replacing(out) as temporary:
            np.savez(temporary, **imputed._asdict(), names=np.array(block.names))
    else:
        figures.save(imputation_figure(block.images, imputed, interval, opened.name), out)
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
    *,
    missing: bool = False,
) -> "tuple[Run, Stream]":
    """Open a complete run and the images to apply it to, resized and converted like its training images.

    Files may have missing pixels if `missing` is True, or if the run was trained on them.
    """
    from keras_vae.data.sources import open_stream
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    opened.require_complete()
    if data is None:
        opened.require_source()
    experiment = with_data(opened.experiment, data, image_size, color, background, fit, scale, skip_broken)
    if missing and to_path(experiment.data.source).is_file():
        experiment = experiment.with_overrides(["data.missing=mask"])
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
