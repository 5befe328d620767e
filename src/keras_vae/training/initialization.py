"""Training from the weights of another model."""

import itertools
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
from keras import ops

from keras_vae.core.config import flattened
from keras_vae.core.errors import InputError, shown
from keras_vae.core.files import reading
from keras_vae.models.base import BaseVAE
from keras_vae.runs.checkpoint import INITIAL
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.files import find_run
from keras_vae.runs.loading import load
from keras_vae.runs.model_file import read_model
from keras_vae.runs.run import Run


def load_initial(experiment: Experiment) -> BaseVAE | None:
    """Load the model that `training.init` of an experiment names, if any.

    Raises:
        InputError: There is no such model, or it is damaged.
    """
    source = experiment.training.init
    if source is None:
        return None
    try:
        return load(source)
    except InputError as error:
        raise InputError(f"training.init = {source}: {str(error).removeprefix(f'run = {source}: ')}") from None


def read_initial(run: Run) -> BaseVAE | None:
    """Return the model from whose weights the unfinished training of a run started, if any."""
    file = run.checkpoint_file.with_name(INITIAL)
    return read_model(file) if file.is_file() else None


def initialize(model: BaseVAE, initial: BaseVAE, experiment: Experiment) -> None:
    """Assign the weights of another model, with the same networks.

    Components of another class, such as another prior, keep their own initial weights. If the encoder is frozen, the
    statistics that normalize its codes remain as well, so that a model of its codes stays valid.

    Args:
        model: The model to train.
        initial: The other model.
        experiment: The experiment of the model, for messages.

    Raises:
        InputError: The models have different architectures, or networks with different weights.
    """
    where = f"training.init = {experiment.training.init}"
    if type(model) is not type(initial):
        raise InputError(
            f"{where}: a {type(initial).__name__}, but model.architecture = {experiment.model.architecture['name']} "
            f"builds a {type(model).__name__}; choose the architecture of that model"
        )
    for own, other in itertools.zip_longest(_parts(model), _parts(initial)):
        if isinstance(own, keras.Model) or type(own) is type(other):
            _assign(own, other, where, _difference(experiment))
    if "encoder" in experiment.training.freeze:
        model.latent_statistics = initial.latent_statistics


def model_bytes(model: BaseVAE) -> bytes:
    """Return the content of a `.keras` file of a model."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.keras"
        model.save(file)
        with reading(file):
            return file.read_bytes()


def _parts(model: BaseVAE) -> Iterator[keras.layers.Layer]:
    """Yield the networks of a model and its components with weights, each once."""
    seen = set[int]()
    for part in (*model._encoding_parts, *model._decoding_parts, getattr(model, "prior", None), model.condition):
        if isinstance(part, keras.layers.Layer) and id(part) not in seen:
            seen.add(id(part))
            yield part


def _assign(own: Any, other: Any, where: str, difference: str) -> None:
    weights: Sequence[Any] = getattr(other, "weights", ())
    for mine, given in itertools.zip_longest(own.weights, weights):
        if mine is not None and given is not None and tuple(mine.shape) == tuple(given.shape):
            continue
        mine_is, given_is = ("missing" if weight is None else tuple(weight.shape) for weight in (mine, given))
        path = (mine if given is None else given).path
        raise InputError(
            f"{where}: the weight {own.name}/{path} is {given_is} there and {mine_is} in this experiment{difference}; "
            "choose the same networks and image size"
        )
    for mine, given in zip(own.weights, weights, strict=True):
        mine.assign(ops.convert_to_numpy(given))


def _difference(experiment: Experiment) -> str:
    """Return the first setting that differs from that of the run from which training starts, if it is one."""
    try:
        other = Run(find_run(experiment.training.init or "")).experiment
    except InputError:
        return ""
    own, theirs = (_structure(settings) for settings in (experiment, other))
    for name in own.keys() | theirs.keys():
        if own.get(name) != theirs.get(name):
            return f" ({name} = {shown(theirs.get(name))} there and {shown(own.get(name))} here)"
    return ""


def _structure(experiment: Experiment) -> Mapping[str, Any]:
    """Return the settings that determine the shapes of the weights of the networks."""
    tables = experiment.model.model_dump(include={"architecture", "network", "latent_dim", "likelihood", "condition"})
    sizes = experiment.data.model_dump(include={"image_size", "color"})
    return flattened({"model": tables, "data": sizes})
