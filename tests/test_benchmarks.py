"""The benchmarks run and report their measurements."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from benchmarks import __main__ as benchmark
from benchmarks import color, color_goals, color_missing

from helpers import on_tensorflow

ROOT = Path(__file__).parents[1]


@on_tensorflow("each contender selects its own backend")
@pytest.mark.slow
def test_quick_benchmark_writes_its_measurements(tmp_path: Path) -> None:
    names = ["plain-tensorflow", "ours-tensorflow-float32", "grid-ours", "help"]
    command = [sys.executable, "-m", "benchmarks", "--quick", "--seconds", "0.1", "--out", str(tmp_path), "--only"]
    done = subprocess.run(
        [*command, *names], cwd=ROOT, env={**os.environ, "PYTHONPATH": ""}, capture_output=True, text=True, check=True
    )
    assert "failed" not in done.stderr
    measured = json.loads((tmp_path / "results.json").read_text())["results"]
    assert set(measured) == set(names)
    assert all(len(turns) == 1 for turns in measured.values())
    report = (tmp_path / "results.md").read_text()
    plain, ours = (min(measured[name][0]["step_milliseconds"]) for name in names[:2])
    assert plain > 0
    assert ours > 0
    assert "the same, both in float32" in report
    assert str(tmp_path) not in report


def test_results_are_written_after_each_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, written = tmp_path / "new" / "folder", []

    def measured(*_: object) -> tuple[None, float]:
        file = out / "results.json"
        written.append(json.loads(file.read_text())["results"] if file.exists() else None)
        return None, 2.0

    monkeypatch.setattr(benchmark, "run", measured)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--turns", "2", "--only", "help", "--out", str(out)])
    benchmark.main()
    assert written == [None, {"help": [{"seconds": 2.0}]}]
    assert "| `vae --help`, s | 2.00 |" in (out / "results.md").read_text()


def test_folder_of_the_results_is_checked_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setattr(benchmark, "run", lambda *_: pytest.fail("measured before the folder was checked"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--only", "help", "--out", str(tmp_path / "file")])
    with pytest.raises(SystemExit):
        benchmark.main()
    assert f"--out = {tmp_path / 'file'}: cannot be written" in capsys.readouterr().err


@on_tensorflow("the page uses the backend of the run")
@pytest.mark.slow
@pytest.mark.parametrize("run", ["mnist-2d", "mnist-16d"])
def test_latency_of_every_event_of_the_page_is_measured(
    run: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import explorer

    monkeypatch.setattr(sys, "argv", ["explorer.py", run, "--repeats", "1"])
    logger = logging.getLogger("tensorflow")
    level = logger.level
    failure = ""
    try:
        explorer.main()
    except SystemExit as end:
        failure = str(end.code)
    finally:
        logger.setLevel(level)
    # The speed of the machine must not decide: accept a latency above the limit, but no other failure.
    assert not failure or "an event took more than" in failure
    measured = [line.split("  ")[0] for line in capsys.readouterr().out.splitlines()]
    assert len(measured) == 12
    assert {"map: decode a point", "arithmetic: choose an image", "draw: an upload", "report: open"} <= set(measured)


@on_tensorflow("the benchmark selects its own backend")
@pytest.mark.slow
def test_vae_imputes_digits_better_than_the_iterative_imputer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # The VAE wins long before its training ends.
    monkeypatch.setattr(color_missing, "EPOCHS", 40)
    monkeypatch.setattr(sys, "argv", ["color_missing.py", "--seeds", "1", "--samples", "100"])
    color_missing.main()
    row, *_, verdict = capsys.readouterr().out.splitlines()
    errors = json.loads(row)
    assert 0.1 < errors["vae"] < errors["iterative_imputer"] < errors["pixel_mean"]
    assert verdict.startswith("goal reached")


def sharp_rows(distance: float, psnr: float) -> list[dict[str, Any]]:
    """Return the rows of two seeds with a ratio of distances and a PSNR with image losses."""
    plain = [{"contender": "likelihood", "seed": seed, "distance": 2.0 + seed, "psnr": 20.0} for seed in (0, 1)]
    sharp = [{"contender": "image losses", "seed": s, "distance": distance * (2 + s), "psnr": psnr} for s in (0, 1)]
    return [*plain, *sharp]


def fit(covered: float, minutes: float, processor_minutes: float | None = None) -> dict[str, float]:
    """Return the row of a flow-matching prior, whose processor time is the wall time by default."""
    processor = minutes if processor_minutes is None else processor_minutes
    return {"covered": covered, "minutes": minutes, "processor_minutes": processor}


@pytest.mark.parametrize(
    ("goal", "part", "rows", "reached", "measured"),
    [
        ("sharp", "emoji", sharp_rows(0.6, 19.0), True, "-40 ± 0 %, -1.00 ± 0.00 dB"),
        ("sharp", "emoji", sharp_rows(0.6, 18.0), False, "-40 ± 0 %, -2.00 ± 0.00 dB"),
        ("sharp", "emoji", sharp_rows(0.8, 20.0), False, "-20 ± 0 %, 0.00 ± 0.00 dB"),
        # The standard error of 0.94, 0.97 and 1 is 0.03 / √3.
        ("codes", "fsq", [{"code_usage": share} for share in (0.94, 0.97, 1.0)], False, "97.0 ± 1.7 %"),
        ("codes", "simvq", [{"code_usage": 0.96}], True, "96.0 %"),
        ("codes", "ema", [{"code_usage": 0.1}], None, "10.0 %"),
        ("flow", "emoji", [fit(0.6, 9.0), fit(0.6, 11.0)], False, "60 ± 0 %"),
        ("flow", "emoji", [fit(0.6, 9.0, 14.0), fit(0.6, 14.0, 9.0)], True, "60 ± 0 % in 9.0 ± 0.0 minutes"),
        ("flow", "emoji", [fit(0.4, 9.0), fit(0.8, 9.0)], False, "60 ± 20 %"),
        (
            "missing",
            "digits",
            [{"vae": 0.1, "iterative_imputer": 0.2}, {"vae": 0.3, "iterative_imputer": 0.2}],
            False,
            "0",
        ),
    ],
)
def test_goals_are_judged(goal: str, part: str, rows: list[Any], reached: bool | None, measured: str) -> None:
    verdict = color_goals.GOALS[goal].judge(part, rows)
    assert verdict.is_reached is reached
    assert verdict.measured.startswith(measured)


def test_goals_resume_after_the_last_complete_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = tmp_path / "module.py"
    script.write_text(
        "import pathlib, sys\n"
        "calls = pathlib.Path(sys.argv[1]).parent / 'calls'\n"
        "with calls.open('a') as file: print(sys.argv[2], file=file)\n"
        "print('{\"code_usage\": 0.5}', flush=True)\n"
        "sys.exit(sys.argv[2] == 'simvq' and not (calls.parent / 'repaired').exists())\n"
    )

    class Scripted(color_goals.Goal):
        def command(self, part: str, seeds: int, out: Path) -> list[str]:
            return [str(script), str(script), part]

    goal = color_goals.GOALS["codes"]
    monkeypatch.setitem(color_goals.GOALS, "codes", Scripted(goal.module, goal.parts, goal.judge))
    monkeypatch.setenv("KERAS_VAE_DATA", str(tmp_path))
    (tmp_path / "emoji.npz").touch()
    arguments = ["--seeds", "1", "--goals", "codes", "--out", str(tmp_path / "out")]
    assert color.main(arguments) == 1
    assert "failed with exit code 1" in capsys.readouterr().err
    (tmp_path / "repaired").touch()
    assert color.main(arguments) == 0
    assert (tmp_path / "calls").read_text().split() == ["fsq", "simvq", "simvq", "ema"]
    table = capsys.readouterr().out
    assert table.count("50.0 %") == 3
    assert table.count("| missed |") == 2
    assert (tmp_path / "out" / "results.md").read_text() == table
    for wrong, message in ((["--seeds", "2"], "contains results of 1 seeds"), (["--out", str(script)], "exists, and")):
        assert color.main([*arguments, *wrong]) == 2
        assert message in capsys.readouterr().err
