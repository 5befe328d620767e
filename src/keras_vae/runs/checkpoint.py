"""Checkpoints: the state from which training resumes, in one file, and models restored from it."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vae.core.archives import read_npz
from keras_vae.core.errors import InputError
from keras_vae.core.files import reading, replacing, writing
from keras_vae.core.typing import Array
from keras_vae.data.info import DatasetInfo
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.files import Metrics
from keras_vae.runs.model_file import require_finite

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

State = Mapping[str, Sequence[Array]]
"""Groups of arrays by name: weights, other variables, those of the optimizer, and the best weights so far."""

INITIAL = "init.keras"
"""File next to a checkpoint: the model from whose weights training started. Resuming does not depend on its origin."""


def write_checkpoint(file: Path, state: State, metrics: Mapping[str, Sequence[float]]) -> None:
    """Write groups of arrays and the metrics to one file."""
    arrays = {f"{group}/{index}": array for group, values in state.items() for index, array in enumerate(values)}
    with writing(file):
        file.parent.mkdir(exist_ok=True)
    with replacing(file) as temporary:
        np.savez(temporary, allow_pickle=False, metrics=np.array(json.dumps(metrics)), **arrays)


def read_checkpoint(file: Path) -> tuple[dict[str, list[Array]], Metrics] | None:
    """Return the groups of arrays and the metrics of a checkpoint, or None if there is no such file.

    Raises:
        InputError: The file is damaged.
    """
    if not file.exists():
        return None
    arrays = read_npz(file)
    state: dict[str, list[Array]] = {}
    with reading(file):
        metrics: Metrics = json.loads(str(arrays.pop("metrics")))
        if not len(metrics["epoch"]) > 0:
            raise InputError("contains no epoch; restore the file")
    for name, array in arrays.items():
        state.setdefault(name.partition("/")[0], []).append(array)
    return state, metrics


def assign(file: Path, arrays: Sequence[Array], variables: Sequence[Any]) -> None:
    """Assign arrays of a checkpoint to variables.

    Args:
        file: The file of the checkpoint, for messages.
        arrays: The arrays.
        variables: The variables.

    Raises:
        InputError: Their numbers or shapes differ.
    """
    if [array.shape for array in arrays] != [tuple(variable.shape) for variable in variables]:
        raise InputError(f"{file}: does not fit the run's experiment.toml; restore both files, or train again")
    for variable, array in zip(variables, arrays, strict=True):
        variable.assign(array)


def restored_model(file: Path, state: State, experiment: Experiment, info: DatasetInfo) -> "BaseVAE":
    """Return the model after the last completed epoch.

    Args:
        file: The file of the checkpoint, for messages.
        state: Its arrays.
        experiment: The experiment.
        info: Properties of its images.

    Raises:
        InputError: The state does not fit the experiment, or a weight is NaN or infinite.
    """
    from keras_vae.runs.build import build_model

    model = build_model(experiment, info)
    assign(file, state.get("weights", ()), model.weights)
    require_finite(model, file)
    return model
