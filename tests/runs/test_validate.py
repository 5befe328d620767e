"""Invalid experiments are rejected before anything is written."""

from pathlib import Path

import numpy as np
import pytest

from helpers import small
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.data.info import DatasetInfo
from keras_vae.runs.build import build, build_model, resolve
from keras_vae.runs.run import Run
from keras_vae.runs.validate import validate
from keras_vae.training.trainer import train


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (["training.batch_size=17"], "training.batch_size = 17: there are only 16 training images"),
        (["training.optimizer=adm"], "did you mean 'adam'"),
        (["model.objective.beta=-2.0"], "beta = -2.0"),
        (["model.prior=gauss"], "prior = 'gauss': unknown"),
    ],
)
def test_invalid_experiment_writes_nothing(settings: list[str], message: str, splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        train(small(*settings), splits, tmp_path / "run")
    assert message in str(error.value)
    assert list(tmp_path.iterdir()) == []


def test_keep_best_without_validation_images_is_rejected(images: Array, tmp_path: Path) -> None:
    dataset = Dataset.from_arrays(images, name="frames")
    with pytest.raises(InputError, match="no validation images"):
        train(
            small("training.keep=best"),
            split(dataset, None, validation=0, test_size=4, holdout=True, seed=0),
            tmp_path / "r",
        )


def test_schedules_use_the_number_of_steps_of_the_whole_training(splits: Splits) -> None:
    info = DatasetInfo.from_splits(splits)
    experiment = small("training.schedule=cosine", "model.objective.schedule=warm-up")
    model = build(resolve(experiment, info))
    # 4 epochs of 2 steps.
    assert model.optimizer.learning_rate is not None
    assert model.optimizer._learning_rate.schedule.steps == 8
    assert model.objective.schedule.steps == 1
    later = experiment.with_overrides(["training.epochs=40"])
    assert build_model(later, info).objective.schedule.steps == 8


def test_schedule_and_plateau_cannot_be_combined(splits: Splits) -> None:
    experiment = small("training.schedule=cosine", "training.plateau.patience=1")
    resolved = resolve(experiment, DatasetInfo.from_splits(splits))
    with pytest.raises(InputError, match="use only one of the two"):
        validate(resolved, splits)


@pytest.mark.parametrize(
    ("settings", "validation", "message"),
    [
        (
            ["model.objective=info-vae"],
            1,
            "data.validation = 0.05: there is one validation image, and info-vae compares",
        ),
        (
            ["model.condition={ name = 'vector', size = 2 }"],
            4,
            "model.condition = vector: image sources provide labels, not vectors",
        ),
        (["model.objective={ name = 'info-vae', alpha = 1.0 }", "model.prior=realnvp"], 4, "does not train the prior"),
        (["model.objective=info-vae", "training.batch_size=1"], 4, "leave a batch of one, and info-vae compares"),
    ],
)
def test_invalid_combinations_are_rejected_before_anything_is_written(
    settings: list[str], validation: int, message: str, images: Array, tmp_path: Path
) -> None:
    dataset = Dataset.from_arrays(images, np.arange(24) % 3, name="frames")
    splits = split(dataset, None, validation=validation, test_size=4, holdout=True, seed=0)
    with pytest.raises(InputError, match=message):
        train(small(*settings), splits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_conditioning_on_classes_without_training_images_is_rejected(images: Array, tmp_path: Path) -> None:
    labels = np.arange(24) % 3
    train = Dataset.from_arrays(images[labels < 2], labels[labels < 2], name="frames").with_classes(("0", "1", "2"))
    test = Dataset.from_arrays(images, labels, name="frames", split="test")
    message = "model.condition = label: no training images of 2, which test images have"
    with pytest.raises(InputError, match=message):
        condition_on(Splits(train, None, test), tmp_path / "run")
    other = Dataset.from_arrays(images, labels + 1, name="frames", split="test")
    with pytest.raises(InputError, match="the classes of test images, 1, 2, 3, are not those of the training images"):
        condition_on(Splits(train, None, other), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def condition_on(splits: Splits, folder: Path) -> Run:
    return train(small("model.condition=label"), splits, folder)
