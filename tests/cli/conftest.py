"""Fixtures of the tests of the commands: `vae` itself, a folder of images, a trained run."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import SMALL, Outcome, Vae
from PIL import Image

from helpers import train_and_report
from keras_vae import cli
from keras_vae.report import plots
from keras_vae.runs.experiment import Experiment
from keras_vae.training.trainer import train


@pytest.fixture
def all_figures() -> None:
    """Let the reports of a test contain all figures."""


@pytest.fixture(autouse=True)
def _figures(request: pytest.FixtureRequest) -> None:
    if "all_figures" not in request.fixturenames:
        request.getfixturevalue("one_figure")


@pytest.fixture
def vae(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Vae:
    """Run `vae …` in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["vae", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


def save_images(folder: Path, *classes: str) -> Path:
    """Save 30 small gray PNGs of alternating classes in a folder, and return it."""
    rng = np.random.default_rng(0)
    for index in range(30):
        path = folder / classes[index % len(classes)] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7), dtype="uint8")).save(path)
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 small gray PNGs in two classes."""
    return save_images(tmp_path_factory.mktemp("data") / "photos", "dogs", "cats")


@pytest.fixture(scope="session")
def pets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 small gray PNGs in three classes."""
    return save_images(tmp_path_factory.mktemp("data") / "pets", "cat", "dog", "horse")


@pytest.fixture(scope="session")
def trained_on_labels(pets: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small conditional run without an evaluation and a report."""
    experiment = Experiment.preset("classic").with_overrides(
        [*SMALL[1::2], f"data.source={pets}", "model.condition=label"]
    )
    return train(experiment, out=tmp_path_factory.mktemp("runs") / "conditional").path


@pytest.fixture(scope="session")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained run, whose report has one figure."""
    experiment = Experiment.preset("classic").with_overrides([*SMALL[1::2], f"data.source={folder}"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plots, "available_plots", lambda context: ("curves",))
        return train_and_report(experiment, tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def run(vae: Vae, trained: Path) -> Path:
    """A copy of the trained run in the working folder."""
    shutil.copytree(trained, "run")
    return Path("run")


@pytest.fixture
def conditional_run(vae: Vae, trained_on_labels: Path) -> Path:
    """A copy of the conditional run in the working folder."""
    shutil.copytree(trained_on_labels, "run")
    return Path("run")
