"""Training: an experiment in, a run out; interrupted at any moment, it resumes to the same bits."""

import inspect
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_vae.components.schedules import Constant, ScheduledRate
from keras_vae.core import backend
from keras_vae.core.errors import InputError, unknown
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.likelihood import measure_likelihood
from keras_vae.models.base import BaseVAE
from keras_vae.models.inputs import dataset_condition, dataset_inputs
from keras_vae.report.report import write_page
from keras_vae.runs.experiment import DatasetInfo, Experiment
from keras_vae.runs.run import SCHEMA, Run
from keras_vae.training.callbacks import (
    Checkpoint,
    EvaluateWithEMA,
    ReduceLearningRateOnPlateau,
    ShuffledBatches,
    ShuffleEachEpoch,
    TerminateOnNonFinite,
    has_stalled,
)


def train(
    experiment: Experiment,
    splits: Splits,
    out: Path,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Run:
    """Train what an experiment describes into a new run folder.

    Args:
        experiment: What to train; see `Experiment`.
        splits: Its images, as `experiment.load_splits` returns them.
        out: The run folder; nothing may be there yet.
        callbacks: Further Keras callbacks, to watch and not to change the training.

    Returns:
        The complete run.

    Raises:
        InputError: The experiment, its images and `out` do not go together. Nothing was written.
        RunError: The loss became NaN or infinite. The run keeps the weights of the last good epoch.

    Example:
        >>> import tempfile
        >>> experiment = Experiment.preset("classic").with_overrides(["data.source=digits", "training.epochs=1"])
        >>> splits, _ = experiment.load_splits()
        >>> train(experiment, splits, Path(tempfile.mkdtemp()) / "run").is_complete
        True
    """
    experiment = experiment.resolve(DatasetInfo.from_splits(splits))
    watching = {
        "keep = 'best'": experiment.training.keep == "best",
        f"early_stopping = {experiment.training.early_stopping}": experiment.training.early_stopping > 0,
        f"plateau.patience = {experiment.training.plateau.patience}": experiment.training.plateau.patience > 0,
    }
    for setting, needs_validation in watching.items():
        if needs_validation and splits.validation is None:
            raise InputError(f"training.{setting}: there are no validation images; set data.validation above 0")
    if experiment.training.batch_size > len(splits.train):
        raise InputError(
            f"training.batch_size = {experiment.training.batch_size}: there are {len(splits.train)} training images; "
            "use at most as many"
        )
    model = _build(experiment, splits)
    leaves_one = 1 in (experiment.training.batch_size, len(splits.train) % experiment.training.batch_size)
    reason = None
    if model.objective.requires_batch:
        reason = f"{experiment.model.objective['name']} compares the images of a batch"
    elif not backend.trains_on_single_images():
        reason = "PyTorch cannot compute its gradient on a CPU"
    if leaves_one and reason:
        raise InputError(
            f"training.batch_size = {experiment.training.batch_size}: {len(splits.train)} images leave a batch of "
            f"one, and {reason}; choose another size"
        )
    if model.objective.requires_batch and _validation_batch_size(model, splits) == 1:
        raise InputError(
            f"data.validation: {len(splits.validation or ())} images are validated one by one, and "
            f"{experiment.model.objective['name']} compares the images of a batch; choose more or smaller ones, or 0"
        )
    if model.condition is not None and model.condition.num_classes is None:
        raise InputError(
            "model.condition = vector: no source of images has vectors beside them; take condition = label, or fit the "
            'model in Python on {"images": x, "condition": c}'
        )
    model.initialize_prior(splits.train.images, condition=dataset_condition(model, splits.train), seed=experiment.seed)
    run = Run.create(out, experiment, describe_environment(splits))
    return _complete(run, model, splits, callbacks)


def resume(run: Run, splits: Splits, *, callbacks: Sequence[keras.callbacks.Callback] = ()) -> Run:
    """Go on with an interrupted training, to the same weights as if it had never been interrupted.

    The promise holds bit for bit on one machine, with one backend and one set of versions.

    Args:
        run: The interrupted run.
        splits: Its images, as `experiment.load_splits` returns them.
        callbacks: As for `train`.

    Returns:
        The complete run.

    Raises:
        InputError: The images or the backend are not those that the run was begun with.
        RunError: The loss became NaN or infinite.
    """
    run.check_images(splits)
    saved = run.environment["backend"]
    if saved != backend.name():
        raise InputError(
            f"{run.path} was begun on the {saved} backend, and this is {backend.name()}: set KERAS_BACKEND={saved}"
        )
    return _complete(run, _build(run.experiment, splits), splits, callbacks)


def describe_environment(splits: Splits) -> dict[str, Any]:
    """Return what a result depends on besides the experiment: software, machine and data."""
    images = {name: len(dataset) for name, dataset in splits._asdict().items() if dataset is not None}
    return {
        **backend.describe_software(),
        "git_revision": _git_revision(),
        "data": {
            "name": splits.train.name,
            "image_shape": list(splits.train.image_shape),
            "images": images,
            "classes": DatasetInfo.from_splits(splits).classes,
            "class_names": list(splits.train.classes),
            "checksum": splits.checksum,
        },
    }


def _complete(run: Run, model: BaseVAE, splits: Splits, callbacks: Sequence[keras.callbacks.Callback]) -> Run:
    """Fit from the last checkpoint on, then write what a complete run holds; every step may be repeated."""
    experiment = run.experiment
    checkpoint = Checkpoint(run, model, keep_best=experiment.training.keep == "best")
    done = checkpoint.restore()
    training = experiment.training
    batches = ShuffledBatches(
        dataset_inputs(model, splits.train), training.batch_size, experiment.seed if training.shuffle else None
    )
    watches = [
        ShuffleEachEpoch(batches),
        TerminateOnNonFinite(training),
        checkpoint,
        ReduceLearningRateOnPlateau(training, checkpoint),
    ]
    if model.optimizer.use_ema:
        watches.insert(0, EvaluateWithEMA())
    if done < training.epochs and not has_stalled(checkpoint.metrics, training.early_stopping):
        model.fit(
            backend.feed(batches),
            validation_data=None if splits.validation is None else dataset_inputs(model, splits.validation),
            validation_batch_size=_validation_batch_size(model, splits),
            shuffle=False,
            initial_epoch=done,
            epochs=training.epochs,
            verbose=0,
            callbacks=[*watches, *callbacks],
        )
    checkpoint.use_kept_weights()
    run.save_model(model)
    likelihood = measure_likelihood(model, splits, seed=experiment.seed)
    run.write_evaluation({"schema": SCHEMA, "model": run.model_fingerprint("original"), "likelihood": likelihood})
    write_page(run, model, splits)
    run.remove_checkpoint()
    return run


def _validation_batch_size(model: BaseVAE, splits: Splits) -> int | None:
    if splits.validation is None:
        return None
    size = min(model.fitting_batch_size(model.objective.num_samples), len(splits.validation))
    # A last batch of one could not be compared with others.
    while size > 2 and len(splits.validation) % size == 1:
        size -= 1
    return size


def _build(experiment: Experiment, splits: Splits) -> BaseVAE:
    backend.make_deterministic()
    keras.utils.set_random_seed(experiment.seed)
    facts = DatasetInfo.from_splits(splits)
    model = experiment.build_model(facts)
    model.compile(optimizer=_optimizer(experiment, facts))
    # A checkpoint restores the optimizer's variables, so they must exist before the first step.
    model.optimizer.build(model.trainable_variables)
    return model


def _optimizer(experiment: Experiment, facts: DatasetInfo) -> keras.optimizers.Optimizer:
    training = experiment.training
    classes = {
        name.lower(): value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and "learning_rate" in inspect.signature(value).parameters
        and value is not keras.optimizers.Optimizer
    }
    if training.optimizer.lower() not in classes:
        raise unknown("optimizer in training.optimizer", training.optimizer, classes)
    options: dict[str, Any] = {"learning_rate": training.learning_rate}
    schedule = experiment.build_schedule(facts)
    if not isinstance(schedule, Constant):
        if training.plateau.patience:
            raise InputError(
                f"training.schedule = {training.schedule['name']}, training.plateau.patience = "
                f"{training.plateau.patience}: both set the learning rate; give one of the two"
            )
        options["learning_rate"] = ScheduledRate(training.learning_rate, schedule)
    window = training.ema_window * experiment.steps(facts)
    if window > 1:
        options |= {"use_ema": True, "ema_momentum": 1 - 1 / window}
    if training.weight_decay:
        options["weight_decay"] = training.weight_decay
    if training.clip_norm:
        options["global_clipnorm"] = training.clip_norm
    optimizer = classes[training.optimizer.lower()](**options)
    if not training.skip_non_finite:
        return optimizer
    # What it is made for is float16; what is wanted of it here is that it leaves out updates that are not finite.
    return keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=1.0, dynamic_growth_steps=2**30)


def _git_revision() -> str | None:
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
