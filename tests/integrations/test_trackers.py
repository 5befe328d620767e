"""Recording of a training in TensorBoard, Weights & Biases and MLflow, read back with their own readers."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tracker_readers import (
    assert_metrics_equal,
    events,
    mlflow_metrics,
    mlflow_run,
    pictures,
    settings,
    tensorboard_metrics,
    values_of,
    wandb_history,
    wandb_records,
)

from helpers import Interrupt, assert_equal_runs, on_tensorflow, small
from keras_vae import EvaluationConfig, Run, evaluate, resume, trackers, train, write_report
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.integrations.hub import copy_files
from keras_vae.integrations.trackers.pictures import draw
from keras_vae.integrations.trackers.projector import sprite
from keras_vae.report import plots
from keras_vae.training.validation import averaged_weights

for name in ("tensorboard", "wandb", "mlflow"):
    pytest.importorskip(name, reason=f"keras-vae[{name}] is not installed")

one_backend = on_tensorflow("the services are called without Keras")


def images_of(pixels: Array) -> Splits:
    dataset = Dataset.from_arrays(pixels, np.arange(24) % 3, name="frames")
    return split(dataset, None, validation=4, test_size=4, holdout=True, seed=0)


@pytest.fixture(scope="module")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder in which the services store, without a network."""
    folder = tmp_path_factory.mktemp("services")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        patch.setenv("WANDB_MODE", "offline")
        patch.delenv("WANDB_DIR", raising=False)
        yield folder


@pytest.fixture(scope="module")
def recorded(shared_images: Array, services: Path) -> Run:
    """A run like `shared_run`, recorded by every tracker."""
    images, out = images_of(shared_images), services / "recorded"
    with (
        pytest.MonkeyPatch.context() as patch,
        trackers.TensorBoard() as tensorboard,
        trackers.WandB() as wandb,
        trackers.MLflow() as mlflow,
    ):
        patch.setattr(plots, "available_plots", lambda context: ("curves", "samples"))
        run = train(small(), images, out, callbacks=[tensorboard, wandb, mlflow])
        model = run.load_model()
        evaluate(run, images, EvaluationConfig(samples=0), stages=["likelihood"], model=model)
        write_report(run, images, model=model)
        for tracker in (tensorboard, wandb, mlflow):
            tracker.log_results(run, images, model=model)
    return run


@pytest.fixture(scope="module")
def from_tensorboard(shared_images: Array, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run like `shared_run`, recorded by TensorBoard."""
    out = tmp_path_factory.mktemp("tensorboard") / "run"
    return train(small(), images_of(shared_images), out, callbacks=[trackers.TensorBoard()])


def test_tensorboard_shows_the_metrics_of_the_run_and_does_not_change_it(
    from_tensorboard: Run, trained_run: Run
) -> None:
    assert_equal_runs(from_tensorboard, trained_run)
    assert_metrics_equal(tensorboard_metrics(from_tensorboard), from_tensorboard, single=True)


def test_pictures_show_fixed_noise_and_fixed_held_out_images(from_tensorboard: Run, splits: Splits) -> None:
    samples, reconstructions = (pictures(from_tensorboard, name) for name in ("samples", "reconstructions"))
    assert len(samples) == len(reconstructions) == 4
    assert not np.array_equal(samples[0], samples[3])
    model = from_tensorboard.load_model()
    # Each pixel of an image covers a square of the picture; one pixel separates images.
    scale = min(640 // (8 * 12 - 1), 12)
    expected = np.rint(255 * model.sample(64, seed=0)[..., 0])
    for index in (0, 9, 63):
        row, column = divmod(index, 8)
        found = samples[3][::scale, ::scale][10 * row :, 12 * column :][:9, :11]
        np.testing.assert_allclose(found, expected[index], atol=1)
    assert splits.test is not None
    scale = min(640 // (4 * 12 - 1), 12)
    for picture in reconstructions:
        np.testing.assert_array_equal(picture[::scale, ::scale][:9, :11], splits.test.images[0, ..., 0])
    below = np.rint(255 * model.reconstruct(splits.test.images)[1, ..., 0])
    np.testing.assert_allclose(reconstructions[3][::scale, ::scale][10:, 12:][:9, :11], below, atol=1)


def test_pictures_show_averaged_weights_and_keep_the_trained_ones(splits: Splits, tmp_path: Path) -> None:
    class Check(trackers.TensorBoard):
        def on_epoch_end(self, epoch: int, logs: object = None) -> None:
            shown = np.asarray(draw(self.model, splits)["samples"])[::6, ::6][:9, :11]
            trained = [np.array(weight) for weight in self.model.get_weights()]
            plain = 255 * self.model.sample(64, seed=0)[0, ..., 0]
            self.model.set_weights(averaged_weights(self.model))
            averaged = 255 * self.model.sample(64, seed=0)[0, ..., 0]
            self.model.set_weights(trained)
            assert np.abs(averaged - plain).max() > 1.1
            np.testing.assert_allclose(shown, averaged, atol=0.51)
            super().on_epoch_end(epoch)

    averaging = small("training.epochs=2", "training.ema_window=0.9", "training.learning_rate=0.1")
    run = train(averaging, splits, tmp_path / "run", callbacks=[Check()])
    assert_equal_runs(run, train(averaging, splits, tmp_path / "plain"))


@one_backend
def test_tensorboard_has_settings_results_and_figures(recorded: Run) -> None:
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    reader = EventAccumulator(str(recorded.path / "tensorboard")).Reload()
    content = reader.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    expected = settings(recorded)
    assert set(values) == set(expected)
    assert values["training.batch_size"].number_value == expected["training.batch_size"] == 8
    assert values["model.network.widths"].string_value == "[2, 3]"
    assert values["training.shuffle"].bool_value is True
    assert b"training.batch_size = 8" in events(recorded, "settings")[0][1][0]
    measured = json.loads((recorded.path / "evaluation.json").read_text())["likelihood"]["negative_elbo"]["mean"]
    [(step, value)] = events(recorded, "evaluation/likelihood/negative_elbo/mean")
    assert (step, float(value)) == (4, float(np.float32(measured)))
    with Image.open(recorded.path / "figures" / "curves.png") as figure:
        np.testing.assert_array_equal(pictures(recorded, "report/curves")[0], np.asarray(figure))


@one_backend
def test_projector_has_codes_labels_and_thumbnails(recorded: Run, splits: Splits) -> None:
    from google.protobuf import text_format
    from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig

    folder, test = recorded.path / "tensorboard", splits.test
    assert test is not None
    assert test.labels is not None
    config = text_format.Parse((folder / "projector_config.pbtxt").read_text(), ProjectorConfig())
    [embedding] = config.embeddings
    codes = np.loadtxt(folder / embedding.tensor_path, delimiter="\t", dtype="float32")
    # The projector draws in three dimensions, and nothing if there are fewer.
    assert tuple(embedding.tensor_shape) == codes.shape == (4, 3)
    np.testing.assert_allclose(codes[:, :2], recorded.load_model().encode(test.images).z_mean, rtol=1e-5, atol=1e-6)
    assert not codes[:, 2].any()
    header, *rows = (folder / embedding.metadata_path).read_text().splitlines()
    assert header.split("\t") == ["label", "image"]
    assert [row.split("\t")[0] for row in rows] == [test.classes[label] for label in test.labels]
    assert list(embedding.sprite.single_image_dim) == [11, 9]
    thumbnails = np.asarray(Image.open(folder / embedding.sprite.image_path))
    assert thumbnails.shape == (18, 22, 3)
    for index, image in enumerate(test.images):
        row, column = divmod(index, 2)
        found = thumbnails[9 * row :, 11 * column :][:9, :11]
        np.testing.assert_array_equal(found, np.repeat(image, 3, axis=-1))


@one_backend
def test_thumbnails_fit_the_limit_of_the_projector() -> None:
    images = np.arange(7, dtype="uint8")[:, None, None, None] * np.full((1, 30, 20, 3), 30, "uint8")
    picture, size = sprite(images, 40)
    # Three columns leave 13 pixels for the 30 of an image.
    assert size == (8, 13)
    assert picture.size == (24, 39)
    colors = np.asarray(picture).reshape(3, 13, 3, 8, 3)[:, 6, :, 4, 0].ravel()
    np.testing.assert_array_equal(colors[:7], 30 * np.arange(7))


@one_backend
def test_wandb_has_metrics_pictures_settings_and_the_report(recorded: Run) -> None:
    records = wandb_records(recorded)
    history = wandb_history(records)
    rows = [row for row in history if "total_loss" in row]
    assert_metrics_equal({name: [(row["step"], row[name]) for row in rows] for name in rows[0]}, recorded)
    folder = next(recorded.path.glob("wandb/offline-run-*")) / "files"
    shown = [np.asarray(Image.open(folder / row["samples.path"])) for row in rows]
    for ours, theirs in zip(pictures(recorded, "samples"), shown, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    config = values_of(item for record in records for item in (*record.config.update, *record.run.config.update))
    for key, value in settings(recorded).items():
        assert config[key] == value
    summary = values_of(item for record in records for item in record.summary.update)
    measured = json.loads((recorded.path / "evaluation.json").read_text())["likelihood"]["kl_loss"]["mean"]
    assert summary["evaluation/likelihood/kl_loss/mean"] == measured
    [page] = (folder / "media" / "html").glob("*.html")
    assert page.read_bytes() == (recorded.path / "report.html").read_bytes()
    [started] = {record.run.run_id for record in records if record.HasField("run")}
    assert started == json.loads((recorded.path / "trackers.json").read_text())["wandb"]["name"]["id"]


@one_backend
def test_mlflow_has_metrics_pictures_settings_and_the_report(recorded: Run, tmp_path: Path) -> None:
    assert_metrics_equal(mlflow_metrics(recorded), recorded)
    client, identifier = mlflow_run(recorded)
    found = client.get_run(identifier)
    assert found.info.status == "FINISHED"
    assert found.info.run_name == "recorded"
    expected = {
        key: value if isinstance(value, str) else json.dumps(value) for key, value in settings(recorded).items()
    }
    assert found.data.params == expected
    measured = json.loads((recorded.path / "evaluation.json").read_text())["likelihood"]["kl_loss"]["mean"]
    assert found.data.metrics["evaluation/likelihood/kl_loss/mean"] == measured
    files = Path(client.download_artifacts(identifier, "", str(tmp_path)))
    assert (files / "report.html").read_bytes() == (recorded.path / "report.html").read_bytes()
    sheets = sorted((files / "images").glob("samples*.png"), key=lambda file: int(file.name.split("+")[2]))
    for ours, sheet in zip(pictures(recorded, "samples"), sheets, strict=True):
        np.testing.assert_array_equal(ours, np.asarray(Image.open(sheet)))


@one_backend
def test_resumed_training_continues_its_records(
    services: Path, splits: Splits, tmp_path: Path, trained_run: Run
) -> None:
    with (
        pytest.raises(KeyboardInterrupt),
        trackers.TensorBoard() as tensorboard,
        trackers.MLflow() as mlflow,
    ):
        train(small(), splits, tmp_path / "run", callbacks=[tensorboard, mlflow, Interrupt(2, 1)])
    run = Run(tmp_path / "run")
    client, identifier = mlflow_run(run)
    assert client.get_run(identifier).info.status == "KILLED"
    # As if the process had been killed before it noted the second epoch.
    noted = json.loads((run.path / "trackers.json").read_text())
    assert {name: entry["epochs"] for name, entry in noted.items()} == {"tensorboard": 2, "mlflow": 2}
    for entry in noted.values():
        entry["epochs"] = 1
    (run.path / "trackers.json").write_text(json.dumps(noted))
    # A tracker that was not used before records all epochs.
    with trackers.TensorBoard() as tensorboard, trackers.MLflow() as mlflow, trackers.WandB() as wandb:
        resume(run, splits, callbacks=[tensorboard, mlflow, wandb])
    assert_equal_runs(run, trained_run)
    assert mlflow_run(run)[1] == identifier
    assert client.get_run(identifier).info.status == "FINISHED"
    assert_metrics_equal(tensorboard_metrics(run), run, single=True)
    assert_metrics_equal(mlflow_metrics(run), run)
    rows = [row for row in wandb_history(wandb_records(run)) if "total_loss" in row]
    assert_metrics_equal({name: [(row["step"], row[name]) for row in rows] for name in rows[0]}, run)
    # The images of epochs before the resume are missing, as they cannot be drawn any more.
    assert [step for step, _ in events(run, "samples")] == [1, 3, 4]


@one_backend
def test_failure_is_one_warning_and_can_be_made_up_for(
    services: Path, splits: Splits, tmp_path: Path, trained_run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    warnings: list[str] = []
    log_epoch = trackers.TensorBoard._log_epoch

    def fail(self: object, epoch: int, *rest: Any) -> None:
        if epoch > 1:
            raise OSError(28, "No space left on device")
        log_epoch(self, epoch, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(trackers.TensorBoard, "_log_epoch", fail)
    with trackers.TensorBoard(warnings.append) as tracker:
        run = train(small(), splits, tmp_path / "run", callbacks=[tracker])
        tracker.log_results(run, splits)
    assert_equal_runs(run, trained_run)
    [line] = warnings
    assert line.startswith("tracker = tensorboard: failed ([Errno 28] No space left on device); the training continues")
    assert [step for step, _ in events(run, "total_loss")] == [1]
    monkeypatch.setattr(trackers.TensorBoard, "_log_epoch", log_epoch)
    trackers.TensorBoard().log_results(run, splits)
    assert_metrics_equal(tensorboard_metrics(run), run, single=True)


@one_backend
def test_unreachable_server_neither_stops_the_training_nor_is_silent(
    splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    warnings: list[str] = []
    with trackers.MLflow(warnings.append) as tracker:
        run = train(small("training.epochs=1"), splits, tmp_path / "run", callbacks=[tracker])
    assert run.is_complete
    [line] = warnings
    assert "tracker = mlflow: failed (" in line
    assert "\n" not in line


@one_backend
def test_wandb_sends_nothing_without_a_login(
    trained_run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, splits: Splits
) -> None:
    for variable in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_IDENTITY_TOKEN_FILE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "elsewhere"))
    (tmp_path / "elsewhere").mkdir()
    with trackers.WandB(pytest.fail) as tracker:
        tracker.log_results(trained_run, splits)
        assert tracker.location.startswith("wandb sync ")
    [file] = (tmp_path / "elsewhere").glob("wandb/offline-run-*/*.wandb")
    assert len([row for row in wandb_history(wandb_records(trained_run, file)) if "total_loss" in row]) == 4
    assert not (trained_run.path / "wandb").exists()


@one_backend
def test_records_are_not_shared(recorded: Run, tmp_path: Path) -> None:
    assert {"tensorboard", "wandb", "trackers.json"} <= {path.name for path in recorded.path.iterdir()}
    copy = Path(shutil.copytree(recorded.path, tmp_path / "copy", symlinks=True))
    copy_files(Run(copy), tmp_path / "shared")
    shared = {path.relative_to(tmp_path / "shared").parts[0] for path in (tmp_path / "shared").rglob("*")}
    assert "model.keras" in shared
    assert not shared & {"tensorboard", "wandb", "trackers.json", "mlruns", "mlflow.db"}
