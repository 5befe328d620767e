"""Checks of an experiment before any weight is created."""

from typing import Any

from keras_vae.components.conditions import ContinuousCondition
from keras_vae.components.objectives import Objective
from keras_vae.components.schedules import Constant, Schedule
from keras_vae.core import backend, registry
from keras_vae.core.errors import InputError
from keras_vae.data.dataset import Splits
from keras_vae.data.info import DatasetInfo
from keras_vae.models import registration  # noqa: F401
from keras_vae.models.architectures import Architecture
from keras_vae.runs.experiment import COMPONENTS, Experiment, ModelConfig, TrainingConfig

_FROM_DATA = {("condition", "label"): ("classes", "classes"), ("objective", "beta-tc"): ("images", "images")}
"""Arguments that default to a fact about the data: kind and name of the component → argument, field of the facts."""


def validate(experiment: Experiment, splits: Splits) -> None:
    """Check that an experiment can be trained on its images.

    Args:
        experiment: The experiment.
        splits: Its images.

    Raises:
        InputError: A setting is invalid, or does not fit the images or another setting.
    """
    training = experiment.training
    check_validation_images(training, splits)
    check_batch_size(training, len(splits.train))
    components = build_components(experiment, DatasetInfo.from_splits(splits))
    check_single_images(experiment, components["objective"], splits)
    check_learning_rate(training, components["schedule"])
    if isinstance(components["condition"], ContinuousCondition):
        raise InputError(
            "model.condition = vector: image sources provide labels, not vectors; use condition = label, or fit the "
            'model in Python on {"images": x, "condition": c}'
        )


def build_components(experiment: Experiment, info: DatasetInfo) -> dict[str, Any]:
    """Build the components of an experiment and check that they fit together.

    Args:
        experiment: The experiment.
        info: Facts about the data.

    Returns:
        By kind: the components, `latent_dim` if the architecture has one, the condition or None, and the schedule of
        the learning rate. Schedules whose lengths are shares of all steps keep them.

    Raises:
        InputError: A component is unknown, or does not fit the data or another component.
    """
    model = experiment.model
    architecture: Architecture = registry.build("architecture", model.architecture)
    check_architecture(model, architecture)
    check_labels(experiment, info)
    given = model.model_dump(exclude_none=True, exclude={"architecture"})
    specs = {**architecture.default_components, **given, "schedule": experiment.training.schedule}
    # A mean over latent dimensions follows changes of their number.
    if specs["objective"].get("beta") == "1/latent_dim":
        specs["objective"] = specs["objective"] | {"beta": 1 / specs.get("latent_dim", 1)}
    for (kind, name), (argument, field) in _FROM_DATA.items():
        if specs.get(kind, {}).get("name") == name:
            specs[kind] = {argument: getattr(info, field)} | specs[kind]
    built = {kind: registry.build(kind, spec) if kind in COMPONENTS else spec for kind, spec in specs.items()}
    check_prior(specs.get("prior"), built["objective"])
    return {"architecture": architecture, "condition": None, **built}


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
            f"choose {num_images} or less"
        )


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


def check_architecture(model: ModelConfig, architecture: Architecture) -> None:
    """Refuse components that an architecture does not accept."""
    for kind in ("latent_dim", "network", "prior", "posterior"):
        value = getattr(model, kind)
        if value is not None and kind not in architecture.default_components:
            raise InputError(
                f"model.{kind} = {value['name'] if isinstance(value, dict) else value}: architecture = "
                f"{model.architecture['name']} has its own; leave {kind} out, or use architecture = vae"
            )


def check_labels(experiment: Experiment, info: DatasetInfo) -> None:
    """Refuse conditioning on labels if the images have none."""
    condition = experiment.model.condition
    if condition is not None and condition["name"] == "label" and info.classes == 0:
        raise InputError(
            f"model.condition = label: the images of {experiment.data.source} have no labels; sort them into "
            "sub-folders, or add `y_train` to the .npz"
        )


def check_prior(prior: dict[str, Any] | None, objective: Objective) -> None:
    """Refuse a learned prior under an objective that does not train it."""
    if prior is not None and prior["name"] != "standard-normal" and not objective.trains_prior:
        raise InputError(
            f"model.prior = {prior['name']}: {objective} does not train the prior; use prior = standard-normal and fit "
            "one afterward with `vae fit-prior`, or an alpha below 1"
        )
