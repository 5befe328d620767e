"""Checks of a model's inputs: one object that `fit`, `evaluate`, `encode` and all other entry points use."""

import numbers
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition
from keras_vae.components.objectives import Objective
from keras_vae.core import backend
from keras_vae.core.errors import InputError, check_count, is_integer, shown, suggestion
from keras_vae.core.images import check_images
from keras_vae.core.registry import check_component, settings
from keras_vae.core.typing import Array, Shape
from keras_vae.data.dataset import Dataset

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

_DICT = '{"images": x, "condition": c}'
_NAMES = ("images", "condition", "noise", "pixel_noise", "features", "codes")
"""Names of all inputs of `call`."""

_COUNTS = ("batch_size", "validation_batch_size", "steps", "steps_per_epoch", "validation_steps")
"""Arguments of Keras's methods that are integers of at least one, or None."""

_MAX_FLOATS = 2**30
"""Largest number of floats of one result, which take 4 GiB."""


@dataclass(frozen=True)
class ModelInputs:
    """Converts every accepted form of input to the form that `call` accepts, and rejects all others.

    Accepted forms: images; a list of one array of images; images and conditions as a pair `(x, y)`; and a dict with
    images under `images` and conditions under `condition`.

    Args:
        image_shape: (H, W, C) of the model's images; None for a size that is not fixed.
        condition: The model's condition, or None.
        latent_dim: Number of latent dimensions; None if the model is not built.
    """

    image_shape: Shape
    condition: Condition | None
    latent_dim: int | None = None

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
        """Return images and conditions as checked NumPy arrays; return symbolic tensors unchanged.

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
        if isinstance(x, Mapping):
            x = {**x, **self._check_replacements(x, images)}
        if not is_array(images):
            if images is not None and not is_symbolic(images):
                raise _not_images(images)
            return x
        condition = x.get("condition") if isinstance(x, Mapping) else None
        images = _to_images(images)
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
        check_names(inputs, ("images", "condition"))
        images = _to_images(inputs["images"])
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

    def _check_replacements(self, inputs: Mapping[str, Any], images: Any) -> dict[str, Any]:
        """Return the checked arrays that replace random numbers or codes in a dict of inputs."""
        checked = {}
        for name in ("noise", "pixel_noise", "codes"):
            value = inputs.get(name)
            if value is None or is_symbolic(value):
                continue
            checked[name] = array = check_numbers(name, value)
            expected: Shape = (None, self.latent_dim) if images is None else (None, None, self.latent_dim)
            if name == "pixel_noise":
                expected = (None, *self.image_shape)
            if is_array(images):
                expected = (len(images), *expected[1:])
            if not _fits(array.shape, expected):
                raise InputError(f"{name}.shape = {array.shape}: does not fit the images; pass {expected}")
        return checked

    def missing_condition(self) -> InputError:
        """Return the error of a missing condition."""
        return InputError(
            f"condition = None: this model is conditioned on {self.condition}; pass {_DICT}, or call fit(x, y) or "
            "encode(x, condition=c)"
        )


def check_seed(seed: Any) -> None:
    """Reject a seed that is not an integer from 0 to 2³² − 1; None is accepted.

    Raises:
        InputError: The seed is something else.
    """
    if seed is not None and not (is_integer(seed) and 0 <= seed < 2**32):
        raise InputError(f"seed = {shown(seed)}: not a seed; pass an integer from 0 to {2**32 - 1}")


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


def check_numbers(name: str, values: Any) -> Array:
    """Return values as a float32 array.

    Args:
        name: Name of the argument.
        values: An array, a tensor or a nested list.

    Raises:
        InputError: The values are not numbers, have rows of different lengths, or are not finite in float32.
    """
    array = _to_numpy(values)
    if array.dtype.kind not in "iuf" and array.dtype.name != "bfloat16":
        raise InputError(f"{name} = {shown(values)}: not an array of numbers; pass floats")
    with np.errstate(over="ignore"):
        floats: Array = array.astype("float32")
    if not np.isfinite(floats).all():
        raise InputError(f"{name}: NaN, infinite or beyond the range of float32; pass finite numbers")
    return floats


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
    elif name in model.part_names or (name in ("seed", "image_shape", "latent_dim") and value != getattr(model, name)):
        raise InputError(f"{name} = {shown(value)}: fixed when the model was built; build a new model with {name}=…")
    elif name in settings(type(model.objective)) and not hasattr(model, name):
        family = type(model.objective).__name__
        raise InputError(
            f"{name} = {shown(value)}: a setting of the objective; set model.objective = {family}({name}=…)"
        )


def check_names(inputs: Mapping[str, Any], accepted: Sequence[str] = _NAMES) -> None:
    """Reject a dict of inputs without images, or with an unknown name.

    Args:
        inputs: The dict.
        accepted: The accepted names.

    Raises:
        InputError: A name is unknown, or there are neither images nor noise, which a hierarchical model decodes.
    """
    for name in inputs:
        if name not in accepted:
            hint = suggestion(str(name), accepted)
            raise InputError(f"x = dict of {', '.join(map(str, inputs))}: unknown {name!r}; {hint}pass {_DICT}")
    if inputs.get("images") is None and inputs.get("noise") is None:
        raise InputError(f"x = dict of {', '.join(inputs) or 'nothing'}: no images; pass {_DICT}")


def is_symbolic(value: Any) -> bool:
    """Return whether a value is a placeholder in a traced graph."""
    return isinstance(value, keras.KerasTensor) or (ops.is_tensor(value) and not backend.is_concrete(value))


def is_array(images: Any) -> bool:
    """Return whether the images are an array or a concrete tensor, not a data source or a symbolic tensor."""
    return isinstance(images, np.ndarray) or (ops.is_tensor(images) and backend.is_concrete(images))


def check_source(x: Any) -> None:
    """Reject an object that is neither an array nor a source of batches.

    Raises:
        InputError: The object is something else.
    """
    if not (is_array(x) or backend.is_data_source(x)):
        raise InputError(
            f"x = {shown(x)}: not images; pass an array of images, or batches of images (tf.data.Dataset, DataLoader, "
            "PyDataset or generator)"
        )


def _not_images(x: Any) -> InputError:
    return InputError(f"x = {shown(x)}: not images; pass an array of images")


def _to_images(images: Any) -> Array:
    """Return images as an array of numbers."""
    array = _to_numpy(images)
    if array.dtype.kind in "OUSmM":
        raise _not_images(images)
    return array


def _fits(shape: Shape, expected: Shape) -> bool:
    return len(shape) == len(expected) and all(size in (None, got) for got, size in zip(shape, expected, strict=True))


def _to_numpy(values: Any) -> Array:
    """Return values as an array; rows of different lengths become an array of objects."""
    if ops.is_tensor(values):
        array: Array = ops.convert_to_numpy(values)
        return array
    try:
        return np.asarray(values)
    except ValueError:
        return np.array(None, dtype=object)


def dataset_condition(model: "BaseVAE", dataset: Dataset) -> Array | None:
    """Return the labels of a data set for a conditional model, otherwise None."""
    return None if model.condition is None else dataset.labels


def dataset_inputs(model: "BaseVAE", dataset: Dataset) -> Array | dict[str, Array]:
    """Return the images of a data set, with their labels under `condition` for a conditional model."""
    labels = dataset_condition(model, dataset)
    return dataset.images if labels is None else {"images": dataset.images, "condition": labels.astype("int32")}
