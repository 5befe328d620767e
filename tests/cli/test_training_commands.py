"""`vae train`."""

import contextlib
import importlib.util
import io
import json
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import SMALL, Outcome, Vae, assert_rejected
from PIL import Image

from helpers import on_tensorflow
from keras_vae.cli import app
from keras_vae.core import backend
from keras_vae.evaluation import diagnostics

pytestmark = on_tensorflow("what the commands call is tested on every backend")


@pytest.fixture(scope="module")
def training(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Outcome]:
    """A working folder with the run of a training without `--out`, and the output of its command."""
    place, out, err = tmp_path_factory.mktemp("training"), io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        patch.chdir(place)
        code = app(["train", "--data", str(folder), "--set", "name=my run", *SMALL], standalone_mode=False)
    return place, Outcome(code or 0, out.getvalue(), err.getvalue())


@pytest.fixture
def trained_outcome(training: tuple[Path, Outcome], vae: Vae, tmp_path: Path) -> Outcome:
    """The output of the training command, in a working folder with its run."""
    shutil.copytree(training[0], tmp_path, dirs_exist_ok=True)
    return training[1]


def test_train_on_a_folder_reports_the_data_and_prints_the_result(trained_outcome: Outcome) -> None:
    outcome = trained_outcome
    assert outcome.code == 0, outcome.err
    assert "25 train · 2 validation · 3 test · 9×7×1" in outcome.err
    assert "reconstruction" in outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].split(maxsplit=1) == ["run", "runs/my run"]
    assert "negative_elbo" in lines[1]
    assert "nats per image" in lines[1]
    assert "not a normalized likelihood" in outcome.out
    assert Path("runs/my run/report.html").is_file()


def test_train_ends_with_one_line_per_problem(vae: Vae, trained_outcome: Outcome) -> None:
    findings = json.loads(vae("doctor", "runs/my run", "--json").out)
    assert "unsuitable likelihood" in {finding["name"] for finding in findings}
    problems, _, _ = trained_outcome.err.partition("next:\n")
    lines = problems.splitlines()[-len(findings) - 1 :]
    assert lines[0].startswith(f"{len(findings)} problem")
    assert "`vae doctor 'runs/my run'`" in lines[0]
    for line, finding in zip(lines[1:], findings, strict=True):
        name, _, observation = line.strip().partition(": ")
        assert name == finding["name"]
        assert finding["observation"].startswith(observation)
    assert all(finding["name"] in Path("runs/my run/report.html").read_text() for finding in findings)


def test_train_ends_with_commands_that_work(vae: Vae, trained_outcome: Outcome) -> None:
    _, _, suggested = trained_outcome.err.partition("next:\n")
    commands = [shlex.split(line.split("  ")[1]) for line in suggested.splitlines()]
    names = ("explore", "sample", "evaluate")
    assert [words[:3] for words in commands] == [["vae", name, "runs/my run"] for name in names]
    assert vae(*commands[1][1:]).code == 0
    assert Path("samples.png").is_file()


def test_train_finds_a_free_name_and_prints_json(vae: Vae, folder: Path, trained_outcome: Outcome) -> None:
    outcome = vae("train", "--data", folder, "--set", "name=my run", "--json", *SMALL)
    answer = json.loads(outcome.out)
    assert answer["run"] == "runs/my run-2"
    assert answer["evaluation"]["likelihood"]["images"] == 3
    assert "next:" not in outcome.err


def test_a_longer_training_of_the_same_experiment_works_as_the_doctor_suggests(vae: Vae, run: Path) -> None:
    outcome = vae("train", run / "experiment.toml", "--set", "training.epochs=2", "--out", "longer")
    assert outcome.code == 0, outcome.err
    assert "2 of 2 epochs" in vae("info", "longer").out


def test_training_without_held_out_data_or_in_a_slow_precision_is_reported(
    vae: Vae, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "preferred_precision", lambda: "float32")
    Path("mine.toml").write_text(
        f'name = "mine"\n[data]\nsource = "{folder}"\nholdout = false\n'
        '[model]\nlatent_dim = 1\nnetwork = { name = "conv", widths = [2] }\n[training]\nepochs = 1\nbatch_size = 4\n'
    )
    outcome = vae("train", "mine.toml", "--set", "training.precision=mixed_bfloat16")
    assert outcome.code == 0, outcome.err
    (warning,) = (line for line in outcome.err.splitlines() if "bfloat16" in line)
    assert warning.startswith("training.precision = 'mixed_bfloat16': slower than float32")
    assert "no held-out data" in outcome.err
    assert "no held-out data" in outcome.out
    assert "no held-out data" in vae("info", "runs/mine").out


def test_resuming_a_complete_run_changes_nothing(vae: Vae, run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    outcome = vae("train", "--resume", run)
    assert outcome.code == 0
    assert "complete: nothing to resume" in outcome.err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_trackers_record_the_training_and_its_results_and_no_problems_are_stated(
    vae: Vae, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    calls: list[object] = []
    monkeypatch.setattr(diagnostics, "diagnose", lambda *given, **__: calls.append(given) or ())
    outcome = vae("train", "--data", folder, "--out", "run", "--tracker", "tensorboard", *SMALL)
    assert outcome.code == 0, outcome.err
    assert "no problems found\nnext:\n" in outcome.err
    # The report shows the same findings: the run is diagnosed once.
    assert len(calls) == 1
    assert "recorded in tensorboard: tensorboard --logdir run/tensorboard\n" in outcome.err
    assert list(Path("run/tensorboard").glob("events.out.tfevents.*"))
    assert Path("run/tensorboard/projector_config.pbtxt").is_file()
    assert "nothing to resume" in vae("train", "--resume", "run").err
    # The trackers are not settings of the run: one that is left out is announced.
    noted = json.loads(Path("run/trackers.json").read_text())
    Path("run/trackers.json").write_text(json.dumps({**noted, "mlflow": noted["tensorboard"]}))
    again = vae("train", "--resume", "run", "--tracker", "tensorboard")
    assert again.code == 0, again.err
    assert "run is recorded in mlflow: pass `--tracker mlflow` to continue the record\n" in again.err
    assert "is recorded in tensorboard" not in again.err
    assert len(list(Path("run/tensorboard").glob("events.out.tfevents.*"))) == 2


@pytest.mark.parametrize("name", ["tensorboard", "wandb", "mlflow"])
def test_missing_tracker_is_reported_before_images_are_loaded(
    vae: Vae, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package == name else find_spec(package))
    outcome = vae("train", "--data", "nowhere", "--tracker", name)
    assert_rejected(outcome, f"tracker = {name}: {name} is not installed; pip install 'keras-vae[{name}]'")


def test_unknown_tracker_is_rejected(vae: Vae) -> None:
    assert_rejected(vae("train", "--tracker", "aim"), "--tracker")


def write_png(path: Path, shape: tuple[int, ...] = (9, 7)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, 100, "uint8")).save(path)


def truncated(path: Path) -> None:
    write_png(path / "a.png")
    content = (path / "a.png").read_bytes()
    (path / "b.png").write_bytes(content[: len(content) // 2])


def text_as_png(path: Path) -> None:
    write_png(path / "a.png")
    (path / "b.png").write_text("not an image")


def of_two_sizes(path: Path) -> None:
    write_png(path / "a.png")
    write_png(path / "b.png", (5, 5))


def empty_folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("no image here")


def arrays(**contents: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **contents)

    return write


GOOD = np.arange(20 * 6 * 6).reshape(20, 6, 6).astype("uint8")


NAN = np.full((20, 6, 6), np.nan)


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda path: None, "nowhere.npz", "nowhere.npz; accepted: mnist, fashion_mnist, digits, sprites, or"),
        (empty_folder, "folder", "folder: no images, only notes.txt; accepted: .png"),
        (truncated, "folder", "b.png: cannot be read: not a complete PNG"),
        (text_as_png, "folder", "b.png: cannot be read: not a complete PNG"),
        (of_two_sizes, "folder", "b.png 5x5; resize them with --image-size HxW"),
        (arrays(names=np.array(["a", "b"])), "x.npz", "x.npz: no images: the file contains names (2,); pass x_train"),
        (arrays(images=GOOD * 1.0), "x.npz", "images: floats from 0 to 255; pass floats in [0, 1]"),
        (arrays(images=NAN), "x.npz", "images: NaN or infinite pixels; pass floats in [0, 1]"),
        (arrays(images=GOOD.reshape(20, 36)), "x.npz", "images.shape = (20, 36): not images; pass N x H x W"),
        (arrays(images=GOOD[:0]), "x.npz", "images.shape = (0, 6, 6, 1): no pixels; pass at least one image"),
        (arrays(images=GOOD[:1]), "x.npz", "a single image cannot be split or trained on; pass at least two"),
        (
            arrays(images=GOOD, labels=np.arange(7)),
            "x.npz",
            "labels.shape = (7,): there are 20 images; pass one integer",
        ),
        (
            lambda path: path.write_bytes(b"PK\x03\x04 half a zip"),
            "x.npz",
            "x.npz: cannot be read: ",
        ),
    ],
)
def test_train_rejects_invalid_images_and_writes_nothing(
    make: Callable[[Path], object], name: str, message: str, vae: Vae, tmp_path: Path
) -> None:
    make(tmp_path / name)
    assert_rejected(vae("train", "--data", tmp_path / name, *SMALL), message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clasic"], "did you mean 'classic'"),
        (["nowhere.toml"], "nowhere.toml: no such experiment file"),
        (["--data", "mnits"], "did you mean 'mnist'"),
        (["--set", "training.epoch=3"], "did you mean 'epochs'"),
        (["--set", "model.latent_dim=0"], "model.latent_dim = 0"),
        (["--set", "training.epochs=0"], "training.epochs = 0"),
        (["--set", "training.epochs=-1"], "training.epochs = -1"),
        (["--set", "training.batch_size=5000", "--data", "digits"], "training.batch_size = 5000"),
        (["--image-size", "28", "--data", "digits"], "--image-size = 28: not a size; write height x width"),
        (["--resume", "nowhere"], "run = nowhere: does not exist"),
        (["--resume", "nowhere", "--set", "seed=1"], "--resume keeps all settings of the run"),
        (["--data", "digits", "--set", "model.objective=vae"], "objective = 'vae': unknown"),
    ],
)
def test_train_rejects_invalid_arguments_and_writes_nothing(
    arguments: list[str], message: str, vae: Vae, tmp_path: Path
) -> None:
    assert_rejected(vae("train", *arguments), message)
    assert list(tmp_path.iterdir()) == []


def test_train_rejects_an_existing_run_before_reading_images(vae: Vae, run: Path) -> None:
    assert_rejected(vae("train", "--data", "nowhere", "--out", run), "run: exists; choose another folder")


def test_train_into_an_unwritable_folder_fails_with_one_line(vae: Vae, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    outcome = vae("train", "--data", folder, "--out", tmp_path / "file" / "run", *SMALL)
    assert_rejected(outcome, "Not a directory", code=1)


def test_train_without_network_lists_the_alternatives(
    vae: Vae, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KERAS_VAE_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("keras_vae.data.published.urlopen", offline)
    outcome = vae("train", "classic")
    assert_rejected(outcome, "--data", code=1)
    for way in ("--data", "KERAS_VAE_DATA", str(tmp_path / "keras"), "digits"):
        assert way in outcome.err
