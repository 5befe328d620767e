"""Several runs in one table, in which only what was measured alike is ranked."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from keras_vae.core.errors import InputError
from keras_vae.core.files import write_text
from keras_vae.evaluation.descriptions import measured
from keras_vae.runs.run import SCHEMA, Run

TIE = 2.0
"""Numbers whose difference is within so many standard errors of it count as equal."""

_MEASURED = ("split", "held_out", "checksum", "images")
_LIKELIHOOD = (*_MEASURED, "condition", "likelihood", "binarization", "normalized", "density", "bound")
_SAMPLES = (*_MEASURED, "training_checksum", "samples", "images_scored", "binarization", "features")
_SCORES = (*_MEASURED, "bins")


class Column(NamedTuple):
    """A number that runs are compared by.

    Args:
        section: The section of `evaluation.json` that holds it.
        name: Its key there.
        better: -1 where lower is better, 1 where higher is, 0 where neither is.
        alike: The keys of the section that must agree for the number to be ranked.
    """

    section: str
    name: str
    better: int
    alike: tuple[str, ...]


COLUMNS = (
    Column("likelihood", "nll", -1, (*_LIKELIHOOD, "samples")),
    Column("likelihood", "bits_per_dim", -1, (*_LIKELIHOOD, "samples")),
    Column("likelihood", "negative_elbo", -1, _LIKELIHOOD),
    Column("likelihood", "reconstruction_loss", 0, _LIKELIHOOD),
    Column("likelihood", "kl_loss", 0, _LIKELIHOOD),
    Column("latents", "active_units", 0, _MEASURED),
    Column("latents", "mutual_information", 0, _MEASURED),
    Column("latents", "knn_accuracy", 1, (*_MEASURED, "probe_images", "neighbors")),
    Column("latents", "linear_probe_accuracy", 1, (*_MEASURED, "probe_images")),
    *(Column("samples", name, -1, _SAMPLES) for name in ("frechet_distance", "kid")),
    *(Column("samples", name, 1, _SAMPLES) for name in ("precision", "recall", "density", "coverage")),
    *(
        Column("disentanglement", name, 1, _SCORES)
        for name in ("mig", "dci_disentanglement", "sap", "modularity", "factor_vae", "beta_vae")
    ),
)


class Cell(NamedTuple):
    """One run's number.

    Args:
        mean: The number.
        standard_error: Its standard error, or None where there is none.
        best: Whether no other run's is better by more than the error bars.
    """

    mean: float
    standard_error: float | None
    best: bool


@dataclass(frozen=True)
class Comparison:
    """What several runs come to.

    Args:
        names: The runs.
        facts: What is known of each besides: epochs, and seconds of training.
        columns: A cell a run by the number's name, None where a run lacks it.
        notes: Why a number is not ranked.
        metrics: The runs' metrics by name.
    """

    names: tuple[str, ...]
    facts: Mapping[str, tuple[float, ...]]
    columns: Mapping[str, tuple[Cell | None, ...]]
    notes: tuple[str, ...]
    metrics: Mapping[str, Mapping[str, Sequence[float]]]

    def to_text(self) -> str:
        """Return the table for a terminal: a row a number, a column a run, `*` at the best."""
        rows = self._rows(lambda text, best: f"{text} {'*' if best else ' '}")
        widths = [max(len(row[place]) for row in rows) for place in range(len(rows[0]))]
        lines = [
            "  ".join(
                cell.ljust(width) if place == 0 else cell.rjust(width)
                for place, (cell, width) in enumerate(zip(row, widths, strict=True))
            ).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, "", _LEGEND.format(mark="*"), *self.notes])

    def to_markdown(self) -> str:
        """Return the table in Markdown, the best in bold."""
        head, *rows = self._rows(lambda text, best: f"**{text}**" if best else text)
        rule = ["---", *("---:" for _ in self.names)]
        lines = [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]
        return "\n".join([*lines, "", _LEGEND.format(mark="Bold"), *(f"\n{note}" for note in self.notes), ""])

    def to_json(self) -> dict[str, Any]:
        """Return everything, for programs."""
        runs = [
            {
                "run": name,
                **{fact: values[place] for fact, values in self.facts.items()},
                "numbers": {
                    number: cell._asdict()
                    for number, cells in self.columns.items()
                    if (cell := cells[place]) is not None
                },
            }
            for place, name in enumerate(self.names)
        ]
        return {"schema": SCHEMA, "runs": runs, "not_ranked": list(self.notes)}

    def write(self, folder: Path) -> None:
        """Write `comparison.md` and `comparison.json`.

        Args:
            folder: Made where it is missing.
        """
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / "comparison.md", self.to_markdown())
        write_text(folder / "comparison.json", json.dumps(self.to_json(), indent=2) + "\n")

    def _rows(self, mark: Callable[[str, bool], str]) -> list[list[str]]:
        rows = [["", *self.names]]
        for number, cells in self.columns.items():
            rows.append([number, *("–" if cell is None else mark(_text(cell), cell.best) for cell in cells)])
        for fact, values in self.facts.items():
            rows.append([fact, *(mark(f"{value:,.0f}", False) for value in values)])
        return rows


_LEGEND = "{mark}: best, with all that the error bars do not tell from it (two standard errors of the difference)."


def compare(runs: Sequence[Run | str | Path]) -> Comparison:
    r"""Compare the evaluations of runs, number by number.

    Numbers are ranked only where the runs were measured alike. A run ties with the best where their difference is
    within two standard errors, \(2\sqrt{s_1^2 + s_2^2}\): more than they need, as the images are the same.

    Args:
        runs: Two or more evaluated runs: objects, folders, or names of pretrained runs.

    Returns:
        The table.

    Raises:
        InputError: There are fewer than two runs, one is there twice, or one has no evaluation of this version.
    """
    if len(runs) < 2:
        raise InputError(f"{len(runs)} run given: compare two runs or more")
    opened = [Run.open(run) for run in runs]
    paths = [run.path.resolve() for run in opened]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise InputError(f"{twice.name} is given twice: compare different runs")
    evaluations = [_evaluation(run) for run in opened]
    names, columns, notes = _names(paths), {}, list[str]()
    for column in COLUMNS:
        sections = [evaluation.get(column.section, {}) for evaluation in evaluations]
        cells = [_cell(section.get(column.name)) for section in sections]
        present = [place for place, cell in enumerate(cells) if cell is not None]
        if not present:
            continue
        differing = [key for key in column.alike if len({_key(sections[place].get(key)) for place in present}) > 1]
        if column.better and differing:
            key = differing[0]
            said = ", ".join(f"{names[place]}: {_shown(sections[place].get(key))}" for place in present)
            notes.append(f"{column.name} is not ranked: the runs differ in {key} ({said})")
        elif column.better and len(present) > 1:
            cells = _ranked(cells, column.better)
        columns[column.name] = tuple(cells)
    for name, evaluation in zip(names, evaluations, strict=True):
        if any(section.get("held_out") is False for section in evaluation.values() if isinstance(section, Mapping)):
            notes.append(f"{name}: no held-out data")
    facts = {
        "epochs": tuple(float(len(run.metrics.get("epoch", ()))) for run in opened),
        "seconds": tuple(math.fsum(run.metrics.get("seconds", ())) for run in opened),
    }
    metrics = {name: run.metrics for name, run in zip(names, opened, strict=True)}
    return Comparison(names, facts, columns, tuple(dict.fromkeys(notes)), metrics)


def _evaluation(run: Run) -> dict[str, Any]:
    evaluation = run.evaluation
    if evaluation is None:
        raise InputError(f"{run.path} has no evaluation: `vae evaluate {run.path}` makes one")
    if evaluation.get("schema") != SCHEMA:
        raise InputError(
            f"{run.path}: its evaluation.json is of schema {evaluation.get('schema')}, this is {SCHEMA}: "
            f"`vae evaluate {run.path}` measures it again"
        )
    return evaluation


def _names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the shortest ends of paths by which all differ."""
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

    def marked(cell: Cell | None) -> Cell | None:
        if cell is None:
            return None
        error = math.hypot(cell.standard_error or 0.0, leader.standard_error or 0.0)
        return cell._replace(best=abs(cell.mean - leader.mean) <= TIE * error)

    return [marked(cell) for cell in cells]


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _shown(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("name", value))
    return value[:12] if isinstance(value, str) else str(value)


def _text(cell: Cell) -> str:
    return " ".join(measured(cell.mean, cell.standard_error)).rstrip()
