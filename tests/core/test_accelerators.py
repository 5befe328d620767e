"""Training on accelerators, simulated on a CPU: images on the device, several steps per call, deterministic kernels."""

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest

from helpers import Interrupt, assert_equal_runs, small
from keras_vae.core import backend, startup
from keras_vae.core.backend import accelerators, hardware
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.runs.run import Run
from keras_vae.training.batches import ShuffledBatches
from keras_vae.training.callback_list import StepCallback
from keras_vae.training.trainer import resume, train

STEPS, CALLS = 20, 2
SETTINGS = small("training.batch_size=4", "training.epochs=2")


class CountCalls(StepCallback):
    """Counts the calls after training steps, of which there is one per compiled loop."""

    calls = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.calls += 1


class SeeEveryStep(keras.callbacks.Callback):
    """Records the numbers of the steps."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.steps.append(batch)


@pytest.fixture
def many_steps() -> Splits:
    """Images of which the last batch of four has three."""
    images = np.random.default_rng(0).integers(0, 256, (STEPS * 4 - 1 + 8, 6, 6, 1), "uint8")
    return split(Dataset.from_arrays(images, name="noise"), None, validation=4, test_size=4, holdout=True, seed=0)


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Treat the CPU as an accelerator, in `monkeypatch.context()`."""
    monkeypatch.setattr(hardware, "is_accelerator", lambda: True)
    monkeypatch.setattr(accelerators, "_device_bytes", lambda: 2**30)
    # PyTorch's switch selects convolutions that fail on a CPU.
    monkeypatch.setattr(backend, "enable_determinism", lambda: None)
    return monkeypatch


@pytest.mark.slow
def test_training_on_an_accelerator_equals_training_from_host_batches(
    many_steps: Splits, accelerator: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    calls, every_step = CountCalls(), SeeEveryStep()
    run = train(SETTINGS, many_steps, tmp_path / "accelerator", callbacks=[calls])
    assert calls.calls == 2 * (STEPS if backend.name() == "torch" else CALLS)
    # A callback that needs every step does not change one bit.
    assert_equal_runs(train(SETTINGS, many_steps, tmp_path / "steps", callbacks=[every_step]), run)
    assert every_step.steps == 2 * list(range(STEPS))
    accelerator.setattr(hardware, "is_accelerator", lambda: False)
    host = train(SETTINGS, many_steps, tmp_path / "host")
    if backend.name() != "jax":
        assert_equal_runs(host, run)
        return
    np.testing.assert_allclose(run.metrics["total_loss"], host.metrics["total_loss"], rtol=1e-6)
    for left, right in zip(run.load_model().get_weights(), host.load_model().get_weights(), strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.usefixtures("accelerator")
def test_training_on_an_accelerator_resumes_to_the_same_bits(many_steps: Splits, tmp_path: Path) -> None:
    whole = train(SETTINGS, many_steps, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(SETTINGS, many_steps, tmp_path / "parts", callbacks=[Interrupt(1, 5)])
    assert_equal_runs(resume(Run.open(tmp_path / "parts"), many_steps), whole)


@pytest.mark.usefixtures("accelerator")
@pytest.mark.skipif(backend.name() == "tensorflow", reason="it gathers images on the host")
@pytest.mark.parametrize("fits", [True, False])
def test_images_stay_on_the_device_if_they_take_a_quarter_of_its_memory(
    fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = ShuffledBatches({"images": np.zeros((8, 5, 5, 1), "uint8"), "condition": np.zeros(8, "int32")}, 4, seed=0)
    num_bytes = 8 * 5 * 5 + 8 * 4
    monkeypatch.setattr(accelerators, "_device_bytes", lambda: 4 * num_bytes - (not fits))
    model = SimpleNamespace(train_function=None, test_function=None, train_step=None, steps_per_execution=1)
    with accelerators.training_input(model, batches, every_step=False) as source:
        assert (model.train_function is not None or source is not batches) is fits
    assert model == SimpleNamespace(train_function=None, test_function=None, train_step=None, steps_per_execution=1)


@pytest.mark.usefixtures("accelerator")
@pytest.mark.skipif(backend.name() != "torch", reason="JAX gathers images in the compiled step")
def test_batches_on_the_device_equal_those_of_the_host() -> None:
    images = np.random.default_rng(0).integers(0, 256, (10, 2, 2, 1), "uint8")
    batches = ShuffledBatches(images, 4, seed=3)
    with accelerators.training_input(None, batches, every_step=False) as source:
        for epoch in range(2):
            batches.shuffle(epoch)
            order = np.random.default_rng([3, epoch]).permutation(10)
            found = [keras.ops.convert_to_numpy(source[index][0]) for index in range(len(source))]
            assert [batch.dtype for batch in found] == ["uint8"] * 3
            np.testing.assert_array_equal(np.concatenate(found), images[order])


DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


@pytest.mark.parametrize(
    ("platforms", "plugins", "given", "expected"),
    [
        ("cuda", [], None, DETERMINISTIC),
        ("cuda,cpu", [], "--xla_dump_to=x", f"--xla_dump_to=x {DETERMINISTIC}"),
        (None, ["xla_cuda12"], "", DETERMINISTIC),
        (None, ["libtpu"], None, None),
        (None, [], None, None),
        ("cpu", ["xla_cuda12"], None, None),
        ("tpu", [], "--xla_dump_to=x", "--xla_dump_to=x"),
        ("cuda", [], "--xla_gpu_deterministic_ops=false", "--xla_gpu_deterministic_ops=false"),
        ("cuda", [], "--xla_gpu_exclude_nondeterministic_ops", "--xla_gpu_exclude_nondeterministic_ops"),
    ],
)
@pytest.mark.parametrize("backend_name", ["jax", "torch"])
def test_xla_is_deterministic_on_gpus_unless_the_user_decides(
    backend_name: str,
    platforms: str | None,
    plugins: list[str],
    given: str | None,
    expected: str | None,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    for plugin in plugins:
        (tmp_path / plugin).mkdir()
        (tmp_path / plugin / "__init__.py").touch()
    found = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(startup.importlib.util, "find_spec", lambda name: found if name == "jax_plugins" else None)
    monkeypatch.setattr(startup, "_keep_freed_memory", lambda: None)
    monkeypatch.delenv("JAX_PLATFORM_NAME", raising=False)
    for name, value in {"KERAS_BACKEND": backend_name, "JAX_PLATFORMS": platforms, "XLA_FLAGS": given}.items():
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    startup.prepare()
    assert os.environ.get("XLA_FLAGS") == (expected if backend_name == "jax" else given)


@pytest.mark.skipif(backend.name() != "torch", reason="PyTorch's switches")
@pytest.mark.parametrize(("cuda", "strict"), [(False, False), (True, False), (True, True)])
def test_pytorch_is_deterministic_on_gpus_only(cuda: bool, strict: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: strict)
    monkeypatch.setattr(torch, "use_deterministic_algorithms", lambda *args, **kwargs: calls.append((args, kwargs)))
    monkeypatch.setattr(torch.backends, "cudnn", SimpleNamespace(deterministic=False))
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    hardware.enable_determinism()
    assert torch.backends.cudnn.deterministic is cuda
    assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if cuda else None)
    assert calls == ([((True,), {"warn_only": True})] if cuda and not strict else [])
