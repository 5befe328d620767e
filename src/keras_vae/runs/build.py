"""Models and optimizers from experiments."""

import inspect
import math
from typing import Any, Literal

import keras

from keras_vae.components.schedules import Constant, ScheduledRate, in_steps
from keras_vae.core import backend, registry
from keras_vae.core.errors import unknown
from keras_vae.data.info import DatasetInfo
from keras_vae.models.architectures import Components
from keras_vae.models.base import BaseVAE
from keras_vae.runs.experiment import COMPONENTS, Experiment, TrainingConfig
from keras_vae.runs.validate import build_components


def resolve(experiment: Experiment, info: DatasetInfo) -> Experiment:
    """Return the experiment with every default written out, and with the values that data and hardware decide.

    Args:
        experiment: The experiment.
        info: Facts about the data.

    Raises:
        InputError: A component or one of its arguments is unknown or invalid, or components do not fit together.

    Example:
        >>> resolve(Experiment(), DatasetInfo((28, 28, 1), 1000)).model.prior
        {'name': 'standard-normal'}
    """
    components = {kind: value for kind, value in build_components(experiment, info).items() if value is not None}
    specs = {kind: registry.spec(kind, value) if kind in COMPONENTS else value for kind, value in components.items()}
    training = {"schedule": specs.pop("schedule"), "precision": _precision(experiment.training)}
    return experiment.model_copy(
        update={
            "model": experiment.model.model_copy(update=specs),
            "training": experiment.training.model_copy(update=training),
        }
    )


def build_model(experiment: Experiment, info: DatasetInfo) -> BaseVAE:
    """Build the model of an experiment, untrained and not compiled.

    Args:
        experiment: The experiment.
        info: Facts about the data.

    Raises:
        InputError: A component is unknown, or components do not fit together.

    Example:
        >>> build_model(Experiment(), DatasetInfo((28, 28, 1), 1000)).latent_dim
        2
    """
    components = build_components(experiment, info)
    architecture = components["architecture"]
    objective = in_steps(components["objective"], num_steps(experiment.training, info.images))
    chosen = {kind: components[kind] for kind in architecture.default_components}
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(_precision(experiment.training))
    try:
        return architecture(
            info.image_shape,
            Components(components["likelihood"], objective, components["condition"], chosen),
            experiment.seed,
        )
    finally:
        keras.config.set_dtype_policy(policy)


def build(experiment: Experiment, info: DatasetInfo) -> BaseVAE:
    """Build the model of an experiment and compile it with its optimizer, ready to be trained.

    Sets Keras's global seed to that of the experiment, and makes the backend deterministic.

    Args:
        experiment: The experiment.
        info: Facts about the data.

    Returns:
        The model. The variables of its optimizer exist, so that a checkpoint can be restored into them.

    Raises:
        InputError: A component or the optimizer is unknown, or components do not fit together.
    """
    backend.enable_determinism()
    keras.utils.set_random_seed(experiment.seed)
    model = build_model(experiment, info)
    model.compile(optimizer=_build_optimizer(experiment.training, num_steps(experiment.training, info.images)))
    model.optimizer.build(model.trainable_variables)
    return model


def num_steps(training: TrainingConfig, num_images: int) -> int:
    """Return the number of steps of a whole training."""
    return training.epochs * math.ceil(num_images / training.batch_size)


def _precision(training: TrainingConfig) -> Literal["float32", "mixed_bfloat16"]:
    return backend.preferred_precision() if training.precision == "auto" else training.precision


def _build_optimizer(training: TrainingConfig, steps: int) -> keras.optimizers.Optimizer:
    classes = _optimizer_classes()
    if training.optimizer.lower() not in classes:
        raise unknown("training.optimizer", training.optimizer, classes)
    schedule = in_steps(registry.build("schedule", training.schedule), steps)
    rate = training.learning_rate
    options: dict[str, Any] = {
        "learning_rate": rate if isinstance(schedule, Constant) else ScheduledRate(rate, schedule)
    }
    window = training.ema_window * steps
    if window > 1:
        options |= {"use_ema": True, "ema_momentum": 1 - 1 / window}
    if training.weight_decay:
        options["weight_decay"] = training.weight_decay
    if training.clip_norm:
        options["global_clipnorm"] = training.clip_norm
    optimizer = classes[training.optimizer.lower()](**options)
    if not training.skip_non_finite:
        return optimizer
    # Keras's loss scaling is meant for float16. Here it only serves to skip updates with non-finite gradients.
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0, dynamic_growth_steps=2**30)


def _optimizer_classes() -> dict[str, type[keras.optimizers.Optimizer]]:
    """Return the Keras optimizers that have a learning rate, by lower-case name."""
    return {
        name.lower(): value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and "learning_rate" in inspect.signature(value).parameters
        and value is not keras.optimizers.Optimizer
    }
