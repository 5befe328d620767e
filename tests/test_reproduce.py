"""`python -m benchmarks.reproduce`: rows, rounding, the page and resuming."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks import reproduce, reproduce_page, results
from benchmarks.reproduce_page import Measured
from benchmarks.reproduce_rows import ROWS, Row, find

from helpers import on_tensorflow
from keras_vae.core.errors import InputError

ROOT = Path(__file__).parents[1]


def row_named(name: str) -> Row:
    row = find(name)
    assert row is not None
    return row


def likelihood(nll: float) -> dict[str, Any]:
    return {
        "nll": {"mean": nll, "standard_error": 0.21},
        "effective_sample_size": {"median": 99.6, "percentile_5": 6.21},
        "trusted": True,
    }


def record(seed: int, nll: float, **changes: Any) -> dict[str, Any]:
    row = row_named("mnist-dense")
    return {
        "row": row.name,
        "seed": seed,
        "quick": False,
        "key": json.loads(json.dumps(row.key)),
        "command": f"python -m benchmarks.reproduce {row.name}",
        "machine": {"processor": "A processor", "cores": 2, "versions": {"keras": "3.15.1", "jax": "0.10.2"}},
        "results": {
            "train": {"checksum": f"{seed}abc", "devices": ["cpu:0", "cuda:0"]},
            "posterior": likelihood(nll),
            "mixture": likelihood(nll - 0.3),
        },
        "minutes": {"train": 40.0 + seed, "posterior": 10.0, "mixture": 9.0},
        "starts": {"train": 3, "posterior": 1, "mixture": 1},
        **changes,
    }


@pytest.mark.parametrize(
    ("error", "places"), [(0.21, 2), (0.354, 2), (0.36, 1), (0.96, 1), (0.0044, 3), (0.00061, 4), (14.2, 0), (1.2, 1)]
)
def test_error_determines_the_digits(error: float, places: int) -> None:
    assert reproduce_page.decimals(error) == places


def test_median_has_the_error_of_its_seed_and_a_range() -> None:
    values = [Measured(81.316, 0.2), Measured(81.104, 0.4), Measured(81.221, 0.213)]
    assert reproduce_page.over_seeds(values) == "81.22 ± 0.21 (81.10 to 81.32)"
    assert reproduce_page.over_seeds(values[1:2]) == "81.1 ± 0.4"


def test_row_shows_both_estimates_and_its_verdict() -> None:
    records = [record(seed, nll) for seed, nll in enumerate((81.45, 81.21, 81.38))]
    page = reproduce_page.content(records)
    (line,) = [line for line in page.splitlines() if line.startswith("| `mnist-dense`")]
    assert "| 81.38 ± 0.21 (81.21 to 81.45) | 81.08 ± 0.21 (80.91 to 81.15) |" in line
    assert "100 (6.2), posterior; 100 (6.2), mixture" in line
    assert "| 41 of training, 19 of evaluation | missed |" in line
    assert "SHA-256 of the weights of seed 2: `2abc`" in page
    assert "A processor, 2 cores, cuda:0; keras 3.15.1, jax 0.10.2" in page
    assert "* `sprites`: " in page.partition("Not measured yet:")[2]
    assert "`mnist-dense`" not in page.partition("Not measured yet:")[2]


def test_goal_is_judged_by_the_median_of_all_seeds() -> None:
    reached = [record(seed, nll) for seed, nll in enumerate((81.45, 81.21, 81.29))]
    assert "| reached |" in reproduce_page.content(reached)
    assert "| 2 of 3 seeds |" in reproduce_page.content(reached[:2])
    row = row_named("sprites")
    assert row.goal.is_reached(0.31)
    assert not row.goal.is_reached(0.29)
    assert str(row.goal) == "≥ 0.3 (MIG)"


def test_what_was_tried_is_listed_if_the_goal_is_missed() -> None:
    row = Row(**{**vars(row_named("mnist-dense")), "tried": ("Twice the epochs.",)})
    missed = [record(seed, 82.0) for seed in range(3)]
    assert "tried: Twice the epochs." in reproduce_page.content(missed, rows=[row])
    assert "tried" not in reproduce_page.content([record(seed, 81.0) for seed in range(3)], rows=[row])


def test_time_before_a_kill_is_not_hidden() -> None:
    killed = record(0, 81.0, starts={"train": 1, "posterior": 2, "mixture": 1})
    assert "at least 19 of evaluation" in reproduce_page.content([killed])


def test_records_of_other_settings_and_quick_ones_are_not_shown() -> None:
    row = row_named("mnist-dense")
    records = [record(0, 81.0, key={}), record(1, 81.0, quick=True), record(2, 90.0), record(2, 81.0)]
    assert reproduce_page.records_of(row, records) == records[3:]
    assert reproduce_page.records_of(row, records, quick=True) == records[1:2]


def test_only_the_part_between_the_markers_is_rewritten() -> None:
    page = "# Title\n\n<a>\n\nold\n\n<b>\n\nkept\n"
    assert results.replace_between(page, "<a>", "<b>", "new") == page.replace("old", "new")
    for wrong in ("no markers", "<b> <a>", "<a> <a> <b>"):
        with pytest.raises(InputError, match="page: "):
            results.replace_between(wrong, "<a>", "<b>", "new")


def test_page_of_the_docs_is_the_one_of_the_records() -> None:
    destination = reproduce.Destination.of(None, quick=False)
    page = destination.page.read_text("utf-8")
    content = reproduce_page.content(destination.read())
    assert page == results.replace_between(page, reproduce_page.START, reproduce_page.END, content)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_experiment_of_every_row_is_valid(row: Row) -> None:
    from keras_vae.data.info import DatasetInfo
    from keras_vae.runs.build import resolve

    experiment = row.experiment(seed=1)
    size = 64 if experiment.data.source == "sprites" else 28
    assert resolve(experiment, DatasetInfo((size, size, 1), 50_000)).experiment.seed == 1
    assert json.loads(json.dumps(row.key)) == row.key
    assert row.goal.metric.split(".")[0] in {step.name for step in row.steps}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sprite"], "ROW = 'sprite': unknown; did you mean 'sprites'?"),
        (["sprites", "--seeds", "0"], "--seeds = 0: "),
        (["sprites", "--out", str(ROOT / "src")], "--out = "),
    ],
)
def test_wrong_arguments_are_rejected_in_one_line(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        reproduce, "measured_rows", lambda *_: pytest.fail("measured before the arguments were checked")
    )
    assert reproduce.main(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"benchmarks.reproduce: {message}")
    assert error.count("\n") == 1


def test_page_is_written_without_a_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reproduce, "measured_rows", lambda *_: pytest.fail("measured"))
    assert reproduce.main(["page", "--out", str(tmp_path / "out")]) == 0
    assert "Not measured yet:" in (tmp_path / "out" / "results.md").read_text()


def test_missing_package_is_reported_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "pythae" else object())
    with pytest.raises(InputError, match="ROW = samples: needs pythae, which is not installed"):
        reproduce.check("samples", None)


def test_interrupted_measurement_resumes_at_its_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken, failing = list[str](), {"mixture"}

    def measured(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[dict[str, Any]]:
        _, module, name, seed, _, *steps, quick = command
        assert (module, name, seed, quick) == ("benchmarks.reproduce_steps", "mnist-dense", "0", "--quick")
        for step in steps:
            if step in failing:
                raise KeyboardInterrupt
            taken.append(f"{step} on {environment['KERAS_BACKEND']}")
            yield {"minutes": 7.0, "checksum": "abc"} if step == "train" else likelihood(81.0)

    monkeypatch.setattr(reproduce, "measured_rows", measured)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    arguments = ["mnist-dense", "--quick", "--seeds", "1", "--out", str(tmp_path / "out")]
    with pytest.raises(KeyboardInterrupt):
        reproduce.main(arguments)
    assert not (tmp_path / "out" / "records.jsonl").read_text()
    failing.clear()
    for _ in range(2):
        assert reproduce.main(arguments) == 0
    assert taken == ["train on jax", "posterior on tensorflow", "mixture on tensorflow"]
    (line,) = (tmp_path / "out" / "records.jsonl").read_text().splitlines()
    found = json.loads(line)
    assert found["starts"] == {"train": 1, "posterior": 1, "mixture": 2}
    assert found["minutes"]["train"] == 7.0
    assert str(tmp_path) not in line
    page = (tmp_path / "out" / "results.md").read_text()
    assert "7 of training, at least 0 of evaluation | 1 of 3 seeds |" in page
    assert "the numbers mean nothing" in page


def test_folder_of_other_settings_is_refused(tmp_path: Path) -> None:
    (tmp_path / "steps.json").write_text(json.dumps({"key": {}, "results": {}, "minutes": {}, "starts": {}}))
    with pytest.raises(InputError, match="contains a measurement with other settings"):
        reproduce.measure_seed(row_named("sprites"), 0, tmp_path, quick=False)


def test_area_has_the_error_of_hanley_and_mcneil() -> None:
    from benchmarks.reproduce_steps import area_with_error, relative_error

    rng, areas = np.random.default_rng(0), []
    is_anomaly = np.arange(300) < 60
    for _ in range(400):
        found = area_with_error(is_anomaly, rng.normal(size=300) + is_anomaly)
        areas.append(found["mean"])
    assert found["standard_error"] == pytest.approx(np.std(areas), rel=0.2)
    images = np.full((2, 2, 2, 1), 255, "uint8")
    half = np.stack([np.full((2, 2, 1), 0.5), np.ones((2, 2, 1))])
    np.testing.assert_allclose(relative_error(images, half), [0.25, 0.0])


def test_mean_over_digits_has_an_error_and_a_checksum(tmp_path: Path) -> None:
    from benchmarks.reproduce_steps import Task, mean_area

    digits = {
        f"without_{digit}": {"checksum": str(digit), "nll": {"mean": area, "standard_error": 0.03}}
        for digit, area in enumerate((0.9, 0.5))
    }
    found = mean_area(Task(row_named("anomaly"), 0, tmp_path, False, {**digits, "other": {}}))
    assert found["nll"] == {"mean": 0.7, "standard_error": pytest.approx(0.03 / 2**0.5)}
    assert found["checksum"] == hashlib.sha256(b"01").hexdigest()


def test_samples_are_compared_with_the_best_of_each_distance(tmp_path: Path) -> None:
    from benchmarks.reproduce_steps import Task, compare_samples

    def distances(frechet: float, kid: float) -> dict[str, Any]:
        values = {"frechet_distance": frechet, "kid": kid}
        return {name: {"mean": value, "standard_error": 0.1 * value} for name, value in values.items()}

    done = {
        "samples": distances(8.0, 3.0),
        "pythae_VAE": {"normal": distances(20.0, 4.0), "mixture": distances(10.0, 9.0)},
        "pythae_VAMP": {"normal": distances(30.0, 5.0)},
    }
    found = compare_samples(Task(row_named("samples"), 0, tmp_path, False, done))
    assert found["ratio"] == pytest.approx({"mean": 0.8, "standard_error": 0.8 * 0.1 * 2**0.5})
    assert found["best_frechet_distance"]["mean"] == 10.0
    assert found["best_by_frechet_distance"] == "VAE, mixture"
    assert found["best_by_kid"] == "VAE, normal"


@on_tensorflow("the benchmark selects its own backends")
@pytest.mark.slow
def test_quick_row_is_measured_from_training_to_page(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "benchmarks.reproduce",
        "mnist-hierarchy",
        "--quick",
        "--seeds",
        "1",
        "--out",
        "out",
    ]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "out" / "records.jsonl").read_text())
    assert set(found["results"]) == {"train", "posterior"}
    assert len(found["results"]["train"]["checksum"]) == 64
    assert found["results"]["posterior"]["samples"] == 4
    assert f"`{found['results']['train']['checksum']}`" in (tmp_path / "out" / "results.md").read_text()
    assert str(tmp_path) not in (tmp_path / "out" / "results.md").read_text()


def test_estimates_that_the_evaluation_does_not_trust_are_marked() -> None:
    found = record(0, 81.0)
    found["results"]["mixture"] |= {"trusted": False, "effective_sample_size": {"median": 950.0, "percentile_5": 150.4}}
    page = reproduce_page.content([found])
    assert "100 (6.2), posterior; 950 (150), mixture, not trusted" in page


def test_records_of_a_preset_that_has_changed_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    row = row_named("mnist-dense")
    assert reproduce_page.records_of(row, [record(0, 81.0)], False)
    kept, experiment = record(0, 81.0), row.experiment(0).with_overrides(["training.batch_size=7"])
    monkeypatch.setattr(Row, "experiment", lambda self, seed: experiment)
    assert not reproduce_page.records_of(row, [kept], False)


def test_page_rejects_a_number_of_seeds() -> None:
    with pytest.raises(InputError, match="--seeds = 3: page measures nothing; leave --seeds out"):
        reproduce.check("page", 3)
