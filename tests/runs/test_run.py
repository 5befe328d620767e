"""Run folders and model files: existing, damaged, unsafe and moved ones."""

import io
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest

import keras_vae
from helpers import small
from keras_vae.core import files
from keras_vae.core.errors import InputError
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.diagnostics import diagnose
from keras_vae.report.report import write_report
from keras_vae.runs.experiment import FORMAT
from keras_vae.runs.run import Run
from keras_vae.training.trainer import train


def test_run_is_complete_once_its_checkpoint_is_removed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    (tmp_path / "model.keras").touch()
    assert run.is_complete
    # A kill between writing the model and removing the checkpoint leaves both.
    run.checkpoint_file.parent.mkdir()
    run.checkpoint_file.touch()
    assert not run.is_complete


def test_existing_folder_is_rejected_and_not_changed(trained_run: Run, splits: Splits) -> None:
    before = {path: path.read_bytes() for path in trained_run.path.rglob("*") if path.is_file()}
    with pytest.raises(InputError, match="exists; choose another folder"):
        train(small(), splits, trained_run.path)
    assert {path: path.read_bytes() for path in trained_run.path.rglob("*") if path.is_file()} == before


def test_missing_newer_and_damaged_runs_are_rejected(trained_run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="does not exist; train"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match="not a run folder"):
        Run.open(tmp_path)
    model = trained_run.path / "model.keras"
    content = model.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"not a zip at all"):
        model.write_bytes(damaged)
        with pytest.raises(InputError, match=r"cannot be read|not a \.keras archive"):
            trained_run.load_model()
    newer = trained_run.experiment.to_toml().replace(f"format = {FORMAT}", f"format = {FORMAT + 1}")
    files.write_text(trained_run.path / "experiment.toml", newer)
    with pytest.raises(InputError, match="newer keras-vae"):
        Run.open(trained_run.path)


@pytest.mark.parametrize("source", [None, 3])
def test_run_of_the_wrong_type_is_rejected(source: Any) -> None:
    for call in (Run.open, keras_vae.load, keras_vae.evaluate, diagnose):
        with pytest.raises(InputError, match=f"run = {source}: neither a run, a folder nor a pretrained run's name"):
            call(source)


@pytest.mark.parametrize(("splits", "name"), [("mnist", "'mnist'"), (np.zeros((2, 28, 28, 1)), "ndarray")])
def test_splits_of_the_wrong_type_are_rejected(splits: Any, name: str) -> None:
    for call in (keras_vae.evaluate, diagnose, write_report):
        with pytest.raises(InputError, match=f"^splits = {name}: not Splits; pass"):
            call("mnist-2d", splits)


def test_path_of_a_run_may_be_a_string(trained_run: Run) -> None:
    assert Run(str(trained_run.path)).is_complete


def test_model_file_with_code_is_rejected(tmp_path: Path, make_vae: Callable[..., keras.Model]) -> None:
    vae = make_vae()
    outputs = keras.layers.Lambda(lambda x: x * 1.0)(vae.decoder.output)
    evil = keras_vae.VAE(vae.encoder, keras.Model(vae.decoder.input, outputs))
    evil.save(tmp_path / "evil.keras")
    with pytest.raises(InputError, match="contains code; if you trust it"):
        keras_vae.load(tmp_path / "evil.keras")


def test_model_file_without_a_vae_is_rejected(tmp_path: Path) -> None:
    keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / "other.keras")
    with pytest.raises(InputError, match="contains a Sequential, not a VAE"):
        keras_vae.load(tmp_path / "other.keras")


def test_moved_run_can_be_opened(trained_run: Run, tmp_path: Path) -> None:
    shutil.move(trained_run.path, tmp_path / "elsewhere")
    assert Run.open(tmp_path / "elsewhere").load_model().latent_dim == 2


def test_pipe_in_place_of_a_file_is_rejected_instead_of_waited_for(trained_run: Run) -> None:
    readers: dict[str, Callable[[], object]] = {
        "evaluation.json": lambda: trained_run.evaluation,
        "metrics.csv": lambda: trained_run.metrics,
        "evaluation.npz": trained_run.read_per_image,
        "checkpoint/state.npz": trained_run.read_checkpoint,
        "environment.json": lambda: trained_run.environment,
    }
    (trained_run.path / "checkpoint").mkdir()
    for name, read in readers.items():
        (trained_run.path / name).unlink(missing_ok=True)
        os.mkfifo(trained_run.path / name)
        with pytest.raises(InputError, match=f"{name}: not a regular file"):
            read()
    os.mkfifo(trained_run.path / "pipe.keras")
    with pytest.raises(InputError, match=r"pipe\.keras"):
        keras_vae.load(trained_run.path / "pipe.keras")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_rejected(value: float, trained_run: Run) -> None:
    model = trained_run.load_model()
    weight = model.weights[1]
    weight.assign(np.full(weight.shape, value))
    trained_run.save_model(model)
    message = f"the weight {weight.path} contains NaN or infinity; restore the file"
    for call in (trained_run.load_model, lambda: keras_vae.load(trained_run.path / "model.keras")):
        with pytest.raises(InputError, match=re.escape(message)):
            call()


def test_model_file_that_would_exhaust_memory_is_rejected(trained_run: Run) -> None:
    file = trained_run.path / "model.keras"
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with h5py.File(weights := io.BytesIO(members["model.weights.h5"]), "r+") as opened:
        opened.create_dataset("huge", (10**10,), "float32", chunks=(10**4,), compression="gzip")
    for changed, message in (
        ({"model.weights.h5": weights.getvalue()}, "damaged or hostile: .* MB that expand to 40,0.. MB"),
        ({"assets/zeros": bytes(300 * 2**20)}, "damaged or hostile: . MB that expand to 31. MB"),
    ):
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for name, content in (members | changed).items():
                archive.writestr(name, content)
        with pytest.raises(InputError, match=message):
            trained_run.load_model()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", members["config.json"])
    for read in (trained_run.load_model, trained_run.model_fingerprint):
        with pytest.raises(InputError, match=r"model\.keras: .*model\.weights\.h5"):
            read()


@pytest.mark.parametrize(
    "content",
    [
        *("", "[]", "{", "null", '"a"', "{}", '{"versions": 3}', "\x00\xff"),
        '{"versions": {}, "backend": "tensorflow", "data": {}}',
        '{"versions": {}, "backend": "jax", "data": {"name": "a", "image_shape": [9, 11], "images": {"train": 1}}}',
    ],
)
def test_damaged_environment_is_reported_in_one_line(content: str, trained_run: Run) -> None:
    (trained_run.path / "environment.json").write_text(content, "latin-1")
    with pytest.raises(InputError, match=r"environment\.json: ") as caught:
        Run.open(trained_run.path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("content", ["", "[1]", "3", "{"])
def test_damaged_evaluation_is_reported_in_one_line(content: str, trained_run: Run) -> None:
    (trained_run.path / "evaluation.json").write_text(content)
    with pytest.raises(InputError, match=r"evaluation\.json: ") as caught:
        _ = trained_run.evaluation
    assert len(str(caught.value).splitlines()) == 1
