"""Behavior that depends on the backend and the hardware, and settings that precede the start of a backend."""

import os
import platform
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from helpers import on_tensorflow
from keras_vae import VAE
from keras_vae.core import backend, startup
from keras_vae.core.backend import hardware
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, split
from keras_vae.data.info import DatasetInfo
from keras_vae.networks import Conv
from keras_vae.runs.build import build_model, resolve
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.run import Run
from keras_vae.runs.validate import validate
from keras_vae.training import trainer
from keras_vae.training.batches import ShuffledBatches


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ({"fma", "avx2"}, "float32"),
        ({"avx512f", "avx512_vnni"}, "float32"),
        ({"avx512f", "avx512_bf16"}, "mixed_bfloat16"),
        ({"amx_tile", "amx_bf16"}, "mixed_bfloat16"),
    ],
)
def test_auto_precision_is_bfloat16_if_the_processor_supports_it(
    flags: set[str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "_processor_flags", lambda: flags)
    if keras.backend.backend() == "jax":
        import jax

        expected = "float32" if jax.default_backend() == "cpu" else "mixed_bfloat16"
    experiment = Experiment.preset("classic").with_overrides(["training.precision=auto"])
    assert resolve(experiment, DatasetInfo((28, 28, 1), 100)).experiment.training.precision == expected
    model = build_model(experiment, DatasetInfo((28, 28, 1), 100))
    assert {layer.compute_dtype for layer in model.encoder.layers if "conv" in layer.name} == {
        expected.removeprefix("mixed_")
    }


def test_precision_that_is_slower_than_float32_causes_a_warning(images: Array, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = split(Dataset.from_arrays(images, name="frames"), None, validation=4, test_size=4, holdout=True, seed=0)
    settings = ["training.batch_size=8", "training.precision=mixed_bfloat16"]
    resolved = resolve(Experiment().with_overrides(settings), DatasetInfo.from_splits(splits))
    monkeypatch.setattr(backend, "preferred_precision", lambda: "float32")
    with pytest.warns(UserWarning, match=r"^training.precision = 'mixed_bfloat16': slower .*; use .* 'auto'"):
        validate(resolved, splits)
    monkeypatch.setattr(backend, "preferred_precision", lambda: "mixed_bfloat16")
    with warnings.catch_warnings(action="error"):
        validate(resolved, splits)


@on_tensorflow("only TensorFlow uses the flags of the processor")
def test_resumed_run_keeps_its_precision(images: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    splits = split(Dataset.from_arrays(images, name="frames"), None, validation=4, test_size=4, holdout=True, seed=0)
    monkeypatch.setattr(hardware, "_processor_flags", lambda: {"amx_bf16"})
    settings = ["training.epochs=1", "training.batch_size=8", "training.precision=auto"]
    run = trainer.train(Experiment.preset("classic").with_overrides(settings), splits, tmp_path / "run")
    # Reopen the run on a machine without bfloat16.
    monkeypatch.setattr(hardware, "_processor_flags", set)
    assert Run.open(run.path).experiment.training.precision == "mixed_bfloat16"
    assert 'precision = "mixed_bfloat16"' in (run.path / "experiment.toml").read_text()


@on_tensorflow("a defect of its kernels")
@pytest.mark.parametrize("channels", [1, 8])
def test_layer_with_a_possibly_wrong_gradient_causes_a_warning(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "runs_faster_without_xla", lambda: True)
    monkeypatch.setenv("TF_ENABLE_ONEDNN_OPTS", "1")
    inputs = keras.Input((8, 8, channels))
    features = keras.layers.Flatten()(keras.layers.Conv2D(4, 1, strides=2, name="skips")(inputs))
    encoder = keras.Model(inputs, [keras.layers.Dense(2)(features), keras.layers.Dense(2)(features)])
    decoder = Conv(widths=(4,)).decoder(2, (8, 8, channels))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        VAE(encoder, decoder)
    assert ["skips" in str(each.message) for each in caught] == [True] * (channels == 1)


ONEDNN = """
import keras_vae
from tensorflow.python.framework.test_util import IsMklEnabled
print(IsMklEnabled())
"""


@on_tensorflow("its kernels")
@pytest.mark.skipif(platform.machine().lower() not in ("x86_64", "amd64"), reason="oneDNN's switch is for x86")
@pytest.mark.parametrize(("given", "expected"), [(None, "True"), ("0", "False")])
@pytest.mark.slow
def test_onednn_is_enabled_unless_the_user_disables_it(given: str | None, expected: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TF_ENABLE_ONEDNN_OPTS"}
    environment |= {} if given is None else {"TF_ENABLE_ONEDNN_OPTS": given}
    done = subprocess.run([sys.executable, "-c", ONEDNN], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split()[-1] == expected


PAGE_FAULTS = """
import resource
import keras_vae
import numpy as np
import keras
vae = keras_vae.VAE(seed=0)
vae.compile(optimizer=keras.optimizers.Adam())
images = np.random.default_rng(0).integers(0, 256, (8 * 128, 28, 28, 1), "uint8")
vae.fit(images, batch_size=128, epochs=2, verbose=0)
faults = []
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    vae.fit(images, batch_size=128, epochs=1, verbose=0)
    faults.append((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // 8)
# A busy machine may still give threads memory of their own in one epoch or another.
print(min(faults))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="its allocator")
@pytest.mark.slow
def test_training_steps_reuse_freed_memory() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    done = subprocess.run(
        [sys.executable, "-c", PAGE_FAULTS], env=environment, capture_output=True, text=True, check=True
    )
    assert int(done.stdout.split()[-1]) < 1000  # The largest tensor of a step has 3,136 pages.


@pytest.mark.parametrize(
    ("environment", "configured", "expected"),
    [
        ({"KERAS_BACKEND": "tensorflow"}, '{"backend": "torch"}', "tensorflow"),
        ({"KERAS_BACKEND": "jax"}, None, "jax"),
        ({}, '{"backend": "torch"}', "torch"),
        ({}, "{", "tensorflow"),
        ({}, None, "tensorflow"),
    ],
    ids=["both", "environment", "file", "invalid file", "neither"],
)
def test_startup_finds_the_backend_without_importing_keras(
    environment: dict[str, str], configured: str | None, expected: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    for name, value in {**environment, "KERAS_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    if configured is not None:
        (tmp_path / "keras.json").write_text(configured, "utf-8")
    calls = []
    monkeypatch.setattr(startup, "_keep_freed_memory", lambda: calls.append(True))
    startup.prepare()
    assert bool(calls) == (expected != "tensorflow")


@pytest.mark.parametrize("setting", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_allocator_settings_of_the_user_are_kept(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    monkeypatch.setenv(setting, "glibc.malloc.hugetlb=1")
    monkeypatch.setattr(
        startup.ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=lambda *given: pytest.fail(str(given)))
    )
    startup.prepare()


@on_tensorflow("other backends keep arrays")
@pytest.mark.parametrize("shuffle", [True, False])
def test_array_pipeline_yields_all_rows_in_every_epoch_without_autotuning(shuffle: bool) -> None:
    numbers = np.arange(50)
    batches, by_keras = backend.array_pipeline({"images": numbers, "condition": -numbers}, 8, shuffle)
    assert not by_keras
    assert not batches.options().autotune.enabled
    epochs = [[batch["images"].numpy() for (batch,) in batches] for _ in range(2)]
    assert [len(batch) for batch in epochs[0]] == [8] * 6 + [2]
    first, second = (np.concatenate(epoch) for epoch in epochs)
    assert sorted(first) == sorted(second) == list(numbers)
    assert list(first) != list(second) if shuffle else list(first) == list(second) == list(numbers)
    assert all((batch["images"] == -batch["condition"]).numpy().all() for (batch,) in batches)


def test_other_inputs_pass_through_array_pipeline() -> None:
    batches = ShuffledBatches(np.zeros((4, 2, 2, 1), "uint8"), 2, seed=None)
    assert backend.array_pipeline(batches, None, shuffle=True) == (batches, True)
    assert backend.array_pipeline(None, None) == (None, False)
    unequal = {"images": np.zeros((4, 2, 2, 1)), "noise": np.zeros((3, 2, 2, 1))}
    assert backend.array_pipeline(unequal, None)[0] is unequal
