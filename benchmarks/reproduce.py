"""Train and measure the rows of docs/results.md, and write them.

    python -m benchmarks.reproduce all
    python -m benchmarks.reproduce page                                 # measures nothing, only writes the page
    python -m benchmarks.reproduce sprites --seeds 1 --out runs/mine    # writes to runs/mine, not to docs/
    python -m benchmarks.reproduce all --quick                          # minutes: few images, epochs and draws

The rows are those of `benchmarks/reproduce_rows.py`. Each seed has a folder, in which an interrupted training or
evaluation resumes, and yields one JSON line in `benchmarks/reproduce.jsonl`, or in `records.jsonl` of `--out`. The page
is written from these lines alone. Seeds with a line are not measured again; remove the line to do so. Data come from
$KERAS_VAE_DATA, as in `vae train`.
"""

import argparse
import importlib.util
import itertools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from benchmarks import reproduce_page
from benchmarks.reproduce_page import END, START, Record, records_of
from benchmarks.reproduce_rows import ROWS, Row, find
from benchmarks.results import ROOT, exit_code, machine, measured_rows, replace_between, require_folder
from keras_vae.core.errors import InputError, check_count, unknown
from keras_vae.core.files import write_text
from keras_vae.core.locks import locked

WAIT = 60
"""Seconds to wait for another process that writes its record."""


@dataclass(frozen=True)
class Destination:
    """The files that a call writes.

    Args:
        runs: Folder of the folders of the seeds.
        records: File with one JSON line per seed.
        page: The page.
        quick: Whether records are those of `--quick`.
    """

    runs: Path
    records: Path
    page: Path
    quick: bool = False

    @classmethod
    def of(cls, out: Path | None, quick: bool) -> Self:
        """Return the destination of the options `--out` and `--quick`: the repository, or a folder.

        Raises:
            InputError: The folder cannot be written, or contains other files.
        """
        if out is None and not quick:
            return cls(ROOT / "runs" / "reproduce", ROOT / "benchmarks" / "reproduce.jsonl", ROOT / "docs/results.md")
        folder = (out or Path("runs/reproduce-quick")).absolute()
        require_folder(folder, "records.jsonl")
        (folder / "records.jsonl").touch()
        return cls(folder, folder / "records.jsonl", folder / "results.md", quick)

    def read(self) -> list[Record]:
        """Return all records.

        Raises:
            InputError: A line is not a record.
        """
        lines = self.records.read_text("utf-8").splitlines() if self.records.exists() else []
        try:
            return [json.loads(line) for line in lines if line.strip()]
        except ValueError:
            raise InputError(f"{self.records}: contains a line that is not JSON; remove it") from None

    def add(self, record: Record) -> None:
        """Append a record, and write the page."""
        with locked(self.records, argument="records", timeout=WAIT):
            records = [*self.read(), record]
            write_text(self.records, "".join(f"{json.dumps(line)}\n" for line in records))
            self._write_page(records)

    def write_page(self) -> str:
        """Write the page from the records, and return its generated part."""
        with locked(self.records, argument="records", timeout=WAIT):
            return self._write_page(self.read())

    def _write_page(self, records: Sequence[Record]) -> str:
        content = reproduce_page.content(records, quick=self.quick)
        page = self.page.read_text("utf-8") if self.page.exists() else f"# Results\n\n{START}\n{END}\n"
        write_text(self.page, replace_between(page, START, END, content))
        return content


def measure_seed(row: Row, seed: int, folder: Path, quick: bool) -> dict[str, Any]:
    """Take the steps of a seed that are not complete yet, and return its record.

    Args:
        row: The row.
        seed: The seed.
        folder: Folder of the seed, which is created.
        quick: Whether to use few images, epochs and draws.

    Raises:
        InputError: The folder belongs to a measurement with other settings.
        RunError: A step failed.
    """
    file, key = folder / "steps.json", {**row.key, "quick": quick}
    state = {"key": key, "results": {}, "minutes": {}, "starts": {}}
    if file.exists():
        state = json.loads(file.read_text("utf-8"))
        if state["key"] != key:
            raise InputError(f"{folder}: contains a measurement with other settings; remove the folder, or set --out")
    pending = [step for step in row.steps if step.name not in state["results"]]
    for backend, group in itertools.groupby(pending, key=lambda step: step.backend):
        steps = [step.name for step in group]
        command = ["-m", "benchmarks.reproduce_steps", row.name, str(seed), str(folder), *steps]
        results = measured_rows([*command, *["--quick"] * quick], {"KERAS_BACKEND": backend})
        for name in steps:
            print(f"{row.name}, seed {seed}: {name}", file=sys.stderr, flush=True)
            state["starts"][name] = state["starts"].get(name, 0) + 1
            write_text(file, json.dumps(state))
            start = time.perf_counter()
            result = next(results)
            # The metrics of a run contain the times of all epochs, also of those before a kill.
            state["minutes"][name] = result.pop("minutes", (time.perf_counter() - start) / 60)
            state["results"][name] = result
            write_text(file, json.dumps(state))
        # The process ends after its last row, and may fail then.
        for _ in results:
            pass
    return {
        "row": row.name,
        "seed": seed,
        "quick": quick,
        "key": row.key,
        "command": f"python -m benchmarks.reproduce {row.name}",
        "machine": machine(),
        **{name: state[name] for name in ("results", "minutes", "starts")},
    }


def measure(rows: Sequence[Row], seeds: int | None, destination: Destination) -> str:
    """Measure the seeds of rows that have no record, write the page after each, and return its generated part.

    Args:
        rows: The rows.
        seeds: Number of seeds; None for that of each row.
        destination: The files to write.
    """
    # A page without its markers is refused before hours of training.
    destination.write_page()
    for row in rows:
        for seed in range(seeds or row.seeds):
            folder = destination.runs / f"{row.name}-{seed}"
            with locked(folder, argument="--out"):
                if any(found["seed"] == seed for found in records_of(row, destination.read(), destination.quick)):
                    continue
                folder.mkdir(parents=True, exist_ok=True)
                destination.add(measure_seed(row, seed, folder, destination.quick))
    return destination.write_page() + "\n"


def check(name: str, seeds: int | None) -> list[Row]:
    """Return the row with a name, all rows, or none.

    Args:
        name: The name of a row, `"all"`, or `"page"` for no row.
        seeds: Number of seeds, or None.

    Raises:
        InputError: There is no such row, the number is below 1, or a package is not installed.
    """
    row = find(name)
    if row is None and name not in ("all", "page"):
        raise unknown("ROW", name, ["all", "page", *(row.name for row in ROWS)])
    if seeds is not None:
        if name == "page":
            raise InputError(f"--seeds = {seeds}: page measures nothing; leave --seeds out")
        check_count("--seeds", seeds)
    rows = {"all": list(ROWS), "page": []}.get(name, [row] if row else [])
    for needed in rows:
        packages = [*(step.backend for step in needed.steps), *([needed.requires] if needed.requires else [])]
        for package in packages:
            if importlib.util.find_spec(package) is None:
                raise InputError(f"ROW = {needed.name}: needs {package}, which is not installed; install it")
    return rows


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure rows, and print the generated part of the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("row", metavar="ROW", help=f"all, page, or one of: {', '.join(row.name for row in ROWS)}")
    parser.add_argument("--seeds", type=int, help="number of seeds; by default that of the row")
    parser.add_argument("--out", type=Path, help="folder of runs, records and page, instead of the repository's")
    parser.add_argument("--quick", action="store_true", help="test with few images, epochs and draws; not for docs/")
    options = parser.parse_args(arguments)

    def call() -> str:
        rows = check(options.row, options.seeds)
        return measure(rows, options.seeds, Destination.of(options.out, options.quick))

    return exit_code("benchmarks.reproduce", call)


if __name__ == "__main__":
    raise SystemExit(main())
