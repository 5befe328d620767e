"""What is exported of a model: graphs of plain Keras operations, which draw nothing."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import keras

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Tensor
from keras_vae.networks import convolutions

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

Pixels = Literal["uint8", "float32"]

CONVOLUTIONS = {
    keras.saving.get_registered_name(layer) for layer in (convolutions.Conv2D, convolutions.Conv2DTranspose)
}
"""The layers that are Keras's own but for how they compute."""

THRESHOLD = 0.5
"""Where a likelihood that draws black or white for a gray pixel is cut in a graph, which draws nothing."""


class Graphs(NamedTuple):
    """What a model has to offer to other programs.

    Args:
        networks: Functional Keras models by name, from named inputs to named outputs.
        code: The output of `encoder` that `decoder` takes.
        left_out: Of what this model does not have, the reason, by name.
    """

    networks: dict[str, keras.Model]
    code: str
    left_out: dict[str, str]


def trace(model: "BaseVAE", pixels: Pixels = "uint8") -> Graphs:
    """Return the deterministic graphs of a model.

    `encoder`: images → the moments of q(z|x). `decoder`: z → the mean images of p(x|z), in [0, 1]. `reconstruct`:
    images → the mean images of the posterior means. `sampler`: noise, which the caller draws from N(0, I) → the mean
    images of the draws from the prior that it becomes. With a condition, each takes it as a further input.

    Args:
        model: A model whose sizes are known.
        pixels: The dtype of images: `"uint8"`, levels 0…255, or `"float32"`, in [0, 1].

    Raises:
        InputError: The model's sizes are not known.
        RunError: A part of it cannot be traced.

    Example:
        >>> from keras_vae import VAE
        >>> graphs = trace(VAE(seed=0))
        >>> graphs.networks["encoder"].output["z_mean"].shape
        (None, 2)
    """
    if not model.built:
        raise InputError("the model's sizes are not known yet: fit it first, or call build((None, H, W, C))")
    images = keras.Input(model.image_shape, dtype=pixels, name="images")
    noise = keras.Input((model.latent_dim,), name="noise")
    told: dict[str, Tensor] = {}
    if model.condition is not None:
        told["condition"] = keras.Input(model.condition.value_shape, dtype=model.condition.dtype, name="condition")
    networks, left_out = dict[str, keras.Model](), dict[str, str]()

    def add(name: str, inputs: Tensor, **outputs: Tensor) -> None:
        networks[name] = _plain(keras.Model({inputs.name: inputs, **told}, outputs, name=name))

    with _failure_said():
        condition = None if model.condition is None else model.condition.encode(told["condition"])
        codes = model.encode_tensors({"images": images, **told, "pixel_noise": THRESHOLD})
        code, first = next(iter(codes.items()))
        given = keras.Input(first.shape[1:], dtype=first.dtype, name=model.code_name)
        add("encoder", images, **codes)
        add("decoder", given, mean_images=model.decode_tensors(given, condition))
        add("reconstruct", images, mean_images=model.decode_tensors(first, condition))
        try:
            add("sampler", noise, mean_images=model.generate_from_noise(noise, condition))
        except InputError as error:
            left_out["sampler"] = str(error)
    return Graphs(networks, code, left_out)


def _plain(network: keras.Model) -> keras.Model:
    """Return a copy of Keras's own layers, in which weights that were read while it was traced are NumPy's.

    As tensors of the backend TensorFlow would take them for inputs of the graph.
    """

    def plain(config: Any) -> Any:
        if isinstance(config, list | tuple):
            return type(config)(map(plain, config))
        if not isinstance(config, dict):
            return config
        if config.get("registered_name") in CONVOLUTIONS:
            config = {**config, "module": "keras.layers", "registered_name": None}
        if config.get("class_name") != "__tensor__":
            return {key: plain(value) for key, value in config.items()}
        value = config["config"]["value"]
        return {**config, "class_name": "__numpy__"} if isinstance(value, list) else value

    copy = type(network).from_config(plain(network.get_config()))
    copy.set_weights(network.get_weights())
    return copy


@contextlib.contextmanager
def _failure_said() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        # Whatever a part stumbles over that was not written for symbolic tensors.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise RunError(f"a part of this model is not made of Keras operations alone: {reason}") from error


def in_float32(model: "BaseVAE") -> "BaseVAE":
    """Return a model that computes in float32 throughout: itself, or of one under mixed precision a copy.

    Runtimes for other processors lack kernels of other precisions, and the weights are float32 under every policy.

    Args:
        model: A model whose sizes are known.
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
