"""Comparison of runs in a table that ranks only numbers measured in the same way."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from keras_vae.core.errors import InputError, require_list
from keras_vae.core.files import write_text
from keras_vae.evaluation.descriptions import format_mean
from keras_vae.runs.run import SCHEMA, Run

TIE = 2.0
"""Number of standard errors of a difference within which two numbers tie."""

_IMAGES = ("split", "held_out", "checksum", "images")
_LIKELIHOOD = (*_IMAGES, "condition", "likelihood", "binarization", "normalized", "density", "bound")
_SAMPLES = (*_IMAGES, "training_checksum", "samples", "images_scored", "binarization", "features")
_SCORES = (*_IMAGES, "bins")


class Column(NamedTuple):
    """A number to compare.

    Args:
        section: The section of `evaluation.json` that contains the number.
        name: The key of the number in that section.
        better: -1 if lower is better, 1 if higher is better, 0 if neither is.
        same: The keys of the section that must have equal values for the number to be ranked.
    """

    section: str
    name: str
    better: int
    same: tuple[str, ...]


COLUMNS = (
    Column("likelihood", "nll", -1, (*_LIKELIHOOD, "samples")),
    Column("likelihood", "bits_per_dim", -1, (*_LIKELIHOOD, "samples")),
    Column("likelihood", "negative_elbo", -1, _LIKELIHOOD),
    Column("likelihood", "reconstruction_loss", 0, _LIKELIHOOD),
    Column("likelihood", "kl_loss", 0, _LIKELIHOOD),
    Column("latents", "active_units", 0, _IMAGES),
    Column("latents", "mutual_information", 0, _IMAGES),
    Column("latents", "knn_accuracy", 1, (*_IMAGES, "probe_images", "neighbors")),
    Column("latents", "linear_probe_accuracy", 1, (*_IMAGES, "probe_images")),
    *(Column("samples", name, -1, _SAMPLES) for name in ("frechet_distance", "kid")),
    *(Column("samples", name, 1, _SAMPLES) for name in ("precision", "recall", "density", "coverage")),
    *(
        Column("disentanglement", name, 1, _SCORES)
        for name in ("mig", "dci_disentanglement", "sap", "modularity", "factor_vae", "beta_vae")
    ),
)


class Cell(NamedTuple):
    """A number of one run.

    Args:
        mean: The number.
        standard_error: Its standard error, if known.
        best: Whether the number is the best, or ties with the best.
    """

    mean: float
    standard_error: float | None
    best: bool


@dataclass(frozen=True)
class Comparison:
    """A table of runs and their numbers. `print` shows it as text.

    Args:
        names: The names of the runs.
        facts: Further facts by name, one value per run: epochs, and seconds of training.
        columns: Cells by the name of the number, one per run; None if the run does not have the number.
        notes: The reasons why numbers are not ranked, and other limitations.
        metrics: The metrics of the runs by name.
    """

    names: tuple[str, ...]
    facts: Mapping[str, tuple[float, ...]]
    columns: Mapping[str, tuple[Cell | None, ...]]
    notes: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, Sequence[float]]]

    def __str__(self) -> str:
        """Return the table as text: one row per number, one column per run, `*` at the best."""
        rows = self._rows(lambda text, best: f"{text} {'*' if best else ' '}")
        widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if index == 0 else cell.rjust(width)
                for index, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, "", _LEGEND.format(mark="*"), *self.notes])

    def to_markdown(self) -> str:
        """Return the table in Markdown, with the best numbers in bold."""
        head, *rows = self._rows(lambda text, best: f"**{text}**" if best else text)
        rule = ["---", *("---:" for _ in self.names)]
        lines = [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]
        return "\n".join([*lines, "", _LEGEND.format(mark="Bold"), *(f"\n{note}" for note in self.notes), ""])

    def to_json(self) -> dict[str, Any]:
        """Return the table for programs."""
        runs = [
            {
                "run": name,
                **{fact: values[index] for fact, values in self.facts.items()},
                "numbers": {
                    number: cell._asdict()
                    for number, cells in self.columns.items()
                    if (cell := cells[index]) is not None
                },
            }
            for index, name in enumerate(self.names)
        ]
        return {"schema": SCHEMA, "runs": runs, "not_ranked": list(self.notes)}

    def write(self, folder: Path) -> None:
        """Write `comparison.md` and `comparison.json`.

        Args:
            folder: The folder, created if it is missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "comparison.md", self.to_markdown())
        write_text(folder / "comparison.json", json.dumps(self.to_json(), indent=2) + "\n")

    def _rows(self, mark: Callable[[str, bool], str]) -> list[list[str]]:
        rows = [["", *self.names]]
        for number, cells in self.columns.items():
            rows.append([number, *("–" if cell is None else mark(_cell_text(cell), cell.best) for cell in cells)])
        for fact, values in self.facts.items():
            rows.append([fact, *(mark(f"{value:,.0f}", False) for value in values)])
        return rows


_LEGEND = "{mark}: best, or tied with the best (within two standard errors of the difference)."


def compare(runs: Sequence[Run | Path | str]) -> Comparison:
    r"""Compare the evaluations of runs, number by number.

    Numbers are ranked only if they were measured in the same way. A run ties with the best if their difference is
    within two standard errors, \(2\sqrt{s_1^2 + s_2^2}\). This is conservative, because the images are the same.

    Args:
        runs: At least two evaluated runs: runs, their folders, or names of pretrained runs.

    Returns:
        The table.

    Raises:
        InputError: There are fewer than two runs, a run is given twice, or a run was not evaluated with this version.

    Example:
        >>> print(compare(["mnist-2d", "mnist-16d"]))  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
                              mnist-2d          mnist-16d
        nll              146.81 ± 0.50       89.03 ± 0.25
        ...
    """
    require_list("runs", runs)
    opened = [Run.open(run) for run in runs]
    if len(opened) < 2:
        raise InputError(f"runs = {len(opened)}: too few to compare; pass at least 2")
    paths = [run.path.resolve() for run in opened]
    for path in paths:
        if paths.count(path) > 1:
            raise InputError(f"runs = {path.name} twice: cannot be compared with itself; pass different runs")
    evaluations = [_read_evaluation(run) for run in opened]
    names, columns, notes = _short_names(paths), {}, list[str]()
    for column in COLUMNS:
        cells, note = _compare_column(column, names, evaluations)
        if cells is not None:
            columns[column.name] = cells
        if note is not None:
            notes.append(note)
    for name, evaluation in zip(names, evaluations, strict=True):
        if any(section.get("held_out") is False for section in evaluation.values() if isinstance(section, Mapping)):
            notes.append(f"{name}: no held-out data")
    facts = {
        "epochs": tuple(float(len(run.metrics.get("epoch", ()))) for run in opened),
        "seconds": tuple(math.fsum(run.metrics.get("seconds", ())) for run in opened),
    }
    metrics = {name: run.metrics for name, run in zip(names, opened, strict=True)}
    return Comparison(names, facts, columns, tuple(dict.fromkeys(notes)), metrics)


def _compare_column(
    column: Column, names: Sequence[str], evaluations: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Cell | None, ...] | None, str | None]:
    """Return the cells of a column, ranked if comparable, and otherwise a note; None if no run has the number."""
    sections = [evaluation.get(column.section, {}) for evaluation in evaluations]
    cells = [_cell(section.get(column.name)) for section in sections]
    present = [index for index, cell in enumerate(cells) if cell is not None]
    if not present:
        return None, None
    if not column.better:
        return tuple(cells), None
    for key in column.same:
        if len({_canonical(sections[index].get(key)) for index in present}) > 1:
            values = ", ".join(f"{names[index]}: {_short(sections[index].get(key))}" for index in present)
            return tuple(cells), f"{column.name} is not ranked: the runs differ in {key} ({values})"
    return tuple(_ranked(cells, column.better) if len(present) > 1 else cells), None


def _read_evaluation(run: Run) -> dict[str, Any]:
    evaluation = run.evaluation
    if evaluation is None:
        raise InputError(f"run = {run.path}: has no evaluation; run `vae evaluate {run.path}`")
    if evaluation.get("schema") != SCHEMA:
        raise InputError(
            f"run = {run.path}: its evaluation.json has schema {evaluation.get('schema')} instead of {SCHEMA}; run "
            f"`vae evaluate {run.path}` again"
        )
    return evaluation


def _short_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the shortest endings of paths that are all different."""
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return tuple("/".join(path.parts[-depth:]) for path in paths)


def _cell(value: Any) -> Cell | None:
    if isinstance(value, Mapping):
        number = value.get("mean", value.get("count"))
        return None if number is None else Cell(float(number), value.get("standard_error"), False)
    return None if value is None else Cell(float(value), None, False)


def _ranked(cells: Sequence[Cell | None], better: int) -> list[Cell | None]:
    leader = max((cell for cell in cells if cell is not None), key=lambda cell: better * cell.mean)

    def rank(cell: Cell | None) -> Cell | None:
        if cell is None:
            return None
        error = math.hypot(cell.standard_error or 0.0, leader.standard_error or 0.0)
        return cell._replace(best=abs(cell.mean - leader.mean) <= TIE * error)

    return [rank(cell) for cell in cells]


def _canonical(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("name", value))
    return value[:12] if isinstance(value, str) else str(value)


def _cell_text(cell: Cell) -> str:
    return " ".join(format_mean(cell.mean, cell.standard_error)).rstrip()
