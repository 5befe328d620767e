"""All goals of color images: `python -m benchmarks.color --seeds 3`.

    python -m benchmarks.color --goals tiling missing     # some of them

Each goal is measured by a module of its own, in its own process. Rows are written to `--out` as they are measured:
`results.json` contains all numbers, and `results.md` the table that is printed. The same command resumes where it
stopped, at the first part of a goal that is not complete. The images are `emoji.npz` and `mnist.npz` in the folder
$KERAS_VAE_DATA.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.color_goals import GOALS, Goal, Row, Verdict
from benchmarks.results import exit_code, measured_rows, require_folder
from benchmarks.workload import emoji_file
from keras_vae.core.errors import InputError
from keras_vae.core.files import write_text
from keras_vae.core.locks import locked

Results = dict[str, Any]


def read_results(out: Path, seeds: int) -> Results:
    """Return the results of an earlier call with the same folder, or none.

    Args:
        out: Folder of the results, which is created.
        seeds: Number of seeds.

    Raises:
        InputError: The folder cannot be written, contains other files, or has results of another number of seeds.
    """
    require_folder(out, "results.json")
    file = out / "results.json"
    results: Results = json.loads(file.read_text("utf-8")) if file.exists() else {"seeds": seeds, "parts": {}}
    if results["seeds"] != seeds:
        raise InputError(
            f"--seeds = {seeds}: {out} contains results of {results['seeds']} seeds; choose another --out, or the "
            "same number"
        )
    _write(out, results)
    return results


def measure(goal: Goal, part: str, seeds: int, out: Path, results: Results) -> None:
    """Measure a part of a goal, and write each row when it is measured.

    Args:
        goal: The goal.
        part: Name of the part.
        seeds: Number of seeds.
        out: Folder of the results.
        results: The results so far, which are changed.

    Raises:
        RunError: The command failed.
    """
    command, rows = goal.command(part, seeds, out), []
    entry = results["parts"][f"{goal.module} {part}"] = {"command": command, "rows": rows, "is_complete": False}
    if not goal.resumes:
        shutil.rmtree(goal.runs(part, out), ignore_errors=True)
    start = time.perf_counter()
    for row in measured_rows(command):
        rows.append(row)
        _write(out, results)
    entry |= {"is_complete": True, "seconds": round(time.perf_counter() - start)}
    _write(out, results)


def verdicts(results: Results) -> list[Verdict]:
    """Return the verdicts of all parts that are complete."""
    found = []
    for goal in GOALS.values():
        for part in goal.parts:
            entry = results["parts"].get(f"{goal.module} {part}")
            if entry is not None and entry["is_complete"]:
                rows: list[Row] = entry["rows"]
                found.append(goal.judge(part, rows))
    return found


def table(found: Sequence[Verdict]) -> str:
    """Return verdicts as a table in Markdown."""
    words = {True: "reached", False: "missed", None: ""}
    lines = ["| | goal | measured | verdict |", "|---|---|---|---|"]
    lines += [f"| {row.subject} | {row.target} | {row.measured} | {words[row.is_reached]} |" for row in found]
    return "\n".join(lines) + "\n"


def _write(out: Path, results: Results) -> None:
    write_text(out / "results.json", json.dumps(results, indent=1) + "\n")
    write_text(out / "results.md", table(verdicts(results)))


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the goals that are not complete yet, and print the table of all verdicts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--goals", nargs="+", choices=list(GOALS), default=list(GOALS))
    parser.add_argument("--out", type=Path, default=Path("runs/color-goals"), help="folder of the results")
    options = parser.parse_args(arguments)
    return exit_code("benchmarks.color", lambda: measure_all(options.goals, options.seeds, options.out.absolute()))


def measure_all(goals: Sequence[str], seeds: int, out: Path) -> str:
    """Measure the parts of some goals that are not complete yet, and return the table of all verdicts.

    Args:
        goals: Names of goals.
        seeds: Number of seeds.
        out: Folder of the results.
    """
    needs_emoji = not {"sharp", "codes", "flow"}.isdisjoint(goals)
    if needs_emoji and not emoji_file().exists():
        raise InputError(f"$KERAS_VAE_DATA: {emoji_file()} does not exist; set it to the folder of emoji.npz")
    with locked(out, argument="--out"):
        results = read_results(out, seeds)
        for name in goals:
            for part in GOALS[name].parts:
                if not results["parts"].get(f"{GOALS[name].module} {part}", {}).get("is_complete"):
                    print(f"{name}, {part}", file=sys.stderr, flush=True)
                    measure(GOALS[name], part, seeds, out, results)
        return table(verdicts(results))


if __name__ == "__main__":
    raise SystemExit(main())
