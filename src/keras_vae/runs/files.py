"""Reading and writing of the files of a run (JSON, metrics, checkpoints), and unused names of run folders."""

import csv
import io
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_vae.core.files import reading, replacing, write_text
from keras_vae.core.typing import Array

Metrics = dict[str, list[float]]
"""Columns by name, with one value per epoch."""

MONITORED = "val_total_loss"
"""The column that determines the best epoch: the objective without annealing, on the validation images."""

Sections = Mapping[str, Mapping[str, Array]]
"""Arrays by section and name."""


def read_json(file: Path) -> dict[str, Any] | None:
    """Return the content of a JSON file, or None if there is no such file."""
    if not file.exists():
        return None
    with reading(file):
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return content


def write_json(file: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file."""
    write_text(file, format_json(content))


def format_json(content: Mapping[str, Any]) -> str:
    """Return the text of a JSON file."""
    return json.dumps(content, indent=2) + "\n"


def read_metrics(file: Path) -> Metrics:
    """Return the columns of a CSV file, or an empty dict if there is no such file."""
    if not file.exists():
        return {}
    with reading(file):
        rows = list(csv.DictReader(io.StringIO(file.read_text("utf-8"))))
        return {column: [float(row[column]) for row in rows] for column in (rows[0] if rows else ())}


def write_metrics(file: Path, metrics: Mapping[str, Sequence[float]]) -> None:
    """Write columns of equal length to a CSV file."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(metrics)
    writer.writerows(zip(*metrics.values(), strict=True))
    write_text(file, text.getvalue())


def read_checkpoint(file: Path) -> tuple[dict[str, list[Array]], Metrics] | None:
    """Return the groups of arrays and the metrics of a checkpoint, or None if there is no such file."""
    if not file.is_file():
        return None
    state: dict[str, list[Array]] = {}
    with reading(file), file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
        metrics: Metrics = json.loads(str(archive["metrics"]))
        # An archive keeps the order in which its arrays were written.
        for name in archive.files:
            if name != "metrics":
                state.setdefault(name.partition("/")[0], []).append(archive[name])
    return state, metrics


def write_checkpoint(file: Path, state: Mapping[str, Sequence[Array]], metrics: Mapping[str, Sequence[float]]) -> None:
    """Write groups of arrays and the metrics to one file."""
    arrays = {f"{group}/{index}": array for group, values in state.items() for index, array in enumerate(values)}
    file.parent.mkdir(exist_ok=True)
    with replacing(file) as temporary:
        np.savez(temporary, allow_pickle=False, metrics=np.array(json.dumps(metrics)), **arrays)


def read_sections(file: Path) -> Sections:
    """Return arrays by section and name, or an empty dict if there is no such file."""
    sections: dict[str, dict[str, Array]] = {}
    if file.is_file():
        with reading(file), file.open("rb") as opened, np.load(opened, allow_pickle=False) as archive:
            for path in archive.files:
                section, _, name = path.partition("/")
                sections.setdefault(section, {})[name] = archive[path]
    return sections


def write_sections(file: Path, sections: Sections) -> None:
    """Write arrays by section and name to one compressed file; without any arrays, remove it."""
    arrays = {f"{section}/{name}": array for section, values in sections.items() for name, array in values.items()}
    if not arrays:
        file.unlink(missing_ok=True)
        return
    with replacing(file) as temporary:
        np.savez_compressed(temporary, allow_pickle=False, **arrays)


def evaluation_name(on: str | None, suffix: str = "json") -> str:
    """Return the name of the file of an evaluation; `on` names the images, if they are not the run's own."""
    return f"evaluation.{suffix}" if on is None else f"evaluation-{on}.{suffix}"


def free_path(name: str) -> Path:
    """Return the first of `runs/NAME`, `runs/NAME-2`, … that does not exist."""
    paths = (Path("runs") / (name if number == 1 else f"{name}-{number}") for number in itertools.count(1))
    return next(path for path in paths if not path.exists())


def run_paths() -> list[str]:
    """Return the paths of the runs in `runs/`, sorted."""
    return sorted(str(file.parent) for file in Path("runs").glob("*/experiment.toml"))
