"""Writing into a run: one process at a time, and nothing outside of the run."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import keras_vae
from helpers import SMALL, Interrupt, small
from keras_vae import EvaluationConfig, InputError, RunError
from keras_vae.data.dataset import Splits
from keras_vae.explorer.space import write_space
from keras_vae.integrations.hub import copy_files, push
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.run import Run
from keras_vae.training.trainer import resume, train
from lock_helpers import held_elsewhere

ELBO = EvaluationConfig(samples=0)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run without an evaluation."""
    settings = [*SMALL, "data.source=digits", "training.epochs=1", "training.batch_size=512"]
    return train(
        Experiment.preset("classic").with_overrides(settings), out=tmp_path_factory.mktemp("runs") / "run"
    ).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    return Run(shutil.copytree(trained, tmp_path / "run"))


WRITERS: dict[str, Callable[[Run], object]] = {
    "evaluate": lambda run: keras_vae.evaluate(run, config=ELBO, stages=["likelihood"]),
    "write_report": keras_vae.write_report,
    "fit_prior": lambda run: keras_vae.fit_prior(run, epochs=1),
    "push": lambda run: push(run, "owner/name"),
}


@pytest.mark.parametrize("name", WRITERS)
def test_run_in_use_is_not_written(name: str, run: Run) -> None:
    if name == "push":
        pytest.importorskip("huggingface_hub", reason="keras-vae[hub] is not installed")
    before = sorted(path.name for path in run.path.iterdir())
    with held_elsewhere(run.lock()), pytest.raises(RunError, match=f"^run = {run.path}: in use by process"):
        WRITERS[name](run)
    assert sorted(path.name for path in run.path.iterdir()) == before


def test_two_processes_do_not_resume_one_run(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(small(), splits, tmp_path / "run", callbacks=[Interrupt(1, 0)])
    run = Run.open(tmp_path / "run")
    with held_elsewhere(run.lock()), pytest.raises(RunError, match=f"^run = {run.path}: in use by process"):
        resume(run, splits)
    assert len(run.metrics["epoch"]) == 1
    assert resume(run, splits).is_complete


def test_reading_needs_no_lock(run: Run) -> None:
    with held_elsewhere(run.lock()):
        assert Run.open(run.path).load_model().latent_dim == 2
        assert keras_vae.diagnose(run) is not None


def test_lock_removes_only_files_that_killed_processes_left(run: Run) -> None:
    leftovers = [run.path / ".evaluation.999999999.part.json", run.path / "figures" / ".grid.999999999.part.png"]
    kept = [run.path / f".model.{1}.part.keras", run.path / ".z.npz.part" / "key", run.path / "notes.part.txt"]
    for file in (*leftovers, *kept):
        file.parent.mkdir(exist_ok=True)
        file.write_text("")
    with run.lock():
        pass
    assert not any(file.exists() for file in leftovers)
    assert all(file.exists() for file in kept), "process 1 is running, and the others are not temporary files"


def link(run: Run, name: str, target: Path) -> None:
    path = run.path / name
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def test_links_out_of_a_run_are_not_shared(run: Run, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "grid.png").write_text("secret")
    for name, target in (
        ("images.npz", secret / "grid.png"),
        ("figures", secret),
        ("code", secret),
        ("fitted.keras", Path("..") / "secret" / "grid.png"),
    ):
        link(run, name, target)
        (secret / "parts.py").write_text("secret")
        for share in (copy_files, lambda run, out: write_space(run, out / "space")):
            with pytest.raises(InputError, match=f"{name}.*: a link that leaves {run.path}, to .*secret") as caught:
                share(run, tmp_path / "out")
            assert len(str(caught.value).splitlines()) == 1
        assert "secret" not in [file.read_text("latin-1") for file in (tmp_path / "out").rglob("*") if file.is_file()]
        (run.path / name).unlink()
    # A link inside of the run is shared as a file.
    link(run, "evaluation.json", run.path / "environment.json")
    copy_files(run, tmp_path / "copy")
    assert (tmp_path / "copy" / "evaluation.json").read_bytes() == (run.path / "environment.json").read_bytes()
    assert not (tmp_path / "copy" / "evaluation.json").is_symlink()


def test_nothing_is_written_through_links_out_of_a_run(run: Run, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    for name in ("figures", "export", "checkpoint"):
        link(run, name, elsewhere)
    writers = (
        lambda: run.figure_path("grid"),
        lambda: keras_vae.write_report(run),
        lambda: run.write_checkpoint({"weights": []}, {"epoch": []}),
    )
    for write in writers:
        with pytest.raises(InputError, match=f"a link that leaves {run.path}, to {elsewhere}; replace the link"):
            write()
    with pytest.raises(InputError, match=r"figure = '../x': contains '/'"):
        run.figure_path("../x")
    assert list(elsewhere.iterdir()) == []


def test_deleted_run_is_reported(run: Run) -> None:
    shutil.rmtree(run.path)
    with pytest.raises(RunError, match=f"^run = {run.path}: was deleted or moved by another process; restore it"):
        run.write_metrics({"epoch": [1]})
    assert not run.path.exists()


@pytest.mark.parametrize("name", ["", "..", "../../x", "/tmp/x", "a/b", "a\\b", "a\0b", "a\nb", ".hidden", "x" * 300])
def test_name_of_an_experiment_is_not_a_path(name: str) -> None:
    with pytest.raises(InputError, match=r"^name = .*; choose a .*name") as caught:
        Experiment(name=name)
    assert len(str(caught.value).splitlines()) == 1
    for accepted in ("classic", "β-VAE, 2 epochs", "実験", "a..b", "x" * 200):
        assert Experiment(name=accepted).name == accepted
