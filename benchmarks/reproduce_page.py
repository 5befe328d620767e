"""The part of docs/results.md that `python -m benchmarks.reproduce` writes, from the records alone."""

import functools
import math
import shlex
import statistics
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from benchmarks.reproduce_rows import NOT_MEASURED, ROWS, Row

START, END = "<!-- from here on written by benchmarks/reproduce.py -->", "<!-- to here -->"

Record = dict[str, Any]


class Measured(NamedTuple):
    """A measurement of one seed.

    Args:
        mean: The value.
        standard_error: Its standard error, or None.
    """

    mean: float
    standard_error: float | None


def decimals(error: float) -> int:
    """Return the number of decimals that a standard error supports, by the rule of the Particle Data Group.

    If the three leading digits of the error are below 355, two of them are printed, otherwise one; from 950 on, it is
    rounded up to the next power of ten and printed with two.

    Args:
        error: The standard error, positive.

    Example:
        >>> decimals(0.21), decimals(0.0044), decimals(0.96), decimals(12.0)
        (2, 3, 1, 0)
    """
    exponent = math.floor(math.log10(error))
    leading = round(error / 10.0**exponent * 100)
    digits = 2 if leading < 355 else 1
    return max(0, digits - 1 - exponent)


def formatted(value: Measured) -> str:
    """Return a measurement in words, without digits that its error does not support.

    Args:
        value: The measurement.

    Example:
        >>> formatted(Measured(82.0512, 0.2134)), formatted(Measured(0.09113, 0.00061)), formatted(Measured(97.3, 14.2))
        ('82.05 ± 0.21', '0.0911 ± 0.0006', '97 ± 14')
    """
    places = _places(value)
    error = "" if not value.standard_error else f" ± {value.standard_error:.{places}f}"
    return f"{value.mean:.{places}f}{error}"


def over_seeds(values: Sequence[Measured]) -> str:
    """Return the median over seeds, with the standard error of that seed, and the range over seeds.

    Args:
        values: The measurements of the seeds; of an even number, the lower median.

    Example:
        >>> over_seeds([Measured(82.31, 0.21), Measured(82.01, 0.21), Measured(82.05, 0.21)])
        '82.05 ± 0.21 (82.01 to 82.31)'
    """
    median = middle(values)
    if len(values) == 1:
        return formatted(median)
    places = _places(median)
    low, high = min(value.mean for value in values), max(value.mean for value in values)
    return f"{formatted(median)} ({low:.{places}f} to {high:.{places}f})"


def middle(values: Sequence[Measured]) -> Measured:
    """Return the measurement of the seed with the median; of an even number of seeds, the lower one."""
    median = statistics.median_low(value.mean for value in values)
    return next(value for value in values if value.mean == median)


def _places(value: Measured) -> int:
    # Without an error, three digits.
    return decimals(value.standard_error or abs(value.mean) / 30 or 0.01)


def records_of(row: Row, records: Iterable[Record], quick: bool = False) -> list[Record]:
    """Return the latest record of each seed of a row, measured with its present settings, in the order of seeds."""
    matching = {
        record["seed"]: record
        for record in records
        if record["row"] == row.name and record["key"] == row.key and record["quick"] == quick
    }
    return [matching[seed] for seed in sorted(matching)]


def measurements(records: Iterable[Record], metric: str) -> list[Measured]:
    """Return a measurement of each record.

    Args:
        records: Records of a row.
        metric: Path of the measurement, such as `"posterior.nll"`.
    """
    found = [functools.reduce(lambda table, name: table[name], metric.split("."), r["results"]) for r in records]
    return [Measured(value["mean"], value["standard_error"]) for value in found]


def content(records: Sequence[Record], *, quick: bool = False, rows: Sequence[Row] = ROWS) -> str:
    """Return the generated part of the page.

    Args:
        records: All records.
        quick: Whether to show the records of `--quick` instead of the others.
        rows: All rows.
    """
    by_row = [(row, records_of(row, records, quick)) for row in rows]
    measured = [(row, found) for row, found in by_row if found]
    parts = ["Measured with `--quick`: the numbers mean nothing."] if quick else []
    likelihoods = [_likelihood_cells(row, found) for row, found in measured if row.is_likelihood]
    if likelihoods:
        header = ("row", "published", "goal", "posterior, K = 5,000", "mixture, K = 1,000")
        parts.append(_table((*header, "effective sample size", "minutes per seed", "verdict"), likelihoods))
    others = [_score_cells(row, found) for row, found in measured if not row.is_likelihood]
    if others:
        header = ("row", "published", "goal", "measured", "other measurements", "minutes per seed", "verdict")
        parts.append(_table(header, others))
    parts += [_details(row, found) for row, found in measured]
    missing = [f"`{row.name}`: {row.title}. Goal: {row.goal}." for row, found in by_row if not found]
    parts.append("Not measured yet:\n\n" + "\n".join(f"* {line}" for line in (*missing, *NOT_MEASURED)))
    return "\n\n".join(parts)


def _likelihood_cells(row: Row, records: Sequence[Record]) -> list[str]:
    tighter = over_seeds(measurements(records, "mixture.nll")) if "mixture.nll" in row.metrics else "does not apply"
    return [
        _title(row),
        row.published,
        str(row.goal),
        over_seeds(measurements(records, row.goal.metric)),
        tighter,
        "; ".join(_sample_size(records, step.name) for step in row.steps if step.function == "likelihood"),
        _minutes(row, records),
        _verdict(row, records),
    ]


def _score_cells(row: Row, records: Sequence[Record]) -> list[str]:
    others = [f"{name} {over_seeds(measurements(records, metric))}" for metric, name in row.metrics.items()]
    return [
        _title(row),
        row.published,
        str(row.goal),
        over_seeds(measurements(records, row.goal.metric)),
        "; ".join(others),
        _minutes(row, records),
        _verdict(row, records),
    ]


def _title(row: Row) -> str:
    return f"`{row.name}`: {row.title}"


def _sample_size(records: Sequence[Record], step: str) -> str:
    """Return the median over seeds of the effective sample size: its median over images, and the 5th percentile."""
    sizes = [record["results"][step]["effective_sample_size"] for record in records]
    median, low = (statistics.median_low(size[name] for size in sizes) for name in ("median", "percentile_5"))
    trusted = all(record["results"][step]["trusted"] for record in records)
    return f"{_count(median)} ({_count(low)}), {step}{'' if trusted else ', not trusted'}"


def _count(number: float) -> str:
    """Return a number with two digits, or without decimals from ten on."""
    return f"{number:,.0f}" if number >= 9.95 else f"{number:.2g}"


def _minutes(row: Row, records: Sequence[Record]) -> str:
    """Return the median times of training and of all other steps, or of both if steps do both."""
    rest = [sum(minutes for name, minutes in record["minutes"].items() if name != "train") for record in records]
    # The time before a kill is not known, except for training.
    cut = any(count > 1 for record in records for name, count in record["starts"].items() if name != "train")
    others = f"{'at least ' if cut else ''}{statistics.median_low(rest):.0f}"
    trained = [record["minutes"]["train"] for record in records if "train" in record["minutes"]]
    return f"{statistics.median_low(trained):.0f} of training, {others} of evaluation" if trained else others


def _verdict(row: Row, records: Sequence[Record]) -> str:
    if len(records) < row.seeds:
        return f"{len(records)} of {row.seeds} seeds"
    return "reached" if row.goal.is_reached(middle(measurements(records, row.goal.metric)).mean) else "missed"


def _details(row: Row, records: Sequence[Record]) -> str:
    """Return the command, the settings, the machine, the checksums and what was tried."""
    machines = list(dict.fromkeys(_machine(record, row) for record in records))
    settings = "".join(f" --set {shlex.quote(setting)}" for setting in row.settings)
    commands = [f"vae train {row.preset} --backend {row.steps[0].backend}{settings}"]
    fitted = [step.arguments["prior"] for step in row.steps if step.function == "fitted_prior"]
    commands += [f"vae fit-prior RUN --prior {prior}" for prior in fitted]
    shown = ", then ".join(f"`{command}`" for command in commands)
    lines = [f"* `{row.name}`: `{records[0]['command']}`. Settings: {shown}. {' And: '.join(machines)}."]
    for record in records:
        sums = {name: result["checksum"] for name, result in record["results"].items() if "checksum" in result}
        for name, checksum in sums.items():
            which = f"seed {record['seed']}" + ("" if name == "train" else f", {name}")
            # The last step of a row of many models has one checksum of theirs.
            of = "the checksums of all models" if name == "mean" else "the weights"
            if not name.startswith("without_"):
                lines.append(f"  * SHA-256 of {of} of {which}: `{checksum}`")
    if _verdict(row, records) == "missed":
        lines += [f"  * tried: {line}" for line in row.tried]
    return "\n".join(lines)


def _machine(record: Record, row: Row) -> str:
    """Return the processor, other devices and the versions in words."""
    machine, backends = record["machine"], sorted({step.backend for step in row.steps})
    packages = ("python", "keras-vae", "keras", "numpy", *backends, *([row.requires] if row.requires else []))
    versions = {name.removesuffix("-cpu"): version for name, version in machine["versions"].items()}
    listed = ", ".join(f"{name} {versions[name]}" for name in packages if name in versions)
    devices = record["results"].get("train", {}).get("devices", ())
    accelerators = "".join(f", {device}" for device in devices if "cpu" not in device.lower())
    return f"{machine['processor']}, {machine['cores']} cores{accelerators}; {listed}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (header, ["---"] * len(header), *rows)
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
