"""Commands that show: a run, its model's images, what there is to train, and on what."""

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from keras_vae.cli.common import (
    BackgroundOption,
    ColorOption,
    ForceOption,
    ImageSizeOption,
    JsonOption,
    LabelOption,
    PriorOption,
    RunArgument,
    SeedOption,
    check_out,
    import_keras,
    label_number,
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


class Plot(StrEnum):
    """What `vae plot` draws."""

    GRID = "grid"
    SAMPLES = "samples"
    NEIGHBORS = "neighbors"
    RECONSTRUCTIONS = "reconstructions"
    WORST = "worst"
    LATENTS = "latents"
    TRAVERSALS = "traversals"
    INTERPOLATION = "interpolation"
    RATES = "rates"
    CURVES = "curves"
    RATE_DISTORTION = "rate_distortion"


def plot(
    run: RunArgument,
    kind: Annotated[Plot, typer.Argument(help="What to draw.")],
    out: Annotated[
        Path | None,
        typer.Option(help="A .png; for traversals and interpolation also a .gif. Default: in the run's figures."),
    ] = None,
    n: Annotated[int | None, typer.Option("-n", "--n", help="Images a side (grid), or how many.")] = None,
    bounds: Annotated[
        tuple[float, float] | None,
        typer.Option(
            "--range", metavar="LOW HIGH", help="grid: least and greatest z. Default: cells as probable as each other."
        ),
    ] = None,
    dims: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="I J", help="grid, latents: two dimensions, else those that carry most."),
    ] = None,
    spherical: Annotated[
        bool | None, typer.Option("--spherical", help="interpolation: on great circles, not straight lines.")
    ] = None,
    seed: SeedOption = None,
    label: LabelOption = None,
    force: ForceOption = False,
) -> None:
    """Draw a figure of a run and print where it is."""
    from keras_vae.runs.run import Run

    check_out(out, (".png", ".gif"), force)
    opened = open_to_write(run) if out is None else Run.open(run)
    given = {"n": n, "bounds": bounds, "dims": dims, "spherical": spherical, "seed": seed}
    if kind not in (Plot.CURVES, Plot.RATE_DISTORTION):
        import_keras()
    from keras_vae.report import plots

    options = {
        name: value for name, value in {**given, "label": label_number(opened, label)}.items() if value is not None
    }
    subject = plots.Subject(opened, progress=progress())
    print(plots.draw(subject, kind.value, out or opened.figure_path(kind.value), **options))


def sample(
    run: RunArgument,
    n: Annotated[int, typer.Option("-n", "--n", help="How many.")] = 64,
    seed: SeedOption = None,
    label: LabelOption = None,
    prior: PriorOption = None,
    out: Annotated[
        Path | None, typer.Option(help="A .png sheet, or a .npz of floats. Default: in the run's figures.")
    ] = None,
    force: ForceOption = False,
) -> None:
    """Draw images from the prior and print where they are."""
    from keras_vae.runs.run import Run

    check_out(out, (".png", ".npz"), force)
    opened = open_to_write(run) if out is None else Run.open(run)
    import_keras()
    import numpy as np

    from keras_vae.core.files import replacing
    from keras_vae.report import figures

    out = out or opened.figure_path("sheet")
    model = opened.load_model(prior=None if prior is None else prior.value)
    images = model.sample(n, seed=seed, condition=label_number(opened, label))
    if out.suffix == ".npz":
        with replacing(out) as temporary:
            np.savez(temporary, images=images)
    else:
        figures.save_images(images, out)
    print(out)


def info(run: RunArgument, as_json: JsonOption = False) -> None:
    """Show what a run is, how far it is, and its numbers."""
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
    state = "complete" if opened.is_complete else f"interrupted: go on with `vae train --resume {quoted(run)}`"
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
    source: Annotated[str | None, typer.Argument(help="A source to look into: a name, a file or a folder.")] = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    background: BackgroundOption = None,
    as_json: JsonOption = False,
) -> None:
    """List the data sources, or look into one without training on it."""
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
        background=background,
        progress=progress(),
    )
    for note in loaded.notes:
        say(note)
    rows = [_describe(dataset) for dataset in (loaded.train, loaded.test) if dataset is not None]
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
