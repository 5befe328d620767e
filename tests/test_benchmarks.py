"""The benchmarks run and report their measurements."""

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

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
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import color_missing

    # The VAE wins long before its training ends.
    monkeypatch.setattr(color_missing, "EPOCHS", 40)
    monkeypatch.setattr(sys, "argv", ["color_missing.py", "--seeds", "1", "--samples", "100"])
    color_missing.main()
    rows = [line.split("|") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    errors = {row[1].strip(): float(row[2]) for row in rows[1:]}
    assert 0.1 < errors["VAE"] < errors["IterativeImputer"] < errors["mean of each pixel"], errors
