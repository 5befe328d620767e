"""Commands that show a run, images of its model, the presets, and the data sources."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_vae.cli.common import (
    BackgroundOption,
    ColorOption,
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
    open_to_write,
    parse_size,
    print_result,
    print_table,
    progress,
    quoted,
    say,
)

if TYPE_CHECKING:
    from keras_vae.data.dataset import Dataset

# The help lists the plots as text because their registry takes too long to import; the tests compare the two.
KindArgument = Annotated[
    str,
    typer.Argument(
        metavar="KIND",
        help="grid, samples, neighbors, reconstructions, worst-reconstructions, latents, traversals, interpolation, "
        "kl-per-dimension, curves or rate-distortion.",
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
            help="A .png file, or a .gif file for traversals and interpolation. Default: figures/KIND.png in the run.",
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
    from keras_vae.report import plots
    from keras_vae.report.context import PlotContext
    from keras_vae.runs.run import Run

    check_out(out, (".png", ".gif"), force)
    values = {"n": n, "bounds": bounds, "dims": dims, "spherical": spherical, "seed": seed, "label": label}
    options: dict[str, Any] = {name: value for name, value in values.items() if value is not None}
    plots.check_options(kind, options)
    opened = open_to_write(run) if out is None else Run.open(run)
    if label is not None:
        options["label"] = class_name(opened, label)
    if kind not in plots.METRICS_PLOTS:
        import_keras()
    out = out or opened.figure_path(kind)
    plots.plot(PlotContext(opened, progress=progress()), kind, out=out, **options)
    print(out)


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
    opened = open_to_write(run) if out is None else Run.open(run)
    label = class_name(opened, label)
    import_keras()
    import numpy as np

    from keras_vae.core.files import replacing
    from keras_vae.report import figures

    out = out or opened.figure_path("image-grid")
    model = opened.load_model(None if prior is None else prior.value)
    if not opened.is_complete:
        done, epochs = len(opened.metrics.get("epoch", ())), opened.experiment.training.epochs
        say(f"training of {opened.path} is unfinished: sampling from the model after epoch {done} of {epochs}")
    images = model.sample(n, seed=seed, condition=label)
    if out.suffix == ".npz":
        with replacing(out) as temporary:
            np.savez(temporary, images=images)
    else:
        figures.save_images(images, out)
    print(out)


def info(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show the data, progress and results of a run."""
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
    print(f"made with  keras-vae {environment['versions']['keras-vae']}, {environment['backend']}")
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
        str | None, typer.Argument(metavar="[SOURCE]", help="A source to describe: a name, a file or a folder.")
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
    loaded = sources.load(
        source,
        image_size=None if image_size is None else parse_size(image_size),
        color=None if color is None else color.value,
        fit="crop" if fit is None else fit.value,
        background=background,
        scale=scale,
        skip_broken=skip_broken,
        progress=progress(),
    )
    for note in loaded.notes:
        say(note)
    parts = (loaded.train, loaded.validation, loaded.test)
    rows = [_describe(dataset) for dataset in parts if dataset is not None]
    if as_json:
        print(json.dumps(rows))
    else:
        for row in rows:
            print_table((key, str(value)) for key, value in row.items())


def _describe(dataset: "Dataset") -> dict[str, Any]:
    return {
        "name": dataset.name,
        "split": dataset.split,
        "images": len(dataset),
        "image_shape": dataset.image_shape,
        "classes": None if dataset.labels is None else len(set(dataset.labels.tolist())),
        "checksum": dataset.checksum,
    }
