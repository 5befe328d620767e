"""Checks of an experiment before any weight is created."""

import warnings
from collections.abc import Sequence

import numpy as np

from keras_vae.components.conditions import ClassLabel, Condition, ContinuousCondition
from keras_vae.components.image_losses import ImageLoss
from keras_vae.components.likelihoods import Likelihood
from keras_vae.components.objectives import Objective
from keras_vae.components.schedules import Constant, Schedule, in_steps
from keras_vae.core import backend
from keras_vae.core.errors import InputError, alternatives
from keras_vae.data.dataset import Splits
from keras_vae.models.batching import multiples_around
from keras_vae.models.missing import check_observed, check_whole_pixels
from keras_vae.runs.build import ResolvedExperiment
from keras_vae.runs.experiment import Experiment, TrainingConfig


def validate(experiment: ResolvedExperiment, splits: Splits) -> None:
    """Check that an experiment can be trained on its images.

    Args:
        experiment: The resolved experiment. Its components fit together already.
        splits: Its images.

    Raises:
        InputError: A setting does not fit the images or another setting.
    """
    settings, _, components = experiment
    check_validation_images(settings.training, splits)
    check_batch_size(settings.training, len(splits.train))
    check_frozen(settings.training)
    check_devices(settings, splits)
    check_single_images(settings, components["objective"], splits)
    check_learning_rate(settings.training, components["schedule"])
    check_condition(components["condition"])
    check_classes(components["condition"], splits)
    check_missing(components["likelihood"], splits)
    check_starts(components["image_losses"], experiment.num_steps)
    check_precision(settings.training)


def check_validation_images(training: TrainingConfig, splits: Splits) -> None:
    """Refuse settings that depend on validation images if there are none."""
    settings = {
        "keep = 'best'": training.keep == "best",
        f"early_stopping = {training.early_stopping}": training.early_stopping > 0,
        f"plateau.patience = {training.plateau.patience}": training.plateau.patience > 0,
    }
    for setting, needs_validation in settings.items():
        if needs_validation and splits.validation is None:
            raise InputError(f"training.{setting}: there are no validation images; set data.validation above 0")


def check_batch_size(training: TrainingConfig, num_images: int) -> None:
    """Refuse batches that are larger than the training set."""
    if training.batch_size > num_images:
        raise InputError(
            f"training.batch_size = {training.batch_size}: there are only {num_images} training images; "
            f"choose at most {num_images}"
        )


def check_precision(training: TrainingConfig) -> None:
    """Warn if float32 is faster than the chosen precision."""
    if training.precision == "mixed_bfloat16" and backend.preferred_precision() == "float32":
        warnings.warn(
            f"training.precision = 'mixed_bfloat16': slower than float32 on this machine with {backend.name()}; "
            "use training.precision = 'auto', which selects the faster one",
            stacklevel=3,
        )


def check_frozen(training: TrainingConfig) -> None:
    """Refuse frozen networks with random weights."""
    if training.freeze and training.init is None:
        raise InputError(
            f"training.freeze = {training.freeze}: their weights would remain random; set training.init, or remove it"
        )


def check_devices(experiment: Experiment, splits: Splits) -> None:
    """Refuse batches of training or validation images that cannot be divided evenly among the devices."""
    replicas, size = backend.num_replicas(), experiment.training.batch_size
    if size % replicas:
        raise InputError(
            f"training.batch_size = {size}: cannot be divided evenly among {replicas} devices; choose "
            f"{alternatives(multiples_around(size, replicas))}"
        )
    train, validation = len(splits.train), 0 if splits.validation is None else len(splits.validation)
    if train % replicas or validation % replicas:
        images = f"{train} training images" + (f" and {validation} validation images" if validation else "")
        raise InputError(
            f"devices = {replicas}: {images} cannot be divided evenly; {_divisible_sizes(experiment, splits)}"
        )


def _divisible_sizes(experiment: Experiment, splits: Splits) -> str:
    """Return a remedy for training and validation images that cannot be divided evenly among the devices.

    It changes the sizes of those splits that are taken from the training images. Otherwise, it uses fewer devices.
    """
    replicas, data = backend.num_replicas(), experiment.data
    train, validation, test = (0 if part is None else len(part) for part in splits)
    excess = (train + validation) % replicas
    nearest = max(replicas, round(validation / replicas) * replicas) if validation else 0
    # Images that a split was taken from have positions in their source.
    is_free = data.holdout and (splits.validation is None or splits.validation.positions is not None)
    takes_test = splits.test is None or splits.test.positions is not None
    if is_free and nearest + excess < train + validation and (takes_test or not excess):
        sizes = {"data.validation": nearest, "data.test": test + excess} if excess else {"data.validation": nearest}
        return "set " + " and ".join(f"{key} = {value}" for key, value in sizes.items())
    sizes_to_divide = (train, validation, experiment.training.batch_size)
    fewer = next(count for count in range(replicas - 1, 0, -1) if not any(size % count for size in sizes_to_divide))
    return f"use {fewer} device{'s' if fewer > 1 else ''}, or change the number of images"


def check_single_images(experiment: Experiment, objective: Objective, splits: Splits) -> None:
    """Refuse batches of one image if the objective or the backend needs more."""
    name, batch_size, num_images = experiment.model.objective["name"], experiment.training.batch_size, len(splits.train)
    reason = None
    if objective.requires_batch:
        reason = f"{name} compares the images of a batch"
    elif not backend.supports_batches_of_one():
        reason = "PyTorch cannot compute its gradient on a CPU"
    if reason and 1 in (batch_size, num_images % batch_size):
        raise InputError(
            f"training.batch_size = {batch_size}: {num_images} images leave a batch of one, and {reason}; "
            "choose another size"
        )
    if objective.requires_batch and splits.validation is not None and len(splits.validation) == 1:
        raise InputError(
            f"data.validation = {experiment.data.validation}: there is one validation image, and {name} compares the "
            "images of a batch; choose more, or 0"
        )


def check_learning_rate(training: TrainingConfig, schedule: Schedule) -> None:
    """Refuse a schedule together with reductions on plateaus."""
    if training.plateau.patience and not isinstance(schedule, Constant):
        raise InputError(
            f"training.plateau.patience = {training.plateau.patience}: training.schedule = "
            f"{training.schedule['name']} sets the learning rate as well; use only one of the two"
        )


def check_condition(condition: Condition | None) -> None:
    """Refuse conditioning on vectors, which no image source provides."""
    if isinstance(condition, ContinuousCondition):
        raise InputError(
            "model.condition = vector: image sources provide labels, not vectors; use condition = label, or fit the "
            'model in Python on {"images": x, "condition": c}'
        )


def check_classes(condition: Condition | None, splits: Splits) -> None:
    """Refuse conditioning on classes without training images."""
    if not isinstance(condition, ClassLabel):
        return
    train = splits.train
    for part in (splits.validation, splits.test):
        if part is None or part.labels is None:
            continue
        if part.classes != train.classes:
            raise InputError(
                f"splits: the classes of {part.split} images, {', '.join(part.classes)}, are not those of the training "
                f"images, {', '.join(train.classes)}; number them in the same way with Dataset.with_classes"
            )
        if new := sorted(set(part.present_classes) - set(train.present_classes)):
            raise InputError(
                f"model.condition = label: no training images of {', '.join(new)}, which {part.split} images have; add "
                "some, remove these images, or leave out the condition"
            )


def check_missing(likelihood: Likelihood, splits: Splits) -> None:
    """Refuse training images without observed pixels, and missing channels that the likelihood cannot leave out."""
    for part in splits:
        if part is not None and part.has_missing:
            mask = ~np.ma.getmaskarray(part.images)
            if not likelihood.has_independent_channels:
                check_whole_pixels(mask)
            if part.split == "train":
                check_observed({"mask": mask})


def check_starts(image_losses: Sequence[ImageLoss], num_steps: int) -> None:
    """Refuse image losses that start after the last step."""
    for index, loss in enumerate(image_losses):
        given, start = (getattr(one, "start", 0) for one in (loss, in_steps(loss, num_steps)))
        if start >= num_steps:
            raise InputError(
                f"model.image_losses[{index}].start = {given}: the training has {num_steps:,} steps, so that "
                f"{type(loss).__name__} would never start; choose less, or more training.epochs"
            )
