"""Training of an experiment into a run. An interrupted training resumes to bitwise the same weights."""

import contextlib
import subprocess
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras

from keras_vae.core import backend
from keras_vae.core.errors import InputError
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.data.info import DatasetInfo
from keras_vae.data.sources import load_splits
from keras_vae.models.base import BaseVAE
from keras_vae.models.image_terms import count_parameters
from keras_vae.models.inputs import dataset_condition, dataset_inputs
from keras_vae.runs.build import ResolvedExperiment, build, resolve
from keras_vae.runs.checkpoint import State
from keras_vae.runs.experiment import Experiment, TrainingConfig
from keras_vae.runs.files import free_path, write_json
from keras_vae.runs.loading import given_or_own_splits
from keras_vae.runs.run import Run
from keras_vae.runs.user_code import import_files
from keras_vae.runs.validate import validate
from keras_vae.training.batches import (
    ShuffleEachEpoch,
    StreamedBatches,
    make_batches,
    require_grain,
    validation_batch_size,
)
from keras_vae.training.callback_list import CallbackList
from keras_vae.training.callbacks import (
    Checkpoint,
    EarlyStopping,
    ReduceLearningRateOnPlateau,
    RunCallback,
    TerminateOnNonFinite,
)
from keras_vae.training.initialization import initialize, load_initial, model_bytes, read_initial
from keras_vae.training.validation import EvaluateWithEMA, RepeatNoise, has_stalled

STATISTICS_IMAGES, STATISTICS_VALUES = 10_000, 2**26
"""Largest numbers of training images, and of entries of their codes, whose statistics are stored in the run."""


def train(
    experiment: Experiment | str | Path,
    splits: Splits | None = None,
    out: str | Path | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    imports: Sequence[str | Path] = (),
    devices: int | Literal["all"] | None = None,
    initial: BaseVAE | None = None,
) -> Run:
    """Train an experiment into a new run folder, which then contains the weights and metrics.

    `keras_vae.evaluate` and `keras_vae.write_report` measure the run and draw its figures.

    Args:
        experiment: The experiment, the name of a preset, or the path of an experiment file.
        splits: Its images; None loads those that the experiment names.
        out: The run folder, which must not exist; None takes the first free one of `runs/NAME`, `runs/NAME-2`, ….
        callbacks: Further Keras callbacks, such as `keras_vae.trackers.TensorBoard()`. They may observe but must not
            change the training.
        imports: Python files that register components for the experiment. The run keeps a copy of them.
        devices: Number of devices that divide every batch, or `"all"`; requires JAX. None means those of
            `keras.distribution`, one by default. The metrics do not depend on it, except for rounding.
        initial: Model from whose weights training starts, such as a converted one; None loads the one that
            `training.init` of the experiment names, if any.

    Returns:
        The complete run.

    Raises:
        InputError: The experiment is invalid, does not fit its images or the devices, or `out` exists. Nothing was
            written.
        RunError: The loss became NaN or infinite; the run keeps the weights of the last good epoch. Or a download
            failed.

    Example:
        >>> import tempfile
        >>> experiment = Experiment.preset("classic").with_overrides(["data.source=digits", "training.epochs=1"])
        >>> train(experiment, out=tempfile.mkdtemp() + "/run").is_complete
        True
    """
    if not isinstance(experiment, Experiment):
        experiment = Experiment.load(experiment)
    code = import_files(imports)
    if splits is None:
        splits, notes = load_splits(experiment.data, experiment.seed)
        for note in notes:
            warnings.warn(note, stacklevel=2)
    require_grain(splits)
    if splits.train.is_streamed:
        # On a machine with more memory, the images would have another checksum.
        experiment = experiment.with_overrides(["data.load=stream"])
    with backend.distributed(devices):
        info = DatasetInfo.from_splits(splits)
        if initial is not None and experiment.training.init is None:
            experiment = experiment.with_values([("training.init", f"<{type(initial).__name__}>")])
        resolved = resolve(experiment, info)
        validate(resolved, splits)
        initial = load_initial(resolved.experiment) if initial is None else initial
        model = _initial_model(resolved, splits, initial)
        environment = {**describe_environment(splits, info), "parameters": count_parameters(model)}
        path = free_path(experiment.name) if out is None else Path(out)
        content = None if initial is None else model_bytes(initial)
        run = _create(path, resolved.experiment, environment, code, content)
        with run.lock():
            _fit(run, model, splits, experiment.training, experiment.seed, callbacks)
    return run


def resume(
    run: Run | str | Path,
    splits: Splits | None = None,
    *,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    devices: int | Literal["all"] | None = None,
) -> Run:
    """Resume an interrupted training. The weights become those of a training that was never interrupted.

    They are bitwise the same on one machine, with one backend and one set of versions.

    Args:
        run: The interrupted run, or its folder. A complete run is returned unchanged.
        splits: Its images; None loads them.
        callbacks: As for `train`.
        devices: As for `train`, and as many as the training started with.

    Returns:
        The complete run.

    Raises:
        InputError: The images, the backend or the number of devices are not those that the training started with, or
            the run needs Python files that are not trusted.
        RunError: The loss became NaN or infinite, or another process writes to the run.
    """
    run = Run.open(run)
    if backend.process_id():
        run = FollowedRun(run.path)
    if not run.is_complete:
        with backend.distributed(devices), run.lock():
            # Another process may have completed it in the meantime.
            if not run.is_complete:
                _resume(run, splits, callbacks)
    return run


class FollowedRun(Run):
    """A run that process 0 of a cluster writes, as the other processes see it: they read it and write nothing."""

    @contextlib.contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        """Lock nothing; process 0 holds the lock."""
        yield

    def write_metrics(self, metrics: Mapping[str, Sequence[float]]) -> None:
        """Write nothing."""

    def write_checkpoint(self, state: State, metrics: Mapping[str, Sequence[float]]) -> None:
        """Write nothing."""

    def complete(self, model: BaseVAE) -> None:
        """Write nothing."""


def _create(
    path: Path,
    experiment: Experiment,
    environment: Mapping[str, Any],
    code: Mapping[str, bytes],
    initial: bytes | None,
) -> Run:
    """Create a run in process 0, and open it in the others."""
    if backend.process_id() == 0:
        run = Run.create(path, experiment, environment, code, initial)
        backend.wait_for_all("created")
        return run
    backend.wait_for_all("created")
    if not (path / "experiment.toml").exists():
        raise InputError(
            f"out = {path}: process {backend.process_id()} does not see the folder that process 0 created; choose a "
            "folder on a file system that all machines share"
        )
    return FollowedRun(path)


def _resume(run: Run, splits: Splits | None, callbacks: Sequence[keras.callbacks.Callback]) -> None:
    """Resume the training of a locked run."""
    saved = run.environment["backend"]
    if saved != backend.name():
        raise InputError(
            f"run = {run.path}: started on the {saved} backend, and this is {backend.name()}; set KERAS_BACKEND={saved}"
        )
    if (count := run.environment.get("num_processes", 1)) != backend.num_processes():
        raise InputError(
            f"run = {run.path}: started by {count} processes, and this is one of {backend.num_processes()}; resume it "
            "with as many, each with --distributed"
        )
    if (count := run.environment.get("num_devices", 1)) != backend.num_replicas():
        raise InputError(
            f"devices = {backend.num_replicas()}: {run.path} was started on {count}; resume it with devices={count}, "
            f"or --devices {count}"
        )
    splits = given_or_own_splits(run, splits)
    require_grain(splits)
    run.require_same_images(splits)
    run.import_code()
    if (changed := _changed_versions(run)) and backend.process_id() == 0:
        versions = {"resumed_with": backend.describe_software()["versions"]}
        write_json(run.path_to_write("environment.json"), run.environment | versions)
        warnings.warn(changed, stacklevel=3)
    experiment = run.experiment
    # Without a checkpoint, the training starts again.
    model = _initial_model(resolve(experiment, DatasetInfo.from_splits(splits)), splits, read_initial(run))
    _fit(run, model, splits, experiment.training, experiment.seed, callbacks)


def _initial_model(resolved: ResolvedExperiment, splits: Splits, initial: BaseVAE | None) -> BaseVAE:
    """Build the compiled model with its initial weights: of another model, random, or dependent on the images."""
    model, seed = build(resolved), resolved.experiment.seed
    for loss in model.image_losses:
        loss.prepare()
    model.initialize_prior(splits.train.images, condition=dataset_condition(model, splits.train), seed=seed)
    if initial is not None:
        initialize(model, initial, resolved.experiment)
    return model


def notes_on_resuming(run: Run) -> list[str]:
    """Return a line with the last complete epoch of a training, and one with the versions that changed, if any."""
    epochs = len(run.metrics.get("epoch", ()))
    start = (
        f"after epoch {epochs} of {run.experiment.training.epochs}"
        if epochs
        else "from the start: no epoch is complete"
    )
    changed = _changed_versions(run)
    return [f"resuming {run.path} {start}", *([changed] if changed else [])]


def _changed_versions(run: Run) -> str | None:
    """Return a line with the versions that differ from those that a run was started with; None if none differ."""
    current, started = backend.describe_software()["versions"], run.environment["versions"]
    others = {"tensorflow", "jax", "torch"} - {backend.name()}
    changes = [
        f"{name} {started[name]} → {version}"
        for name, version in current.items()
        if started.get(name, version) != version and name.removesuffix("-cpu") not in others
    ]
    if not changes:
        return None
    return f"{run.path} was started with other versions ({', '.join(changes)}): the result may differ slightly"


def describe_environment(splits: Splits, info: DatasetInfo) -> dict[str, Any]:
    """Return the software, the machine and the data that a result depends on besides the experiment."""
    images = {name: len(dataset) for name, dataset in splits._asdict().items() if dataset is not None}
    return {
        **backend.describe_software(),
        "num_devices": backend.num_replicas(),
        "num_processes": backend.num_processes(),
        "git_revision": _git_revision(),
        "data": {
            "name": splits.train.name,
            "image_shape": list(info.image_shape),
            "images": images,
            "classes": info.classes,
            "class_names": list(splits.train.classes),
            "checksum": splits.checksum,
        },
    }


def _fit(
    run: Run,
    model: BaseVAE,
    splits: Splits,
    config: TrainingConfig,
    seed: int,
    callbacks: Sequence[keras.callbacks.Callback],
) -> None:
    """Fit from the last checkpoint, if any, then write the kept weights. Each step may be repeated after a kill."""
    data = run.experiment.data
    checkpoint = Checkpoint(run, model, keep_best=config.keep == "best")
    completed = checkpoint.restore()
    own: list[keras.callbacks.Callback] = [
        *([EvaluateWithEMA()] if config.ema_window else []),
        RepeatNoise(seed),
        TerminateOnNonFinite(config),
        checkpoint,
        ReduceLearningRateOnPlateau(config, checkpoint),
        EarlyStopping(config.early_stopping, checkpoint),
    ]
    for callback in callbacks:
        if isinstance(callback, RunCallback):
            callback.set_run(run, splits)
    if completed < config.epochs and not has_stalled(checkpoint.metrics, config.early_stopping):
        validation = splits.validation
        validation_size = None if validation is None else validation_batch_size(model, len(validation))
        order_seed = seed if config.shuffle else None
        batches = make_batches(dataset_inputs(model, splits.train), config.batch_size, order_seed, data.workers)
        held_out: Any = None if validation is None else dataset_inputs(model, validation)
        callback_list = CallbackList(
            [ShuffleEachEpoch(batches), *own, *callbacks], model, epochs=config.epochs, steps=len(batches)
        )
        with contextlib.ExitStack() as stack:
            if isinstance(batches, StreamedBatches):
                stack.enter_context(batches.raising())
            # Given arrays, Keras would pass all rows of a batch in every process.
            if validation is not None and (validation.is_streamed or backend.num_processes() > 1):
                ordered = make_batches(held_out, validation_size or 1, None, data.workers)
                if isinstance(ordered, StreamedBatches):
                    stack.enter_context(ordered.raising())
                held_out, validation_size = backend.batch_pipeline(ordered), None
            every_step = callback_list.needs_every_step
            model.fit(
                stack.enter_context(backend.training_input(model, batches, every_step=every_step)),
                validation_data=held_out,
                validation_batch_size=validation_size,
                shuffle=False,
                initial_epoch=completed,
                epochs=config.epochs,
                verbose=0,
                callbacks=callback_list,
            )
    checkpoint.set_kept_weights()
    # Process 0 alone writes the model. A variable that is created under a distribution needs all processes.
    with backend.distributed(1):
        _measure_codes(model, splits.train)
        run.complete(model)
    backend.wait_for_all("complete")


def _measure_codes(model: BaseVAE, dataset: Dataset) -> None:
    """Measure the statistics of codes of training images, unless they are known or several processes hold images."""
    if not model.has_latent_vector or model.latent_statistics is not None:
        return
    if backend.num_processes() == 1:
        # One sample per image determines a standard deviation to about 1 %, for vectors as well.
        count = max(1, min(STATISTICS_IMAGES, STATISTICS_VALUES // model.latent_dim))
        images = dataset.subsample_evenly(count)
        model.measure_latent_statistics(images.images, condition=dataset_condition(model, images))


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
