"""Training and evaluation on several devices: two virtual ones on the CPU, with JAX in a process of its own."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from helpers import small
from keras_vae.core import backend
from keras_vae.core.backend import distribution
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.runs.run import Run
from keras_vae.training.batches import validation_batch_size
from keras_vae.training.trainer import resume, train

on_jax = pytest.mark.skipif(keras.backend.backend() != "jax", reason="only JAX computes on several devices")

SETUP = """
import json
import keras
import numpy as np
import keras_vae
from helpers import Interrupt, small
from keras_vae.core import backend
from keras_vae.data.dataset import Dataset, split
from keras_vae.training.trainer import resume, train

levels = np.random.default_rng(0).integers(0, 18, (28, 1, 1, 1))
images = (np.indices((8, 8)).sum(0)[None, ..., None] * levels).astype("uint8")
splits = split(Dataset.from_arrays(images, name="frames"), None, validation=4, test_size=4, holdout=True, seed=0)
sizes = {
    "ladder": ["model.architecture.widths=[2, 3]", "model.architecture.groups=[0, 1]"],
    "vq": ["model.architecture.quantizer.num_codes=8", "model.network.widths=[2, 3]"],
}

def tiny(name):
    settings = ["training.epochs=1", "training.batch_size=8", *sizes[name]]
    return keras_vae.Experiment.preset(name).with_overrides(settings)
"""

TRAINING = """
averages = ["training.ema_window=0.9", "training.plateau.patience=1", "training.keep=best"]
experiments = {
    "vae": small("training.epochs=2", "model.prior=vamp", *averages),
    "vq": tiny("vq"),
    "ladder": tiny("ladder"),
}
metrics, counts = {}, []
for name, experiment in experiments.items():
    runs = [train(experiment, splits, f"{name}-{count}", devices=count) for count in (1, 2)]
    metrics[name] = [run.metrics for run in runs]
    counts.append([run.environment["num_devices"] for run in runs])

try:
    train(experiments["vae"], splits, "resumed", devices=2, callbacks=[Interrupt(1, 1)])
except KeyboardInterrupt:
    pass
try:
    resume("resumed", splits)
except keras_vae.InputError as error:
    refused = str(error)
resumed = resume("resumed", splits, devices=2).load_model().get_weights()
whole = keras_vae.load("vae-2").get_weights()
equal = all(np.array_equal(left, right) for left, right in zip(resumed, whole, strict=True))
"""

EVALUATION = """
from keras_vae.core.backend import distribution
from keras_vae.evaluation.features import random_features

shares = []
placed = distribution.keras.distribution.distribute_tensor

def place(tensor, layout):
    result = placed(tensor, layout)
    shares.append([list(shard.data.shape) for shard in result.addressable_shards] + [list(result.shape)])
    return result

def gradient_of(model, x):
    codes = np.linspace(-1, 1, 12, dtype="float32").reshape(3, 2, 2)
    return np.asarray(model.log_joint_and_gradient(codes, {"images": x})[1])

def measure():
    model, x = keras_vae.load("vae-1"), images[:5]
    ladder = keras_vae.load("ladder-1")
    return {
        "codes": model.encode(x).codes,
        "elbo": model.elbo(x),
        "elbo of the ladder": ladder.elbo(x),
        "samples of the ladder": ladder.sample(3, seed=0),
        "elbo of vq": keras_vae.load("vq-1").elbo(x),
        "posterior": model.log_likelihood(x, samples=3, proposal="posterior"),
        "gradient": gradient_of(model, x[:3]),
        "features": random_features((8, 8, 1))(x),
        "samples": model.sample(3, seed=0),
    }

one = measure()
with backend.distributed(2):
    distribution.keras.distribution.distribute_tensor = place
    two = measure()
    distribution.keras.distribution.distribute_tensor = placed
    model = keras_vae.load("vae-1")
    model.predict_on_batch(images[:4])
    step = model.predict_function
    kept = []

    def predict(*args):
        outputs, state = step(*args)
        kept.append(outputs.z)
        return outputs, state

    model.predict_function = predict
    model.predict_on_batch(images[:4])
    parts = [list(shard.data.shape) for shard in kept[0].addressable_shards]
differences = {name: float(np.max(np.abs(one[name] - two[name]) / (1 + np.abs(one[name])))) for name in one}
printed = {"differences": differences, "shares": shares, "parts": parts}
print(json.dumps({"metrics": metrics, "counts": counts, "refused": refused, "equal": equal, **printed}))
"""

FEEDING = """
from keras_vae import VAE
from keras_vae.networks import Conv

def make():
    vae = VAE(Conv((4,), 4).encoder((8, 8, 1), 2), Conv((4,), 4).decoder(2, (8, 8, 1)), seed=0)
    vae.compile("sgd")
    return vae

messages = []

def attempt(call):
    try:
        call()
    except keras_vae.InputError as error:
        messages.append(str(error))

keras.distribution.set_distribution(keras.distribution.DataParallel())
vae = make()
attempt(lambda: vae.fit(images[:7], verbose=0))
attempt(lambda: vae.fit(images[:8], batch_size=3, verbose=0))
attempt(lambda: vae.fit(images[:8], validation_data=images[:3], verbose=0))
attempt(lambda: vae.evaluate(images[:7], verbose=0))
attempt(lambda: vae.predict(images[:7], verbose=0))
attempt(lambda: vae.train_on_batch(images[:7]))
vae.fit(images[:8], batch_size=4, verbose=0)
before = [weight.copy() for weight in vae.get_weights()]
attempt(lambda: vae.fit((batch for batch in (images[:3], images[:4])), verbose=0))
# The weights are still there.
same = all(np.array_equal(left, right) for left, right in zip(before, vae.get_weights(), strict=True))

events = []

class Batches(keras.utils.PyDataset):
    def __len__(self):
        return 3

    def __getitem__(self, index):
        events.append(f"read {index}")
        return (images[4 * index : 4 * index + 4],)

class Follow(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        events.append(f"epoch {epoch}")

    def on_train_batch_end(self, batch, logs=None):
        events.append(f"end {batch}")

vae.fit(Batches(), epochs=2, shuffle=False, verbose=0, callbacks=[Follow()])
print(json.dumps({"messages": messages, "same": same, "events": events[events.index("epoch 0") :]}))
"""


def on_two_devices(code: str, folder: Path) -> dict[str, Any]:
    """Return what a program prints that runs on two virtual devices, in JSON."""
    tests = Path(__file__).parents[1]
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    path = os.pathsep.join([str(tests.parent / "src"), str(tests), os.environ.get("PYTHONPATH", "")])
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": flags, "PYTHONPATH": path}
    result = subprocess.run(
        [sys.executable, "-c", SETUP + code],
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=570,
    )
    assert result.returncode == 0, result.stderr
    printed: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return printed


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Metrics of trainings on one and on two devices, and measurements of their models."""
    return on_two_devices(TRAINING + EVALUATION, tmp_path_factory.mktemp("devices"))


@on_jax
@pytest.mark.slow
def test_metrics_on_two_devices_equal_those_on_one(trained: dict[str, Any]) -> None:
    assert trained["counts"] == [[1, 2]] * len(trained["metrics"])
    for name, (one, two) in trained["metrics"].items():
        assert {"total_loss", "reconstruction_loss", "kl_loss", "val_total_loss"} <= set(one)
        for column in set(one) - {"seconds"}:
            np.testing.assert_allclose(two[column], one[column], rtol=1e-5, atol=1e-5, err_msg=f"{name} {column}")


@on_jax
@pytest.mark.slow
def test_training_on_two_devices_resumes_on_two_bit_exactly(trained: dict[str, Any]) -> None:
    assert trained["refused"] == "devices = 1: resumed was started on 2; resume it with devices=2, or --devices 2"
    assert trained["equal"]


@on_jax
@pytest.mark.slow
def test_each_device_computes_its_share_of_an_evaluation(trained: dict[str, Any]) -> None:
    assert max(trained["differences"].values()) < 1e-4, trained["differences"]
    # Batches of 5 or 3 images are padded by one and halved; weights are on both devices as a whole.
    batches = [shape for shape in trained["shares"] if shape[0] != shape[-1]]
    assert len(batches) > 10
    for first, second, whole in batches:
        assert first == second
        assert first == [whole[0] // 2, *whole[1:]]
    assert trained["parts"] == [[2, 2], [2, 2]]


@on_jax
@pytest.mark.slow
def test_uneven_batches_are_refused_and_batches_are_read_ahead(tmp_path: Path) -> None:
    printed = on_two_devices(FEEDING, tmp_path)
    uneven = "x: 7 images cannot be divided evenly among 2 devices; pass 6 or 8 images"
    assert printed["messages"] == [
        uneven,
        "batch_size = 3: cannot be divided evenly among 2 devices; choose 2 or 4",
        "validation_data: 3 images cannot be divided evenly among 2 devices; pass 2 or 4 images",
        *[uneven] * 3,
        "x: the images of a batch cannot be divided evenly among 2 devices; make the size of every batch, also of the "
        "last one, a multiple of 2",
    ]
    assert printed["same"]
    epoch = ["read 0", "read 1", "end 0", "read 2", "end 1", "end 2"]
    assert printed["events"] == ["epoch 0", *epoch, "epoch 1", *epoch]


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that simulates a number of devices where batches are checked."""
    return lambda count: monkeypatch.setattr(backend, "num_replicas", lambda: count)


def test_more_devices_than_there_are_and_other_backends_are_refused() -> None:
    expected = {
        "tensorflow": "devices = 64: TensorFlow computes on one device; use --backend jax, or KERAS_BACKEND=jax",
        "torch": "devices = 64: PyTorch computes on one device; use --backend jax, or KERAS_BACKEND=jax",
        "jax": "devices = 64: JAX finds 1 (cpu:0); choose at most 1, or divide the CPU with "
        "XLA_FLAGS=--xla_force_host_platform_device_count=64",
    }
    with pytest.raises(InputError) as error, backend.distributed(64):
        pass
    assert str(error.value) == expected[keras.backend.backend()]
    with pytest.raises(InputError, match="devices = 0: not a positive integer"):
        backend.distribute(0)


def test_one_device_and_the_end_of_a_block_restore_the_default() -> None:
    with backend.distributed(1), backend.distributed(None):
        assert backend.num_replicas() == 1
    assert keras.distribution.distribution() is None


@pytest.mark.parametrize(
    ("count", "settings", "validation", "message"),
    [
        (
            2,
            ["training.batch_size=9"],
            4,
            "training.batch_size = 9: cannot be divided evenly among 2 devices; choose 8 or 10",
        ),
        (
            2,
            [],
            3,
            "devices = 2: 17 training images and 3 validation images cannot be divided evenly; set data.validation = ",
        ),
        (
            4,
            [],
            2,
            "devices = 4: 18 training images and 2 validation images cannot be divided evenly; set data.validation = 4",
        ),
        (8, [], 4, "set data.validation = 8 and data.test = 8"),
        (
            3,
            ["training.batch_size=6"],
            0,
            "20 training images cannot be divided evenly; set data.validation = 0 and data.test = 6",
        ),
    ],
)
def test_sizes_that_do_not_divide_are_refused_before_anything_is_built(
    count: int, settings: list[str], validation: int, message: str, images: Array, devices: Any, tmp_path: Path
) -> None:
    dataset = Dataset.from_arrays(images, name="frames")
    splits = split(dataset, None, validation=validation, test_size=4, holdout=True, seed=0)
    experiment = small(*settings)
    devices(count)
    with pytest.raises(InputError) as error:
        train(experiment, splits, tmp_path / "run")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_suggested_sizes_divide(images: Array) -> None:
    dataset = Dataset.from_arrays(images, name="frames")
    # Suggested above for 4 validation images on 8 devices.
    suggested = split(dataset, None, validation=8, test_size=8, holdout=True, seed=0)
    assert [len(part) % 8 for part in suggested if part is not None] == [0, 0, 0]


def test_fewer_devices_are_suggested_if_the_splits_are_fixed(images: Array, devices: Any, tmp_path: Path) -> None:
    part = Dataset.from_arrays(images, name="frames")
    fixed = Splits(part.subset(np.arange(18), "train"), None, Dataset.from_arrays(images, name="frames"))
    devices(4)
    with pytest.raises(InputError, match="use 2 devices, or change the number of images"):
        train(small(), fixed, tmp_path / "run")


def test_validation_batches_divide(shared_run: Path, devices: Any) -> None:
    model = Run.open(shared_run).load_model()
    devices(3)
    size = validation_batch_size(model, 6000)
    assert (size % 3, 6000 % size % 3) == (0, 0)
    assert size > 500


def test_resume_requires_the_recorded_number_of_devices(splits: Splits, tmp_path: Path) -> None:
    run = train(small("training.epochs=1"), splits, tmp_path / "run")
    assert run.environment["num_devices"] == 1
    (run.path / "model.keras").unlink()
    file = run.path / "environment.json"
    file.write_text(json.dumps(run.environment | {"num_devices": 2}))
    with pytest.raises(
        InputError, match=r"devices = 1: .*run was started on 2; resume it with devices=2, or --devices 2"
    ):
        resume(run, splits)


def test_batches_are_read_one_step_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(distribution, "num_replicas", lambda: 2)
    read: list[int] = []

    def batches(first: int) -> Iterator[int]:
        for number in range(first, first + 3):
            read.append(number)
            yield number

    prefetch, epoch = distribution.Prefetch(), batches(0)
    steps = []
    for _ in range(3):
        steps.append((next(prefetch(epoch)), list(read)))
    assert steps == [(0, [0, 1]), (1, [0, 1, 2]), (2, [0, 1, 2])]
    with pytest.raises(StopIteration):
        next(prefetch(epoch))
    # Each epoch has its own iterator.
    assert next(prefetch(batches(10))) == 10
