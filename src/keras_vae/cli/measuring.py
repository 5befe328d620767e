"""Commands that evaluate a model, compare runs and diagnose problems."""

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from keras_vae.cli import completion
from keras_vae.cli.common import (
    Backend,
    BackgroundOption,
    ColorOption,
    DevicesOption,
    FitOption,
    ImageSizeOption,
    JsonOption,
    PartOption,
    PriorOption,
    RunArgument,
    ScaleOption,
    SkipBrokenOption,
    hold,
    import_keras,
    load_model,
    load_own_splits,
    open_to_write,
    print_result,
    progress,
    say,
    say_part,
    with_data,
)
from keras_vae.core.errors import InputError, unknown
from keras_vae.core.locks import locked
from keras_vae.core.parts import Part

if TYPE_CHECKING:
    from keras_vae.data.dataset import LoadedData, Splits
    from keras_vae.evaluation.evaluate import EvaluationConfig

# The help lists accepted values as text because the registries take too long to import; the tests compare the two.
StagesOption = Annotated[
    str | None,
    typer.Option(
        metavar="STAGE,…",
        help="Stages, separated by commas: likelihood, latents, samples, image-quality, disentanglement. Default: all "
        "that apply.",
        autocompletion=completion.in_list("likelihood", "latents", "samples", "image-quality", "disentanglement"),
    ),
]
SamplesOption = Annotated[
    int | None, typer.Option(metavar="K", help="Importance samples per image for nll. Default: 1000.")
]
ProposalOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Distribution of the importance samples: mixture (finds modes that the encoder misses), posterior (plain, "
        "as in most publications) or ais (annealed chains, for few --samples). Default: mixture if the code is a "
        "vector, else posterior.",
        autocompletion=completion.words("mixture", "posterior", "ais"),
    ),
]
NumGeneratedOption = Annotated[
    int | None, typer.Option(metavar="N", help="Generated images to compare with real images. Default: 10000.")
]
ImagesOption = Annotated[
    str | None,
    typer.Option(
        metavar="means|draws",
        help="Generate mean images, or pixels drawn from the likelihood. Default: means.",
        autocompletion=completion.words("means", "draws"),
    ),
]
FeaturesOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Features to compare images by: classifier, random or inception. Default: classifier if the images are "
        "labeled, else random.",
        autocompletion=completion.words("classifier", "random", "inception"),
    ),
]


def evaluate(
    run: RunArgument,
    stages: StagesOption = None,
    samples: SamplesOption = None,
    proposal: ProposalOption = None,
    num_generated: NumGeneratedOption = None,
    images: ImagesOption = None,
    features: FeaturesOption = None,
    seed: Annotated[
        int | None, typer.Option(min=0, max=2**31 - 1, help="Random seed. Default: the run's seed.")
    ] = None,
    prior: PriorOption = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="SOURCE",
            help="Evaluate on other images; the results are written to a separate file.",
            autocompletion=completion.sources,
        ),
    ] = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    fit: FitOption = None,
    background: BackgroundOption = None,
    scale: ScaleOption = None,
    skip_broken: SkipBrokenOption = False,
    backend: Annotated[Backend | None, typer.Option(help="Backend. Default: the backend of the training.")] = None,
    devices: DevicesOption = None,
    part: PartOption = None,
    force: Annotated[
        bool, typer.Option("--force", help="Discard parts that were measured with other settings.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Evaluate a model on held-out images and write the results into the run.

    With --part, only nll is measured, on a part of the images; all other numbers follow when the parts are merged.
    """
    from keras_vae.data.sources import load_source
    from keras_vae.evaluation.evaluate import evaluate, has_log_prior, likelihood_folder
    from keras_vae.runs.run import Run

    opened, chosen_part = Run.open(run), Part.of(part, "--part")
    config = _config(
        samples=samples,
        proposal=proposal,
        num_generated=num_generated,
        images=images,
        features=features,
        seed=seed,
    )
    chosen = tuple(stage.strip() for stage in (stages or "").split(",") if stage.strip())
    other = (
        None
        if data is None
        else with_data(opened.experiment, data, image_size, color, background, fit, scale, skip_broken)
    )
    loaded = None if other is None else load_source(other.data, progress())
    for note in loaded.notes if loaded is not None else ():
        say(note)
    splits = load_own_splits(opened)
    opened.require_same_images(splits)
    opened = open_to_write(run, lock=chosen_part is None)
    import_keras(backend or Backend(opened.environment["backend"]), devices)
    model = load_model(opened, prior)
    if not (chosen or has_log_prior(model)):
        say(
            f"likelihood, latents: left out, because the prior has no log-density in {model.latent_dim} dimensions; "
            "measure them with --prior original"
        )
    measured = splits if loaded is None else _with_test_images(splits, loaded)
    stored: dict[str, Any] = {
        "prior": None if prior is None else prior.value,
        "model": model,
        "on": None if data is None else Path(data).stem,
    }
    result = evaluate(
        opened,
        measured,
        config=config,
        stages=chosen if loaded is None else chosen or ("likelihood",),
        part=chosen_part,
        force=force,
        progress=progress(),
        **stored,
    )
    if chosen_part is not None:
        say_part(chosen_part, likelihood_folder(opened, measured, config, **stored))
        return
    if data is None:
        from keras_vae.report.report import write_report

        write_report(opened, splits, model=model, progress=progress())
    if as_json:
        print(json.dumps(result))
    else:
        print_result(opened, result)


def _config(**options: Any) -> "EvaluationConfig":
    """Return the settings of an evaluation from those options that are not None."""
    from keras_vae.evaluation.evaluate import EvaluationConfig

    hints = get_type_hints(EvaluationConfig)
    for option, field in (("--proposal", "proposal"), ("--images", "images"), ("--features", "features")):
        accepted = _literals(hints[field])
        if options[field] is not None and options[field] not in accepted:
            raise unknown(option, options[field], accepted)
    return EvaluationConfig(**{name: value for name, value in options.items() if value is not None})


def _literals(annotation: Any) -> list[str]:
    """Return the strings of a `Literal`, which may be optional."""
    return [value for part in (annotation, *get_args(annotation)) for value in get_args(part) if isinstance(value, str)]


def _with_test_images(splits: "Splits", loaded: "LoadedData") -> "Splits":
    """Return a run's splits with other images in place of the test images."""
    images = loaded.test or loaded.validation or loaded.train
    # Without positions, the images are binarized in the same way as the test images of a source.
    test = replace(images, split="all" if images is loaded.train else images.split, positions=None)
    return splits._replace(test=test)


def compare(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN RUN…",
            help="At least two run folders or pretrained runs.",
            autocompletion=completion.runs,
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Write the table and a figure of the training curves into this folder."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Write into an existing folder.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compare runs in one table; rank only results that were measured in the same way."""
    from keras_vae.evaluation.comparison import compare

    comparison = compare(runs)
    if out is not None:
        hold(locked(out, argument="--out"))
        if out.exists() and not force:
            raise InputError(f"--out = {out}: the folder exists; choose another folder, or write into it with --force")
        from keras_vae.report import figures

        comparison.write(out)
        figures.save(figures.overlay(comparison.metrics), out / "curves.png")
        say(f"comparison written to {out}")
    print(json.dumps(comparison.to_json()) if as_json else comparison)


def doctor(run: RunArgument, as_json: JsonOption = False) -> None:
    """Find problems of a run, explain them, and suggest which settings to change."""
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
