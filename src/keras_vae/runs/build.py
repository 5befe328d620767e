"""Models and optimizers from experiments."""

import inspect
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import keras

from keras_vae.components.objectives import Objective
from keras_vae.components.optimizers import AveragingOptimizer, SkippingOptimizer
from keras_vae.components.schedules import Constant, ScheduledRate, in_steps
from keras_vae.core import backend, registry
from keras_vae.core.errors import InputError, shown, unknown
from keras_vae.data.info import DatasetInfo
from keras_vae.models import registration  # noqa: F401
from keras_vae.models.architectures import Architecture, Components
from keras_vae.models.base import BaseVAE
from keras_vae.networks.base import Network, VectorNetwork
from keras_vae.runs.experiment import COMPONENTS, Experiment, ModelConfig, TrainingConfig

_FROM_DATA = {
    ("condition", "label"): {"classes": "classes", "names": "class_names"},
    ("objective", "beta-tc"): {"images": "images"},
}
"""Arguments that default to facts about the data: kind and name of the component → argument → field of the facts."""


class ResolvedExperiment(NamedTuple):
    """An experiment with every default written out, and the components from which its model is built.

    The components become part of the model, so a resolved experiment is built only once.

    Args:
        experiment: The experiment, with the values that depend on data and hardware.
        info: Facts about the data.
        components: By kind: the components, `latent_dim` if the architecture has one, the condition or None, the list
            of image losses, and the schedule of the learning rate. Lengths that are fractions of all steps remain so.
    """

    experiment: Experiment
    info: DatasetInfo
    components: Mapping[str, Any]

    @property
    def num_steps(self) -> int:
        """Number of steps of the whole training."""
        training = self.experiment.training
        return training.epochs * math.ceil(self.info.images / training.batch_size)


def resolve(experiment: Experiment, info: DatasetInfo) -> ResolvedExperiment:
    """Write out every default of an experiment, set what depends on data and hardware, and build its components.

    Args:
        experiment: The experiment.
        info: Facts about the data.

    Raises:
        InputError: A component or one of its arguments is unknown or invalid, or a component does not fit the data or
            another component.

    Example:
        >>> resolve(Experiment(), DatasetInfo((28, 28, 1), 1000)).experiment.model.prior
        {'name': 'standard-normal'}
    """
    components = _build_components(experiment, info)
    specs = {kind: registry.spec(kind, value) if kind in COMPONENTS else value for kind, value in components.items()}
    specs["image_losses"] = [registry.spec("image_loss", loss) for loss in components["image_losses"]]
    _check_architecture(experiment.model, components["architecture"])
    _check_prior(specs.get("prior"), components["objective"])
    training = {"schedule": specs.pop("schedule"), "precision": _precision(experiment.training)}
    complete = experiment.model_copy(
        update={
            "model": experiment.model.model_copy(update=specs),
            "training": experiment.training.model_copy(update=training),
        }
    )
    return ResolvedExperiment(complete, info, {"condition": None, **components})


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
    return _assemble(resolve(experiment, info))


def build(resolved: ResolvedExperiment) -> BaseVAE:
    """Build the model of a resolved experiment and compile it with its optimizer, ready to be trained.

    Sets Keras's global seed to that of the experiment, and makes the backend deterministic.

    Args:
        resolved: The experiment and its components.

    Returns:
        The model. The variables of its optimizer exist, so that a checkpoint can be restored into them.

    Raises:
        InputError: The optimizer is unknown, a component does not fit the images, or no weights are left to train.
    """
    backend.enable_determinism()
    keras.utils.set_random_seed(resolved.experiment.seed)
    model = _assemble(resolved)
    _freeze(model, resolved.experiment.training.freeze)
    optimizer = _build_optimizer(resolved)
    model.compile(optimizer=optimizer)
    optimizer.build(model.trainable_variables)
    return model


def _build_components(experiment: Experiment, info: DatasetInfo) -> dict[str, Any]:
    """Return the components of an experiment by kind; those that are optional and not given are missing."""
    _check_labels(experiment, info)
    architecture: Architecture = registry.build("architecture", experiment.model.architecture, "model.architecture")
    given = experiment.model.model_dump(exclude_none=True, exclude={"architecture"})
    specs = {**architecture.default_components, **given, "schedule": experiment.training.schedule}
    if "latent_dim" in architecture.default_components:
        specs["latent_dim"] = _latent_dim(specs, experiment.model.latent_dim, info)
    # A mean over latent dimensions follows changes of their number.
    if specs["objective"].get("beta") == "1/latent_dim":
        specs["objective"] = specs["objective"] | {"beta": 1 / specs.get("latent_dim", 1)}
    for (kind, name), arguments in _FROM_DATA.items():
        if specs.get(kind, {}).get("name") == name:
            specs[kind] = {argument: getattr(info, field) for argument, field in arguments.items()} | specs[kind]
    condition = specs.get("condition", {})
    if condition.get("classes") != info.classes and condition.get("names") == info.class_names:
        # The names of the data do not apply to another number of classes.
        specs["condition"] = {key: value for key, value in condition.items() if key != "names"}
    for kind in specs.keys() & set(COMPONENTS):
        table = "training" if kind == "schedule" else "model"
        specs[kind] = registry.build(kind, specs[kind], f"{table}.{kind}")
    specs["image_losses"] = [
        registry.build("image_loss", spec, f"model.image_losses[{index}]")
        for index, spec in enumerate(experiment.model.image_losses)
    ]
    return {"architecture": architecture, **specs}


def _latent_dim(specs: Mapping[str, Any], given: int | None, info: DatasetInfo) -> int:
    """Return the number of latent dimensions, which networks of latent maps derive from the size of the images."""
    network: Network = registry.build("network", specs["network"], "model.network")
    if isinstance(network, VectorNetwork):
        return int(specs["latent_dim"])
    return math.prod(network.latent_shape(info.image_shape, given))


def _assemble(resolved: ResolvedExperiment) -> BaseVAE:
    """Build the model from its components, untrained and not compiled."""
    experiment, info, components = resolved
    architecture: Architecture = components["architecture"]
    objective = in_steps(components["objective"], resolved.num_steps)
    image_losses = [in_steps(loss, resolved.num_steps) for loss in components["image_losses"]]
    specific = {kind: components[kind] for kind in architecture.default_components}
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(experiment.training.precision)
    try:
        return architecture(
            info.image_shape,
            Components(
                components["likelihood"],
                objective,
                components["condition"],
                experiment.model.mask_channels,
                specific,
                image_losses,
            ),
            experiment.seed,
        )
    finally:
        keras.config.set_dtype_policy(policy)


def _freeze(model: BaseVAE, parts: Sequence[str]) -> None:
    """Exclude networks, and the distributions that they parameterize, from training.

    Args:
        model: The model, before its optimizer is built.
        parts: `"encoder"`, `"decoder"`, or both.

    Raises:
        InputError: Encoder and decoder of the model share layers, or no weights are left to train.
    """
    if not parts:
        return
    setting = f"training.freeze = {shown(list(parts))}"
    own = {"encoder": model._encoding_parts, "decoder": model._decoding_parts}
    if {id(part) for part in own["encoder"]} & {id(part) for part in own["decoder"]}:
        raise InputError(
            f"{setting}: encoder and decoder of a {type(model).__name__} share layers; use model.architecture = vae"
        )
    for part in itertools.chain.from_iterable(own[name] for name in parts):
        if isinstance(part, keras.layers.Layer):
            part.trainable = False
    if not model.trainable_variables:
        raise InputError(f"{setting}: no weights are left to train; freeze only one of the two, or learn a prior")


def _precision(training: TrainingConfig) -> Literal["float32", "mixed_bfloat16"]:
    return backend.preferred_precision() if training.precision == "auto" else training.precision


def _build_optimizer(resolved: ResolvedExperiment) -> keras.optimizers.Optimizer:
    training, steps = resolved.experiment.training, resolved.num_steps
    rate, schedule = training.learning_rate, in_steps(resolved.components["schedule"], steps)
    options: dict[str, Any] = {
        "learning_rate": rate if isinstance(schedule, Constant) else ScheduledRate(rate, schedule)
    }
    if training.weight_decay:
        options["weight_decay"] = training.weight_decay
    if training.clip_norm:
        options["global_clipnorm"] = training.clip_norm
    name, classes = training.optimizer, _optimizer_classes()
    if name.lower() not in classes:
        raise unknown("training.optimizer", name, classes)
    optimizer = classes[name.lower()](**options)
    window = training.ema_window * steps
    if window > 1:
        optimizer = AveragingOptimizer(optimizer, window)
    return SkippingOptimizer(optimizer) if training.skip_non_finite else optimizer


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


def _check_architecture(model: ModelConfig, architecture: Architecture) -> None:
    """Refuse components that an architecture does not accept."""
    for kind in ("latent_dim", "network", "prior", "posterior"):
        value = getattr(model, kind)
        if value is not None and kind not in architecture.default_components:
            raise InputError(
                f"model.{kind} = {value['name'] if isinstance(value, dict) else value}: architecture = "
                f"{model.architecture['name']} has its own; leave {kind} out, or use architecture = vae"
            )


def _check_labels(experiment: Experiment, info: DatasetInfo) -> None:
    """Refuse conditioning on labels if the images have none."""
    condition = experiment.model.condition
    if condition is not None and condition["name"] == "label" and info.classes == 0:
        raise InputError(
            f"model.condition = label: the images of {experiment.data.source} have no labels; sort them into "
            "sub-folders, or add `y_train` to the .npz"
        )


def _check_prior(prior: dict[str, Any] | None, objective: Objective) -> None:
    """Refuse a learned prior under an objective that does not train it."""
    if prior is not None and prior["name"] != "standard-normal" and not objective.trains_prior:
        raise InputError(
            f"model.prior = {prior['name']}: {objective} does not train the prior; use prior = standard-normal and fit "
            "one afterward with `vae fit-prior`, or an alpha below 1"
        )
