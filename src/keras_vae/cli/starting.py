"""The options `--init` and `--freeze` of `vae train`: training from the weights of another model."""

import json
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.core.errors import InputError
from keras_vae.core.files import to_path

if TYPE_CHECKING:
    from keras_vae.models.vae import VAE
    from keras_vae.runs.experiment import Experiment


class FrozenNetwork(StrEnum):
    """Networks that `--freeze` excludes from training."""

    ENCODER = "encoder"
    DECODER = "decoder"


def is_foreign_model(source: str) -> bool:
    """Return whether a path leads to a model of another library: neither a run nor a `.keras` file."""
    path = to_path(source)
    return path.exists() and path.suffix != ".keras" and not (path / "experiment.toml").is_file()


def convert(source: str) -> "VAE":
    """Convert a model of another library. Keras is imported already.

    Raises:
        InputError: It is not an `AutoencoderKL` of diffusers.
    """
    from keras_vae.integrations.diffusers import from_diffusers

    try:
        return from_diffusers(source)
    except InputError as error:
        raise InputError(f"--init = {source}: neither a run nor a model of diffusers ({error}); pass one") from None


def initial_experiment(source: str | None, init: str | None, initial: "VAE | None") -> "Experiment":
    """Return the experiment to train, before its settings are changed.

    Args:
        source: A preset or an experiment file; None means the experiment of the initial model, or `classic`.
        init: The run or the file of the initial model, if any.
        initial: The initial model, if it was converted.

    Raises:
        InputError: A file does not contain its experiment.
    """
    from keras_vae.runs.experiment import Experiment

    if source is not None or init is None:
        return Experiment.load(source or "classic")
    if initial is not None:
        from keras_vae.integrations.diffusers import experiment_of

        return experiment_of(initial).with_values([("name", to_path(init).resolve().name)])
    if to_path(init).is_file():
        raise InputError(f"--init = {init}: contains no experiment; name a preset or an experiment file as well")
    from keras_vae.runs.run import Run

    try:
        experiment = Run.open(init).experiment
    except InputError as error:
        raise InputError(f"--init = {init}: {str(error).removeprefix(f'run = {init}: ')}") from None
    return experiment.model_copy(update={"name": f"{experiment.name}-tuned"})


def start_settings(init: str | None, freeze: Sequence[FrozenNetwork]) -> list[str]:
    """Return the settings of an experiment that starts from a model; a path becomes absolute."""
    from keras_vae.runs.files import pretrained_names

    settings = []
    if init is not None:
        is_name = not to_path(init).exists() and init in pretrained_names()
        settings.append(f"training.init={json.dumps(init if is_name else str(Path(to_path(init)).absolute()))}")
    if freeze:
        settings.append(f"training.freeze={json.dumps([part.value for part in dict.fromkeys(freeze)])}")
    return settings
