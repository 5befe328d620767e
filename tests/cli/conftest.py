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
from keras_vae.runs.experiment import Experiment


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


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 small gray PNGs in two classes."""
    rng, photos = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "photos"
    for index in range(30):
        path = photos / ("cats" if index % 2 else "dogs") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7), dtype="uint8")).save(path)
    return photos


@pytest.fixture(scope="session")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained run."""
    experiment = Experiment.preset("classic").with_overrides([*SMALL[1::2], f"data.source={folder}"])
    return train_and_report(experiment, tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def run(vae: Vae, trained: Path) -> Path:
    """A copy of the trained run in the working folder."""
    shutil.copytree(trained, "run")
    return Path("run")
