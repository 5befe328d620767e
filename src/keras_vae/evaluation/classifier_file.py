"""A file of our own classifier, in whose layers the perceptual loss can compare images."""

import os
from pathlib import Path

import keras
from keras import layers

from keras_vae.core.errors import InputError
from keras_vae.core.files import replacing, to_path
from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.features import classifier_features


def save_classifier(
    path: str | os.PathLike[str], splits: Splits, *, seed: int = 0, progress: Progress = silent
) -> Path:
    """Train a classifier on the labels of the data, and write its convolutions to a file for the perceptual loss.

    The file contains a network from images (N, H, W, C) in [0, 1] to the maps of all convolutions. The classifier is
    that of `classifier_features`, which is not trained on held-out images.

    Args:
        path: The `.keras` file to write; an existing file is replaced.
        splits: Images with labels.
        seed: Fixes the initial weights and the order of the images.
        progress: Shows the progress of the training.

    Returns:
        The path, for `Perceptual(features=…)` or `image_losses = [{ name = "perceptual", features = … }]`.

    Raises:
        InputError: The name does not end in `.keras`, or the classifier cannot be trained on these images.
    """
    file = to_path(path)
    if file.suffix != ".keras":
        raise InputError(f"path = {file}: unknown format; choose a name that ends in .keras")
    network = classifier_features(splits, seed=seed, progress=progress).network
    maps = inputs = layers.Input((None, None, splits.train.image_shape[-1]), dtype="float32")
    outputs = []
    for layer in network.layers:
        if isinstance(layer, layers.Conv2D | layers.MaxPooling2D):
            maps = layer(maps)
            outputs += [maps] if isinstance(layer, layers.Conv2D) else []
    with replacing(file) as temporary:
        keras.Model(inputs, outputs).save(temporary)
    return file
