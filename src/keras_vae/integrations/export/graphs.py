"""Tracing of a model into deterministic graphs of plain Keras operations."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import keras

from keras_vae.core.errors import InputError, RunError, first_line
from keras_vae.core.typing import Tensor
from keras_vae.integrations.export.formats.base import InputDtype
from keras_vae.networks import convolutions

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

CONVOLUTIONS = {
    keras.saving.get_registered_name(layer) for layer in (convolutions.Conv2D, convolutions.Conv2DTranspose)
}
"""Layers that compute the same functions as those of Keras."""

THRESHOLD = 0.5
"""Threshold that replaces random binarization, because graphs are deterministic."""


class Graphs(NamedTuple):
    """Graphs of a model.

    Args:
        networks: Functional Keras models by name, with named inputs and outputs.
        code_output: Name of the output of `encoder` that is the input of `decoder`.
        omitted: Reasons for missing graphs, by name.
    """

    networks: dict[str, keras.Model]
    code_output: str
    omitted: dict[str, str]


def trace(model: "BaseVAE", input_dtype: InputDtype = "uint8") -> Graphs:
    """Trace a model into deterministic graphs.

    `encoder` maps images to the moments of q(z|x), and `decoder` maps z to the mean images of p(x|z), in [0, 1]. Codes
    have the shape `model.latent_shape`; images have the size for which the model was built.
    `reconstruct` maps images to the mean images of the posterior means. `sampler` transforms noise, which the caller
    draws from N(0, I), into samples from the prior, and returns their mean images. Graphs of conditional models have
    the condition as another input.

    Args:
        model: A model that has been built.
        input_dtype: The dtype of input images: `"uint8"`, levels 0…255, or `"float32"`, in [0, 1].

    Raises:
        InputError: The model has not been built.
        RunError: A component of the model cannot be traced.

    Example:
        >>> from keras_vae import VAE
        >>> graphs = trace(VAE(seed=0))
        >>> graphs.networks["encoder"].output["z_mean"].shape
        (None, 2)
    """
    if not model.built:
        raise InputError("model: not built; fit it first, or call build((None, H, W, C))")
    inputs = symbolic_inputs(model, input_dtype)
    images, conditions = inputs["images"], {name: value for name, value in inputs.items() if name != "images"}
    noise = keras.Input(model.latent_shape, name="noise")
    networks, omitted = dict[str, keras.Model](), dict[str, str]()

    def add(name: str, inputs: Tensor, **outputs: Tensor) -> None:
        networks[name] = _to_plain_keras(keras.Model({inputs.name: inputs, **conditions}, outputs, name=name))

    with wrap_errors():
        condition = None if model.condition is None else model.condition.encode(conditions["condition"])
        codes = model.encode_tensors({"images": images, **conditions, "pixel_noise": THRESHOLD})
        code_output, code = next(iter(codes.items()))
        z = keras.Input(code.shape[1:], dtype=code.dtype, name=model.code_name)
        add("encoder", images, **codes)
        add("decoder", z, mean_images=model.decode_tensors(z, condition))
        add("reconstruct", images, mean_images=model.decode_tensors(code, condition))
        try:
            add("sampler", noise, mean_images=model.generate_from_noise(noise, condition))
        except InputError as error:
            omitted["sampler"] = str(error)
    return Graphs(networks, code_output, omitted)


def symbolic_inputs(model: "BaseVAE", input_dtype: InputDtype) -> dict[str, Tensor]:
    """Return symbolic `images` and, for a conditional model, their `condition`.

    Args:
        model: A model that has been built.
        input_dtype: The dtype of the images.
    """
    inputs = {"images": keras.Input(model.image_shape, dtype=input_dtype, name="images")}
    if model.condition is not None:
        inputs["condition"] = keras.Input(model.condition.value_shape, dtype=model.condition.dtype, name="condition")
    return inputs


def _to_plain_keras(network: keras.Model) -> keras.Model:
    """Return a copy that uses only layers of Keras.

    Weights that were read during tracing become NumPy arrays, because TensorFlow would treat tensors as inputs.
    """

    def convert(config: Any) -> Any:
        if isinstance(config, list | tuple):
            return type(config)(map(convert, config))
        if not isinstance(config, dict):
            return config
        if config.get("registered_name") in CONVOLUTIONS:
            config = {**config, "module": "keras.layers", "registered_name": None}
        if config.get("class_name") != "__tensor__":
            return {key: convert(value) for key, value in config.items()}
        value = config["config"]["value"]
        return {**config, "class_name": "__numpy__"} if isinstance(value, list) else value

    copy = type(network).from_config(convert(network.get_config()))
    copy.set_weights(network.get_weights())
    return copy


@contextlib.contextmanager
def wrap_errors() -> Iterator[None]:
    """Convert errors of components that do not accept symbolic tensors to a one-line `RunError`."""
    try:
        yield
    except Exception as error:
        raise RunError(
            f"model: cannot be traced ({first_line(error)}); use only Keras operations in its components"
        ) from error


def in_float32(model: "BaseVAE") -> "BaseVAE":
    """Return the model itself if it computes in float32, or a float32 copy of a mixed-precision model.

    Some runtimes lack kernels for other precisions. Weights are float32 under every policy.

    Args:
        model: A model that has been built.
    """
    if all(layer.compute_dtype == "float32" for layer in model._flatten_layers()):
        return model
    copy = type(model).from_config(model.get_config())
    if not copy.built:
        copy.build((None, *model.image_shape))
    copy.set_weights(model.get_weights())
    for layer in copy._flatten_layers():
        layer.dtype_policy = "float32"
    return copy
