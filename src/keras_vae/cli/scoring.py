"""The command `vae score`: anomaly scores of images, as a table and a page, or of files as they arrive."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from keras_vae.cli import completion
from keras_vae.cli.common import (
    BackgroundOption,
    ColorOption,
    DevicesOption,
    FitOption,
    ForceTableOption,
    ImageSizeOption,
    PartOption,
    RunArgument,
    ScaleOption,
    SeedOption,
    SkipBrokenOption,
    check_out,
    import_keras,
    load_own_splits,
    say,
    working,
)
from keras_vae.cli.using import (
    ConditionOption,
    DataOption,
    check_table,
    condition_of_blocks,
    name_and_label,
    open_images,
    write_table,
)
from keras_vae.core.errors import InputError, unknown
from keras_vae.core.parts import Part

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from keras_vae.core.typing import Array
    from keras_vae.data.streams import Block, Stream
    from keras_vae.evaluation.anomaly import Scorer
    from keras_vae.models.base import BaseVAE
    from keras_vae.report.score_page import ScoredImage
    from keras_vae.runs.run import Run

# The help lists the scores as text because their registry takes too long to import; the tests compare the two.
ScoreOption = Annotated[
    str | None,
    typer.Option(
        metavar="SCORE",
        help="Score of the ranking and the threshold: nll, negative_elbo, reconstruction_loss, kl_loss or typicality. "
        "Default: nll, or negative_elbo if the model has no nll.",
        autocompletion=completion.words("nll", "negative_elbo", "reconstruction_loss", "kl_loss", "typicality"),
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
WatchOption = Annotated[
    Path | None,
    typer.Option(
        metavar="FOLDER",
        help="Score the images of a folder and then new files as they arrive, until Ctrl-C; appends to a .csv file.",
    ),
]

MOST_ANOMALOUS = 5
"""Number of images that the command prints."""


def score(
    run: RunArgument,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="A .csv, .npz or .parquet file; a .html page is written next to it.")
    ],
    data: DataOption = None,
    watch: WatchOption = None,
    label: ConditionOption = None,
    score: ScoreOption = None,
    samples: Annotated[int, typer.Option(metavar="K", min=1, help="Importance samples per image.")] = 64,
    threshold: ThresholdOption = None,
    heat_maps: HeatMapsOption = None,
    n: Annotated[
        int, typer.Option("-n", "--n", metavar="N", min=1, max=200, help="Number of images on the page.")
    ] = 20,
    seed: SeedOption = None,
    part: PartOption = None,
    image_size: ImageSizeOption = None,
    color: ColorOption = None,
    fit: FitOption = None,
    background: BackgroundOption = None,
    scale: ScaleOption = None,
    skip_broken: SkipBrokenOption = False,
    devices: DevicesOption = None,
    force: ForceTableOption = False,
) -> None:
    """Compute anomaly scores of images, with their percentiles among the scores of training images."""
    from keras_vae.evaluation.anomaly import SCORES

    if score is not None and score not in SCORES:
        raise unknown("--score", score, SCORES)
    settings, chosen = Settings(score, samples, threshold, seed, label, devices), Part.of(part, "--part")
    if watch is not None:
        from keras_vae.cli.watching import watch_folder

        others = {"--data": data, "--heat-maps": heat_maps, "--part": chosen}
        for option in (name for name, value in others.items() if value is not None):
            raise InputError(f"{option}: not available with --watch; leave it out, or score the folder with --data")
        watch_folder(run, watch, out, settings, (image_size, color, background, fit, scale), force)
        return
    if chosen is not None and heat_maps is not None:
        raise InputError("--heat-maps: plotted when the parts are merged; leave it out with --part")
    page = out.with_suffix(".html")
    check_table(out, force, chosen)
    check_out(page, (".html",), force, lock=chosen is None)
    check_out(heat_maps, (".png",), force)
    opened, stream = open_images(run, data, image_size, color, background, fit, scale, skip_broken)
    scoring = Scoring.fit(opened, settings)
    condition = condition_of_blocks(opened, scoring.model, stream, label)

    def columns(block: "Block") -> dict[str, Any]:
        return name_and_label(stream, block) | scoring.columns(block.images, condition(block))

    key = {"label": label, "seed": scoring.scorer.seed, "samples": samples, "score": scoring.score}
    write_table(opened, stream, out, "scoring", columns, chosen, force, **key, threshold=threshold)
    if chosen is not None:
        return
    print(out)
    if scoring.limit is not None:
        say(f"anomaly: {scoring.describe_limit()}")

    images = _rank(scoring, stream, condition, out, n)
    say_highest(images, scoring.score)
    if heat_maps is not None:
        highest = f"the {len(images)} of {len(stream):,} images with the highest {scoring.score}"
        title = f"{opened.name}: {highest}, and their percentiles"
        _plot_heat_maps(images, title, heat_maps)
        print(heat_maps)
    _write_page(opened, scoring, images, out, data, page)
    print(page)


def _rank(
    scoring: "Scoring", stream: "Stream", condition: "Callable[[Block], Any]", table: Path, n: int
) -> "list[ScoredImage]":
    """Return the n images with the highest scores in a table."""
    import numpy as np

    from keras_vae.core import tables

    scores = tables.read_column(table, scoring.score)
    # NaN counts as the highest score.
    ranked = np.argsort(-np.nan_to_num(scores, nan=np.inf), kind="stable")[:n]
    highest = stream.subset(ranked)
    # A score read from a text file is rounded, which changes the percentile of a training image.
    percentiles = tables.read_column(table, f"{scoring.score}_percentile")[ranked]
    return scoring.explain(highest, scores[ranked], percentiles, condition(highest), stream.classes)


class Settings(NamedTuple):
    """Options of the command that determine the scores, and the devices that compute them.

    Args:
        score: Name of the score that ranks images; None for the first that the model has.
        samples: Importance samples per image.
        threshold: Fraction of the training images whose score may exceed the threshold; None for no threshold.
        seed: Seed of the draws; None for that of the run.
        label: Label of all images; None for their own.
        devices: Value of `--devices`; the scores depend on it by rounding only.
    """

    score: str | None
    samples: int
    threshold: float | None
    seed: int | None
    label: str | None
    devices: str | None = None


class Scoring(NamedTuple):
    """A scorer fitted to the training images of a run, and the score that ranks images.

    Args:
        scorer: The scorer.
        score: Name of the score that ranks images.
        rate: Fraction of the training images whose score may exceed the threshold, or None.
    """

    scorer: "Scorer"
    score: str
    rate: float | None

    @classmethod
    def fit(cls, run: "Run", settings: Settings) -> "Scoring":
        """Load the model and the training images of a run, and compute the scores of these images."""
        from keras_vae.evaluation.anomaly import REFERENCE_IMAGES, Scorer

        splits = load_own_splits(run)
        run.require_same_images(splits)
        import_keras(devices=settings.devices)
        from keras_vae.models.inputs import dataset_condition
        from keras_vae.runs.loading import load_scoring_model

        with working(f"loading {run.name}"):
            model, note = load_scoring_model(run)
        if note:
            say(f"{run.path}: {note}")
        reference = splits.train.subsample_evenly(REFERENCE_IMAGES)
        seed = run.experiment.seed if settings.seed is None else settings.seed
        condition = dataset_condition(model, reference)
        with working(f"scoring {len(reference):,} training images"):
            scorer = Scorer.fit(model, reference.images, condition=condition, samples=settings.samples, seed=seed)
        score = settings.score or next(iter(scorer.reference))
        if score not in scorer.reference:
            raise unknown("--score", score, scorer.reference)
        return cls(scorer, score, settings.threshold)

    @property
    def model(self) -> "BaseVAE":
        """The model."""
        return self.scorer.model

    @property
    def limit(self) -> float | None:
        """The score above which an image is marked as an anomaly, or None."""
        return None if self.rate is None else self.scorer.threshold(self.score, self.rate)

    def describe_limit(self) -> str:
        """Return a description of the threshold."""
        return f"{self.score} above {self.limit:.2f} nats, which {self.rate:.1%} of the training images exceed"

    def columns(self, images: "Array", condition: Any) -> dict[str, Any]:
        """Return the scores of images, their percentiles and, given a threshold, whether each is an anomaly."""
        scores, limit = self.scorer(images, condition=condition), self.limit
        percentiles = {f"{name}_percentile": self.scorer.percentile(name, values) for name, values in scores.items()}
        return {**scores, **percentiles, **({} if limit is None else {"anomaly": scores[self.score] > limit})}

    def explain(
        self, block: "Block", scores: "Array", percentiles: "Array", condition: Any, classes: "Sequence[str]"
    ) -> "list[ScoredImage]":
        """Return images with their scores, reconstructions and errors per pixel.

        Args:
            block: The images, highest score first.
            scores: Their scores.
            percentiles: Their percentiles.
            condition: Their condition, if the model has one.
            classes: Names of the classes of their labels.
        """
        from keras_vae.evaluation.anomaly import error_map
        from keras_vae.report.score_page import ScoredImage

        reconstructions = self.model.reconstruct(block.images, condition=condition)
        errors = error_map(block.images, reconstructions)
        labels: list[str | None] = [None] * len(scores)
        if block.labels is not None:
            labels = [str(classes[label]) if classes else str(label) for label in block.labels.tolist()]
        return [
            ScoredImage(
                block.names[row],
                labels[row],
                float(scores[row]),
                float(percentiles[row]),
                block.images[row],
                reconstructions[row],
                errors[row],
            )
            for row in range(len(scores))
        ]


def say_highest(images: "Sequence[ScoredImage]", score: str) -> None:
    """Print the names, scores and percentiles of the most anomalous images."""
    shown = images[:MOST_ANOMALOUS]
    say(f"highest {score}, in nats:")
    width, digits = max(len(image.name) for image in shown), max(len(f"{image.score:.2f}") for image in shown)
    for image in shown:
        say(f"  {image.name:{width}}  {image.score:{digits}.2f}  percentile {image.percentile:.1f}")


def _plot_heat_maps(images: "Sequence[ScoredImage]", title: str, out: Path) -> None:
    import numpy as np

    from keras_vae.report import figures

    figure = figures.heat_maps(
        np.stack([image.image for image in images]),
        np.stack([image.reconstruction for image in images]),
        np.stack([image.error for image in images]),
        title=title,
        captions=[(image.name, f"{image.score:,.1f} nats, {image.percentile:.1f} %") for image in images],
    )
    figures.save(figure, out)


def _write_page(
    run: "Run", scoring: Scoring, images: "Sequence[ScoredImage]", table: Path, data: str | None, out: Path
) -> None:
    from keras_vae.core import tables
    from keras_vae.core.files import printable, write_text
    from keras_vae.report.score_page import render_scores

    text = render_scores(
        title=f"Anomaly scores of {run.name}",
        source=printable(data or run.experiment.data.source),
        score=scoring.score,
        images=images,
        scores=tables.read_column(table, scoring.score),
        reference=scoring.scorer.reference[scoring.score],
        limit=scoring.limit,
        rate=scoring.rate,
    )
    write_text(out, text)
