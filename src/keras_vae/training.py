"""Training: an experiment in, a run out; interrupted at any moment, it resumes to the same bits."""

import contextlib
import importlib.metadata
import inspect
import math
import platform
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras

from keras_vae import __version__, _backend, plots
from keras_vae.callbacks import Checkpoint, MeasureAverage, ShuffledBatches, ShuffleEachEpoch, StopOnNonFinite
from keras_vae.data.dataset import Splits
from keras_vae.errors import InputError, unknown
from keras_vae.evaluation import report
from keras_vae.evaluation.likelihood import evaluate
from keras_vae.experiment import Experiment, Training
from keras_vae.models.base import fitting_batch_size
from keras_vae.models.vae import VAE
from keras_vae.run import Run


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
        >>> experiment = Experiment.preset("classic").with_settings(["data.source=digits", "training.epochs=1"])
        >>> splits, _ = experiment.load_splits()
        >>> train(experiment, splits, Path(tempfile.mkdtemp()) / "run").is_complete
        True
    """
    experiment = experiment.resolved()
    if experiment.training.keep == "best" and splits.validation is None:
        raise InputError("training.keep = 'best': there are no validation images; set data.validation above 0")
    if experiment.training.batch_size > len(splits.train):
        raise InputError(
            f"training.batch_size = {experiment.training.batch_size}: there are {len(splits.train)} training images; "
            "use at most as many"
        )
    if len(splits.train) % experiment.training.batch_size == 1 and not _backend.trains_on_single_images():
        raise InputError(
            f"training.batch_size = {experiment.training.batch_size}: {len(splits.train)} images leave a last batch of "
            "one, whose gradient PyTorch cannot compute on a CPU; choose another size"
        )
    model = _build(experiment, splits)
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
    backend = run.environment["backend"]
    if backend != _backend.name():
        raise InputError(
            f"{run.path} was begun on the {backend} backend, and this is {_backend.name()}: set KERAS_BACKEND={backend}"
        )
    return _complete(run, _build(run.experiment, splits), splits, callbacks)


def describe_environment(splits: Splits) -> dict[str, Any]:
    """Return what a result depends on besides the experiment: software, machine and data."""
    packages = ("keras", "tensorflow", "tensorflow-cpu", "jax", "torch", "numpy")
    versions = {"python": platform.python_version(), "keras-vae": __version__}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    images = {name: len(dataset) for name, dataset in splits._asdict().items() if dataset is not None}
    return {
        "versions": versions,
        "backend": _backend.name(),
        "devices": _backend.devices(),
        "platform": platform.platform(),
        "git_revision": _git_revision(),
        "data": {
            "name": splits.train.name,
            "image_shape": list(splits.train.image_shape),
            "images": images,
            "checksum": splits.checksum,
        },
    }


def _complete(run: Run, model: VAE, splits: Splits, callbacks: Sequence[keras.callbacks.Callback]) -> Run:
    """Fit from the last checkpoint on, then write what a complete run holds; every step may be repeated."""
    experiment = run.experiment
    checkpoint = Checkpoint(run, model, keep_best=experiment.training.keep == "best")
    done = checkpoint.restore()
    batches = ShuffledBatches(splits.train.images, experiment.training.batch_size, experiment.seed)
    watches = [ShuffleEachEpoch(batches), StopOnNonFinite(experiment.training), checkpoint]
    if model.optimizer.use_ema:
        watches.insert(0, MeasureAverage())
    if done < experiment.training.epochs:
        model.fit(
            batches,
            validation_data=None if splits.validation is None else splits.validation.images,
            validation_batch_size=fitting_batch_size(splits.train.image_shape),
            shuffle=False,
            initial_epoch=done,
            epochs=experiment.training.epochs,
            verbose=0,
            callbacks=[*watches, *callbacks],
        )
    checkpoint.use_kept_weights()
    run.save_model(model)
    run.write_evaluation(evaluate(model, splits, experiment.seed))
    subject = plots.Subject(run, model, splits)
    for kind in plots.PLOTS:
        plots.draw(subject, kind, run.figure_path(kind))
    run.write_report(
        report.render(
            title=run.name,
            summary=experiment.description,
            experiment_toml=experiment.to_toml(),
            environment=run.environment,
            metrics=run.metrics,
            evaluation=run.evaluation,
            figures={kind: run.figure_path(kind) for kind in plots.PLOTS},
        )
    )
    run.remove_checkpoint()
    return run


def _build(experiment: Experiment, splits: Splits) -> VAE:
    _backend.make_deterministic()
    keras.utils.set_random_seed(experiment.seed)
    model = experiment.build_model(splits.train.image_shape)
    steps = experiment.training.epochs * math.ceil(len(splits.train) / experiment.training.batch_size)
    model.compile(optimizer=_optimizer(experiment.training, steps))
    # A checkpoint restores the optimizer's variables, so they must exist before the first step.
    model.optimizer.build(model.trainable_variables)
    return model


def _optimizer(training: Training, steps: int) -> keras.optimizers.Optimizer:
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
    window = training.ema_window * steps
    average = {"use_ema": True, "ema_momentum": 1 - 1 / window} if window > 1 else {}
    return classes[training.optimizer.lower()](learning_rate=training.learning_rate, **average)


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
