"""Feature networks, which turn images into the vectors that sample metrics compare."""

import hashlib
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from keras_vae.core import backend, tracing
from keras_vae.core.errors import InputError, RunError, unknown
from keras_vae.core.files import cache_folder, replacing
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array, ImageShape, Tensor
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.models.batching import fitting_batch_size

Name = Literal["classifier", "random", "inception"]

RECIPE = 2
"""Version of the classifier: increment it when its network, its training or its file format changes."""

DIMENSIONS = 128
"""Number of features of the classifier and of the random network."""

_WIDTHS = (16, 32, 64, 96)
_KERNEL, _MAX_SIDE, _MIN_SIDE = 5, 64, 7
_BATCH, _EPOCHS, _MIN_STEPS, _LEARNING_RATE = 128, 3, 200, 3e-3
_INCEPTION_SIDE = 299


@dataclass(frozen=True, eq=False)
class Features:
    """A fixed network that turns images into vectors.

    Args:
        name: `"classifier"`, `"random"` or `"inception"`.
        network: uint8 images (N, H, W, C) → vectors (N, F).
        details: Further entries of `describe`, besides name, size and weights.
        notes: One line per problem that occurred.
        reserved: Training images that the network was not trained on, uint8 (R, H, W, C), for comparisons with other
            images; None if the network was trained on none of the images.
    """

    name: Name
    network: keras.Model
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    reserved: NDArray[np.uint8] | None = None

    def describe(self) -> dict[str, Any]:
        """Return a record that identifies these features; equal checksums mean equal weights."""
        return {
            "name": self.name,
            "dimensions": int(self.network.output_shape[-1]),
            "checksum": _checksum(self.network.get_weights()),
            **self.details,
        }

    def __call__(
        self, images: NDArray[np.uint8], progress: Progress = silent, label: str = "features"
    ) -> NDArray[np.float32]:
        """Return the feature vectors of images.

        Args:
            images: uint8 images (N, H, W, C).
            progress: Shows the progress over batches.
            label: The label of the progress.

        Returns:
            (N, F), float32.
        """
        # The memory of a network grows with the size of the images that it processes.
        side = _INCEPTION_SIDE if self.name == "inception" else 0
        size = fitting_batch_size(tuple(max(side, length) for length in images.shape[1:3]))
        return np.concatenate(
            [
                keras.ops.convert_to_numpy(tracing.predict_on_batch(self.network, images[start : start + size]))
                for start in progress(range(0, len(images), size), label)
            ]
        )


def load_features(name: str | None, splits: Splits, *, seed: int = 0, progress: Progress = silent) -> Features:
    """Return the features with the given name.

    Args:
        name: `"classifier"`, trained on the labels of the data; `"random"`, a network with fixed random weights;
            `"inception"`, InceptionV3 of Keras. None selects the classifier if it can be trained, else the random
            network.
        splits: The images to compare.
        seed: Fixes the training of the classifier, or the random weights.
        progress: Shows the progress of training the classifier.

    Raises:
        InputError: The name is unknown, or the images have no labels of two or more classes for a classifier, or too
            few images are left to train it on.
        RunError: The weights of InceptionV3 are not available.
    """
    if name is None:
        return _default_features(splits, seed, progress)
    if name == "classifier":
        return classifier_features(splits, seed=seed, progress=progress)
    if name == "random":
        return random_features(splits.train.image_shape, seed=seed)
    if name == "inception":
        return inception_features(splits.train.image_shape)
    raise unknown("features", name, get_args(Name))


def random_features(image_shape: ImageShape, *, seed: int = 0) -> Features:
    """Return a convolutional network with random weights, the same on every backend.

    Random convolutions preserve enough structure of an image to compare sets of images, without labels or downloaded
    weights (as in Naeem et al., arXiv 2002.09797).

    Args:
        image_shape: (H, W, C).
        seed: Fixes the weights.

    Example:
        >>> random_features((9, 11, 3))(np.zeros((2, 9, 11, 3), np.uint8)).shape
        (2, 128)
    """
    return Features("random", _feature_layers(_network(image_shape, 1, seed)), {"seed": seed})


def inception_features(image_shape: ImageShape, *, side: int = _INCEPTION_SIDE) -> Features:
    """Return the pooled features of Keras's InceptionV3, trained on ImageNet (Szegedy et al., arXiv 1512.00567).

    Images are resized bilinearly to `side` × `side`, and gray images are repeated to RGB. The weights are those of
    Keras. Distances are comparable with each other, but not with published ones, which use other weights.

    Args:
        image_shape: (H, W, C).
        side: Height and width of the resized images, at least 75.

    Raises:
        RunError: The weights are not in the cache of Keras and cannot be downloaded.
    """
    try:
        network = keras.applications.InceptionV3(
            include_top=False, weights="imagenet", pooling="avg", input_shape=(side, side, 3)
        )
    # Keras raises a bare Exception for a failed download.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RunError(
            f"features = inception: the weights of InceptionV3 could not be loaded ({reason}); use features ="
            " classifier or features = random, which need no download"
        ) from error
    inputs = layers.Input(image_shape, dtype="uint8")
    units = layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32")(inputs)
    resized = layers.Resizing(side, side, interpolation="bilinear", antialias=True, dtype="float32")(units)
    colored = layers.Concatenate()([resized] * 3) if image_shape[-1] == 1 else resized
    return Features(
        "inception", _model(inputs, network(colored, training=False)), {"side": side, "weights": "imagenet (Keras)"}
    )


def classifier_features(splits: Splits, *, seed: int = 0, progress: Progress = silent) -> Features:
    """Return the last hidden layer of a small convolutional classifier, trained on the labels of the data.

    A classifier separates the images that it was trained on better than new ones, so their features have another
    distribution. It is therefore trained neither on the held-out images nor on as many `reserved` training images,
    at most half of them, which are compared with the held-out images. The reserved images and the order of the others
    depend only on the images, so that runs with different validation images share one classifier. If no images were
    held out, half of the images are reserved, and measure its accuracy. The weights are cached in `cache_folder()`.

    Args:
        splits: Images with labels.
        seed: Fixes the initial weights and the order of the images.
        progress: Shows the progress of the training.

    Raises:
        InputError: There are no labels, or all are the same, or too few images are left to train on.
    """
    train, reserved = _divide_training_images(splits)
    test = splits.held_out or reserved
    labels = np.asarray(train.labels)
    names, targets = np.unique(labels, return_inverse=True)
    network = _network(train.image_shape, len(names), seed)
    path = cache_folder() / f"classifier-{_cache_key(train, seed)}.npz"
    is_cached = path.exists()
    notes: tuple[str, ...] = ()
    if not (is_cached and _restore_weights(network, path)):
        _train(network, train.images, targets, seed, progress)
        damaged = ("the cached classifier was damaged and has been trained again",)
        notes = (*(damaged if is_cached else ()), *_cache_weights(network, path))
    accuracy = None
    if test.labels is not None:
        logits = Features("classifier", network)(test.images, progress, "accuracy of the classifier")
        accuracy = float((names[logits.argmax(axis=1)] == test.labels).mean())
    details = {
        "seed": seed,
        "recipe": RECIPE,
        "training_images": len(train),
        "accuracy": accuracy,
        "accuracy_images": len(test),
        "accuracy_split": test.split,
    }
    return Features("classifier", _feature_layers(network), details, notes, reserved.images)


def _default_features(splits: Splits, seed: int, progress: Progress) -> Features:
    """Return the classifier's features if it can be trained, else those of the random network."""
    try:
        return classifier_features(splits, seed=seed, progress=progress)
    except InputError as error:
        chosen = random_features(splits.train.image_shape, seed=seed)
        # Without labels, there is no classifier to expect.
        return chosen if _num_classes(splits.train) < 2 else replace(chosen, notes=(f"{error}, as was done here",))


def _num_classes(dataset: Dataset) -> int:
    return 0 if dataset.labels is None else len(np.unique(dataset.labels))


def _divide_training_images(splits: Splits) -> tuple[Dataset, Dataset]:
    """Return the images to train the classifier on, and the reserved ones; copies of compared images are in neither."""
    held_out = splits.held_out
    validation = None if splits.validation is held_out else splits.validation
    parts = [part for part in (splits.train, validation) if part is not None]
    images = np.concatenate([part.images for part in parts])
    labeled = [part.labels for part in parts if part.labels is not None]
    labels = np.concatenate(labeled or [np.zeros(0, np.int64)])
    if len(labels) < len(images) or len(np.unique(labels)) < 2:
        raise InputError(
            f"features = classifier: {splits.train.name} has no labels of two or more classes; use features = random"
        )
    # Sorted by digest, the same images give the same order, regardless of the seed that split them.
    digests = _digests(images)
    order = np.array(sorted(range(len(images)), key=lambda index: (digests[index], labels[index])))
    count = len(images) // 2 if held_out is None else min(len(held_out), len(images) // 2)
    reserved, rest = order[:count], order[count:]
    compared = {digests[index] for index in reserved} | set(() if held_out is None else _digests(held_out.images))
    rest = np.array([index for index in rest if digests[index] not in compared], np.intp)
    if len(np.unique(labels[rest])) < 2:
        raise InputError(
            f"features = classifier: {splits.train.name} has too few training images besides the compared ones; use "
            "features = random"
        )
    pool = Dataset(images, labels, splits.train.name, splits.train.split)
    return pool.subset(rest, pool.split), pool.subset(reserved, pool.split)


def _digests(images: NDArray[np.uint8]) -> list[bytes]:
    return [hashlib.sha256(image.tobytes()).digest() for image in images]


def _network(image_shape: ImageShape, classes: int, seed: int) -> keras.Model:
    """Return a convolutional classifier for images of any size, initialized by NumPy (He et al., arXiv 1502.01852).

    Images are halved until the longer side is at most 7 pixels. Images above 64 pixels start with a strided convolution
    that reduces them to 64 pixels or less, which bounds the cost.
    """
    side = max(image_shape[:2])
    inputs = layers.Input(image_shape, dtype="uint8")
    maps = layers.Rescaling(1 / 255, dtype="float32")(inputs)
    if side > _MAX_SIDE:
        stride = 2 ** math.ceil(math.log2(side / _MAX_SIDE))
        maps, side = _convolution(maps, _WIDTHS[0], stride + 1, stride), math.ceil(side / stride)
    halvings = max(1, math.ceil(math.log2(side / _MIN_SIDE)))
    for index in range(halvings):
        maps = _convolution(maps, _WIDTHS[min(index, len(_WIDTHS) - 1)], _KERNEL, 1)
        maps = layers.MaxPooling2D(2, padding="same", data_format="channels_last", dtype="float32")(maps)
    hidden = layers.Dense(DIMENSIONS, "relu", dtype="float32", kernel_initializer="zeros", name="features")(
        layers.Flatten(data_format="channels_last")(maps)
    )
    model = _model(inputs, layers.Dense(classes, dtype="float32", kernel_initializer="zeros")(hidden))
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        fan_in = math.prod(weight.shape[:-1])
        normal = rng.standard_normal(weight.shape, dtype="float32") * math.sqrt(2 / fan_in)
        weight.assign(normal if len(weight.shape) > 1 else np.zeros(weight.shape, "float32"))
    return model


def _convolution(maps: Tensor, width: int, kernel: int, stride: int) -> Tensor:
    layer = layers.Conv2D(
        width,
        kernel,
        stride,
        padding="same",
        data_format="channels_last",
        activation="relu",
        kernel_initializer="zeros",
        dtype="float32",
    )
    return layer(maps)


def _feature_layers(network: keras.Model) -> keras.Model:
    return _model(network.input, network.get_layer("features").output)


def _model(inputs: Tensor, outputs: Tensor) -> keras.Model:
    model = keras.Model(inputs, outputs)
    if backend.runs_faster_without_xla():
        model.supports_jit = False
    return model


def _train(
    network: keras.Model, images: NDArray[np.uint8], targets: NDArray[np.integer], seed: int, progress: Progress
) -> None:
    size = min(_BATCH, len(images))
    steps = max(_MIN_STEPS, _EPOCHS * len(images) // size)
    rng = np.random.default_rng([seed, 1])
    epochs = [rng.permutation(len(images)) for _ in range(math.ceil(steps * size / len(images)))]
    batches = np.concatenate(epochs)[: steps * size].reshape(steps, size)
    # The size of a batch may not be a multiple of the number of devices, on which cached weights must not depend.
    with backend.distributed(1):
        trained = _network(network.input_shape[1:], network.output_shape[-1], seed)
        trained.compile(
            optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )
        for batch in progress(list(batches), "training the feature classifier"):
            trained.train_on_batch(images[batch], targets[batch].astype("int32"))
    network.set_weights(trained.get_weights())


def _cache_key(dataset: Dataset, seed: int) -> str:
    text = f"{dataset.checksum} seed {seed} recipe {RECIPE}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _checksum(weights: Sequence[Array]) -> str:
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(repr(weight.shape).encode())
        digest.update(np.ascontiguousarray(weight, dtype="<f4").data)
    return digest.hexdigest()


def _cache_weights(network: keras.Model, path: Path) -> tuple[str, ...]:
    """Write the weights to a file. Return a note if that fails, which does not fail the evaluation."""
    weights = network.get_weights()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, *weights, checksum=np.array(_checksum(weights)))
    except OSError as error:
        return (f"the classifier could not be cached in {path.parent}: {error.strerror or error}",)
    return ()


def _restore_weights(network: keras.Model, path: Path) -> bool:
    """Load the weights from a file, and return whether the file is intact."""
    try:
        with np.load(path, allow_pickle=False) as file:
            weights = [file[f"arr_{index}"] for index in range(len(network.weights))]
            if str(file["checksum"]) != _checksum(weights):
                return False
        network.set_weights(weights)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return False
    return True
