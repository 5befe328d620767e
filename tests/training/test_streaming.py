"""Training on images that are read on demand: the same weights, little memory, and one line if a file changes."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

import keras_vae
from keras_vae import Experiment, InputError, Run
from keras_vae.core.typing import Array
from keras_vae.data.lazy import LazyImages
from keras_vae.data.packing import pack
from keras_vae.data.sources import load
from keras_vae.evaluation.evaluate import EvaluationConfig
from keras_vae.training.batches import ShuffledBatches, StreamedBatches

grain = pytest.importorskip("grain")


def pixels(count: int) -> Array:
    return np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), "uint8")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", pixels(150))
    return tmp_path / "x.npy"


def experiment(source: Path, *overrides: str) -> Experiment:
    settings = [f"data.source={source}", "training.epochs=2", "training.batch_size=32", "model.latent_dim=2"]
    return Experiment.preset("classic").with_overrides(
        [*settings, 'model.network={name="mlp", widths=[8]}', *overrides]
    )


def weights(run: Run) -> list[Array]:
    return [np.asarray(weight) for weight in run.load_model().get_weights()]


def test_streamed_batches_equal_those_of_images_in_memory(source: Path) -> None:
    held, lazy = pixels(150), load(source, load="stream").train.images
    labels = np.arange(150)
    expected = ShuffledBatches({"images": held, "condition": labels}, 32, 5)
    streamed = StreamedBatches({"images": lazy, "condition": labels}, 32, 5, workers=3)
    for epoch in (0, 1, 7):
        expected.shuffle(epoch)
        streamed.shuffle(epoch)
        order = np.random.default_rng([5, epoch]).permutation(150)
        # Any order of access returns the same batches; the second pass starts again.
        for index in (*range(5), *range(5), 3, 4, 1):
            (batch,), (same,) = streamed[index], expected[index]
            np.testing.assert_array_equal(batch["images"], held[order[index * 32 : index * 32 + 32]])
            for name in ("images", "condition"):
                np.testing.assert_array_equal(batch[name], same[name])


@pytest.mark.slow
@pytest.mark.parametrize("extra", [[], ["model.prior={name='vamp', num_components=4}"]])
def test_weights_equal_those_of_training_in_memory(source: Path, tmp_path: Path, extra: list[str]) -> None:
    runs = [
        keras_vae.train(experiment(source, f"data.load={kind}", *extra), out=tmp_path / kind)
        for kind in ("memory", "stream")
    ]
    for one, other in zip(*map(weights, runs), strict=True):
        np.testing.assert_array_equal(one, other)
    names = ("total_loss", "val_negative_elbo")
    assert [runs[0].metrics[name] for name in names] == [runs[1].metrics[name] for name in names]


@pytest.mark.slow
def test_weights_of_packed_images_equal_those_of_their_source(tmp_path: Path) -> None:
    for position, image in enumerate(pixels(150)):
        path = tmp_path / "photos" / "ab"[position % 2] / f"{position}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image[..., 0]).save(path)
    packed = pack(tmp_path / "photos", tmp_path / "packed.npy").path
    direct, held, streamed = (
        weights(keras_vae.train(experiment(path, f"data.load={kind}"), out=tmp_path / name))
        for name, path, kind in (
            ("direct", tmp_path / "photos", "memory"),
            ("held", packed, "memory"),
            ("streamed", packed, "stream"),
        )
    )
    for one, *others in zip(direct, held, streamed, strict=True):
        for other in others:
            np.testing.assert_array_equal(one, other)


class Stop(keras.callbacks.Callback):
    """Interrupts training in the second epoch."""

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Stop at the second step of the second epoch."""
        if len(self.seen) == 1 and batch == 1:
            raise KeyboardInterrupt

    def on_train_begin(self, logs: object = None) -> None:
        """Count epochs from now on."""
        self.seen: list[int] = []

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Count a complete epoch."""
        self.seen.append(epoch)


@pytest.mark.slow
def test_resumed_training_has_the_weights_of_an_uninterrupted_one(source: Path, tmp_path: Path) -> None:
    whole = keras_vae.train(experiment(source, "data.load=stream"), out=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        keras_vae.train(experiment(source, "data.load=stream"), out=tmp_path / "cut", callbacks=[Stop()])
    resumed = keras_vae.resume(tmp_path / "cut")
    for one, other in zip(weights(whole), weights(resumed), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_resuming_remembers_that_images_were_streamed(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("keras_vae.data.validation.total_memory", lambda: 1000)
        with pytest.warns(UserWarning, match="a quarter of"), pytest.raises(KeyboardInterrupt):
            keras_vae.train(experiment(source), out=tmp_path / "run", callbacks=[Stop()])
    assert keras_vae.resume(tmp_path / "run").is_complete


@pytest.mark.slow
def test_resuming_remembers_that_images_were_in_memory(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(KeyboardInterrupt):
        keras_vae.train(experiment(source), out=tmp_path / "run", callbacks=[Stop()])
    monkeypatch.setattr("keras_vae.data.validation.total_memory", lambda: 1000)
    assert keras_vae.resume(tmp_path / "run").is_complete


class Change(keras.callbacks.Callback):
    """Changes a file at the end of the first epoch."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Truncate the file."""
        self.file.write_bytes(self.file.read_bytes()[:-40])


def test_changed_file_stops_the_training_and_its_resumption_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for index, image in enumerate(pixels(80)):
        Image.fromarray(image[..., 0]).save(tmp_path / "photos" / f"{index:02}.png")
    file = tmp_path / "photos" / "11.png"
    content, status = file.read_bytes(), file.stat()
    settings = experiment(tmp_path / "photos", "data.load=stream", "data.validation=0", "data.test=0")
    with pytest.raises(InputError, match=r"11\.png: changed while it was in use; restore it$") as caught:
        keras_vae.train(settings, out=tmp_path / "run", callbacks=[Change(file)])
    assert "\n" not in str(caught.value)
    assert len(Run.open(tmp_path / "run").metrics["epoch"]) == 1
    with pytest.raises(InputError, match=r"not the images on which|cannot be read"):
        keras_vae.resume(tmp_path / "run")
    file.write_bytes(content)
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert keras_vae.resume(tmp_path / "run").is_complete


def test_missing_grain_names_its_extra(source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"grain is not installed; pip install 'keras-vae\[stream\]'$"):
        keras_vae.train(experiment(source, "data.load=stream"), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_nothing_but_training_reads_all_training_images(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras_vae.data.dataset.SAMPLE_BYTES", 20 * 64)
    run = keras_vae.train(experiment(source, "data.load=stream", "data.test=40"), out=tmp_path / "run")
    splits = run.load_splits()
    read: set[int] = set()
    original = type(splits.train.images.read).__call__  # type: ignore[attr-defined]

    def record(self: object, positions: Array, *, parallel: bool) -> Array:
        read.update(positions.tolist())
        return original(self, positions, parallel=parallel)  # type: ignore[no-any-return]

    monkeypatch.setattr(type(splits.train.images.read), "__call__", record)  # type: ignore[attr-defined]
    evaluation = keras_vae.evaluate(run, splits, EvaluationConfig(samples=2, num_generated=20, proposal="posterior"))
    keras_vae.fit_prior(run, "mixture", splits, epochs=1)
    assert isinstance(splits.train.images, LazyImages)
    trained = set(splits.train.images.rows.tolist())
    assert 20 <= len(read & trained) <= 60
    # All held-out images are measured.
    assert splits.test is not None
    assert evaluation["likelihood"]["images"] == len(splits.test)
    assert any("training images represent all" in note for note in evaluation["samples"]["notes"])


_TRAIN = """
import sys
import numpy as np
import keras_vae
from keras_vae import Experiment
source, out, load = sys.argv[1:]
settings = [f"data.source={source}", f"data.load={load}", "training.epochs=1", "training.batch_size=100",
            "model.latent_dim=2", 'model.network={name="mlp", widths=[8]}', "data.validation=64"]
keras_vae.train(Experiment.preset("classic").with_overrides(settings), out=out)
# Unlike `ru_maxrss`, this peak does not include the memory of the parent process.
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="reading does not depend on the backend")
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_does_not_grow_with_the_source(tmp_path: Path) -> None:
    """A source of 246 MB trains in less than half of its size more than one of 1 MB; in memory, it needs all of it."""
    peaks = {}
    for name, count, kind in (("small", 256, "stream"), ("large", 60_000, "stream"), ("held", 60_000, "memory")):
        file = tmp_path / f"{count}.npy"
        if not file.exists():
            images = np.lib.format.open_memmap(file, "w+", "uint8", (count, 64, 64, 1))
            images[:] = np.arange(count, dtype="uint8")[:, None, None, None]
            del images
        done = subprocess.run(
            [sys.executable, "-c", _TRAIN, str(file), str(tmp_path / name), kind],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[name] = int(done.stdout.split()[-1]) / 1024
    assert peaks["large"] - peaks["small"] < 120
    assert peaks["held"] - peaks["small"] > 200
