"""Fixed networks that map images to maps of features, in which images are compared as people perceive them."""

import contextlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_vae.core.errors import InputError, RunError, first_line, shown, unknown
from keras_vae.core.files import to_path
from keras_vae.core.typing import Tensor

IMAGENET, RANDOM = "imagenet", "random"

MIN_SIDE = 32
"""Smallest height and width of the images of networks of `keras.applications`, which Keras documents."""

DEFAULT_LAYERS = {
    "VGG16": ("block1_conv2", "block2_conv2", "block3_conv3", "block4_conv3", "block5_conv3"),
    "VGG19": ("block1_conv2", "block2_conv2", "block3_conv4", "block4_conv4", "block5_conv4"),
}
"""The last convolution of each block: of VGG16, the five layers of LPIPS."""

_RANDOM_WIDTHS = (16, 32, 64, 64)
_EPSILON = 1e-10


def load_feature_network(
    features: str, *, network: str = "VGG16", layer_names: Sequence[str] = (), seed: int = 0
) -> keras.Model:
    """Return a fixed network: images (N, H, W, 3) in [0, 1] → a list of maps (N, h, w, F), for any H and W.

    Args:
        features: `"imagenet"`, `"random"`, or the path of a file; see `Perceptual`.
        network: Name of a network of `keras.applications`, for `"imagenet"` and files of its weights.
        layer_names: Its layers; by default those of `DEFAULT_LAYERS`.
        seed: Seed of the random weights.

    Returns:
        The network, whose weights are not trainable. The network of a `.keras` file may take other channels and sizes.

    Raises:
        InputError: There is no such file, network or layer.
        RunError: Keras cannot load the weights of ImageNet.
    """
    with _keras_defaults():
        if features == RANDOM:
            loaded = _random_network(seed)
        elif features.endswith(".keras"):
            loaded = _read_network(_existing(features))
        else:
            weights = features if features == IMAGENET else str(_existing(features))
            loaded = _application(network, weights, layer_names)
    loaded.trainable = False
    return loaded


def check_feature_settings(features: str, network: str, layer_names: Sequence[str]) -> None:
    """Reject the name of a network or file that cannot exist.

    Args:
        features: As for `load_feature_network`, like the other arguments.
        network: Name of a network.
        layer_names: Names of its layers.

    Raises:
        InputError: A setting is invalid.
    """
    if features not in (IMAGENET, RANDOM) and not features.endswith((".keras", ".h5")):
        raise InputError(
            f"features = {shown(features)}: not a network; pass imagenet, random, a .weights.h5 file with weights of "
            f"{network}, or a .keras file"
        )
    if not isinstance(getattr(keras.applications, network, None), type(keras.applications.VGG16)):
        raise unknown("network", network, DEFAULT_LAYERS)
    if is_application(features) and not layer_names and network not in DEFAULT_LAYERS:
        raise InputError(f"layer_names = []: {network} has no default layers; name the layers to compare")


def is_application(features: str) -> bool:
    """Return whether features are those of a network of `keras.applications`."""
    return features != RANDOM and not features.endswith(".keras")


def is_downloaded(network: str) -> bool:
    """Return whether the weights of ImageNet of a network, without its top, are in the cache of Keras."""
    folder = to_path(os.environ.get("KERAS_HOME") or "~/.keras") / "models"
    return any(folder.glob(f"{network.lower()}_weights*notop*.h5"))


def feature_maps(network: keras.Model, images: Tensor, upsample: int = 1) -> list[Tensor]:
    """Return the maps of features of images.

    Args:
        network: A network, as `load_feature_network` returns it.
        images: (N, H, W, C) in [0, 1]. Gray images are repeated to three channels, if the network takes three.
        upsample: Factor by which each pixel is repeated in both directions.

    Returns:
        Maps (N, h, w, F).
    """
    if images.shape[-1] == 1 and network.input_shape[-1] != 1:
        images = ops.repeat(images, 3, axis=-1)
    if upsample > 1:
        images = ops.repeat(ops.repeat(images, upsample, axis=1), upsample, axis=2)
    maps = network(images, training=False)
    return list(maps) if isinstance(maps, list | tuple) else [maps]


def perceptual_distance(maps: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
    r"""Return the distance between images, given their maps of features.

    \(\sum_l \operatorname{mean}_{p} \|\hat f_{lp} - \hat g_{lp}\|^2\), with the vectors of features at position p of
    layer l normalized to length 1, as LPIPS (Zhang et al., arXiv 1801.03924) without its learned weights of channels.

    Args:
        maps: One map (N, h, w, F) per layer.
        others: The same for other images.

    Returns:
        (N,), from 0 to four times the number of layers.
    """
    squares = (ops.square(_normalize(one) - _normalize(other)) for one, other in zip(maps, others, strict=True))
    return sum((ops.mean(ops.sum(square, axis=-1), axis=(1, 2)) for square in squares), start=0.0)


def _normalize(maps: Tensor) -> Tensor:
    # Inside of the root, the constant bounds the gradient where all features are 0.
    return maps * ops.rsqrt(ops.sum(ops.square(maps), axis=-1, keepdims=True) + _EPSILON)


def _existing(features: str) -> Path:
    path = to_path(features)
    if not path.is_file():
        raise InputError(f"features = {features}: no such file; pass a file with weights, imagenet or random")
    return path


def _application(name: str, weights: str, layer_names: Sequence[str]) -> keras.Model:
    """Return a network of `keras.applications` with its weights."""
    create = getattr(keras.applications, name)
    try:
        model = create(include_top=False, weights=weights)
    # Keras raises a bare Exception for a failed download, and many kinds of errors for files of other weights.
    except Exception as error:
        reason = first_line(error)
        if weights != IMAGENET:
            raise InputError(
                f"features = {weights}: not the weights of {name} without its top ({reason}); pass another file or "
                "network"
            ) from error
        raise RunError(
            f"features = imagenet: the weights of {name} could not be loaded ({reason}); pass a local file with these "
            "weights, or features = random"
        ) from error
    names = tuple(layer_names) or DEFAULT_LAYERS[name]
    known = [layer.name for layer in model.layers]
    for layer in names:
        if layer not in known:
            raise unknown("layer_names", layer, known)
    inputs = layers.Input((None, None, 3), dtype="float32")
    # Each network expects its own range of values, or order of channels.
    preprocess = sys.modules[create.__module__].preprocess_input
    cut = keras.Model(model.input, [model.get_layer(layer).output for layer in names])
    return keras.Model(inputs, cut(preprocess(255.0 * inputs)))


def _read_network(path: Path) -> keras.Model:
    """Return the network of a `.keras` file."""
    try:
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:
        raise InputError(f"features = {path}: not a model of Keras ({first_line(error)}); pass another file") from error
    if len(model.inputs) != 1 or any(len(output.shape) != 4 for output in model.outputs):
        raise InputError(f"features = {path}: not a network from images to maps (N, h, w, F); pass another file")
    return model


def _random_network(seed: int) -> keras.Model:
    """Return four convolutions with random weights from NumPy (He et al., arXiv 1502.01852), each after a halving."""
    inputs = layers.Input((None, None, 3), dtype="float32")
    maps, outputs = layers.Rescaling(2.0, offset=-1.0)(inputs), []
    for index, width in enumerate(_RANDOM_WIDTHS):
        if index:
            maps = layers.AveragePooling2D(2, padding="same")(maps)
        maps = layers.Conv2D(width, 3, padding="same", activation="relu", kernel_initializer="zeros")(maps)
        outputs.append(maps)
    model, rng = keras.Model(inputs, outputs), np.random.default_rng(seed)
    for weight in model.weights:
        if len(weight.shape) > 1:
            deviation = math.sqrt(2 / math.prod(weight.shape[:-1]))
            weight.assign(deviation * rng.standard_normal(weight.shape, dtype="float32"))
    return model


@contextlib.contextmanager
def _keras_defaults() -> Iterator[None]:
    """Build networks in float32, with channels last, whatever the user has configured."""
    policy: Any = keras.config.dtype_policy()
    data_format = keras.config.image_data_format()
    keras.config.set_dtype_policy("float32")
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(policy)
        keras.config.set_image_data_format(data_format)
