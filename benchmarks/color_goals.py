"""The goals of color images: which commands measure them, and when they are reached.

Each command prints one JSON object per measurement, one per line; other lines are for readers.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

Row = dict[str, Any]

NUM_CODES = 4096


class Verdict(NamedTuple):
    """One row of the table of goals.

    Args:
        subject: What was measured.
        target: The goal in words; empty if the number is only reported.
        measured: The measured numbers in words.
        is_reached: Whether they reach the goal; None without a goal.
    """

    subject: str
    target: str
    measured: str
    is_reached: bool | None


@dataclass(frozen=True)
class Goal:
    """A goal.

    Args:
        module: Module of `benchmarks` that measures it.
        parts: Arguments of each command, by the name of its part. Parts are measured, and resumed, one after another.
        judge: Maps the rows of one part to its verdict.
        has_seeds: Whether the module accepts `--seeds`.
        folder: Argument that selects where the module keeps trained models, if it does.
        resumes: Whether the module reuses the models in this folder.
    """

    module: str
    parts: dict[str, tuple[str, ...]]
    judge: Callable[[str, Sequence[Row]], Verdict]
    has_seeds: bool = True
    folder: str | None = None
    resumes: bool = False

    def command(self, part: str, seeds: int, out: Path) -> list[str]:
        """Return the arguments of Python that measure a part.

        Args:
            part: Name of the part.
            seeds: Number of seeds.
            out: Folder of the results.
        """
        command = ["-m", f"benchmarks.{self.module}", *self.parts[part]]
        command += ["--seeds", str(seeds)] if self.has_seeds else []
        return command + ([self.folder, str(self.runs(part, out) / "run")] if self.folder else [])

    def runs(self, part: str, out: Path) -> Path:
        """Return the folder of the models that are trained for a part."""
        return out / self.module / part.replace(" ", "-")


def mean_and_error(values: Sequence[float], unit: str, digits: int = 2) -> str:
    """Return the mean and its standard error over seeds in words.

    Example:
        >>> mean_and_error([1.0, 2.0, 3.0], "dB")
        '2.00 ± 0.58 dB'
    """
    mean = statistics.mean(values)
    if len(values) == 1:
        return f"{mean:.{digits}f} {unit}".rstrip()
    error = statistics.stdev(values) / math.sqrt(len(values))
    return f"{mean:.{digits}f} ± {error:.{digits}f} {unit}".rstrip()


def judge_sharp(part: str, rows: Sequence[Row]) -> Verdict:
    """Compare the models with and without image losses, seed by seed."""
    by_seed = {(row["contender"], row["seed"]): row for row in rows}
    seeds = sorted({row["seed"] for row in rows})
    pairs = [(by_seed["likelihood", seed], by_seed["image losses", seed]) for seed in seeds]
    changes = [100 * (sharp["distance"] / plain["distance"] - 1) for plain, sharp in pairs]
    gains = [sharp["psnr"] - plain["psnr"] for plain, sharp in pairs]
    return Verdict(
        f"Fréchet distance and PSNR of reconstructions with image losses, {part}",
        "−30 %, at most −1.5 dB",
        f"{mean_and_error(changes, '%', 0)}, {mean_and_error(gains, 'dB')}",
        statistics.mean(changes) <= -30 and statistics.mean(gains) >= -1.5,
    )


def judge_codes(part: str, rows: Sequence[Row]) -> Verdict:
    """Return the share of codes that a quantizer uses; `ema` has no goal."""
    shares = [100 * row["code_usage"] for row in rows]
    has_goal = part != "ema"
    return Verdict(
        f"codes in use, {part}, {NUM_CODES:,} codes",
        "at least 95 %, every seed" if has_goal else "",
        mean_and_error(shares, "%", 1),
        min(shares) >= 95 if has_goal else None,
    )


def judge_flow(part: str, rows: Sequence[Row]) -> Verdict:
    """Return the part of the distance that the flow-matching prior covers, and the minutes of a fit.

    Other programs lengthen the wall time, and several threads the processor time. On idle cores, a fit takes no longer
    than the shorter of the two.
    """
    covered = [row["covered"] for row in rows]
    minutes = [min(row["minutes"], row["processor_minutes"]) for row in rows]
    return Verdict(
        f"flow matching, {part}",
        "covers at least 50 % in 10 minutes, every seed",
        f"{mean_and_error([100 * share for share in covered], '%', 0)} in {mean_and_error(minutes, 'minutes', 1)}",
        min(covered) >= 0.5 and max(minutes) <= 10,
    )


def judge_tiling(part: str, rows: Sequence[Row]) -> Verdict:
    """Return the peak memory and the largest difference of tiles; that of codes is reported only."""
    (row,) = rows
    is_image = part == "decode"
    unit = "/255" if is_image else " standard deviations of the code"
    return Verdict(
        f"tiles, {part} {row['side']}²",
        "at most 25 % of the memory" + (", at most 2/255" if is_image else ""),
        f"{row['tiled']:.2f} of {row['whole']:.2f} GiB ({row['ratio']:.0%}), {row['difference']:.2g}{unit}",
        row["ratio"] <= 0.25 and (row["difference"] <= 2 or not is_image),
    )


def judge_missing(part: str, rows: Sequence[Row]) -> Verdict:
    """Compare the errors of imputed pixels, seed by seed."""
    ours, theirs = ([row[name] for row in rows] for name in ("vae", "iterative_imputer"))
    return Verdict(
        f"root mean squared error of missing pixels, {part}",
        "below IterativeImputer, every seed",
        f"{mean_and_error(ours, '', 3)}, IterativeImputer {mean_and_error(theirs, '', 3)}",
        all(our < their for our, their in zip(ours, theirs, strict=True)),
    )


def judge_sampling(part: str, rows: Sequence[Row]) -> Verdict:
    """Return the time of drawing one map from the prior of a VQ-VAE."""
    (row,) = rows
    return Verdict(
        f"a map of 16×16 codes out of {NUM_CODES:,}, {part}",
        "in seconds",
        f"{row['loop']:.2f} s; the whole model per position, {row['whole']:.1f} s",
        row["loop"] <= 10,
    )


GOALS = {
    "sharp": Goal("color_sharp", {"emoji": ()}, judge_sharp, folder="--out"),
    "codes": Goal(
        "color_codes", {name: ("--json", "--quantizers", name) for name in ("fsq", "simvq", "ema")}, judge_codes
    ),
    "flow": Goal(
        "color_flow",
        {name: ("--models", name) for name in ("mnist-16d", "flow-prior", "emoji")},
        judge_flow,
        folder="--folder",
        resumes=True,
    ),
    "tiling": Goal(
        "color_tiling", {name: ("--direction", name) for name in ("encode", "decode")}, judge_tiling, has_seeds=False
    ),
    "missing": Goal("color_missing", {"digits": ()}, judge_missing),
    "sampling": Goal("color_prior_sampling", {"one map": ("--json", "--maps", "1")}, judge_sampling, has_seeds=False),
}
