"""Training: an experiment in, a run out; interrupted at any moment, it resumes to the same bits."""

import contextlib
import importlib.metadata
import platform
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_vae import __version__, _backend, plots
from keras_vae.data.dataset import Splits
from keras_vae.errors import InputError, RunError, unknown
from keras_vae.evaluation import report
from keras_vae.evaluation.likelihood import evaluate
from keras_vae.experiment import Experiment, Training
from keras_vae.models.vae import VAE
from keras_vae.run import Metrics, Run
from keras_vae.types import Array


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
    now, then = describe_environment(splits), run.environment
    if now["data"] != then["data"]:
        raise InputError(
            f"the images of {run.experiment.data.source} are not those that {run.path} was begun with "
            f"(checksum {now['data']['checksum'][:12]}, then {then['data']['checksum'][:12]})"
        )
    if now["backend"] != then["backend"]:
        raise InputError(
            f"{run.path} was begun on the {then['backend']} backend, and this is {now['backend']}: "
            f"set KERAS_BACKEND={then['backend']}"
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
            "checksum": "-".join(dataset.checksum for dataset in splits if dataset is not None),
        },
    }


def _complete(run: Run, model: VAE, splits: Splits, callbacks: Sequence[keras.callbacks.Callback]) -> Run:
    """Fit from the last checkpoint on, then write what a complete run holds; every step may be repeated."""
    experiment = run.experiment
    state = _State(run, model, keep_best=experiment.training.keep == "best")
    done = state.restore()
    batches = _ShuffledBatches(splits.train.images, experiment.training.batch_size, experiment.seed)
    if done < experiment.training.epochs:
        model.fit(
            batches,
            validation_data=None if splits.validation is None else splits.validation.images,
            validation_batch_size=500,
            shuffle=False,
            initial_epoch=done,
            epochs=experiment.training.epochs,
            verbose=0,
            callbacks=[_ShuffleEachEpoch(batches), _StopOnNonFinite(experiment.training), state, *callbacks],
        )
    state.use_kept_weights()
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
            figures=run.figures,
        )
    )
    run.remove_checkpoint()
    return run


def _build(experiment: Experiment, splits: Splits) -> VAE:
    _backend.make_deterministic()
    keras.utils.set_random_seed(experiment.seed)
    with _dtype_policy(experiment.training.precision):
        model = experiment.build_model(splits.train.image_shape)
    model.compile(optimizer=_optimizer(experiment.training))
    # A checkpoint restores the optimizer's variables, so they must exist before the first step.
    model.optimizer.build(model.trainable_variables)
    return model


def _optimizer(training: Training) -> keras.optimizers.Optimizer:
    classes = {
        name.lower(): value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and value is not keras.optimizers.Optimizer
    }
    if training.optimizer.lower() not in classes:
        raise unknown("optimizer in training.optimizer", training.optimizer, classes)
    return classes[training.optimizer.lower()](learning_rate=training.learning_rate)


@contextlib.contextmanager
def _dtype_policy(name: str) -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


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


class _ShuffledBatches(keras.utils.PyDataset):
    """The training images in an order that is a function of the seed and the epoch, and of nothing else."""

    def __init__(self, images: Array, batch_size: int, seed: int) -> None:
        super().__init__()
        self.images, self.batch_size, self.seed = images, batch_size, seed
        self.shuffle(0)

    def shuffle(self, epoch: int) -> None:
        self.order = np.random.default_rng([self.seed, epoch]).permutation(len(self.images))

    def __len__(self) -> int:
        return -(-len(self.images) // self.batch_size)

    def __getitem__(self, index: int) -> tuple[Array]:
        return (self.images[self.order[index * self.batch_size : (index + 1) * self.batch_size]],)


class _ShuffleEachEpoch(keras.callbacks.Callback):
    def __init__(self, batches: _ShuffledBatches) -> None:
        super().__init__()
        self.batches = batches

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.batches.shuffle(epoch)


class _StopOnNonFinite(keras.callbacks.Callback):
    """Stops before a broken epoch reaches the checkpoint, so that the run keeps the weights of the one before."""

    def __init__(self, training: Training) -> None:
        super().__init__()
        self.training = training

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.epoch = epoch

    def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
        loss = float((logs or {})["loss"])
        if not np.isfinite(loss):
            kept = f"the weights of epoch {self.epoch} are kept" if self.epoch else "no epoch was completed"
            raise RunError(
                f"the loss became {loss} in epoch {self.epoch + 1} at step {batch + 1}; {kept}. Lower "
                f"training.learning_rate (now {self.training.learning_rate:g}), or use training.precision=float32"
            )


class _State(keras.callbacks.Callback):
    """The state of a training between epochs: written after each, read when it resumes."""

    def __init__(self, run: Run, model: VAE, *, keep_best: bool) -> None:
        super().__init__()
        self.run, self.vae, self.keep_best = run, model, keep_best
        self.metrics: Metrics = {}
        self.best: list[Array] = []

    def restore(self) -> int:
        """Put back what the last checkpoint holds, and return how many epochs are done."""
        checkpoint = self.run.read_checkpoint()
        if checkpoint is None:
            return 0
        arrays, self.metrics = checkpoint
        for index, variable in enumerate(self._variables()):
            variable.assign(arrays[f"variable_{index}"])
        self.best = [arrays[f"best_{index}"] for index in range(sum(name.startswith("best_") for name in arrays))]
        return len(self.metrics["epoch"])

    def use_kept_weights(self) -> None:
        if self.best:
            self.vae.set_weights(self.best)

    def on_epoch_begin(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        self.started = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        # Keras hands the model to its callbacks as `self.model`, in step with JAX's state.
        model = self.model
        row = {"epoch": epoch + 1} | {name: float((logs or {})[name]) for name in self._columns(logs or {})}
        row["seconds"] = round(time.perf_counter() - self.started, 3)
        for name, value in row.items():
            self.metrics.setdefault(name, []).append(value)
        if self.keep_best and row["val_negative_elbo"] == min(self.metrics["val_negative_elbo"]):
            self.best = model.get_weights()
        arrays = {
            f"variable_{index}": ops.convert_to_numpy(variable) for index, variable in enumerate(self._variables())
        }
        self.run.write_checkpoint(
            arrays | {f"best_{index}": array for index, array in enumerate(self.best)}, self.metrics
        )

    def _columns(self, logs: dict[str, float]) -> list[str]:
        # Keras's own `loss` is `total_loss` again.
        return [prefix + name for prefix in ("", "val_") for name in self.vae.trackers if prefix + name in logs]

    def _variables(self) -> list[Any]:
        return [*self.vae.variables, *self.vae.optimizer.variables]
