"""Benchmarks of keras-vae, plain Keras, handwritten PyTorch and pythae.

    make bench                      # or: python -m benchmarks
    python -m benchmarks --quick    # one turn instead of three

Contenders take turns, each in its own process, so that changes in the machine's speed affect all of them. After each
measurement, the results are written to benchmarks/results.md (the best value of each contender, and its ratio to
keras-vae) and benchmarks/results.json (all measurements). keras-vae runs with its default settings.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import contenders, measures
from benchmarks.results import machine
from benchmarks.workload import BATCH_SIZE, FLOP_PER_STEP
from keras_vae.core.files import write_text
from keras_vae.core.progress import track

HERE = Path(__file__).parent
OURS = "ours-tensorflow-float32"
STARTS = {
    "import": ("-c", "import keras_vae"),
    "help": ("-c", "import sys; sys.argv = ['vae', '--help']; from keras_vae.cli import main; main()"),
}
SETTINGS = ("TF_ENABLE_ONEDNN_OPTS", "TF_XLA_FLAGS", "XLA_FLAGS", "MALLOC_", "GLIBC_TUNABLES")

ONCE = ("growth", "fits", "whole-training", "layers-tensorflow", "layers-jax")
"""Measurements that repeat internally and therefore run in one turn only."""

Results = dict[str, Any]


def run(arguments: Sequence[str], backend: str | None = None) -> tuple[Any, float]:
    """Run a process; return the JSON on its last line of output (None if it failed) and its duration in seconds."""
    # Remove settings of the user that affect the measurements.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(SETTINGS)}
    environment |= {"TF_CPP_MIN_LOG_LEVEL": "3"} | ({"KERAS_BACKEND": backend} if backend else {})
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *arguments], cwd=HERE.parent, env=environment, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - start
    if done.returncode:
        print(f"{' '.join(arguments[:3])} failed: {(done.stderr.strip().splitlines() or ['?'])[-1]}", file=sys.stderr)
        return None, seconds
    try:
        return json.loads(done.stdout.strip().splitlines()[-1]), seconds
    except (IndexError, json.JSONDecodeError):
        return None, seconds


def measure(turns: int, seconds: float, quick: bool, only: Sequence[str], save: Callable[[Results], None]) -> Results:
    """Return all measurements by name, one per turn, and save them after each one."""
    tasks: dict[str, Callable[[], Any]] = {}
    for name, contender in contenders.ALL.items():
        if not contenders.missing(contender):
            tasks[name] = lambda name=name, contender=contender: run(
                ["-m", "benchmarks.contenders", name, "--seconds", str(seconds), "--started", str(time.time())],
                contender.backend,
            )[0]
    for name in measures.MEASURES:
        if "pythae" not in name or not contenders.missing(contenders.CONTENDERS["pythae"]):
            tasks[name] = lambda name=name: run(["-m", "benchmarks.measures", name, *(["--quick"] if quick else [])])[0]
    for name, arguments in STARTS.items():
        tasks[name] = lambda arguments=arguments: {"seconds": run(arguments)[1]}
    if only:
        tasks = {name: task for name, task in tasks.items() if name in only}
    results: Results = {name: [] for name in tasks}
    order = [(name, task) for turn in range(turns) for name, task in tasks.items() if turn == 0 or name not in ONCE]
    for name, task in track(_console(), order, "measuring"):
        measured = task()
        if measured is not None:
            results[name].append(measured)
            save(results)
    return results


def median(results: Results, name: str, key: str) -> float | None:
    """Return the median over all turns and chunks; None if nothing was measured."""
    values = [value for turn in results.get(name, []) for value in _as_list(turn[key])]
    return statistics.median(values) if values else None


def fastest(results: Results, name: str, key: str) -> float | None:
    """Return the best value over all turns and chunks (shortest time, highest rate); None if nothing was measured."""
    values = [value for turn in results.get(name, []) for value in _as_list(turn[key])]
    return (max if key.endswith("per_second") else min)(values, default=None)


def ratio(results: Results, numerator: str, denominator: str, key: str) -> float | None:
    """Return the ratio of the best values of two contenders; None if one was not measured."""
    first, second = fastest(results, numerator, key), fastest(results, denominator, key)
    return None if first is None or second is None else first / second


def format_report(results: Results, about: dict[str, Any], command: str) -> str:
    """Return the report in Markdown."""
    instructions = ", ".join(about["instructions"]) or "unknown instruction set"
    lines = [
        "# Measured speed",
        "",
        f"Written by `{command}`. {about['processor']}, {about['cores']} cores; {instructions}.",
        " · ".join(f"{name} {version}" for name, version in about["versions"].items()),
        "",
        "## One training step of the classic model",
        "",
        f"Batch {BATCH_SIZE}, {FLOP_PER_STEP / 1e9:.1f} GFLOP per step. Times are means over"
        " chunks of about a second, measured in turns minutes apart. Other work on the machine can only slow a chunk"
        " down, so ratios compare the fastest chunks; the medians show its effect. “Ours” is TensorFlow in float32.",
        "",
        "| | ms per step | median | images/s | time ÷ ours | fraction of matrix peak | first step, s | memory, MiB |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    peak = max((turn["gflops"] for turn in results.get("peak", [])), default=None)
    for name, contender in contenders.CONTENDERS.items():
        step, usual = (statistic(results, name, "step_milliseconds") for statistic in (fastest, median))
        if step is None:
            missing = contenders.missing(contender)
            reason = f"{', '.join(missing)} not installed" if missing else "not measured"
            lines.append(f"| {contender.title} | {reason} | | | | | | |")
            continue
        relative = ratio(results, name, OURS, "step_milliseconds")
        relative_time = "" if relative is None else f"{relative:.2f}"
        fraction = f"{FLOP_PER_STEP / step / 1e6 / peak:.0%}" if peak else ""
        first, memory = median(results, name, "first_step_seconds"), median(results, name, "memory_mib")
        lines.append(
            f"| {contender.title} | {step:.1f} | {usual:.1f} | {1000 * BATCH_SIZE / step:,.0f} | {relative_time} | "
            f"{fraction} | {first:.1f} | {memory:,.0f} |"
        )
    if peak:
        lines += ["", f"The peak is {peak:.0f} GFLOP/s for float32 products of 2048×2048 matrices in the same run."]
    lines += _alternatives(results)
    lines += ["", "## Speedups and other measurements", "", "| | measured | goal |", "|---|---:|---:|"]
    lines += [f"| {title} | {value} | {goal} |" for title, value, goal in _rows(results) if value is not None]
    for backend in ("tensorflow", "jax"):
        for turn in results.get(f"layers-{backend}", []):
            lines += ["", f"## Convolutions, {backend}", "", "Forward pass and both gradients, float32, ms.", ""]
            lines += ["| | ours | Keras | ratio |", "|---|---:|---:|---:|"]
            lines += [
                f"| {name} | {ours:.1f} | {plain:.1f} | {plain / ours:.1f} × |" for name, (ours, plain) in turn.items()
            ]
    for turn in results.get("fits", []):
        lines += ["", "## A whole fit", "", "Milliseconds per step of `fit` on arrays, by its number of steps.", ""]
        lines += _curves(turn, "{:.1f}")
    for turn in results.get("growth", []):
        lines += ["", "## Scaling", "", "Microseconds per image and epoch of `fit`, ours, float32, TensorFlow.", ""]
        lines += _curves(turn, "{:,.0f}")
    return "\n".join(lines) + "\n"


def _alternatives(results: Results) -> list[str]:
    """Return the table of variants of ours, or no lines if none was measured."""
    rows = []
    for name, contender in contenders.ALTERNATIVES.items():
        step = fastest(results, name, "step_milliseconds")
        relative = ratio(results, name, f"ours-{contender.backend}-float32", "step_milliseconds")
        if step is not None:
            relative_time = "" if relative is None else f"{relative:.2f}"
            rows.append(f"| {contender.backend} | {contender.title} | {step:.1f} | {relative_time} |")
    header = ["", "## Ours with one thing changed", "", "float32.", "", "| | | ms per step | time ÷ ours |"]
    return [*header, "|---|---|---:|---:|", *rows] if rows else []


def _curves(curves: dict[str, list[tuple[int, float]]], number_format: str) -> list[str]:
    return [
        f"* {name}: " + ", ".join(f"{size} → {number_format.format(value)}" for size, value in curve)
        for name, curve in curves.items()
    ]


def _rows(results: Results) -> list[tuple[str, str | None, str]]:
    """Return the rows of the table of speedups: title, value, goal."""

    def speedup(slow: str, fast: str, key: str = "step_milliseconds") -> str | None:
        factor = ratio(results, slow, fast, key)
        return None if factor is None else f"{factor:,.2f} ×"

    def value(name: str, key: str, number_format: str) -> str | None:
        # The minimum of several ratios would be biased.
        measured = (median if "over" in key else fastest)(results, name, key)
        return None if measured is None else number_format.format(measured)

    # With `precision = "auto"` and native bfloat16, keras-vae uses the faster of the two.
    steps = {name: fastest(results, name, "step_milliseconds") for name in (OURS, "ours-tensorflow-bfloat16")}
    best = min(
        (name for name, step in steps.items() if step is not None), key=lambda name: steps[name] or 0, default=OURS
    )
    dtype = best.removeprefix("ours-tensorflow-")
    nll, grid = "decodes_per_second", "seconds"
    return [
        (f"faster than the tutorial as written, ours in {dtype}", speedup("tutorial", best), "4 ×"),
        (f"faster than plain Keras, TensorFlow, ours in {dtype}", speedup("plain-tensorflow", best), "1.6 ×"),
        ("the same, both in float32", speedup("plain-tensorflow", OURS), "1.15 ×"),
        ("faster than plain Keras on JAX, both on JAX", speedup("plain-jax", "ours-jax-float32"), "5 ×"),
        ("faster than PyTorch by hand, float32", speedup("torch-float32", OURS), ""),
        (f"faster than PyTorch by hand in bfloat16, ours in {dtype}", speedup("torch-bfloat16", best), "1 ×"),
        (f"faster than pythae, ours in {dtype}", speedup("pythae", best), "3 ×"),
        (
            "`vae train`, 30 epochs of MNIST ÷ its steps",
            value("whole-training", "wall_over_steps_30_epochs", "{:.3f}"),
            "≤ 1.10",
        ),
        ("time of validation ÷ time of training", value("whole-training", "validation_over_training", "{:.3f}"), ""),
        ("other seconds per epoch", value("whole-training", "other_seconds_per_epoch", "{:.2f}"), ""),
        (
            "seconds of `vae train` before and after its epochs",
            value("whole-training", "seconds_around_epochs", "{:.1f}"),
            "",
        ),
        ("30×30 latent grid, the tutorial’s loop, s", value("grid-tutorial", grid, "{:.2f}"), ""),
        ("the same, ours, s", value("grid-ours", grid, "{:.3f}"), ""),
        ("latent grid, faster by", speedup("grid-tutorial", "grid-ours", grid), "200 ×"),
        ("NLL, pythae’s `get_nll`, decodes/s", value("nll-pythae", nll, "{:,.0f}"), ""),
        ("NLL, ours, decodes/s", value("nll-ours", nll, "{:,.0f}"), ""),
        ("NLL, faster by", speedup("nll-ours", "nll-pythae", nll), "2 ×"),
        ("`import keras_vae`, s", value("import", "seconds", "{:.2f}"), "≤ 0.3"),
        ("`vae --help`, s", value("help", "seconds", "{:.2f}"), "≤ 0.5"),
    ]


def _as_list(value: Any) -> list[float]:
    return value if isinstance(value, list) else [value]


def _console() -> Any:
    from rich.console import Console

    return Console(stderr=True)


def main() -> None:
    """Measure everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="run one short turn")
    parser.add_argument("--turns", type=int, help="number of turns; default 3, quick 1")
    parser.add_argument("--seconds", type=float, help="measured seconds per contender and turn; default 6, quick 3")
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="names of the only measurements to run")
    parser.add_argument("--out", type=Path, default=HERE, help="the folder of results.md and results.json")
    arguments = parser.parse_args()
    turns, seconds = (
        arguments.turns or (1 if arguments.quick else 3),
        arguments.seconds or (3 if arguments.quick else 6),
    )
    names = [*contenders.ALL, *measures.MEASURES, *STARTS]
    if unknown := sorted(set(arguments.only) - set(names)):
        parser.error(f"--only {' '.join(unknown)}: choose from {', '.join(names)}")
    options = ["--quick"] * arguments.quick + [f"--turns {turns}", f"--seconds {seconds:g}"]
    command = " ".join(["python -m benchmarks", *options, *(["--only", *arguments.only] if arguments.only else [])])
    started, about, out = time.perf_counter(), machine(), arguments.out

    def save(results: Results) -> None:
        write_text(out / "results.json", json.dumps({"machine": about, "results": results}) + "\n")
        write_text(out / "results.md", format_report(results, about, command))

    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except OSError as error:
        parser.error(f"--out = {out}: cannot be written ({error.strerror}); choose another folder")
    report = format_report(measure(turns, seconds, arguments.quick, arguments.only, save), about, command)
    print(report)
    print(f"{time.perf_counter() - started:.0f} s", file=sys.stderr)


if __name__ == "__main__":
    main()
