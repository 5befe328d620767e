"""A worker of a sweep: it trains trials until there are enough. The storage is the queue of all workers."""

import contextlib
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import keras

from keras_vae.core import backend
from keras_vae.core.config import flattened
from keras_vae.core.errors import InputError, RunError, check_count, first_line, is_out_of_memory, shown
from keras_vae.core.files import write_text, writing
from keras_vae.core.locks import locked
from keras_vae.data.dataset import Splits
from keras_vae.data.info import DatasetInfo
from keras_vae.data.sources import load_splits
from keras_vae.integrations.sweep.config import SweepExperiment
from keras_vae.integrations.sweep.engine import (
    build_pruner,
    build_sampler,
    expect_signs_of_life,
    grid_size,
    open_storage,
    quiet,
    require_optuna,
    storage_errors,
    storage_url,
)
from keras_vae.integrations.sweep.results import (
    FILE,
    Sweep,
    TrialResult,
    original_number,
    run_names,
    started_trials,
    study_name,
)
from keras_vae.runs.build import ResolvedExperiment, resolve
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.files import MONITORED
from keras_vae.runs.run import Run
from keras_vae.runs.validate import validate
from keras_vae.training.callbacks import StopOnSignal
from keras_vae.training.trainer import resume, train

TRIALS = 50
"""Default number of trials."""

_LOCK_SECONDS = 60


class Logger(Protocol):
    """A function that is called with each finished trial."""

    def __call__(self, trial: TrialResult, /) -> object:
        """Log the trial."""


def sweep(
    experiment: SweepExperiment | str | Path,
    splits: Splits | None = None,
    out: str | Path | None = None,
    *,
    trials: int | None = None,
    storage: str | None = None,
    on_trial: Logger | None = None,
) -> Sweep:
    """Train an experiment with many settings, which Optuna chooses; each trial is a run in the folder `out`.

    Several processes may call the function with the same arguments, on one machine or on several. Together they train
    the given number of trials, each once. If one of them is lost, another one resumes its trial. A call on an existing
    sweep continues it.

    Args:
        experiment: The experiment with a table `[sweep]`, or the path of its file.
        splits: Its images, for all seeds; None loads those that the experiment names, split by each seed.
        out: The folder of the sweep; None selects `sweeps/NAME`.
        trials: Number of trials of all workers together; None for 50, or for all points of a grid.
        storage: URL of a database, such as `postgresql://HOST/DATABASE`; None for an SQLite file in the folder.
        on_trial: Called after each trial of this worker.

    Returns:
        The sweep.

    Raises:
        InputError: The experiment is invalid or does not fit its images, the metric is not comparable between trials,
            or the folder or storage contains another sweep. No trial was started.
        RunError: The storage cannot be reached, or a file cannot be written; the trial can be resumed.
    """
    require_optuna()
    if not isinstance(experiment, SweepExperiment):
        experiment = SweepExperiment.from_file(experiment)
    if trials is not None:
        check_count("trials", trials)
    images = _Images(experiment, splits)
    check_candidates(experiment, images(0))
    folder = Path("sweeps") / experiment.name if out is None else Path(out)
    url = storage_url(storage, folder)
    with quiet(), storage_errors(url):
        size = grid_size(experiment)
        if trials is not None and size is not None and trials > size:
            raise InputError(f"trials = {trials}: the grid has {size} points; choose at most {size}")
        opened = _open(experiment, folder, url, images(0))
        worker = _Worker(opened, images, trials or size or TRIALS, on_trial)
        worker.work()
    return opened


def check_candidates(experiment: SweepExperiment, splits: Splits) -> None:
    """Check that trials can be trained, and that their metric has one meaning.

    Args:
        experiment: The experiment.
        splits: Its images.

    Raises:
        InputError: A candidate does not fit the images or other settings, there are no validation images, or the metric
            is not comparable between candidates.
    """
    config, info = experiment.sweep, DatasetInfo.from_splits(splits)
    if splits.validation is None:
        raise InputError(f"sweep.metric = {config.metric}: there are no validation images; set data.validation above 0")
    first: Mapping[str, Any] | None = None
    for values in experiment.candidates():
        try:
            resolved = resolve(experiment.trial(values), info)
            validate(resolved, splits)
        except InputError as error:
            raise InputError(f"sweep.space: {error}") from None
        meaning = _meaning(config.metric, resolved)
        first = meaning if first is None else first
        if changed := [name for name, value in meaning.items() if value != first[name]]:
            raise InputError(
                f"sweep.metric = {config.metric}: not comparable between trials, which differ in {changed[0]} "
                f"({shown(first[changed[0]])}, {shown(meaning[changed[0]])}); {_remedy(config.metric, changed[0])}"
            )


def _meaning(metric: str, resolved: ResolvedExperiment) -> Mapping[str, Any]:
    """Return the settings on which the meaning of a metric depends, by dotted key."""
    model = resolved.experiment.model
    likelihood, posterior = model.likelihood, model.posterior or {}
    meaning: dict[str, Any] = {
        "model.likelihood": likelihood["name"],
        "model.likelihood.binarize": likelihood.get("binarize"),
        "model.condition": None if model.condition is None else model.condition["name"],
    }
    if metric != "reconstruction_loss":
        # Deterministic codes give no bound.
        meaning["model.posterior"] = "deterministic" if posterior.get("name") == "deterministic" else "stochastic"
    if metric == "total_loss":
        # In validation, the objective is not annealed.
        objective = {key: value for key, value in model.objective.items() if key != "schedule"}
        meaning |= {f"model.objective.{key}": value for key, value in objective.items()}
        meaning["model.architecture"] = model.architecture["name"]
    return _Meaning(meaning)


class _Meaning(dict[str, Any]):
    """Settings by dotted key; missing ones are None."""

    def __missing__(self, key: str) -> None:
        return None


def _remedy(metric: str, key: str) -> str:
    about_objective = metric == "total_loss" and key.startswith(("model.objective", "model.architecture"))
    return "use metric = negative_elbo" if about_objective else f"remove {key} from the space"


class _Images:
    """The images of a sweep for each seed."""

    def __init__(self, experiment: SweepExperiment, splits: Splits | None) -> None:
        self.experiment, self.given = experiment, splits
        self.loaded: dict[int, Splits] = {}

    def __call__(self, repeat: int) -> Splits:
        """Return the images of a trial with a seed."""
        if self.given is not None:
            return self.given
        if repeat not in self.loaded:
            self.loaded[repeat], _ = load_splits(self.experiment.data, self.experiment.seed + repeat)
        return self.loaded[repeat]


def _open(experiment: SweepExperiment, folder: Path, url: str, splits: Splits) -> Sweep:
    """Open the study of a sweep, or create it and its folder."""
    import optuna

    # Building these checks their arguments.
    pruner, sampler = build_pruner(experiment), build_sampler(experiment, experiment.seed)
    name, file = study_name(folder), folder / FILE
    # The path of the images may be another one on another machine; their checksum is not.
    definition = {
        **flattened(experiment.model_dump(mode="json", exclude={"data": {"source"}}, exclude_none=True)),
        "backend": backend.name(),
        "images": splits.checksum,
    }
    with locked(folder, timeout=_LOCK_SECONDS):
        if folder.exists() and not file.is_file() and (not folder.is_dir() or any(folder.iterdir())):
            raise InputError(f"out = {folder}: exists, and is not the folder of a sweep; choose another folder")
        had_file = file.is_file()
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        storage = open_storage(url, experiment.sweep.heartbeat)
        if had_file and name not in optuna.get_all_study_names(storage):
            raise InputError(
                f"out = {folder}: belongs to a sweep in another storage; pass its --storage, or choose another folder"
            )
        try:
            study = optuna.create_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
        except optuna.exceptions.DuplicatedStudyError:
            # Workers with one seed would try the same settings.
            sampler = build_sampler(experiment, None)
            study = optuna.load_study(study_name=name, storage=storage, sampler=sampler, pruner=pruner)
        if "definition" not in study.user_attrs:
            study.set_user_attr("definition", definition)
        started = study.user_attrs["definition"]
        for key in started | definition:
            if started.get(key) != definition.get(key):
                raise InputError(
                    f"{key} = {shown(definition.get(key))}: the sweep {folder} was started with "
                    f"{shown(started.get(key))}; choose another --out"
                )
        if not had_file:
            write_text(file, experiment.to_toml())
    return Sweep(folder, experiment, study)


class _TrialError(Exception):
    """A trial failed, and the sweep continues."""


class _Worker:
    """Trains trials, one after the other."""

    def __init__(self, opened: Sweep, images: _Images, trials: int, on_trial: Logger | None) -> None:
        self.sweep, self.study, self.experiment = opened, opened.study, opened.experiment
        self.images, self.trials, self.on_trial = images, trials, on_trial
        self.current = -1

    def work(self) -> None:
        """Train until there are enough trials, then wait for those of other workers, which may be lost."""
        import optuna

        seen = set[int]()
        while True:
            optuna.storages.fail_stale_trials(self.study)
            trials = started_trials(self.study)
            running = [trial for trial in trials if trial.state.name == "RUNNING" and trial.number not in seen]
            expect_signs_of_life(self.study, running)
            seen |= {trial.number for trial in running}
            states = {trial.state.name for trial in trials}
            if "WAITING" in states or len({original_number(trial) for trial in trials}) < self.trials:
                self._run_one()
            elif "RUNNING" in states:
                time.sleep(min(1.0, self.experiment.sweep.heartbeat))
            else:
                return

    def _run_one(self) -> None:
        import optuna

        try:
            self.study.optimize(self._objective, n_trials=1, catch=(_TrialError,), gc_after_trial=True)
        except (ValueError, optuna.exceptions.UpdateFinishedTrialError):
            # After a long pause without signs of life, another worker has resumed the trial.
            if not self.study.get_trials(deepcopy=False)[self.current].state.is_finished():
                raise
            return
        trial = self.study.get_trials(deepcopy=False)[self.current]
        if self.on_trial is not None and not trial.user_attrs.get("surplus"):
            self.on_trial(self.sweep._result(original_number(trial), trial))

    def _objective(self, trial: Any) -> float:
        """Train a trial with every seed, and return the mean of the metric."""
        self.current = trial.number
        frozen = self.study.get_trials(deepcopy=False)[trial.number]
        number = original_number(frozen)
        if number == trial.number and self._is_surplus(number):
            trial.set_user_attr("surplus", True)
            raise _TrialError("another worker has started the last trial")
        values = {key: dimension.suggest(trial, key) for key, dimension in self.experiment.space.items()}
        repeats = self.experiment.sweep.repeats
        try:
            scores = [
                self._train(trial if repeat == 0 else None, name, values, repeat)
                for repeat, name in enumerate(run_names(number, repeats))
            ]
        except (InputError, RunError, MemoryError, RuntimeError) as error:
            if isinstance(error.__cause__, OSError):
                # A disk is full, for example.
                self._put_back(trial)
                raise
            if not isinstance(error, InputError | RunError) and not is_out_of_memory(error):
                raise
            reason = first_line(error) if isinstance(error, InputError | RunError) else "not enough memory"
            trial.set_user_attr("error", reason)
            raise _TrialError(reason) from error
        except KeyboardInterrupt:
            self._put_back(trial)
            raise
        return sum(scores) / len(scores)

    def _is_surplus(self, number: int) -> bool:
        """Return whether enough trials were started before a trial."""
        return sum(other < number for other in set(map(original_number, started_trials(self.study)))) >= self.trials

    def _put_back(self, trial: Any) -> None:
        """Let the next worker resume a trial."""
        import optuna

        frozen = self.study.get_trials(deepcopy=True)[trial.number]
        optuna.storages.RetryHeartbeatStaleTrialCallback()(self.study, frozen)

    def _train(self, trial: Any | None, name: str, values: Mapping[str, Any], repeat: int) -> float:
        """Train or resume a run, and return the metric of the weights that it keeps."""
        experiment, path, splits = self.experiment.trial(values, repeat), self.sweep.folder / name, self.images(repeat)
        column = f"val_{self.experiment.sweep.metric}"
        with _signals() as callbacks:
            if path.exists():
                run = Run.open(path)
                _require_same(run, experiment, splits)
                # A worker that was believed lost may still write to it, until the end of its epoch.
                with run.lock(timeout=10 * self.experiment.sweep.heartbeat):
                    resume(run, splits, callbacks=[*callbacks, *_reporters(trial, run, column)])
            else:
                run = Run(path)
                train(experiment, splits, path, callbacks=[*callbacks, *_reporters(trial, run, column)])
        return kept_value(run, column)


def _reporters(trial: Any | None, run: Run, column: str) -> list[keras.callbacks.Callback]:
    return [] if trial is None else [ReportEpochs(trial, run, column)]


@contextlib.contextmanager
def _signals() -> Iterator[Sequence[keras.callbacks.Callback]]:
    """Stop between two steps if a signal is received; only the main thread receives signals."""
    if threading.current_thread() is not threading.main_thread():
        yield []
        return
    with StopOnSignal() as stop:
        yield [stop]


def _require_same(run: Run, experiment: Experiment, splits: Splits) -> None:
    """Refuse a run folder of another experiment."""
    if run.experiment != resolve(experiment, DatasetInfo.from_splits(splits)).experiment:
        raise InputError(f"out = {run.path}: contains a run of another experiment; move it, and start a new sweep")


def kept_value(run: Run, column: str) -> float:
    """Return a column of a run's metrics in the epoch of the weights that the run keeps.

    Args:
        run: A complete run.
        column: Name of the column.
    """
    metrics = run.metrics
    if run.experiment.training.keep == "last":
        return metrics[column][-1]
    monitored = metrics[MONITORED]
    # The run keeps the last one of equal epochs.
    best = max(index for index, value in enumerate(monitored) if value == min(monitored))
    return metrics[column][best]


class ReportEpochs(keras.callbacks.Callback):
    """Reports a metric to Optuna after every epoch, and stops the training if the trial is pruned.

    Args:
        trial: The trial of Optuna.
        run: Its run, which may have been resumed.
        column: Name of the metric in `metrics.csv`.
    """

    def __init__(self, trial: Any, run: Run, column: str) -> None:
        super().__init__()
        self.trial, self.run, self.column = trial, run, column

    def on_train_begin(self, logs: dict[str, float] | None = None) -> None:
        """Report the epochs from before a resume."""
        for epoch, value in enumerate(self.run.metrics.get(self.column, ())):
            self._report(epoch, value)

    def on_epoch_end(self, epoch: int, logs: dict[str, float] | None = None) -> None:
        """Report the epoch."""
        self._report(epoch, float((logs or {})[self.column]))

    def _report(self, epoch: int, value: float) -> None:
        import optuna

        self.trial.report(value, epoch + 1)
        if self.trial.should_prune():
            raise optuna.TrialPruned(f"after epoch {epoch + 1}")
