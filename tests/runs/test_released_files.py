"""Files that earlier versions wrote, in `tests/data/released/VERSION`, are opened with unchanged results.

`tools/write_released.py` wrote them on TensorFlow.
"""

import re
import shutil
import tomllib
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers import on_tensorflow
from keras_vae import Experiment, Run, compare, diagnose, load, resume, write_report
from keras_vae.evaluation.per_image import load_per_image
from keras_vae.runs.build import resolve

RELEASED = Path(__file__).parents[1] / "data" / "released"
VERSIONS = sorted(path.name for path in RELEASED.iterdir())
MODELS = sorted(str(path.relative_to(RELEASED)) for path in RELEASED.rglob("*.keras"))
RUNS = sorted(str(path.parent.relative_to(RELEASED)) for path in RELEASED.glob("*/runs/*/experiment.toml"))
COMPLETE = [name for name in RUNS if not name.endswith("interrupted")]

pytestmark = pytest.mark.usefixtures("_in_a_copy")


@pytest.fixture
def _in_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copy all files into an empty folder, and make it the working folder."""
    shutil.copytree(RELEASED, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("file", MODELS)
def test_model_computes_the_same(file: str) -> None:
    version, _, name = file.partition("/")
    with np.load(f"{version}/expected.npz") as archive:
        expected = {key.partition(":")[2]: archive[key] for key in archive.files if key.startswith(f"{name}:")}
    with np.load(f"{version}/images.npz") as archive:
        images = archive["x_train"][:4, ..., None]
    model = load(file)
    labels = {} if model.condition is None else {"condition": np.arange(4) % 3}
    np.testing.assert_allclose(model.elbo(images, seed=0, **labels), expected["elbo"], rtol=1e-4)
    np.testing.assert_allclose(model.reconstruct(images, **labels), expected["reconstruct"], rtol=1e-3, atol=1e-4)
    pictures = model.sample(4, seed=0, **labels)
    assert pictures.shape == expected["sample"].shape
    # Samples of a seed differ between backends.
    if keras.backend.backend() == "tensorflow":
        np.testing.assert_allclose(pictures, expected["sample"], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", RUNS)
def test_run_is_opened(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run.open(name)
    assert run.is_complete == (name in COMPLETE)
    assert run.environment["versions"]["keras-vae"] == name.partition("/")[0]
    assert run.environment["backend"] == "tensorflow"
    epochs = run.experiment.training.epochs if run.is_complete else 1
    assert len(run.metrics["val_negative_elbo"]) == len(run.metrics["epoch"]) == epochs
    monkeypatch.chdir(name.partition("/")[0])
    # This compares the checksum of the images.
    splits = Run.open(name.partition("/")[2]).load_splits()
    assert (len(splits.train), len(splits.validation), len(splits.test)) == (20, 4, 8)


@pytest.mark.parametrize("version", VERSIONS)
def test_experiment_file_resolves_to_the_settings_of_its_run(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(version)
    run = Run.open("runs/mine")
    resolved = tomllib.loads(resolve(Experiment.from_file("experiment.toml"), run.info).experiment.to_toml())
    # Later versions may have more settings.
    assert_contains(resolved, tomllib.loads(Path("runs/mine/experiment.toml").read_text()))


def assert_contains(table: dict[str, object], part: dict[str, object]) -> None:
    for key, value in part.items():
        if isinstance(value, dict):
            assert_contains(table[key], value)
        else:
            assert table[key] == value, key


@pytest.mark.parametrize("name", COMPLETE)
def test_evaluation_is_read_and_belongs_to_the_model(name: str) -> None:
    run = Run.open(name)
    likelihood = run.evaluation["likelihood"]
    assert run.evaluation["model"] == run.model_fingerprint()
    values = load_per_image(run, run.evaluation)["likelihood"]
    assert values["negative_elbo"].mean() == pytest.approx(likelihood["negative_elbo"]["mean"], rel=1e-6)
    assert len(values["negative_elbo"]) == likelihood["images"] == 8


@pytest.mark.parametrize("version", VERSIONS)
def test_runs_are_compared_diagnosed_and_reported(
    version: str, one_figure: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(version)
    names = sorted(path.name for path in Path("runs").iterdir() if path.name != "interrupted")
    table = str(compare([Path("runs", name) for name in names]))
    assert all(re.search(rf"\b{name}\b", table) for name in names)
    assert diagnose("runs/classic")
    page = write_report("runs/classic").read_text("utf-8")
    assert "nats per image" in page


@on_tensorflow("the run was trained on TensorFlow")
@pytest.mark.parametrize("version", VERSIONS)
def test_interrupted_run_is_resumed(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(version)
    run = resume("runs/interrupted")
    assert run.is_complete
    # The complete run has the same settings.
    for name in ("total_loss", "val_negative_elbo"):
        np.testing.assert_allclose(run.metrics[name], Run.open("runs/classic").metrics[name], rtol=1e-4)
