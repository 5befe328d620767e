"""Training: the files that it writes, resuming, and the choice of the kept weights."""

import functools
import json
import math
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers import Interrupt, assert_equal_runs, small
from keras_vae.core import files
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Splits
from keras_vae.data.info import DatasetInfo
from keras_vae.runs.build import resolve
from keras_vae.runs.run import Run
from keras_vae.training.trainer import resume, train


@pytest.fixture(scope="module")
def shared_cut(shared_splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original of `cut`, which no test may change."""
    path = tmp_path_factory.mktemp("cut") / "run"
    with pytest.raises(KeyboardInterrupt):
        train(small(), shared_splits, path, callbacks=[Interrupt(1, 0)])
    return path


@pytest.fixture
def cut(shared_cut: Path, tmp_path: Path) -> Run:
    """A copy of a run that was interrupted after its first epoch."""
    return Run.open(shutil.copytree(shared_cut, tmp_path / "run"))


def test_training_writes_only_weights_and_metrics(trained_run: Run, splits: Splits) -> None:
    run = trained_run
    assert run.is_complete
    names = {path.name for path in run.path.iterdir()}
    assert names == {"experiment.toml", "environment.json", "metrics.csv", "model.keras"}
    assert run.experiment == resolve(small(), DatasetInfo.from_splits(splits)).experiment
    assert list(run.metrics) == [
        "epoch",
        *(f"{prefix}{name}" for prefix in ("", "val_") for name in run.load_model().loss_trackers),
        "seconds",
    ]
    assert run.metrics["epoch"] == [1, 2, 3, 4]
    environment = run.environment
    assert environment["backend"] == keras.backend.backend()
    assert environment["versions"]["keras"] == keras.__version__
    assert environment["data"]["images"] == {"train": 16, "validation": 4, "test": 4}
    assert environment["parameters"] == {"model": sum(math.prod(w.shape) for w in run.load_model().trainable_weights)}


def test_training_loads_the_images_of_an_experiment_file_and_uses_the_first_unused_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("frames.npz", images=np.random.default_rng(0).integers(0, 256, (24, 9, 11), dtype="uint8"))
    Path("mine.toml").write_text(small("data.source=frames.npz", "training.epochs=1", "name=mine").to_toml())
    runs = [train(source) for source in ("mine.toml", Path("mine.toml"))]
    assert [run.path for run in runs] == [Path("runs/mine"), Path("runs/mine-2")]
    assert runs[0].environment["data"]["name"] == "frames"
    assert_equal_runs(*runs)


def test_training_accepts_the_name_of_a_preset_and_loads_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rng, arrays = np.random.default_rng(0), {}
    for part, count in (("train", 300), ("test", 20)):
        arrays[f"x_{part}"] = rng.integers(0, 256, (count, 28, 28), dtype="uint8")
        arrays[f"y_{part}"] = (np.arange(count) % 10).astype("uint8")
    np.savez("mnist.npz", **arrays)
    monkeypatch.setenv("KERAS_VAE_DATA", str(tmp_path))
    with pytest.raises(KeyboardInterrupt), pytest.warns(UserWarning, match="mnist"):
        train("classic", callbacks=[Interrupt(0, 0)])
    run = Run.open("runs/classic")
    assert run.experiment.model.network["widths"] == [32, 64]
    assert run.environment["data"]["images"] == {"train": 285, "validation": 15, "test": 20}


@pytest.mark.parametrize(
    "settings",
    [
        (),
        ("training.keep=best", "training.precision=mixed_bfloat16", "training.ema_window=0.9"),
        ("training.skip_non_finite=true", "training.ema_window=0.9"),
        (
            "training.ema_window=0.9",
            'model.image_losses=[{name="perceptual", features="random"}, {name="adversarial", start=0.5, widths=[4]}]',
        ),
    ],
)
def test_resumed_training_is_bitwise_equal_to_an_uninterrupted_one(
    settings: tuple[str, ...], splits: Splits, tmp_path: Path
) -> None:
    whole = train(small(*settings), splits, tmp_path / "whole")
    for epoch, batch in ((2, 1), (3, 0)):
        start = functools.partial(train, small(*settings), splits, tmp_path / "cut")
        continue_run = functools.partial(resume, Run(tmp_path / "cut"), splits)
        with pytest.raises(KeyboardInterrupt):
            (start if epoch == 2 else continue_run)(callbacks=[Interrupt(epoch, batch)])
        assert not Run(tmp_path / "cut").is_complete
    cut = resume(Run.open(tmp_path / "cut"), splits)
    assert_equal_runs(cut, whole)


def test_resume_after_the_last_epoch_writes_the_model(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def kill(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Run, "save_model", kill)
        with pytest.raises(KeyboardInterrupt):
            train(small(), splits, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert not run.is_complete
    weights = run.load_model().get_weights()
    resumed = resume(run.path, splits)
    assert resumed.is_complete
    assert resumed.metrics["epoch"] == [1, 2, 3, 4]
    for left, right in zip(weights, resumed.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_resume_returns_a_complete_run_unchanged(trained_run: Run, splits: Splits) -> None:
    run = trained_run
    before = {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()}
    assert resume(run, splits) == run
    assert {path: path.read_bytes() for path in run.path.rglob("*") if path.is_file()} == before


def test_keep_best_keeps_the_epoch_with_the_lowest_validation_negative_elbo(splits: Splits, tmp_path: Path) -> None:
    class ShiftOutputs(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
            if epoch == 2:
                bias = self.model.decoder.get_layer(index=5).bias
                bias.assign(bias + 5.0)

    run = train(small("training.keep=best"), splits, tmp_path / "run", callbacks=[ShiftOutputs()])
    assert int(np.argmin(run.metrics["val_negative_elbo"])) == 1, "the training must get worse after the second epoch"
    shorter = train(small("training.epochs=2"), splits, tmp_path / "shorter")
    for left, right in zip(run.load_model().get_weights(), shorter.load_model().get_weights(), strict=True):
        np.testing.assert_array_equal(left, right)


def test_moving_average_of_the_weights_is_evaluated_and_kept(splits: Splits, tmp_path: Path) -> None:
    class Average(keras.callbacks.Callback):
        sums: list[Array] | None = None
        total = 0.0

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:
            self.last = self.model.get_weights()
            before = self.sums or [0.0] * len(self.last)
            self.sums = [0.8 * old + new for old, new in zip(before, self.last, strict=True)]
            self.total = 0.8 * self.total + 1

    average = Average()
    run = train(
        small("training.ema_window=0.625", "training.learning_rate=0.05"), splits, tmp_path / "run", callbacks=[average]
    )
    model = run.load_model()
    for kept, weighted_sum in zip(model.get_weights(), average.sums, strict=True):
        if kept.dtype.kind == "f":  # skip the step counter
            np.testing.assert_allclose(kept, weighted_sum / average.total, rtol=1e-4, atol=1e-6)

    def expected_loss() -> float:
        terms = model.elbo_terms(splits.validation.images, draws=16)
        return float(-np.mean(terms.log_likelihood))

    averaged = expected_loss()
    model.set_weights(average.last)
    validated = run.metrics["val_reconstruction_loss"][-1]
    assert abs(validated - averaged) < 0.6 * abs(validated - expected_loss())


def test_kill_between_checkpoint_and_metrics_loses_no_row(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Run.write_metrics, []

    def kill_at_the_last_epoch(run: Run, metrics: dict[str, list[float]]) -> None:
        calls.append(metrics)
        if len(calls) == 4:
            raise KeyboardInterrupt
        write(run, metrics)

    with monkeypatch.context() as patch:
        patch.setattr(Run, "write_metrics", kill_at_the_last_epoch)
        with pytest.raises(KeyboardInterrupt):
            train(small(), splits, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.metrics["epoch"] == [1, 2, 3]
    assert resume(run, splits).metrics["epoch"] == [1, 2, 3, 4]


def test_full_disk_leaves_a_run_that_resumes(
    trained_run: Run, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writes, save = [], np.savez

    def fail_at_the_third_write(file: object, **arrays: object) -> None:
        writes.append(file)
        if len(writes) == 3:
            Path(str(file)).write_bytes(b"half a checkpo")
            raise OSError(28, "No space left on device")
        save(file, **arrays)

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", fail_at_the_third_write)
        with pytest.raises(RunError, match="cannot be written: No space left"):
            train(small(), splits, tmp_path / "run")
    run = Run.open(tmp_path / "run")
    assert run.metrics["epoch"] == [1, 2]
    assert_equal_runs(resume(run, splits), trained_run)


def test_resume_rejects_other_images_and_another_backend(cut: Run, splits: Splits) -> None:
    run = cut
    other = splits._replace(train=splits.train.subset(np.arange(16)[::-1], "train"))
    with pytest.raises(InputError, match="not the images on which"):
        resume(run, other)
    environment = run.environment | {"backend": "theano"}
    files.write_text(run.path / "environment.json", json.dumps(environment))
    with pytest.raises(InputError, match="KERAS_BACKEND=theano"):
        resume(run, splits)


def test_label_condition_is_saved_with_the_run(splits: Splits, tmp_path: Path) -> None:
    run = train(small("model.condition=label", "training.epochs=1"), splits, tmp_path / "run")
    assert run.experiment.model.condition == {"name": "label", "classes": 3, "names": ["0", "1", "2"]}
    model = run.load_model()
    assert not np.array_equal(model.sample(2, seed=0, condition=0), model.sample(2, seed=0, condition=1))
    with pytest.raises(InputError, match="condition = None"):
        model.sample(2)
    with pytest.raises(InputError, match="condition = 3: unknown; accepted: 0, 1, 2"):
        model.sample(2, condition=3)


def test_missing_checkpoint_is_not_replaced_by_a_training_from_the_start(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(small(), splits, tmp_path / "run", callbacks=[Interrupt(2, 0)])
    run = Run.open(tmp_path / "run")
    before = (run.path / "metrics.csv").read_text()
    (run.path / "checkpoint" / "state.npz").unlink()
    message = f"2 epochs were completed, but their weights, .*missing; .*`vae train {run.path}/experiment.toml`"
    for call in (lambda: resume(run, splits), run.load_model):
        with pytest.raises(InputError, match=message):
            call()
    assert (run.path / "metrics.csv").read_text() == before
    # Without a complete epoch, nothing is lost.
    (run.path / "metrics.csv").unlink()
    assert resume(run, splits).metrics["epoch"] == [1, 2, 3, 4]


@pytest.mark.parametrize("damage", ["truncated", "other shapes", "fewer arrays", "no optimizer", "no metrics"])
def test_damaged_checkpoint_is_reported_in_one_line(damage: str, cut: Run, splits: Splits) -> None:
    run = cut
    file = run.path / "checkpoint" / "state.npz"
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-100])
    else:
        with np.load(file) as archive:
            arrays = dict(archive)
        arrays = {
            "other shapes": arrays | {"weights/0": arrays["weights/0"][..., None]},
            "fewer arrays": {name: array for name, array in arrays.items() if name != "weights/0"},
            "no optimizer": {name: array for name, array in arrays.items() if not name.startswith("optimizer")},
            "no metrics": {name: array for name, array in arrays.items() if name != "metrics"},
        }[damage]
        np.savez(file, **arrays)
    with pytest.raises(InputError, match=r"state\.npz: ") as caught:
        resume(run, splits)
    assert len(str(caught.value).splitlines()) == 1


def test_run_that_is_deleted_during_training_is_reported(splits: Splits, tmp_path: Path) -> None:
    delete = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: shutil.rmtree(tmp_path / "run") if epoch == 1 else None
    )
    with pytest.raises(RunError, match=r"run: was deleted or moved by another process; restore it, or train again$"):
        train(small(), splits, tmp_path / "run", callbacks=[delete])
    assert not (tmp_path / "run").exists()


def test_resuming_with_other_versions_is_announced_and_recorded(cut: Run, splits: Splits) -> None:
    run = cut
    current = run.environment["versions"]
    started = current | {"keras": "3.1.0", "numpy": "2.0.0"}
    files.write_text(run.path / "environment.json", json.dumps(run.environment | {"versions": started}))
    message = rf"keras 3\.1\.0 → {current['keras']}, numpy 2\.0\.0 → {current['numpy']}\): the result may differ"
    with pytest.warns(UserWarning, match=message):
        resume(run, splits)
    assert run.environment["versions"] == started
    assert run.environment["resumed_with"] == current
