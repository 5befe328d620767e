"""Training, evaluation and report as three separate steps."""

import contextlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from keras import ops

import keras_vae
from helpers import SMALL, on_tensorflow, small, train_and_report
from keras_vae import InputError, Run, cli, compare, diagnose, evaluate, fit_prior, train, write_report
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.evaluation.evaluate import EvaluationConfig
from keras_vae.report.plots import PLOTS

ELBO = EvaluationConfig(samples=0)


@pytest.fixture(scope="module")
def folder(shared_images: Array, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images and a run that was trained on them."""
    with contextlib.chdir(tmp_path_factory.mktemp("flow")):
        np.savez("frames.npz", images=shared_images)
        train(small("data.source=frames.npz", "training.epochs=1"), out="run")
        return Path.cwd()


@pytest.fixture
def run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A trained run with neither an evaluation nor a report, whose images can be loaded."""
    monkeypatch.chdir(shutil.copytree(folder, tmp_path, dirs_exist_ok=True))
    return Run.open("run")


def test_evaluation_and_report_are_separate_calls_after_training(run: Run) -> None:
    assert run.is_complete
    assert run.evaluation is None
    evaluate("run", config=ELBO, stages=["likelihood"])
    assert run.evaluation is not None
    assert list(run.evaluation) == ["schema", "model", "likelihood"]
    assert "nll" not in run.evaluation["likelihood"]
    assert not run.has_report
    page = write_report("run").read_text()
    assert {path.name for path in (run.path / "figures").iterdir()} == {f"{name}.png" for name in PLOTS}
    assert page.count("data:image/webp;base64,") == 2 * len(PLOTS)
    assert [finding.name for finding in diagnose("run")] == [finding.name for finding in diagnose(run)]


def test_evaluation_measures_the_saved_model_on_the_test_images(trained_run: Run, splits: Splits) -> None:
    run = trained_run
    evaluation = evaluate(run, splits, ELBO, stages=["likelihood"])["likelihood"]
    bound = -keras_vae.load(run).elbo(splits.test.images, seed=0)
    assert evaluation["split"] == "test"
    assert evaluation["held_out"]
    assert not evaluation["normalized"]
    assert evaluation["negative_elbo"]["mean"] == pytest.approx(bound.mean(), rel=1e-6)
    assert evaluation["negative_elbo"]["standard_error"] == pytest.approx(bound.std(ddof=1) / 2, rel=1e-5)


def test_conditional_model_is_evaluated_given_the_labels(splits: Splits, tmp_path: Path) -> None:
    run = train(small("model.condition=label", "training.epochs=1"), splits, tmp_path / "run")
    terms = run.load_model().elbo_terms(splits.test.images, seed=0, condition=splits.test.labels)
    evaluation = evaluate(run, splits, ELBO, stages=["likelihood"])["likelihood"]
    negative_elbo = ops.convert_to_numpy(terms.negative_elbo)
    assert evaluation["negative_elbo"]["mean"] == pytest.approx(negative_elbo.mean(), rel=1e-5)


@on_tensorflow("pages do not depend on the backend")
@pytest.mark.usefixtures("one_figure")
def test_report_states_that_no_images_were_held_out(images: Array, tmp_path: Path) -> None:
    dataset = Dataset.from_arrays(images, name="frames")
    everything = split(dataset, None, validation=0, test_size=0, holdout=False, seed=0)
    run = train_and_report(small("training.epochs=1", "data.holdout=false"), tmp_path / "run", everything)
    assert not run.evaluation["likelihood"]["held_out"]
    assert "no held-out data" in (run.path / "report.html").read_text()


@on_tensorflow("pages do not depend on the backend")
@pytest.mark.usefixtures("one_figure")
def test_report_marks_densities_and_numbers_that_are_not_bounds(
    trained_run: Run, splits: Splits, tmp_path: Path
) -> None:
    settings = ("model.posterior=deterministic", "model.likelihood=normal", "training.epochs=1")
    run = train_and_report(small(*settings), tmp_path / "run", splits)
    assert run.evaluation["likelihood"]["density"]
    assert not run.evaluation["likelihood"]["bound"]
    page = (run.path / "report.html").read_text()
    usual = trained_run
    evaluate(usual, splits, ELBO, stages=["likelihood"])
    write_report(usual, splits)
    assert usual.evaluation["likelihood"]["bound"]
    assert not usual.evaluation["likelihood"]["density"]
    assert page.count("a density") > (usual.path / "report.html").read_text().count("a density")


def test_runs_are_compared_by_path_or_name(run: Run) -> None:
    with pytest.raises(InputError, match="run = run: has no evaluation"):
        compare([run, "mnist-2d"])
    evaluate(run, config=ELBO, stages=["likelihood"])
    assert compare(["run", "mnist-2d"]).names == ("run", "mnist-2d")


def test_unfinished_run_has_no_report(run: Run) -> None:
    (run.path / "model.keras").unlink()
    with pytest.raises(InputError, match="is unfinished"):
        write_report(run)


def vae(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["vae", *arguments])
    try:
        cli.main()
    except SystemExit as stop:
        return int(stop.code or 0)
    return 0


@on_tensorflow("what the commands call is tested on every backend")
@pytest.mark.usefixtures("one_figure")
@pytest.mark.parametrize("killed", ["evaluation.evaluate.evaluate", "report.report.write_report"])
def test_resume_evaluates_and_reports_a_run_that_was_killed_after_training(
    killed: str, images: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    np.savez("frames.npz", images=images)
    settings = [part for setting in [*SMALL, "training.epochs=2"] for part in ("--set", setting)]
    with monkeypatch.context() as patch:
        patch.setattr(f"keras_vae.{killed}", interrupt)
        assert vae(monkeypatch, "train", "--data", "frames.npz", "--out", "run", *settings) == 130
    assert "continue with `vae train --resume run`" in capsys.readouterr().err
    run = Run.open("run")
    assert run.is_complete
    assert not run.has_report
    weights = (run.path / "model.keras").read_bytes()
    assert vae(monkeypatch, "train", "--resume", "run", "--json") == 0
    assert json.loads(capsys.readouterr().out)["evaluation"] == run.evaluation
    assert run.evaluation is not None
    assert run.has_report
    assert (run.path / "model.keras").read_bytes() == weights
    assert vae(monkeypatch, "train", "--resume", "run") == 0
    assert "complete: nothing to resume" in capsys.readouterr().err


@on_tensorflow("independent of the backend")
def test_public_names_are_imported_on_first_use() -> None:
    names = [
        *("Experiment", "train", "resume", "evaluate", "diagnose", "compare", "write_report", "fit_prior", "load"),
        *("Run", "Dataset", "InputError", "RunError", "register", "Component", "ComponentLayer", "BaseVAE"),
    ]
    code = (
        "import sys, keras_vae\n"
        "assert not {'keras', 'numpy', 'tensorflow', 'matplotlib'} & set(sys.modules)\n"
        f"assert set({names!r}) <= set(keras_vae.__all__) <= set(dir(keras_vae))\n"
        "assert all(callable(getattr(keras_vae, name)) for name in "
        f"{names!r})\n"
        "assert all(hasattr(keras_vae, name) for name in keras_vae.__all__)\n"
        "print('all there')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "all there", done.stderr


def test_prior_that_cannot_be_fitted_is_rejected_before_anything_is_written(run: Run) -> None:
    before = {path.name for path in run.path.iterdir()}
    for prior in ("vamp", {"name": "standard-normal"}):
        with pytest.raises(InputError, match="cannot be fitted to codes; choose realnvp, mixture or flow-matching"):
            fit_prior(run, prior)
    assert {path.name for path in run.path.iterdir()} == before
