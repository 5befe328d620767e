"""The `score` graph, against closed forms and the model, and the percentiles in the manifest."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from scipy.special import xlog1py, xlogy
from test_graphs import MODELS, conditions, randomized

from keras_vae import VAE, Run
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.integrations.export import export, exporter
from keras_vae.integrations.export.formats import FORMATS
from keras_vae.models.base import BaseVAE
from keras_vae.networks import Conv

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="`vae export` computes with TensorFlow")

FAST = ("classic", "levels", "label")
QUANTIZED = ("vq", "fsq", "simvq", "residual")


def classic() -> VAE:
    network = Conv(widths=(4, 6), dense_units=8)
    model = VAE(network.encoder((9, 11, 1), 3), network.decoder(3, (9, 11, 1)), seed=1)
    rng = np.random.default_rng(0)
    model.set_weights([weight + rng.normal(scale=0.2, size=weight.shape) for weight in model.get_weights()])
    return model


def closed_form(model: BaseVAE, images: Array) -> dict[str, Array]:
    """Return the Bernoulli distortion at the posterior mean, and KL(N(μ, σ²) ‖ N(0, 1)), with SciPy."""
    codes = model.encode(images)
    p, x = model.decode(codes.z_mean).astype("float64"), images / 255
    mean, log_var = codes.z_mean.astype("float64"), codes.z_log_var.astype("float64")
    distortion = -(xlogy(x, p) + xlog1py(1 - x, -p)).sum(axis=(1, 2, 3))
    rate = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum(axis=1)
    return {"score": distortion + rate, "reconstruction_loss": distortion, "kl_loss": rate}


def load_manifest(folder: Path) -> dict[str, object]:
    return json.loads((folder / "manifest.json").read_text("utf-8"))


@pytest.mark.parametrize("input_dtype", ["uint8", "float32"])
def test_score_is_the_closed_form_at_the_posterior_mean(input_dtype: str, images: Array, tmp_path: Path) -> None:
    model = classic()
    folder = export(model, "savedmodel", tmp_path / "out", input_dtype=input_dtype)
    manifest = load_manifest(folder)
    inputs = images if input_dtype == "uint8" else (images / 255).astype("float32")
    found = FORMATS["savedmodel"].load(str(folder / manifest["graphs"]["score"]["file"]))(images=inputs)
    expected = closed_form(model, images)
    assert set(found) == set(expected)
    assert np.ptp(expected["score"]) > 0.1
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, atol=1e-5)
    assert "in closed form" in manifest["score"]["definition"]
    assert manifest["score"]["percentiles"] is None
    assert manifest["omitted"]["percentiles"] == "a model has no training images; export its run"


@pytest.mark.parametrize(
    "name", [*FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in MODELS if name not in FAST)]
)
def test_runtimes_compute_the_score_of_every_kind_of_model(name: str, images: Array, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    # Random weights let codes of the codebook tie.
    model = classic() if name == "classic" else MODELS[name]() if name in QUANTIZED else randomized(name)
    folder = export(model, "onnx", tmp_path / "out")
    manifest = load_manifest(folder)
    if name == "vamp":
        assert "MatrixTriangularSolve" in manifest["omitted"]["score"], "ONNX has no such operation"
        assert manifest["score"] is None
        assert not list(folder.glob("score*"))
        return
    # Random binarization leaves black and white pixels unchanged.
    binary, condition = np.where(images >= 128, 255, 0).astype("uint8"), conditions(model, len(images))
    score = FORMATS["onnx"].load(str(folder / manifest["graphs"]["score"]["file"]))
    found = score(images=binary, **condition)
    np.testing.assert_allclose(found["score"], found["reconstruction_loss"] + found["kl_loss"], rtol=1e-6)
    # The rate of discrete and of normal codes does not depend on the draw.
    if name in ("classic", "no noise", *QUANTIZED):
        terms = model.elbo_terms(binary, condition=condition.get("condition"))
        np.testing.assert_allclose(found["kl_loss"], terms.kl_per_group.sum(axis=1), rtol=1e-4, atol=1e-4)
    if name in ("no noise", *QUANTIZED):
        np.testing.assert_allclose(found["reconstruction_loss"], -terms.log_likelihood[:, 0], rtol=1e-4)
    if condition:
        other = {"condition": np.roll(condition["condition"], 1, axis=0)}
        changed = score(images=binary, **other)["score"]
        assert np.abs(changed - found["score"]).max() > 1e-3


def test_percentiles_and_threshold_are_those_of_the_training_images(trained: Path, tmp_path: Path) -> None:
    run = Run(Path(shutil.copytree(trained, tmp_path / "run")))
    folder = export(run, "savedmodel", false_positive_rate=0.2)
    manifest, training = load_manifest(folder)["score"], run.load_splits().train
    assert manifest["reference"] == {"source": "digits, train split", "num_images": len(training)}
    scores = np.sort(closed_form(run.load_model(), training.images)["score"])
    levels, values = manifest["percentiles"]["levels"], manifest["percentiles"]["score"]
    assert (levels[0], levels[50], levels[-2:]) == (0, 50, [99.9, 100])
    assert [values[0], values[-1]] == pytest.approx([scores[0], scores[-1]], rel=1e-4)
    assert values[50] == pytest.approx(np.median(scores), rel=1e-4)
    assert manifest["means"]["score"] == pytest.approx(scores.mean(), rel=1e-4)
    limit = manifest["threshold"]
    assert limit["false_positive_rate"] == 0.2
    assert (scores > limit["value"]).mean() == pytest.approx(0.2, abs=2 / len(scores))


def test_run_without_its_training_images_has_no_percentiles(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(run: Run) -> None:
        raise InputError("data = photos: not the images on which run was trained")

    run = Run(Path(shutil.copytree(trained, tmp_path / "run")))
    monkeypatch.setattr(Run, "load_splits", gone)
    folder = export(run, "savedmodel")
    manifest = load_manifest(folder)
    assert "score" in manifest["graphs"]
    assert manifest["score"]["threshold"] is None
    assert manifest["omitted"]["percentiles"] == "data = photos: not the images on which run was trained"
    assert "There are no `percentiles`: data = photos" in (folder / "README.md").read_text("utf-8")


def test_score_that_cannot_be_converted_is_omitted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FORMATS["savedmodel"]

    def write(network: keras.Model, path: Path) -> None:
        honest.write(network, path)
        if network.name == "score":
            raise RuntimeError("no such operation\nin any set")

    monkeypatch.setitem(exporter.FORMATS, "savedmodel", replace(honest, write=write))
    folder = export(classic(), "savedmodel", tmp_path / "out")
    manifest = load_manifest(folder)
    assert manifest["omitted"]["score"] == "it cannot be written: no such operation"
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        ["README.md", "manifest.json", "encoder", "decoder", "reconstruct", "sampler"]
    )


def test_keras_format_names_the_reason_for_a_missing_score(tmp_path: Path) -> None:
    manifest = load_manifest(export(classic(), "keras", tmp_path / "out"))
    assert manifest["score"] is None
    assert "need keras-vae" in manifest["omitted"]["score"]


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_false_positive_rate_out_of_range_is_rejected(rate: float, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"false_positive_rate = {rate}: out of range"):
        export(classic(), "keras", tmp_path / "out", false_positive_rate=rate)
