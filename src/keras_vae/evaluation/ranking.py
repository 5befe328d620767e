"""Ranking of one number over several runs, with the standard errors of its differences."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.typing import Array
from keras_vae.evaluation.per_image import mean_and_error

TIE = 2.0
"""Number of standard errors of a difference within which two numbers tie."""

DIFFERENT = {
    "split": "on different splits",
    "held_out": "partly on training images",
    "checksum": "on different images",
    "images": "on different numbers of images",
    "condition": "under different conditions",
    "likelihood": "under different likelihoods",
    "binarization": "on images that were binarized differently",
    "normalized": "partly under likelihoods that are not normalized",
    "density": "partly as densities of gray values",
    "bound": "partly with codes that give no bound",
    "proposal": "with different proposals",
    "samples": "with different numbers of samples",
    "training_checksum": "against different training images",
    "images_scored": "on different kinds of generated images",
    "features": "with different features",
    "perceptual_features": "in different networks",
    "num_codes": "with different numbers of codes",
    "probe_images": "with different numbers of images for the probe",
    "neighbors": "with different numbers of neighbors",
    "bins": "with different numbers of bins",
}
"""How numbers were measured if they differ in a key of their section."""

_OTHER_IMAGES = {"checksum", "images"}
_IMAGES = ("split", "held_out", "checksum", "images")
_LIKELIHOOD = (*_IMAGES, "condition", "likelihood", "binarization", "normalized", "density", "bound")
_SAMPLES = (*_IMAGES, "training_checksum", "samples", "images_scored", "binarization", "features")
_QUALITY = (*_IMAGES, "condition")
_SCORES = (*_IMAGES, "bins")


class Column(NamedTuple):
    """A number to compare.

    Args:
        section: The section of `evaluation.json` that contains the number.
        name: The key of the number in that section; a dot separates the keys of nested numbers.
        better: -1 if lower is better, 1 if higher is better, 0 if neither is.
        same: The keys of the section that must have equal values for the number to be ranked.
        values: The name of the per-image values of which the number is the mean, or a constant multiple of the mean;
            None if the number is not a mean over images.
    """

    section: str
    name: str
    better: int
    same: tuple[str, ...]
    values: str | None = None


COLUMNS = (
    Column("likelihood", "nll", -1, (*_LIKELIHOOD, "proposal", "samples"), "nll"),
    Column("likelihood", "bits_per_dim", -1, (*_LIKELIHOOD, "proposal", "samples"), "nll"),
    Column("likelihood", "negative_elbo", -1, _LIKELIHOOD, "negative_elbo"),
    Column("likelihood", "reconstruction_loss", 0, _LIKELIHOOD),
    Column("likelihood", "kl_loss", 0, _LIKELIHOOD),
    Column("latents", "active_units", 0, _IMAGES),
    Column("latents", "mutual_information_bounds.lower", 0, _IMAGES),
    Column("latents", "mutual_information_bounds.upper", 0, _IMAGES),
    Column("latents", "knn_accuracy", 1, (*_IMAGES, "probe_images", "neighbors"), "knn_accuracy"),
    Column("latents", "linear_probe_accuracy", 1, (*_IMAGES, "probe_images"), "linear_probe_accuracy"),
    *(Column("samples", name, -1, _SAMPLES) for name in ("frechet_distance", "kid")),
    *(Column("samples", name, 1, _SAMPLES) for name in ("precision", "recall", "density", "coverage")),
    Column("image_quality", "psnr", 1, _QUALITY, "psnr"),
    Column("image_quality", "ssim", 1, _QUALITY, "ssim"),
    Column("image_quality", "perceptual_distance", -1, (*_QUALITY, "perceptual_features"), "perceptual_distance"),
    Column("image_quality", "reconstruction_frechet_distance", -1, (*_QUALITY, "features")),
    Column("image_quality", "code_usage", 1, (*_QUALITY, "num_codes")),
    *(
        Column("disentanglement", name, 1, _SCORES)
        for name in ("mig", "dci_disentanglement", "sap", "modularity", "factor_vae", "beta_vae")
    ),
)


class MeasuredRun(NamedTuple):
    """An evaluated run.

    Args:
        name: Its name in the table.
        evaluation: The content of its `evaluation.json`.
        per_image: Its per-image values by section and name.
    """

    name: str
    evaluation: Mapping[str, Any]
    per_image: Mapping[str, Mapping[str, Array]]


class Difference(NamedTuple):
    """The difference of a number from that of the best run.

    Args:
        mean: The number minus the number of the best run.
        standard_error: Its standard error, if known.
        paired: Whether the error is that of the differences image by image.
    """

    mean: float
    standard_error: float | None
    paired: bool

    @property
    def is_tie(self) -> bool:
        """Whether the difference is within two standard errors."""
        return self.standard_error is not None and abs(self.mean) <= TIE * self.standard_error


class Cell(NamedTuple):
    """A number of one run.

    Args:
        mean: The number.
        standard_error: Its standard error, if known.
        best: Whether the number is the best, or ties with the best.
        difference: The difference from the best run; None for the best run itself, and for numbers that are not ranked.
    """

    mean: float
    standard_error: float | None
    best: bool = False
    difference: Difference | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the fields for programs."""
        return {**self._asdict(), "difference": self.difference and self.difference._asdict()}


class Ranking(NamedTuple):
    """A number of all runs.

    Args:
        cells: One per run; None if the run does not have the number.
        not_ranked: The reason why the number is not ranked; None if it is.
        notes: The reasons why numbers of single runs are not ranked or not marked.
        without_values: The names of the runs whose missing per-image values made errors unpaired.
    """

    cells: tuple[Cell | None, ...]
    not_ranked: str | None = None
    notes: tuple[str, ...] = ()
    without_values: tuple[str, ...] = ()


def rank(column: Column, runs: Sequence[MeasuredRun]) -> Ranking:
    """Rank one number of several runs, if it was measured in the same way.

    Args:
        column: The number.
        runs: The evaluated runs.

    Returns:
        The cells, in the order of the runs, with their differences from the best run.
    """
    numbers = [_number(column, run) for run in runs]
    found = [number for number in numbers if number is not None]
    if not column.better or len(found) < 2:
        return Ranking(_cells(numbers))
    notes = [f"{column.name} of {number.run.name} is not ranked: {number.defect}" for number in found if number.defect]
    sound = [number for number in found if not number.defect]
    differing = [key for key in column.same if len({_canonical(number.section.get(key)) for number in sound}) > 1]
    not_ranked = _difference_in_measurement(differing, sound) if differing else None
    # Means over different images still have differences with valid, unpaired errors.
    has_differences = not differing or (column.values is not None and _OTHER_IMAGES.issuperset(differing))
    if len(sound) < 2 or not has_differences:
        return Ranking(_cells(numbers), not_ranked, tuple(notes))
    if differing:
        sound = [number._replace(values=None) for number in sound]
    leader = max(sound, key=lambda number: column.better * number.mean)
    differences = {number.run.name: _difference(number, leader) for number in sound if number is not leader}
    if differing:
        unpaired = f"{not_ranked}; their differences have unpaired errors"
        return Ranking(_cells(numbers, differences=differences), unpaired, tuple(notes))
    unknown = [name for name, difference in differences.items() if difference.standard_error is None]
    if unknown:
        notes.append(f"{column.name} is not marked for {', '.join(unknown)}: the difference has no standard error")
    marked = {name for name, difference in differences.items() if difference.is_tie}
    if len(unknown) < len(differences):
        marked.add(leader.run.name)
    without_values = tuple(number.run.name for number in sound if column.values and number.values is None)
    return Ranking(_cells(numbers, differences, marked), None, tuple(notes), without_values)


class _Number(NamedTuple):
    """A number of one run, its section, its per-image values, if any, and the reason why it must not be ranked."""

    run: MeasuredRun
    section: Mapping[str, Any]
    mean: float
    standard_error: float | None
    values: NDArray[np.float64] | None
    defect: str | None


def _number(column: Column, run: MeasuredRun) -> _Number | None:
    """Return a number of a run, or None if the run does not have it."""
    section = run.evaluation.get(column.section, {})
    value: Any = section
    for key in column.name.split("."):
        value = (value or {}).get(key)
    mean, error = value, None
    if isinstance(value, Mapping):
        mean, error = value.get("mean", value.get("count")), value.get("standard_error")
    if mean is None:
        return None
    values = run.per_image.get(column.section, {}).get(column.values or "")
    doubles = None if values is None else values.astype("float64")
    if doubles is not None and column.values != column.name:
        # `bits_per_dim` is a constant multiple of `nll`.
        doubles = doubles * (mean / doubles.mean()) if doubles.mean() else None
    return _Number(run, section, float(mean), error, doubles, _defect(column, section, mean))


def _defect(column: Column, section: Mapping[str, Any], mean: float) -> str | None:
    if not math.isfinite(mean):
        return "it is not finite"
    if column.values == "nll" and section.get("trusted") is False:
        return "the estimate is unreliable"
    return None


def _difference(number: _Number, leader: _Number) -> Difference:
    """Return the difference of a number from the best one, image by image if both have per-image values."""
    mean = number.mean - leader.mean
    if number.values is not None and leader.values is not None:
        return Difference(mean, mean_and_error(number.values - leader.values)["standard_error"], paired=True)
    if number.standard_error is None or leader.standard_error is None:
        return Difference(mean, None, paired=False)
    return Difference(mean, math.hypot(number.standard_error, leader.standard_error), paired=False)


def _cells(
    numbers: Sequence[_Number | None], differences: Mapping[str, Difference] | None = None, marked: Collection[str] = ()
) -> tuple[Cell | None, ...]:
    differences = differences or {}
    return tuple(
        number and Cell(number.mean, number.standard_error, number.run.name in marked, differences.get(number.run.name))
        for number in numbers
    )


def _difference_in_measurement(differing: Sequence[str], numbers: "Sequence[_Number]") -> str:
    """Return how the measurements of several runs differ, by the first of the differing keys."""
    key = differing[0]
    # A checksum says nothing to a reader, but the numbers of images may.
    shown = ("images" if "images" in differing else None) if key.endswith("checksum") else key
    values = [f"{number.run.name}: {_short(number.section.get(shown), shown)}" for number in numbers] if shown else []
    listed = f" ({', '.join(values)})" if values else ""
    return f"measured {DIFFERENT[key]}{listed}"


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _short(value: Any, key: str) -> str:
    match value:
        case Mapping():
            return str(value.get("name", value))
        case bool():
            return f"{'' if value else 'not '}{key.replace('_', ' ')}"
        case int():
            return f"{value:,}"
        case None:
            return "none"
    return str(value)
