"""Checks of the arguments of a model other than its images: counts, seeds, options of Keras's methods, attributes."""

import numbers
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_vae.components.objectives import Objective
from keras_vae.core.errors import InputError, check_count, is_integer, shown
from keras_vae.core.registry import check_component, settings
from keras_vae.core.typing import Shape
from keras_vae.networks.base import check_image_shape, check_positive

_COUNTS = ("batch_size", "validation_batch_size", "steps", "steps_per_epoch", "validation_steps")
"""Arguments of Keras's methods that are integers of at least one, or None."""

_FIXED = ("seed", "image_shape", "latent_dim", "mask_channels")
"""Attributes of a built model that cannot change, in addition to its components."""

_MAX_FLOATS = 2**30
"""Largest number of floats of one result, which take 4 GiB."""


def check_seed(seed: Any) -> None:
    """Reject a seed that is not an integer from 0 to 2³¹ − 1, the range that all backends accept; None is accepted.

    Raises:
        InputError: The seed is something else.
    """
    if seed is not None and not (is_integer(seed) and 0 <= seed < 2**31):
        raise InputError(f"seed = {shown(seed)}: not a seed; pass an integer from 0 to {2**31 - 1}")


def check_flag(name: str, value: Any) -> bool:
    """Return a truth value.

    Raises:
        InputError: The value is something else.
    """
    if not isinstance(value, bool | np.bool):
        raise InputError(f"{name} = {shown(value)}: not a truth value; pass True or False")
    return bool(value)


def check_density(model: Any) -> None:
    """Reject a model whose prior has no density, which every bound on log p(x) needs.

    Raises:
        InputError: The density of the prior is `"none"`.
    """
    if model.density == "none":
        raise InputError(
            f"prior = {type(model.prior).__name__}: no log-density in {model.latent_dim} dimensions, only samples; use "
            "the original prior of the run (prior = 'original'), or fit prior = 'realnvp'"
        )


def check_memory(name: str, value: int, floats: int) -> None:
    """Reject a number of results that would not fit in memory.

    Args:
        name: Name of the argument that determines their number.
        value: Its value.
        floats: Number of floats of all results.

    Raises:
        InputError: They need more than 4 GiB.
    """
    if floats > _MAX_FLOATS:
        raise InputError(
            f"{name} = {value}: needs {floats / 2**28:,.1f} GiB of memory; pass at most "
            f"{max(1, _MAX_FLOATS * int(value) // floats)}, in several calls with different seeds"
        )


def check_options(**options: Any) -> None:
    """Reject invalid arguments of `fit`, `evaluate` and `predict` that Keras would misinterpret.

    Args:
        **options: Their arguments by name. Names without a rule are accepted.

    Raises:
        InputError: A value is invalid.
    """
    for name, value in options.items():
        if name == "epochs" or (name in _COUNTS and value is not None):
            check_count(name, value)
        elif name == "initial_epoch" and not (is_integer(value) and value >= 0):
            raise InputError(f"initial_epoch = {shown(value)}: not an epoch; pass an integer ≥ 0")
        elif name == "validation_freq" and not isinstance(value, list | tuple | set | range):
            check_count(name, value)
        elif name == "validation_split" and not (_is_real(value) and 0 <= value < 1):
            raise InputError(f"validation_split = {shown(value)}: not a fraction; pass a number in [0, 1)")
        elif name == "verbose" and not (
            value == "auto" or (isinstance(value, numbers.Integral) and value in (0, 1, 2))
        ):
            raise InputError(f"verbose = {shown(value)}: unknown; pass 0, 1, 2 or 'auto'")
        elif name == "shuffle" and not isinstance(value, bool | np.bool):
            raise InputError(f"shuffle = {shown(value)}: not a truth value; pass True or False")


def _is_real(value: Any) -> bool:
    return isinstance(value, numbers.Real) and not isinstance(value, bool)


def check_optimizer(optimizer: Any) -> None:
    """Reject a value that is not an optimizer, or the name or configuration of one.

    Raises:
        InputError: Keras cannot interpret the value.
    """
    try:
        found = keras.optimizers.get(optimizer)
    except (ValueError, TypeError):
        found = None
    if found is None:
        raise InputError(
            f"optimizer = {shown(optimizer)}: not an optimizer; pass a name, such as 'adam', or an instance of "
            "keras.optimizers.Optimizer"
        )


def check_input_shape(input_shape: Any, built_for: Shape | None) -> Shape:
    """Return the shape (H, W, C) in an argument of `build`.

    Args:
        input_shape: (None, H, W, C), or a dict with this shape under `images`.
        built_for: (H, W, C) of a model that is built already, otherwise None.

    Raises:
        InputError: The argument has another form, or the model was built for another shape.
    """
    shape = input_shape.get("images") if isinstance(input_shape, Mapping) else input_shape
    if not isinstance(shape, list | tuple) or len(shape) != 4:
        raise InputError(f"input_shape = {shown(input_shape)}: not the shape of images; pass (None, H, W, C)")
    image_shape = tuple(shape[1:])
    if built_for is not None and image_shape != built_for:
        raise InputError(
            f"input_shape = {shown(input_shape)}: the model was built for images of {built_for}; build a new model"
        )
    return image_shape


def check_assignment(model: Any, name: str, value: Any) -> None:
    """Reject a new value of an attribute that a built model does not read again.

    Args:
        model: A built model.
        name: Name of the attribute.
        value: Its new value.

    Raises:
        InputError: The attribute is fixed, belongs to the objective, or is an objective that does not fit the model.
    """
    if name == "objective":
        if value is None:
            raise InputError("objective = None: a model needs an objective; pass one, such as ELBO()")
        check_component(name, value, Objective)
        model._check_objective(value)
    elif name in model.part_names or (name in _FIXED and value != getattr(model, name)):
        raise InputError(f"{name} = {shown(value)}: fixed when the model was built; build a new model with {name}=…")
    elif name in settings(type(model.objective)) and not hasattr(model, name):
        family = type(model.objective).__name__
        raise InputError(
            f"{name} = {shown(value)}: a setting of the objective; set model.objective = {family}({name}=…)"
        )


def check_networks(
    encoder: Any, decoder: Any, latent_dim: int | None, image_shape: Any, objective: Any, beta: float | None
) -> None:
    """Reject arguments of `VAE` that are invalid or contradict each other.

    Raises:
        InputError: A network is not a Keras model or lacks its counterpart, or two arguments set the same quantity.
    """
    for name, network in {"encoder": encoder, "decoder": decoder}.items():
        if network is not None and not isinstance(network, keras.Model):
            shown = repr(network) if isinstance(network, int | str) else type(network).__name__
            hint = f"did you mean latent_dim={network}? " if isinstance(network, int) else ""
            raise InputError(f"{name} = {shown}: not a Keras model; {hint}pass an instance of keras.Model")
    if (encoder is None) != (decoder is None):
        given, missing = ("a decoder", "encoder") if encoder is None else ("an encoder", "decoder")
        raise InputError(f"{missing} = None: {given} needs its {missing}; pass both of them, or neither")
    for name, value in {"latent_dim": latent_dim, "image_shape": image_shape}.items():
        if encoder is not None and value is not None:
            raise InputError(
                f"{name} = {value}: the encoder and the decoder determine it; leave out {name}, or pass no networks"
            )
    if beta is not None and not isinstance(beta, numbers.Real):
        raise InputError(f"beta = {beta!r}: not a number; pass a finite number ≥ 0")
    if objective is not None and beta is not None:
        raise InputError(f"beta = {beta}: objective = {objective!r} sets its own weights; pass one of the two")
    if latent_dim is not None:
        check_positive(latent_dim=latent_dim)
    if image_shape is not None:
        check_image_shape(image_shape)
