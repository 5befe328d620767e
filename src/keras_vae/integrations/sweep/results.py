"""Sweeps as they are stored: trials, their values and their runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_vae.core.errors import InputError
from keras_vae.integrations.sweep.config import SweepExperiment
from keras_vae.integrations.sweep.engine import (
    DATABASE,
    open_storage,
    quiet,
    require_optuna,
    storage_errors,
    storage_url,
)

FILE = "sweep.toml"
"""The experiment of a sweep, with its table `[sweep]`, in the folder of the sweep."""

STATES = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running", "WAITING": "interrupted"}
"""States of trials by their names in Optuna. Only an interrupted trial waits for a worker."""


@dataclass(frozen=True)
class TrialResult:
    """A trial of a sweep.

    Args:
        number: Its number, counted from 0.
        state: `complete`, `pruned`, `failed`, `running` or `interrupted`.
        value: The metric, averaged over the seeds, of a complete trial; else None.
        settings: The values of the settings in the search space, by dotted key.
        runs: The names of its run folders, one per seed, in the folder of the sweep.
        history: The metric of the first seed by epoch.
        error: The reason why the trial failed, in one line; else None.
    """

    number: int
    state: str
    value: float | None
    settings: Mapping[str, Any]
    runs: Sequence[str]
    history: Mapping[int, float]
    error: str | None = None

    @property
    def name(self) -> str:
        """The name of its first run folder, or its number if there is none on this machine."""
        return self.runs[0] if self.runs else run_names(self.number, 1)[0]

    def to_json(self) -> dict[str, Any]:
        """Return the fields for programs."""
        return {name: value for name, value in vars(self).items() if name != "history"}


@dataclass(frozen=True)
class Sweep:
    """A sweep: its folder, its experiment and its study in Optuna.

    Args:
        folder: The folder with the runs.
        experiment: The experiment with its table `[sweep]`.
        study: The study of Optuna.
    """

    folder: Path
    experiment: SweepExperiment
    study: Any = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path, storage: str | None = None) -> "Sweep":
        """Open a sweep to read its results.

        Args:
            folder: The folder of the sweep.
            storage: The URL of its database; None for the SQLite file in the folder.

        Raises:
            InputError: There is no such sweep, or it is in another storage.
            RunError: The database cannot be reached.
        """
        require_optuna()
        import optuna

        folder = Path(folder)
        if not (folder / FILE).is_file():
            raise InputError(f"sweep = {folder}: not the folder of a sweep ({FILE} is missing); pass another folder")
        if storage is None and not (folder / DATABASE).is_file():
            raise InputError(f"sweep = {folder}: its trials are in another storage; pass its --storage")
        experiment = SweepExperiment.from_file(folder / FILE)
        url = storage_url(storage, folder)
        with quiet(), storage_errors(url):
            opened = open_storage(url, experiment.sweep.heartbeat)
            try:
                return cls(folder, experiment, optuna.load_study(study_name=study_name(folder), storage=opened))
            except KeyError:
                raise InputError(f"sweep = {folder}: its trials are in another storage; pass its --storage") from None

    @property
    def trials(self) -> list[TrialResult]:
        """All trials by number. A trial that was resumed is one trial."""
        latest = {original_number(trial): trial for trial in started_trials(self.study)}
        return [self._result(number, trial) for number, trial in sorted(latest.items())]

    @property
    def ranked(self) -> list[TrialResult]:
        """The complete trials, best first."""
        complete = [trial for trial in self.trials if trial.value is not None]
        return sorted(complete, key=lambda trial: (trial.value, trial.number))

    @property
    def summary(self) -> str:
        """The number of trials by state, such as `7 complete · 1 failed`."""
        states = [trial.state for trial in self.trials]
        return " · ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))

    def _result(self, number: int, trial: Any) -> TrialResult:
        state = STATES[trial.state.name]
        space = self.experiment.space
        error = trial.user_attrs.get("error", "its worker was lost repeatedly") if state == "failed" else None
        return TrialResult(
            number,
            state,
            trial.value if state == "complete" else None,
            {key: space[key].value(param) for key, param in trial.params.items()},
            [name for name in run_names(number, self.experiment.sweep.repeats) if (self.folder / name).is_dir()],
            dict(trial.intermediate_values),
            error,
        )


def study_name(folder: Path) -> str:
    """Return the name of a sweep in its storage: that of its folder."""
    return folder.resolve().name


def run_names(number: int, repeats: int) -> list[str]:
    """Return the names of the run folders of a trial, one per seed.

    Example:
        >>> run_names(7, 2)
        ['0007', '0007-2']
    """
    return [f"{number:04d}" if repeat == 0 else f"{number:04d}-{repeat + 1}" for repeat in range(repeats)]


def started_trials(study: Any) -> list[Any]:
    """Return the trials of a study in their order, without those that a worker gave up because there were enough."""
    return [trial for trial in study.get_trials(deepcopy=False) if not trial.user_attrs.get("surplus")]


def original_number(trial: Any) -> int:
    """Return the number of a trial, or of the trial that it resumes."""
    return int(trial.system_attrs.get("failed_trial", trial.number))
