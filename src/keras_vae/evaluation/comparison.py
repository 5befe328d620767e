"""Comparison of runs in a table that ranks only numbers measured in the same way."""

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_vae.core.errors import InputError, require_list
from keras_vae.core.files import write_text
from keras_vae.core.markdown import escape
from keras_vae.evaluation.descriptions import LOSSY, format_number, format_value
from keras_vae.evaluation.per_image import load_per_image
from keras_vae.evaluation.ranking import COLUMNS, Cell, MeasuredRun, rank
from keras_vae.runs.evaluation_file import SCHEMA
from keras_vae.runs.run import Run


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

    def __repr__(self) -> str:
        """Return the names of the runs and of the numbers in one line."""
        return f"Comparison({', '.join(map(repr, self.names))}: {', '.join(self.columns)})"

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
        return "\n".join([*lines, "", *self._legend("*"), *self.notes])

    def to_markdown(self) -> str:
        """Return the table in Markdown, with the best numbers in bold."""
        (_, *names), *rows = self._rows(lambda text, best: f"**{text}**" if best else text)
        head = ["", *map(escape, names)]
        rule = ["---", *("---:" for _ in self.names)]
        lines = [f"| {' | '.join(row)} |" for row in (head, rule, *rows)]
        notes = "\n\n".join([*self._legend("Bold"), *map(escape, self.notes)])
        return "\n".join([*lines, "", notes, ""])

    def to_json(self) -> dict[str, Any]:
        """Return the table for programs."""
        runs = [
            {
                "run": name,
                **{fact: values[index] for fact, values in self.facts.items()},
                "numbers": {
                    number: cell.to_json()
                    for number, cells in self.columns.items()
                    if (cell := cells[index]) is not None
                },
            }
            for index, name in enumerate(self.names)
        ]
        return {"schema": SCHEMA, "runs": runs, "notes": list(self.notes)}

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
            if any(cell is not None and cell.difference is not None for cell in cells):
                rows.append([_DIFFERENCE, *(mark(_difference_text(cell), False) for cell in cells)])
        for fact, values in self.facts.items():
            rows.append([fact, *(mark(format_number(value), False) for value in values)])
        return rows

    def _legend(self, mark: str) -> Iterator[str]:
        """Yield the explanations of the marks that the table contains."""
        cells = [cell for column in self.columns.values() for cell in column if cell is not None]
        if any(cell.best for cell in cells):
            yield f"{mark}: best, or tied with the best (within two standard errors of the difference)."
        differences = [cell.difference for cell in cells if cell.difference]
        if differences:
            yield "difference: the number minus that of the best run, with the standard error of this difference."
        if not all(difference.paired for difference in differences):
            yield "†: unpaired error, computed from the standard errors of the two runs."


_DIFFERENCE = "  difference"


def compare(runs: Sequence[Run | Path | str]) -> Comparison:
    r"""Compare the evaluations of runs, number by number.

    Numbers are ranked only if they were measured in the same way. A run ties with the best if their difference is
    within two standard errors. Numbers that are means over the same images are compared image by image: the standard
    error is that of the mean of the N differences \(d_i\), \(s_d / \sqrt{N}\). Numbers without per-image values, and
    means over different images, have the unpaired error \(\sqrt{s_1^2 + s_2^2}\), which is too large if the images are
    the same. A number without a standard error is never marked.

    Args:
        runs: At least two evaluated runs: runs, their folders, or names of pretrained runs.

    Returns:
        The table.

    Raises:
        InputError: There are fewer than two runs, a run is given twice, or a run was not evaluated with this version.

    Example:
        >>> print(compare(["mnist-2d", "mnist-16d"]))  # doctest: +ELLIPSIS, +NORMALIZE_WHITESPACE
                              mnist-2d          mnist-16d
        nll                 144.2 ± 1.5      88.68 ± 0.25
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
    names = _short_names(paths)
    measured = [_measured_run(name, run) for name, run in zip(names, opened, strict=True)]
    columns, notes = {}, list[str]()
    not_ranked, unpaired = dict[str, list[str]](), dict[tuple[str, ...], list[str]]()
    for column in COLUMNS:
        ranking = rank(column, measured)
        if any(ranking.cells):
            columns[column.name] = ranking.cells
        notes += ranking.notes
        if ranking.not_ranked:
            not_ranked.setdefault(ranking.not_ranked, []).append(column.name)
        if ranking.without_values:
            unpaired.setdefault(ranking.without_values, []).append(column.name)
    notes += [
        f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} not ranked: {reason}"
        for reason, names in not_ranked.items()
    ]
    notes += [
        f"{', '.join(runs)}: no per-image values of {', '.join(numbers)}; unpaired errors are used, which hide small"
        " differences; run `vae evaluate` again"
        for runs, numbers in unpaired.items()
    ]
    for name, evaluation, _ in measured:
        if any(section.get("held_out") is False for section in evaluation.values() if isinstance(section, Mapping)):
            notes.append(f"{name}: no held-out data")
        likelihood = evaluation.get("likelihood", {})
        if likelihood.get("lossy") and likelihood.get("bits_per_dim"):
            notes.append(f"{name}: {LOSSY.badge}: {LOSSY.explanation}")
    facts = {
        "epochs": tuple(float(len(run.metrics.get("epoch", ()))) for run in opened),
        "seconds": tuple(math.fsum(run.metrics.get("seconds", ())) for run in opened),
    }
    metrics = {name: run.metrics for name, run in zip(names, opened, strict=True)}
    return Comparison(names, facts, columns, tuple(dict.fromkeys(notes)), metrics)


def _measured_run(name: str, run: Run) -> MeasuredRun:
    evaluation = run.evaluation
    if evaluation is None:
        raise InputError(f"run = {run.path}: has no evaluation; run `vae evaluate {run.path}`")
    if evaluation.get("schema") != SCHEMA:
        raise InputError(
            f"run = {run.path}: its evaluation.json has schema {evaluation.get('schema')} instead of {SCHEMA}; run "
            f"`vae evaluate {run.path}` again"
        )
    return MeasuredRun(name, evaluation, load_per_image(run, evaluation))


def _short_names(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the shortest endings of paths that are all different."""
    depth = 1
    while len({path.parts[-depth:] for path in paths}) < len(paths):
        depth += 1
    return tuple("/".join(path.parts[-depth:]) for path in paths)


def _cell_text(cell: Cell) -> str:
    return format_value({"mean": cell.mean, "standard_error": cell.standard_error})


def _difference_text(cell: Cell | None) -> str:
    if cell is None or cell.difference is None:
        return "–"
    mean, error, is_paired = cell.difference
    text = format_value({"mean": mean, "standard_error": error})
    return f"{'+' if mean > 0 else ''}{text}{'' if is_paired else ' †'}"
