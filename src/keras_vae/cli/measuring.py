"""Commands that measure: how good a model is, which of several is better, and what is wrong with one."""

import json
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from keras_vae.cli.common import (
    Backend,
    BackgroundOption,
    ColorOption,
    ImageSizeOption,
    JsonOption,
    PriorOption,
    RunArgument,
    import_keras,
    load_own_splits,
    open_to_write,
    print_result,
    progress,
    say,
    with_data,
)
from keras_vae.core.errors import InputError


class Scored(StrEnum):
    """Which images `vae evaluate` compares with real ones."""

    MEANS = "means"
    DRAWS = "draws"


class Features(StrEnum):
    """By what `vae evaluate` compares images."""

    CLASSIFIER = "classifier"
    RANDOM = "random"
    INCEPTION = "inception"


def evaluate(
    run: RunArgument,
    only: Annotated[
        str | None,
        typer.Option(metavar="STAGE,STAGE", help="Some of likelihood, latents, samples, disentanglement."),
    ] = None,
    samples: Annotated[int, typer.Option(metavar="K", help="Draws an image for nll.")] = 1000,
    generated: Annotated[int, typer.Option(metavar="N", help="Images generated to be compared with real ones.")] = (
        10_000
    ),
    scored: Annotated[Scored, typer.Option(help="Compare mean images, or draws of pixels.")] = Scored.MEANS,
    features: Annotated[
        Features | None, typer.Option(help="Compare images by. Default: a classifier, where there are labels.")
    ] = None,
    seed: Annotated[int | None, typer.Option(min=0, max=2**31 - 1, help="Default: the run's own.")] = None,
    prior: PriorOption = None,
    data: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Other images than the run's: measured, and kept apart.")
    ] = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    background: BackgroundOption = None,
    backend: Annotated[
        Backend | None, typer.Option(help="What to compute with. Default: what it was trained with.")
    ] = (None),
    as_json: JsonOption = False,
) -> None:
    """Measure how good a model is on images held out, and write the numbers into the run."""
    from keras_vae.data.dataset import Splits
    from keras_vae.evaluation.evaluate import Request
    from keras_vae.evaluation.evaluate import evaluate as measure
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    stages = tuple(stage.strip() for stage in only.split(",") if stage.strip()) if only else ()
    request = Request(
        samples=samples,
        generated=generated,
        scored=scored.value,
        features=None if features is None else features.value,
        seed=opened.experiment.seed if seed is None else seed,
    )
    loaded, on = None, None
    if data is not None:
        loaded = with_data(opened.experiment, data, image_size, color, background).load_source(progress())
    splits = load_own_splits(opened)
    opened.check_images(splits)
    if data is not None and loaded is not None:
        images = loaded.test or loaded.train
        # Without positions they are drawn in black and white as the test images of a source are.
        measured = replace(images, split="test" if loaded.test else "all", positions=None)
        splits, on = Splits(splits.train, splits.validation, measured), Path(data).stem
        stages = stages or ("likelihood",)
    opened = open_to_write(run)
    import_keras(backend or Backend(opened.environment["backend"]))
    model = opened.load_model(None if prior is None else prior.value)
    result = measure(
        opened,
        splits,
        only=stages,
        request=request,
        prior=None if prior is None else prior.value,
        model=model,
        on=on,
        progress=progress(),
    )
    if on is None:
        from keras_vae.report.report import write_page

        write_page(opened, model, splits, progress=progress())
    if as_json:
        print(json.dumps(result))
    else:
        print_result(opened, result)


def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN…", help="Run folders.")],
    out: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Write the table and the overlaid curves there.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into a folder that exists.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare runs in one table; only what was measured alike is ranked."""
    from keras_vae.evaluation.comparison import compare
    from keras_vae.runs.run import Run

    comparison = compare([Run.open(run) for run in runs])
    if out is not None:
        if out.exists() and not force:
            raise InputError(f"--out {out} exists: choose another folder, or write into it with --force")
        from keras_vae.report import figures

        comparison.write(out)
        figures.save(figures.overlay(comparison.metrics), out / "curves.png")
        say(f"written to {out}")
    print(json.dumps(comparison.to_json()) if as_json else comparison.to_text())


def doctor(run: RunArgument, as_json: JsonOption = False) -> None:
    """Say what is wrong with a run, why it matters, and what to change."""
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    splits = load_own_splits(opened)
    import_keras(Backend(opened.environment["backend"]))
    from keras_vae.evaluation.diagnostics import CHECKS, diagnose

    findings = diagnose(opened, splits, progress=progress())
    if as_json:
        print(json.dumps([finding._asdict() for finding in findings]))
        return
    for finding in findings:
        print(finding)
    if not findings:
        print(f"No problems found ({len(CHECKS)} checks passed)")
