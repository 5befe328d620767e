"""The example program runs an export with only its manifest, ONNX Runtime and NumPy."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vae import VAE, Experiment, HierarchicalVAE
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.priors import VampPrior
from keras_vae.core.typing import Array
from keras_vae.integrations.export import export
from keras_vae.models.base import BaseVAE
from keras_vae.networks import Conv
from keras_vae.training import trainer

pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="ONNX export requires TensorFlow")

EXAMPLE = Path(__file__).parents[1] / "examples" / "onnx_only.py"
WITHOUT_OTHER_PACKAGES = """
import runpy, sys
sys.modules.update(dict.fromkeys(["keras_vae", "keras", "tensorflow", "jax", "torch", "onnx", "tf2onnx"]))
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def run(folder: Path, images: Array, out: Path) -> subprocess.CompletedProcess[str]:
    np.save(out.with_name("images.npy"), images)
    command = [
        sys.executable,
        "-I",
        "-c",
        WITHOUT_OTHER_PACKAGES,
        str(EXAMPLE),
        str(folder),
        str(out.with_name("images.npy")),
        str(out),
    ]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def conditional() -> VAE:
    network = Conv(widths=(4,), dense_units=8)
    return VAE(network.encoder((9, 11, 4), 2), network.decoder(5, (9, 11, 1)), condition=ClassLabel(classes=3), seed=0)


def ladder() -> HierarchicalVAE:
    return HierarchicalVAE((9, 11, 1), widths=(2,), groups=(1,), latent_channels=1, seed=0)


@pytest.mark.parametrize("make", [conditional, pytest.param(ladder, marks=pytest.mark.slow)])
def test_example_encodes_decodes_reconstructs_and_samples(
    make: Callable[[], BaseVAE], images: Array, tmp_path: Path
) -> None:
    model = make()
    folder = export(model, "onnx", tmp_path / "onnx")
    done = run(folder, images, tmp_path / "samples.npy")
    assert done.returncode == 0, done.stderr
    assert f"({len(images)}, {model.latent_dim})" in done.stdout
    assert "nats" in next(line for line in done.stdout.splitlines() if line.startswith("image "))
    noise = np.random.default_rng(0).standard_normal((len(images), model.latent_dim), dtype="float32")
    if isinstance(model, VAE):
        expected = model.decode(noise, condition=0)
    else:
        expected = model.sample(len(images), seed=0)
    np.testing.assert_allclose(np.load(tmp_path / "samples.npy"), expected, atol=1e-4)


def test_example_explains_a_missing_sampler_and_rejects_invalid_images(
    images: Array, make_vae: Callable[..., VAE], tmp_path: Path
) -> None:
    folder = export(make_vae(prior=VampPrior(num_components=3)), "onnx", tmp_path / "onnx", input_dtype="float32")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["graphs"]["encoder"]["inputs"]["images"]["range"] == [0, 1]
    unit = (images / 255).astype("float32")
    done = run(folder, unit, tmp_path / "samples.npy")
    assert done.returncode == 0, done.stderr
    assert "no sampler: prior = VampPrior: its samples are not a function of normal noise" in done.stdout
    assert "pass float32 of shape (None, 9, 11, 1)" in run(folder, images, tmp_path / "samples.npy").stderr
    assert "pass values from 0.0 to 1.0" in run(folder, 2 * unit, tmp_path / "samples.npy").stderr


def test_example_scores_images_with_percentiles(tmp_path: Path) -> None:
    experiment = Experiment.preset("classic").with_overrides(
        ["data.source=digits", "training.epochs=1", "model.network.widths=[2, 3]", "training.batch_size=256"]
    )
    trained = trainer.train(experiment, out=tmp_path / "run")
    folder = export(trained, "onnx", tmp_path / "onnx")
    noise = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), dtype="uint8")
    done = run(folder, np.concatenate([trained.load_splits().test.images[:4], noise]), tmp_path / "samples.npy")
    assert done.returncode == 0, done.stderr
    highest = next(line for line in done.stdout.splitlines() if line.startswith("image "))
    assert highest.startswith("image 4: score "), "noise is more anomalous than digits"
    assert highest.endswith("percentile 100.0, an anomaly")
