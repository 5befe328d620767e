"""Commands that show a run, images of its model, the presets, and the data sources."""

import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_vae.cli import completion
from keras_vae.cli.common import (
    BackgroundOption,
    Color,
    ColorOption,
    Fit,
    FitOption,
    ForceOption,
    ImageSizeOption,
    JsonOption,
    LabelOption,
    PriorOption,
    RunArgument,
    ScaleOption,
    SeedOption,
    SkipBrokenOption,
    check_out,
    class_name,
    import_keras,
    load_model,
    open_to_write,
    print_result,
    print_table,
    progress,
    quoted,
    say,
    working,
)
from keras_vae.cli.parsing import parse_size
from keras_vae.core.errors import InputError, alternatives, unknown

if TYPE_CHECKING:
    from keras_vae.data.dataset import Dataset

# The help lists the plots as text because their registry takes too long to import; the tests compare the two.
KINDS = (
    *("grid", "samples", "neighbors", "reconstructions", "worst-reconstructions", "image-quality", "latents"),
    *("traversals", "interpolation", "kl-per-dimension", "curves", "rate-distortion"),
)
ALL = "all"
KindArgument = Annotated[
    str,
    typer.Argument(
        metavar="KIND",
        help=f"{alternatives(KINDS)}. Or {ALL}: every plot that the run supports.",
        autocompletion=completion.words(*KINDS, ALL),
    ),
]
BoundsOption = Annotated[
    tuple[float, float] | None,
    typer.Option(
        metavar="LOW HIGH", help="grid: smallest and largest z. Default: quantiles of the prior, or of the codes."
    ),
]
DimsOption = Annotated[
    tuple[int, int] | None,
    typer.Option(metavar="I J", help="grid, latents: two latent dimensions. Default: the two most informative."),
]


def plot(
    run: RunArgument,
    kind: KindArgument,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A .png, .svg or .pdf file, or a .gif file for traversals and interpolation; a folder for all. "
            "Default: figures/KIND.png in the run.",
        ),
    ] = None,
    n: Annotated[
        int | None, typer.Option("-n", "--n", metavar="N", help="Number of images; for a grid, images per side.")
    ] = None,
    bounds: BoundsOption = None,
    dims: DimsOption = None,
    spherical: Annotated[
        bool | None, typer.Option("--spherical", help="interpolation: along great circles instead of straight lines.")
    ] = None,
    seed: SeedOption = None,
    label: LabelOption = None,
    force: ForceOption = False,
) -> None:
    """Plot a run and print the path of the figure."""
    from keras_vae.runs.run import Run

    values = {"n": n, "bounds": bounds, "dims": dims, "spherical": spherical, "seed": seed, "label": label}
    options: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    if kind not in (*KINDS, ALL):
        raise unknown("kind", kind, (*KINDS, ALL))
    if kind == ALL:
        _plot_all(run, out, options, force)
        return
    most = math.isqrt(MAX_SHEET) if kind == "grid" else MAX_SHEET
    if n is not None and kind != "latents" and n > most:
        raise InputError(f"n = {n}: too many images for one figure; choose at most {most:,}")
    check_out(out, (".png", ".svg", ".pdf", ".gif"), force)
    opened = Run.open(run)
    if label is not None:
        options["label"] = class_name(opened, label)
    import_keras()
    from keras_vae.report import plots
    from keras_vae.report.context import PlotContext

    plots.check_options(kind, options)
    opened = open_to_write(run) if out is None else opened
    out = out or opened.figure_path(kind)
    model = None if kind in plots.METRICS_PLOTS else load_model(opened)
    with working(f"drawing {kind}"):
        plots.plot(PlotContext(opened, model), kind, out=out, **options)
    print(out)


def _plot_all(path: Path, folder: Path | None, options: dict[str, Any], force: bool) -> None:
    """Draw every plot that a run supports into a folder, and print the paths."""
    from keras_vae.core.errors import RunError
    from keras_vae.runs.run import Run

    if options:
        raise InputError(f"kind = all: every plot has its default options; leave out {', '.join(options)}")
    if folder is not None and folder.exists() and not force:
        raise InputError(f"--out = {folder}: exists; choose another folder, or write into it with --force")
    opened = open_to_write(path) if folder is None else Run.open(path)
    import_keras()
    from keras_vae.report import plots
    from keras_vae.report.context import PlotContext

    context = PlotContext(opened, load_model(opened))
    folder, written = folder or opened.figure_path(ALL).parent, list[Path]()
    folder.mkdir(parents=True, exist_ok=True)
    for kind in progress()(plots.available_plots(context), "drawing"):
        try:
            plots.plot(context, kind, out=folder / f"{kind}.png")
            written.append(folder / f"{kind}.png")
        except (InputError, RunError) as error:
            say(f"no {kind}: {error}")
    for file in written:
        print(file)


def sample(
    run: RunArgument,
    n: Annotated[int, typer.Option("-n", "--n", metavar="N", help="Number of images.")] = 64,
    seed: SeedOption = None,
    label: LabelOption = None,
    prior: PriorOption = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="A .png file for one picture, or a .npz file for an array of floats. Default: figures/image-grid.png "
            "in the run.",
        ),
    ] = None,
    force: ForceOption = False,
) -> None:
    """Draw images from the prior and print the path of the file."""
    from keras_vae.runs.run import Run

    check_out(out, (".png", ".npz"), force)
    _check_number(n, out, Run.open(run).info.image_shape)
    opened = open_to_write(run) if out is None else Run.open(run)
    label = class_name(opened, label)
    import_keras()
    import numpy as np

    from keras_vae.core.files import replacing
    from keras_vae.core.progress import reporting
    from keras_vae.report import figures

    out = out or opened.figure_path("image-grid")
    model = load_model(opened, prior)
    if not opened.is_complete:
        done, epochs = len(opened.metrics.get("epoch", ())), opened.experiment.training.epochs
        say(f"training of {opened.path} is unfinished: sampling from the model after epoch {done} of {epochs}")
    with reporting(progress()):
        images = model.sample(n, seed=seed, condition=label)
    if out.suffix == ".npz":
        with replacing(out) as temporary:
            np.savez(temporary, images=images)
    else:
        figures.save_images(images, out)
    print(out)


MAX_SHEET = 4096
"""Largest number of images of one picture."""

MAX_BYTES = 4 * 2**30
"""Largest size of an array of images, which is held in memory."""


def _check_number(n: int, out: Path | None, image_shape: tuple[int, int, int]) -> None:
    """Reject more images than a picture can show, or than memory can hold."""
    if (out is None or out.suffix != ".npz") and n > MAX_SHEET:
        raise InputError(f"n = {n}: too many for one picture; draw at most {MAX_SHEET:,}, or write --out FILE.npz")
    most = MAX_BYTES // (4 * math.prod(image_shape))
    if n > most:
        raise InputError(
            f"n = {n}: too many for one file; draw at most {most:,} at a time, with another --seed each time"
        )


def info(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show the data, progress and results of a run."""
    from keras_vae.runs.files import describe_parameters
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    if as_json:
        facts = {
            "run": str(run),
            "complete": opened.is_complete,
            "epochs": len(opened.metrics.get("epoch", [])),
            "experiment": opened.experiment.model_dump(),
            "environment": opened.environment,
            "metrics": opened.metrics,
            "evaluation": opened.evaluation,
        }
        print(json.dumps(facts))
        return
    experiment, environment = opened.experiment, opened.environment
    done, data = len(opened.metrics.get("epoch", [])), environment["data"]
    print(f"{experiment.name}: {experiment.description}" if experiment.description else experiment.name)
    print(f"data       {data['name']}, {', '.join(f'{count:,} {name}' for name, count in data['images'].items())}")
    state = "complete" if opened.is_complete else f"interrupted; resume with `vae train --resume {quoted(run)}`"
    print(f"training   {done} of {experiment.training.epochs} epochs, {state}")
    count = environment.get("num_devices", 1)
    on_devices = f" on {count} devices" if count > 1 else ""
    print(f"made with  keras-vae {environment['versions']['keras-vae']}, {environment['backend']}{on_devices}")
    if parameters := environment.get("parameters"):
        print(f"parameters {describe_parameters(parameters)}")
    if experiment.model.image_losses:
        names = ", ".join(loss["name"] for loss in experiment.model.image_losses)
        print(f"loss       {experiment.model.objective['name']}, {names}: total_loss is not a bound on −log p(x)")
    print_result(opened, opened.evaluation)


def presets(as_json: JsonOption = False) -> None:
    """List the presets."""
    from keras_vae.runs.experiment import Experiment, preset_names

    described = {name: Experiment.preset(name).description for name in preset_names()}
    if as_json:
        print(json.dumps(described))
    else:
        print_table(described.items())


def data(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]",
            help="A source to describe: a name, a file or a folder.",
            autocompletion=completion.sources,
        ),
    ] = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    fit: FitOption = None,
    background: BackgroundOption = None,
    scale: ScaleOption = None,
    skip_broken: SkipBrokenOption = False,
    as_json: JsonOption = False,
) -> None:
    """List the data sources, or describe one of them."""
    from keras_vae.data import sources

    if source is None:
        listed = sources.available()
        if as_json:
            print(json.dumps([row._asdict() for row in listed]))
        else:
            print_table(listed)
        return
    loaded = sources.load(source, **_conversion(image_size, color, fit, background, scale, skip_broken))
    for note in loaded.notes:
        say(note)
    parts = (loaded.train, loaded.validation, loaded.test)
    rows = [_describe(dataset) for dataset in parts if dataset is not None]
    if as_json:
        print(json.dumps(rows))
    else:
        for row in rows:
            print_table((key, str(value)) for key, value in row.items())


def data_pack(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A name, a file or a folder.", autocompletion=completion.sources),
    ],
    out: Annotated[Path, typer.Argument(metavar="OUT.npy", help="The file to write.")],
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    fit: FitOption = None,
    background: BackgroundOption = None,
    scale: ScaleOption = None,
    skip_broken: SkipBrokenOption = False,
    force: Annotated[
        bool,
        typer.Option(
            "--force", help="Replace OUT.npy, and discard an interrupted pack of another source or with other options."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Decode a source once, into a file that training reads in any order, and print its path.

    Labels, names and splits are stored next to the file, in the folder OUT.pack. After an interruption, the same
    command continues. A folder that is called pack is described by `vae data ./pack`.
    """
    from keras_vae.data.packing import pack

    options = _conversion(image_size, color, fit, background, scale, skip_broken)
    packed = pack(source, out, **options, force=force)
    for note in packed.info.notes:
        say(note)
    if as_json:
        print(json.dumps({"path": str(out), **packed.info.model_dump()}))
        return
    counts = " · ".join(f"{count:,} {split}" for split, count in packed.info.splits.items())
    say(f"{counts} · {'×'.join(map(str, packed.image_shape))}; train on them with --data {quoted(out)}")
    print(out)


def _conversion(
    image_size: str | None,
    color: Color | None,
    fit: Fit | None,
    background: str | None,
    scale: float | None,
    skip_broken: bool,
) -> dict[str, Any]:
    """Return the arguments of `data.sources.load` that the options stand for, and a progress bar."""
    return {
        "image_size": None if image_size is None else parse_size(image_size),
        "color": None if color is None else color.value,
        "fit": "crop" if fit is None else fit.value,
        "background": background,
        "scale": scale,
        "skip_broken": skip_broken,
        "progress": progress(),
    }


def _describe(dataset: "Dataset") -> dict[str, Any]:
    return {
        "name": dataset.name,
        "split": dataset.split,
        "images": len(dataset),
        "image_shape": dataset.image_shape,
        "classes": None if dataset.labels is None else len(set(dataset.labels.tolist())),
        "checksum": dataset.checksum,
    }
