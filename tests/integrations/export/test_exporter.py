"""Exported folders: their content, running the graphs in other programs, and invalid calls."""

import functools
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from test_graphs import MODELS, SHAPE

from keras_vae import VAE, Run, load
from keras_vae.cli import app
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.likelihoods import Bernoulli
from keras_vae.components.priors import ConditionalNormal
from keras_vae.core import backend
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.integrations.export import export, exporter
from keras_vae.integrations.export.card import snippet
from keras_vae.integrations.export.formats import FORMATS
from keras_vae.networks import Conv

pytestmark = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="`vae export` computes with TensorFlow")

PACKAGES = {"onnx": "onnxruntime", "litert": "ai_edge_litert"}


def needs(form: str) -> str:
    """Return the name of a format, or skip the test if its package is not installed."""
    if form in PACKAGES:
        pytest.importorskip(PACKAGES[form], reason=f"the extra {form} is not installed")
    return form


@pytest.fixture(scope="module")
def model() -> VAE:
    """A conditional convolutional model that binarizes pixels at random."""
    network = Conv(widths=(4, 6), dense_units=8)
    vae = VAE(
        network.encoder((9, 11, 1 + 3), 2),
        network.decoder(2 + 3, (9, 11, 1)),
        likelihood=Bernoulli(binarize="dynamic"),
        prior=ConditionalNormal(hidden=4),
        condition=ClassLabel(classes=3),
        seed=1,
    )
    rng = np.random.default_rng(0)
    for weight in vae.weights:
        if "float" in weight.dtype:
            weight.assign(np.asarray(weight) + rng.normal(scale=0.1, size=weight.shape))
    return vae


@pytest.fixture(scope="module")
def exported(model: VAE, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A function that returns the exported model in a format, in a folder of its name that no test may change."""
    return functools.cache(lambda form: export(model, needs(form), tmp_path_factory.mktemp("exported") / form))


@pytest.fixture(
    params=["keras", "onnx", *(pytest.param(name, marks=pytest.mark.slow) for name in ("litert", "savedmodel"))],
)
def folder(request: pytest.FixtureRequest, exported: Callable[[str], Path]) -> Path:
    """The exported model in each format."""
    return exported(request.param)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy of the run."""
    return Run(Path(shutil.copytree(trained, tmp_path / "run")))


def test_graphs_of_all_formats_compute_the_same_as_the_model(folder: Path, model: VAE) -> None:
    form, manifest = folder.name, json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["format"] == form
    names = ["encoder", "decoder", "reconstruct", "sampler", "score"]
    assert list(manifest["graphs"]) == (names[:-1] if form == "keras" else names)
    graphs = {name: FORMATS[form].load(str(folder / graph["file"])) for name, graph in manifest["graphs"].items()}
    rng = np.random.default_rng(5)
    # Use another number of images than in the verification, and binary pixels, which need no threshold.
    images, labels = rng.choice(np.array([0, 255], "uint8"), (7, 9, 11, 1)), rng.integers(0, 3, 7).astype("int32")
    codes = graphs["encoder"](images=images, condition=labels)
    expected = model.encode(images, condition=labels)
    assert set(codes) == {"z_mean", "z_log_var"}
    np.testing.assert_allclose(codes["z_mean"], expected.z_mean, atol=1e-5)
    np.testing.assert_allclose(codes["z_log_var"], expected.z_log_var, atol=1e-5)
    decoded = graphs["decoder"](z=expected.z_mean, condition=labels)["mean_images"]
    np.testing.assert_allclose(decoded, model.decode(expected.z_mean, condition=labels), atol=1e-5)
    again = graphs["reconstruct"](images=images, condition=labels)["mean_images"]
    np.testing.assert_allclose(again, decoded, atol=1e-5)
    noise = rng.standard_normal((7, 2), dtype="float32")
    samples = graphs["sampler"](noise=noise, condition=labels)["mean_images"]
    assert np.abs(samples - graphs["decoder"](z=noise, condition=labels)["mean_images"]).max() > 1e-3
    other = graphs["sampler"](noise=noise, condition=(labels + 1) % 3)["mean_images"]
    assert np.abs(samples - other).max() > 1e-3


def test_codes_of_a_quantized_model_are_exported(tmp_path: Path) -> None:
    # The scores of all other quantizers are exported in test_score.py.
    # As after a training in the same process.
    backend.enable_determinism()
    keras.utils.set_random_seed(0)
    model, form = MODELS["residual"](), needs("onnx")
    exported = export(model, form, tmp_path / "out")
    graph = json.loads((exported / "manifest.json").read_text("utf-8"))["graphs"]["encoder"]
    # A residual quantizer has two indices per position of the 3×3 map.
    assert graph["outputs"]["indices"]["shape"] == [None, 3, 3, 2]
    inputs = np.random.default_rng(0).integers(0, 256, (5, *SHAPE), dtype="uint8")
    indices = FORMATS[form].load(str(exported / graph["file"]))(images=inputs)["indices"]
    np.testing.assert_array_equal(indices, model.encode(inputs).indices)
    assert len(np.unique(indices)) > 2


def test_onnx_pads_transposed_convolutions_as_keras_does_if_their_input_size_is_unknown(tmp_path: Path) -> None:
    form, rng = FORMATS[needs("onnx")], np.random.default_rng(0)
    indices = keras.Input((3, 5), dtype="int32", name="indices")
    # After a lookup, tf2onnx does not know the size of the map.
    maps = keras.ops.take(rng.normal(size=(8, 2)).astype("float32"), indices, axis=0)
    outputs = {}
    for kernel, strides in [(3, 2), (4, 2), (5, 2), (4, 3), (5, 3), ((3, 4), (2, 1)), (3, 1)]:
        name = f"case_{len(outputs)}"
        options = {"padding": "same", "data_format": "channels_last", "name": name}
        outputs[name] = keras.layers.Conv2DTranspose(1, kernel, strides, **options)(maps)
    network = keras.Model({"indices": indices}, outputs)
    form.write(network, tmp_path / "graph.onnx")
    inputs = rng.integers(0, 8, (4, 3, 5)).astype("int32")
    found = form.load(str(tmp_path / "graph.onnx"))(indices=inputs)
    for name, expected in network({"indices": inputs}).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-5, err_msg=name)


def test_manifest_and_card_describe_the_graphs(exported: Callable[[str], Path]) -> None:
    folder = exported("onnx")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    encoder, decoder = manifest["graphs"]["encoder"], manifest["graphs"]["decoder"]
    assert encoder["inputs"]["images"]["shape"] == [None, 9, 11, 1]
    assert (encoder["inputs"]["images"]["dtype"], encoder["inputs"]["images"]["range"]) == ("uint8", [0, 255])
    assert encoder["inputs"]["condition"]["range"] == [0, 2]
    assert encoder["outputs"]["z_mean"]["shape"] == [None, 2]
    assert decoder["outputs"]["mean_images"]["range"] == [0, 1]
    assert manifest["binarization_threshold"] == 0.5
    assert manifest["model"]["likelihood"] == {
        "name": "bernoulli",
        "from_logits": True,
        "binarize": "dynamic",
        "seed": 0,
    }
    assert manifest["model"]["prior"] == {"name": "conditional-normal", "hidden": 4}
    assert manifest["data"] is None
    assert manifest["parity"]["source"] == "random pixels"
    assert manifest["versions"]["onnxruntime"]
    for graph in manifest["graphs"].values():
        for port in graph["outputs"].values():
            assert 0 <= port["max_difference"] < 1e-4
    card = (folder / "README.md").read_text("utf-8")
    assert snippet(manifest, FORMATS["onnx"]) in card
    assert "`noise` (n, 2) float32" in card
    assert "threshold 0.5 of white" in card


def test_program_in_the_card_runs(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = (folder / "README.md").read_text("utf-8").split("```python\n")[1].split("```")[0]
    assert "keras_vae" not in program
    monkeypatch.chdir(folder)
    variables: dict[str, Any] = {}
    exec(program, variables)
    assert np.asarray(variables["reconstructions"]).shape == np.asarray(variables["samples"]).shape == (4, 9, 11, 1)


def operations(form: str, path: Path) -> set[str]:
    """Return the types of operations in a graph."""
    if form == "onnx":
        import onnx

        return {node.op_type for node in onnx.load(path).graph.node}
    if form == "litert":
        from ai_edge_litert.interpreter import Interpreter

        return {operation["op_name"] for operation in Interpreter(str(path))._get_ops_details()}
    if form == "savedmodel":
        from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

        graph = SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
        return {node.op for function in graph.library.function for node in function.node_def}
    network = keras.saving.load_model(path)
    return {type(operation).__name__ for operation in network.operations}


def test_graphs_contain_no_random_operation(folder: Path) -> None:
    for name, graph in json.loads((folder / "manifest.json").read_text("utf-8"))["graphs"].items():
        found = operations(folder.name, folder / graph["file"])
        # Check that the operations were found: every graph has convolutions or layers.
        assert any("conv" in kind.lower() or "functional" in kind.lower() for kind in found), (name, found)
        assert not [kind for kind in found if any(word in kind.lower() for word in ("random", "bernoulli", "multinom"))]


def test_manifest_of_a_run_names_its_origin(run: Run) -> None:
    folder = export(run, "keras")
    assert folder == run.path / "export" / "keras"
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    environment = json.loads((run.path / "environment.json").read_text("utf-8"))
    assert manifest["name"] == "run"
    assert manifest["data"]["checksum"] == environment["data"]["checksum"]
    assert manifest["model"]["checksum"] == run.model_fingerprint()["checksum"]
    assert manifest["parity"]["num_images"] == 64
    assert manifest["parity"]["source"] == "digits, test split"
    with pytest.raises(InputError, match="exists; choose another name, or replace it with --force"):
        export(run.path, "keras")


def test_run_without_its_images_is_verified_on_random_images_and_replaces_an_export(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*args: object) -> None:
        raise InputError("no such file")

    monkeypatch.setattr(Run, "load_splits", gone)
    folder = run.path / "export" / "keras"
    folder.mkdir(parents=True)
    for name in ("manifest.json", "old"):
        (folder / name).write_text("{}")
    assert export(run.path, "keras", force=True) == folder
    assert json.loads((folder / "manifest.json").read_text())["parity"]["source"] == "random pixels"
    assert not (folder / "old").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["keras"]


def test_graph_that_differs_from_the_model_leaves_no_files(
    model: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = FORMATS["keras"]

    def load_wrong(path: str) -> Callable[..., dict[str, Array]]:
        graph, wrong = honest.load(path), 2e-4 if "decoder" in path else 0.0
        return lambda **inputs: {name: values + np.float32(wrong) for name, values in graph(**inputs).items()}

    monkeypatch.setitem(exporter.FORMATS, "keras", replace(honest, load=load_wrong))
    with pytest.raises(
        RunError, match=r"decoder: mean_images differs from the model by 2.0e-04 .* more than the tolerance 0.0001"
    ):
        export(model, "keras", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_graph_that_returns_nan_is_rejected(model: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = FORMATS["keras"]

    def load_broken(path: str) -> Callable[..., dict[str, Array]]:
        graph = honest.load(path)

        def run(**inputs: Array) -> dict[str, Array]:
            outputs = {name: np.array(values) for name, values in graph(**inputs).items()}
            for values in outputs.values():
                values[1:] = np.nan
            return outputs

        return run if "decoder" in path else graph

    monkeypatch.setitem(exporter.FORMATS, "keras", replace(honest, load=load_broken))
    with pytest.raises(RunError, match="decoder: mean_images differs from the model by nan"):
        export(model, "keras", tmp_path / "out")


def test_converter_error_is_reported_in_one_line(model: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(network: object, path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("no such operation\nin any set")

    monkeypatch.setitem(exporter.FORMATS, "keras", replace(FORMATS["keras"], write=fail))
    with pytest.raises(RunError, match=r"^format = 'keras': the encoder graph cannot be written: no such operation$"):
        export(model, "keras", tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_invalid_exports_are_rejected(model: VAE, run: Run, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="format = 'onxx': unknown; did you mean 'onnx'"):
        export(model, "onxx", tmp_path / "out")
    with pytest.raises(InputError, match="out = None"):
        export(model, "keras")
    with pytest.raises(InputError, match="does not exist; train a run"):
        export(tmp_path / "nowhere", "keras")
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious" / "thesis.txt").write_text("years")
    with pytest.raises(InputError, match=": not an earlier export"):
        export(model, "keras", tmp_path / "precious", force=True)
    run.write_checkpoint({"weights": []}, {})
    with pytest.raises(InputError, match="is unfinished; complete it with `vae train --resume"):
        export(run, "keras", tmp_path / "out")


@pytest.mark.parametrize("name", ["onnx", "litert"])
def test_missing_package_is_reported_with_its_extra(
    name: str, model: VAE, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = importlib.util.find_spec
    missing = PACKAGES[name]
    monkeypatch.setattr(importlib.util, "find_spec", lambda package: None if package == missing else found(package))
    with pytest.raises(InputError, match=rf"not installed; pip install 'keras-vae\[{name}\]'"):
        export(model, name, tmp_path / "out")


PLAIN = """
import json, sys
sys.modules["keras_vae"] = None
import keras, numpy as np
graph = keras.saving.load_model(sys.argv[1])
codes = graph.predict_on_batch({"images": np.load(sys.argv[2]), "condition": np.zeros(2, "int32")})
print(json.dumps([keras.backend.backend(), np.asarray(codes["z_mean"]).tolist()]))
"""


@pytest.mark.slow
def test_keras_format_runs_on_another_backend_without_this_package(
    model: VAE, exported: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("jax", reason="the extra jax is not installed")
    folder = exported("keras")
    images = np.full((2, 9, 11, 1), 255, "uint8")
    np.save(tmp_path / "images.npy", images)
    done = subprocess.run(
        [sys.executable, "-c", PLAIN, str(folder / "encoder.keras"), str(tmp_path / "images.npy")],
        env=os.environ | {"KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
        check=True,
    )
    backend, codes = json.loads(done.stdout.splitlines()[-1])
    assert backend == "jax"
    np.testing.assert_allclose(codes, model.encode(images, condition=0).z_mean, atol=1e-5)


TRAIN = """
from keras_vae import Experiment, train

settings = ["data.source=digits", "training.epochs=1", "model.network.widths=[2, 3]", "training.batch_size=256"]
train(Experiment.preset("classic").with_overrides(settings), out="run")
"""


@pytest.mark.slow
def test_run_trained_on_jax_is_exported_by_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("jax", reason="the extra jax is not installed")
    needs("onnx")

    monkeypatch.chdir(tmp_path)
    subprocess.run([sys.executable, "-c", TRAIN], env=os.environ | {"KERAS_BACKEND": "jax"}, check=True)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["backend"] == "jax"
    app(["export", "run", "--format", "onnx"], standalone_mode=False)
    assert "run/export/onnx/encoder.onnx" in capsys.readouterr().out
    graph = FORMATS["onnx"].load(str(tmp_path / "run/export/onnx/encoder.onnx"))
    images = np.full((2, 28, 28, 1), 9, "uint8")
    expected = load(tmp_path / "run").encode(images).z_mean
    np.testing.assert_allclose(graph(images=images)["z_mean"], expected, atol=1e-4)
