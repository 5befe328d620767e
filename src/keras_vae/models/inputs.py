"""Checks of a model's inputs: one object that `fit`, `evaluate`, `encode` and all other entry points use."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import keras
import numpy as np
from keras import ops

from keras_vae.components.conditions import Condition
from keras_vae.core import backend
from keras_vae.core.errors import InputError, shown, suggestion
from keras_vae.core.images import check_images
from keras_vae.core.typing import Array, Shape
from keras_vae.data.dataset import Dataset
from keras_vae.data.lazy import is_lazy
from keras_vae.models.missing import split_mask

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

_DICT = '{"images": x, "condition": c}'
_NAMES = ("images", "condition", "mask", "noise", "pixel_noise", "features", "codes")
"""Names of all inputs of `call`."""


@dataclass(frozen=True)
class ModelInputs:
    """Converts every accepted form of input to the form that `call` accepts, and rejects all others.

    Accepted forms: images; a list of one array of images; images and conditions as a pair `(x, y)`; and a dict with
    images under `images`, conditions under `condition`, and the mask of observed pixels under `mask`. Images with
    missing pixels can also be a masked array of NumPy.

    Args:
        image_shape: (H, W, C) of the model's images; None for a size that is not fixed.
        condition: The model's condition, or None.
        latent_dim: Number of latent dimensions; None if the model is not built.
        factors: Height and width that divide those of images of any other size, if the model accepts them.
        has_independent_channels: Whether single channels of a pixel may be missing; see `Likelihood`.
    """

    image_shape: Shape
    condition: Condition | None
    latent_dim: int | None = None
    factors: tuple[int, int] | None = None
    has_independent_channels: bool = True

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
        """Return images, conditions and masks as checked NumPy arrays; return symbolic tensors unchanged.

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
        given: Mapping[str, Any] = x if isinstance(x, Mapping) else {}
        condition, mask = given.get("condition"), given.get("mask")
        images, found = self._images_and_mask(images, None if is_symbolic(mask) else mask)
        mask = found.get("mask", mask)
        conditions = condition if is_symbolic(condition) else self.conditions(condition, len(images))
        if not isinstance(x, Mapping) and mask is None:
            return images
        optional = {"condition": conditions, "mask": mask}
        rest = {name: value for name, value in given.items() if name not in optional}
        return {**rest, "images": images} | {name: value for name, value in optional.items() if value is not None}

    def _images_and_mask(self, images: Any, mask: Any) -> tuple[Array, dict[str, Array]]:
        """Return checked images, and a dict of their checked mask, empty if they are complete."""
        images, mask = split_mask(_to_images(images), mask, has_independent_channels=self.has_independent_channels)
        self._check_images(images)
        return images, {} if mask is None else {"mask": mask}

    def arrays(self, x: Any, condition: Any) -> dict[str, Array]:
        """Return a dict of the images and, if any, their conditions and mask, as checked NumPy arrays.

        Args:
            x: Images, or a dict of images, their conditions and their mask.
            condition: Condition of the images, one for all or one per image, unless `x` contains it.

        Raises:
            InputError: See `check`; or the condition is given twice.
        """
        if condition is not None and isinstance(x, Mapping) and x.get("condition") is not None:
            raise InputError('condition, x["condition"]: the condition is given twice; pass one of the two')
        x = self.join(x)
        inputs = dict(x) if isinstance(x, Mapping) else {"images": x}
        check_names(inputs, ("images", "condition", "mask"))
        images, mask = self._images_and_mask(inputs["images"], inputs.get("mask"))
        conditions = self.conditions(inputs.get("condition") if condition is None else condition, len(images))
        return {"images": images} | ({} if conditions is None else {"condition": conditions}) | mask

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

    def _check_images(self, images: Array) -> None:
        """Raise an InputError if images do not fit the model."""
        if self.factors is None:
            check_images(images, self.image_shape)
            return
        check_images(images, (None, None, self.image_shape[-1]))
        if any(size % factor for size, factor in zip(images.shape[1:3], self.factors, strict=True)):
            rows, columns = self.factors
            raise InputError(
                f"images.shape = {images.shape}: the encoder divides the height by {rows} and the width by {columns}; "
                "crop, pad or resize the images to multiples"
            )

    def _latent_size(self, images: Any) -> int | None:
        """Return the number of latent dimensions of images."""
        if self.factors is None or not is_array(images) or self.latent_dim is None:
            return self.latent_dim
        scale = math.prod(images.shape[1:3]) / math.prod(self.image_shape[:2])
        return round(self.latent_dim * scale)

    def _check_replacements(self, inputs: Mapping[str, Any], images: Any) -> dict[str, Any]:
        """Return the checked arrays that replace random numbers or codes in a dict of inputs."""
        checked = {}
        for name in ("noise", "pixel_noise", "codes"):
            value = inputs.get(name)
            if value is None or is_symbolic(value):
                continue
            checked[name] = array = check_numbers(name, value)
            latent_dim = self._latent_size(images)
            expected: Shape = (None, latent_dim) if images is None else (None, None, latent_dim)
            if name == "pixel_noise":
                expected = (None, *(images.shape[1:] if is_array(images) else self.image_shape))
            if is_array(images):
                expected = (len(images), *expected[1:])
            if not _fits(array.shape, expected):
                raise InputError(f"{name}.shape = {array.shape}: does not fit the images; pass {expected}")
        for feature in keras.tree.flatten(inputs.get("features")):
            if not (feature is None or is_array(feature) or is_symbolic(feature)):
                raise InputError(f"features = {shown(feature)}: not arrays; pass the result of encode_features")
        return checked

    def missing_condition(self) -> InputError:
        """Return the error of a missing condition."""
        return InputError(
            f"condition = None: this model is conditioned on {self.condition}; pass {_DICT}, or call fit(x, y) or "
            "encode(x, condition=c)"
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
    """Return images as an array of numbers, or images that are read on demand unchanged."""
    if is_lazy(images):
        return cast(Array, images)
    array = _to_numpy(images)
    if array.dtype.kind in "OUSmM":
        raise _not_images(images)
    return array


def _fits(shape: Shape, expected: Shape) -> bool:
    return len(shape) == len(expected) and all(size in (None, got) for got, size in zip(shape, expected, strict=True))


def _to_numpy(values: Any) -> Array:
    """Return values as an array, or a masked array; rows of different lengths become an array of objects."""
    if ops.is_tensor(values):
        array: Array = ops.convert_to_numpy(values)
        return array
    if isinstance(values, np.ma.MaskedArray):
        return values
    try:
        return np.asarray(values)
    except ValueError:
        return np.array(None, dtype=object)


def dataset_condition(model: "BaseVAE", dataset: Dataset) -> Array | None:
    """Return the labels of a data set for a conditional model, otherwise None."""
    return None if model.condition is None else dataset.labels


def dataset_inputs(model: "BaseVAE", dataset: Dataset) -> Array | dict[str, Array]:
    """Return the images of a data set; in a dict with their labels for a conditional model, and their mask if any."""
    labels, images = dataset_condition(model, dataset), dataset.images
    inputs = {} if labels is None else {"condition": labels.astype("int32")}
    if isinstance(images, np.ma.MaskedArray):
        inputs["mask"], images = ~np.ma.getmaskarray(images), np.ma.getdata(images)
    return {"images": images, **inputs} if inputs else images
