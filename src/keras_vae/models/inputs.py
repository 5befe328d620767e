"""Checks of a model's inputs: one object that `fit`, `evaluate`, `encode` and all other entry points use."""

import numbers
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition
from keras_vae.components.objectives import Objective
from keras_vae.core import backend
from keras_vae.core.errors import InputError, shown, suggestion
from keras_vae.core.images import check_images
from keras_vae.core.registry import check_component, settings
from keras_vae.core.typing import Array, Shape
from keras_vae.data.dataset import Dataset

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

_DICT = '{"images": x, "condition": c}'
_NAMES = ("images", "condition", "noise", "pixel_noise", "features", "codes")
"""Names of all inputs of `call`."""


@dataclass(frozen=True)
class ModelInputs:
    """Converts every accepted form of input to the form that `call` accepts, and rejects all others.

    Accepted forms: images; a list of one array of images; images and conditions as a pair `(x, y)`; and a dict with
    images under `images` and conditions under `condition`.

    Args:
        image_shape: (H, W, C) of the model's images; None for a size that is not fixed.
        condition: The model's condition, or None.
    """

    image_shape: Shape
    condition: Condition | None

    def unpack(self, data: Any, *, ignore_targets: bool = False) -> Any:
        """Return the inputs in one batch of a data source, in the form that `join` returns.

        Args:
            data: `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`, as arrays or tensors.
            ignore_targets: Whether an unconditional model ignores `y`, as Keras does in `predict`.
        """
        x, y, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
        return self.join(x, None if ignore_targets and self.condition is None else y, sample_weight)

    def join(self, x: Any, y: Any = None, sample_weight: Any = None) -> Any:
        """Return `x`; for a conditional model with targets `y`, return a dict with `y` under `condition`.

        Raises:
            InputError: `x` is None, a list of several arrays or a `Dataset`, or this model has no use for the targets
                or weights.
        """
        if sample_weight is not None:
            raise InputError("sample_weight: not supported, all images have the same weight; leave it out")
        if isinstance(x, list | tuple):
            if len(x) != 1:
                raise InputError(
                    f"x = {type(x).__name__} of {len(x)}: a model has one input; pass one array of images, or {_DICT}"
                )
            (x,) = x
        if x is None:
            raise InputError("x = None: no images; pass an array of images")
        if isinstance(x, Dataset):
            arrays = "dataset.images"
            if self.condition is not None:
                arrays = '{"images": dataset.images, "condition": dataset.labels}'
            raise InputError(f"x = Dataset of {len(x.images)} images: not an array; pass {arrays}")
        if y is None:
            return x
        if self.condition is None:
            raise InputError(
                "y: not supported, an unconditional model has no targets; call fit(x), or map the data set to its "
                f"images; to condition on labels, build the model with a condition and pass {_DICT}"
            )
        if not isinstance(x, Mapping):
            return {"images": x, "condition": y}
        if x.get("condition") is not None:
            raise InputError('y, x["condition"]: both contain the condition; pass one of the two')
        return {**x, "condition": y}

    def check(self, x: Any) -> Any:
        """Return images and conditions as checked NumPy arrays; return data sources and symbolic tensors unchanged.

        Args:
            x: Inputs in the form that `join` returns.

        Raises:
            InputError: The images or their conditions do not fit the model, the condition is missing, or a name in a
                dict is unknown.
        """
        if isinstance(x, Mapping):
            check_names(x)
        images = x.get("images") if isinstance(x, Mapping) else x
        if isinstance(x, Mapping) and isinstance(images, list | tuple):
            images = _to_numpy(images)
        if not is_array(images):
            return x
        condition = x.get("condition") if isinstance(x, Mapping) else None
        images = _to_numpy(images)
        check_images(images, self.image_shape)
        conditions = condition if is_symbolic(condition) else self.conditions(condition, len(images))
        if not isinstance(x, Mapping):
            return images
        return {**x, "images": images} | ({} if conditions is None else {"condition": conditions})

    def arrays(self, x: Any, condition: Any) -> dict[str, Array]:
        """Return a dict of the images and, if any, their conditions, as checked NumPy arrays.

        Args:
            x: Images, or a dict of images and their conditions.
            condition: Condition of the images, one for all or one per image, unless `x` contains it.

        Raises:
            InputError: See `check`; or the condition is given twice.
        """
        if condition is not None and isinstance(x, Mapping) and x.get("condition") is not None:
            raise InputError('condition, x["condition"]: the condition is given twice; pass one of the two')
        x = self.join(x)
        inputs = dict(x) if isinstance(x, Mapping) else {"images": x}
        check_names(inputs)
        images = _to_numpy(inputs["images"])
        check_images(images, self.image_shape)
        conditions = self.conditions(inputs.get("condition") if condition is None else condition, len(images))
        return {"images": images} | ({} if conditions is None else {"condition": conditions})

    def conditions(self, condition: Any, n: int) -> Array | None:
        """Return the conditions of n images, repeating a single value; return None for an unconditional model.

        Raises:
            InputError: The condition is missing or invalid, its length is not n, or the model is unconditional.
        """
        if self.condition is None:
            if condition is not None:
                raise InputError(f"condition = {condition!r}: this model is unconditional; leave the condition out")
            return None
        if condition is None:
            raise self.missing_condition()
        values = _to_numpy(condition)
        if values.ndim == len(self.condition.value_shape):
            value = self.condition.check_one(values)
            return np.broadcast_to(value, (n, *value.shape))
        values = self.condition.check(values)
        if len(values) != n:
            raise InputError(f"condition of length {len(values)}: there are {n} images; pass 1 or {n} values")
        return values

    def missing_condition(self) -> InputError:
        """Return the error of a missing condition."""
        return InputError(
            f"condition = None: this model is conditioned on {self.condition}; pass {_DICT}, or call fit(x, y) or "
            "encode(x, condition=c)"
        )


def check_count(name: str, value: Any) -> None:
    """Reject a value that is not a whole number of at least one.

    Args:
        name: Name of the argument.
        value: Its value.

    Raises:
        InputError: The value is not an integer, or it is below one.
    """
    if not isinstance(value, numbers.Integral) or isinstance(value, bool) or value < 1:
        raise InputError(f"{name} = {value!r}: not a positive integer; pass an integer ≥ 1")


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
    elif name in model.part_names or (name in ("seed", "image_shape", "latent_dim") and value != getattr(model, name)):
        raise InputError(f"{name} = {shown(value)}: fixed when the model was built; build a new model with {name}=…")
    elif name in settings(type(model.objective)) and not hasattr(model, name):
        family = type(model.objective).__name__
        raise InputError(
            f"{name} = {shown(value)}: a setting of the objective; set model.objective = {family}({name}=…)"
        )


def check_names(inputs: Mapping[str, Any]) -> None:
    """Reject a dict of inputs without images, or with an unknown name.

    Raises:
        InputError: A name is unknown, or there are neither images nor noise, which a hierarchical model decodes.
    """
    for name in inputs:
        if name not in _NAMES:
            hint = suggestion(str(name), _NAMES)
            raise InputError(f"x = dict of {', '.join(map(str, inputs))}: unknown {name!r}; {hint}pass {_DICT}")
    if inputs.get("images") is None and inputs.get("noise") is None:
        raise InputError(f"x = dict of {', '.join(inputs) or 'nothing'}: no images; pass {_DICT}")


def is_symbolic(value: Any) -> bool:
    """Return whether a value is a placeholder in a traced graph."""
    return isinstance(value, keras.KerasTensor) or (ops.is_tensor(value) and not backend.is_concrete(value))


def is_array(images: Any) -> bool:
    """Return whether the images are an array or a concrete tensor, not a data source or a symbolic tensor."""
    return isinstance(images, np.ndarray) or (ops.is_tensor(images) and backend.is_concrete(images))


def _to_numpy(values: Any) -> Array:
    array: Array = ops.convert_to_numpy(values) if ops.is_tensor(values) else np.asarray(values)
    return array


def dataset_condition(model: "BaseVAE", dataset: Dataset) -> Array | None:
    """Return the labels of a data set for a conditional model, otherwise None."""
    return None if model.condition is None else dataset.labels


def dataset_inputs(model: "BaseVAE", dataset: Dataset) -> Array | dict[str, Array]:
    """Return the images of a data set, with their labels under `condition` for a conditional model."""
    labels = dataset_condition(model, dataset)
    return dataset.images if labels is None else {"images": dataset.images, "condition": labels.astype("int32")}
