"""The parts of Optuna that a sweep uses: storages, studies, samplers and pruners."""

import contextlib
import inspect
import math
import warnings
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from keras_vae.core.errors import (
    InputError,
    RunError,
    first_line,
    hide_passwords,
    listed,
    require_packages,
    shown,
    suggestion,
    unknown,
)
from keras_vae.integrations.sweep.config import SweepExperiment

SAMPLERS = {
    "tpe": "TPESampler",
    "random": "RandomSampler",
    "grid": "GridSampler",
    "qmc": "QMCSampler",
    "cma-es": "CmaEsSampler",
    "gp": "GPSampler",
}
"""Samplers of Optuna by the names in experiment files."""

PRUNERS = {
    "median": "MedianPruner",
    "percentile": "PercentilePruner",
    "successive-halving": "SuccessiveHalvingPruner",
    "hyperband": "HyperbandPruner",
    "threshold": "ThresholdPruner",
    "nop": "NopPruner",
}
"""Pruners of Optuna by the names in experiment files."""

DATABASE = "sweep.db"
"""The SQLite file of a sweep without another storage, in its folder."""

MAX_LOST = 10
"""Number of times that a trial is resumed after its worker was lost."""

_WAIT = 60
"""Seconds to wait while another process writes to the database."""

_OURS = ("seed", "search_space")
"""Arguments of samplers that follow from the experiment."""


def require_optuna() -> None:
    """Raise an `InputError` if Optuna is not installed."""
    require_packages("sweep", ["optuna"], "sweep")


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Silence the log of Optuna, and its warnings about experimental functions."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
            yield
    finally:
        optuna.logging.set_verbosity(before)


@contextlib.contextmanager
def storage_errors(storage: str) -> Iterator[None]:
    """Convert errors of a database to a one-line `RunError` without passwords."""
    import optuna
    import sqlalchemy.exc

    try:
        yield
    except (sqlalchemy.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, UnboundLocalError) as error:
        if isinstance(error, UnboundLocalError):
            # If Optuna can neither write nor read the result of a trial, it raises this error on top of the true one.
            if not isinstance(error.__context__, optuna.exceptions.StorageInternalError):
                raise
            error = error.__context__
        cause = getattr(error, "orig", None) or error.__cause__ or error
        reason = hide_passwords(first_line(getattr(cause, "orig", None) or cause))
        raise RunError(
            f"storage = {hide_passwords(storage)}: cannot be used: {reason}; all completed epochs are saved: start the "
            "same command again when it is available"
        ) from None


def expect_signs_of_life(study: Any, trials: Iterable[Any]) -> None:
    """Record a sign of life for running trials, so that those of lost workers become stale.

    Optuna does not consider a trial stale whose worker was lost before its first sign of life.

    Args:
        study: The study, whose storage records heartbeats.
        trials: Running trials of the study, each passed once only.
    """
    for trial in trials:
        study._storage.record_heartbeat(trial._trial_id)


def storage_url(storage: str | None, folder: Path) -> str:
    """Return the URL of the database of a sweep, with the driver of PostgreSQL.

    Args:
        storage: The URL; None selects an SQLite file in the folder.
        folder: The folder of the sweep.

    Raises:
        InputError: The URL is invalid.

    Example:
        >>> storage_url("postgresql://host/trials", Path("sweeps/x"))
        'postgresql+psycopg://host/trials'
    """
    import sqlalchemy

    if storage is None:
        return str(sqlalchemy.URL.create("sqlite", database=str(folder.resolve() / DATABASE)))
    try:
        url = sqlalchemy.make_url(storage)
    except (sqlalchemy.exc.ArgumentError, ValueError):
        raise InputError(
            f"storage = {hide_passwords(storage)}: not the URL of a database; write postgresql://HOST/DATABASE"
        ) from None
    if url.drivername in ("postgres", "postgresql"):
        url = url.set(drivername="postgresql+psycopg")
    return url.render_as_string(hide_password=False)


def open_storage(url: str, heartbeat: int) -> Any:
    """Return the storage of Optuna at a URL.

    Args:
        url: The URL.
        heartbeat: Seconds between two signs of life of a worker.

    Raises:
        InputError: The driver of the database is not installed.
    """
    import optuna
    import sqlalchemy.exc

    sqlite = url.startswith("sqlite")
    options = {"connect_args": {"timeout": _WAIT}} if sqlite else {"pool_pre_ping": True}
    retry = optuna.storages.RetryHeartbeatStaleTrialCallback(max_retry=MAX_LOST)
    try:
        # Optuna formats the URL.
        return optuna.storages.RDBStorage(
            url.replace("{", "{{").replace("}", "}}"),
            engine_kwargs=options,
            heartbeat_interval=heartbeat,
            heartbeat_stale_trial_callback=retry,
        )
    except (ImportError, sqlalchemy.exc.NoSuchModuleError):
        name = url.partition(":")[0]
        remedy = "pip install 'psycopg[binary]'" if name == "postgresql+psycopg" else "install the database's driver"
        raise InputError(f"storage = {hide_passwords(url)}: {name} is not installed; {remedy}") from None


def build_sampler(experiment: SweepExperiment, seed: int | None) -> Any:
    """Return the sampler of a sweep.

    Args:
        experiment: The experiment.
        seed: Seed of random draws; None for other draws in each process.

    Raises:
        InputError: The name or an argument is unknown, or the sampler does not fit the search space.
    """
    spec = experiment.sweep.sampler
    given: dict[str, Any] = {}
    match spec["name"]:
        case "grid":
            # All workers must have the same order of the grid.
            given = {"search_space": _grid(experiment), "seed": experiment.seed}
        case "qmc":
            # All workers draw from one sequence.
            given = {"seed": experiment.seed}
        case _:
            given = {"seed": seed}
    return _build("sampler", spec, SAMPLERS, given)


def build_pruner(experiment: SweepExperiment) -> Any:
    """Return the pruner of a sweep.

    Raises:
        InputError: The name or an argument is unknown.
    """
    return _build("pruner", experiment.sweep.pruner, PRUNERS, {})


def grid_size(experiment: SweepExperiment) -> int | None:
    """Return the number of points of the grid; None for other samplers than `grid`."""
    if experiment.sweep.sampler["name"] != "grid":
        return None
    return math.prod(len(values) for values in _grid(experiment).values())


def _grid(experiment: SweepExperiment) -> dict[str, list[Any]]:
    grid = dict[str, list[Any]]()
    for key, dimension in experiment.space.items():
        if dimension.grid is None:
            raise InputError(
                f"sweep.sampler = grid: sweep.space.{key} has infinitely many values; add a step, or list its values"
            )
        grid[key] = list(dimension.grid)
    return grid


def _build(kind: str, spec: Mapping[str, Any], names: Mapping[str, str], given: Mapping[str, Any]) -> Any:
    """Build a sampler or a pruner from its table."""
    import optuna

    name, where = spec["name"], f"sweep.{kind}"
    if name not in names:
        raise unknown(where, name, names)
    cls = getattr(getattr(optuna, f"{kind}s"), names[name])
    accepted = [key for key in inspect.signature(cls).parameters if key not in _OURS]
    arguments = {key: value for key, value in spec.items() if key != "name"}
    for key, value in arguments.items():
        if key not in accepted:
            hint = suggestion(key, accepted)
            raise InputError(
                f"{where}.{key} = {shown(value)}: no such argument of {name}; {hint}accepted: {listed(accepted)}"
            )
    try:
        return cls(**arguments, **given)
    except ImportError as error:
        package = getattr(error.__cause__, "name", None) or getattr(error, "name", None) or name
        raise InputError(f"{where} = {name}: {package} is not installed; pip install {package}") from None
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} = {name}: {first_line(error)}; correct its arguments") from None
