"""Runs of small untrained models to explore, and a server of one of them."""

from collections.abc import Iterator

import keras
import numpy as np
import pytest
from explorer_runs import CLASSIC, MakeRun

from keras_vae import Run
from keras_vae.core.typing import Array
from keras_vae.data import sources
from keras_vae.data.dataset import Splits
from keras_vae.data.info import DatasetInfo
from keras_vae.runs.build import build_model
from keras_vae.runs.experiment import Experiment


@pytest.fixture(scope="session")
def frames() -> tuple[Array, Array]:
    """Small non-square images with three labels, and the labels."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 60, (60, 9, 11, 1), dtype="uint8")
    labels = np.arange(60) % 3
    for image, label in zip(images, labels, strict=True):
        image[2:7, 2 + 2 * label : 5 + 2 * label] += 190
    return images, labels


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory, frames: tuple[Array, Array]) -> MakeRun:
    """Return a function that writes a complete run of an untrained model on `frames` with the given settings."""

    def make(*settings: str, images: Array | None = None, labels: Array | None = None, name: str = "run") -> Run:
        folder = tmp_path_factory.mktemp("explored")
        data = folder / "frames.npz"
        labels = frames[1] if labels is None else labels
        np.savez(data, x_train=frames[0] if images is None else images, y_train=labels)
        experiment = Experiment(name="explored").with_overrides([f'data.source="{data}"', "seed=4", *settings])
        splits, _ = sources.load_splits(experiment.data, experiment.seed)
        run = Run.create(folder / name, experiment, {"versions": {}, "backend": "tensorflow", "data": facts(splits)})
        keras.utils.set_random_seed(0)
        model = build_model(experiment, DatasetInfo.from_splits(splits))
        # With the initial weights, the decoded images of different codes may be equal, rounded to levels.
        for weight in model.decoder.trainable_weights if hasattr(model, "decoder") else ():
            weight.assign(2 * weight)
        run.save_model(model)
        losses = ("total_loss", "negative_elbo", "reconstruction_loss", "kl_loss")
        run.write_metrics({"epoch": [1.0, 2.0], **{name: [9.0, 8.0] for name in losses}})
        return run

    return make


@pytest.fixture(scope="session")
def classic_run(make_run: MakeRun) -> Run:
    """A run that no test may change."""
    return make_run(*CLASSIC)


@pytest.fixture(scope="session")
def classic_address(classic_run: Run) -> Iterator[str]:
    """The URL of the page of `classic_run`, in a process of its own."""
    from test_serving import VAE, served

    with served(*VAE, "explore", classic_run.path, "--port", 0) as address:
        yield address


def facts(splits: Splits) -> dict[str, object]:
    return {
        "name": splits.train.name,
        "image_shape": list(splits.train.image_shape),
        "images": {"train": len(splits.train)},
        "classes": 3,
        "class_names": list(splits.train.classes),
        "checksum": splits.checksum,
    }
