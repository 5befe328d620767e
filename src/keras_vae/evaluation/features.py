"""What turns images into the vectors by which sets of images are compared."""

import hashlib
import math
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from keras_vae.core import backend
from keras_vae.core.errors import InputError, RunError, unknown
from keras_vae.core.files import replacing
from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array, ImageShape, Tensor
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.models.batching import fitting_batch_size

Name = Literal["classifier", "random", "inception"]

CACHE_VARIABLE = "KERAS_VAE_CACHE"
RECIPE = 1
"""The version of the classifier's network, training and file: a change of any is a new number."""

DIMENSIONS = 128
"""Features of the house's own network."""

_WIDTHS = (16, 32, 64, 96)
_KERNEL, _LARGEST_SIDE, _SMALLEST_SIDE = 5, 64, 7
_BATCH, _EPOCHS, _FEWEST_STEPS, _LEARNING_RATE = 128, 3, 200, 3e-3
_INCEPTION_SIDE = 299


@dataclass(frozen=True, eq=False)
class Features:
    """A fixed network that turns images into vectors.

    Args:
        name: `"classifier"`, `"random"` or `"inception"`.
        network: uint8 images (N, H, W, C) → vectors (N, F).
        details: What a record says about it besides its name, size and weights.
        notes: One line on each thing that did not go as usual.
    """

    name: Name
    network: keras.Model
    details: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def describe(self) -> dict[str, Any]:
        """Return what tells these features from others; those of equal `checksum` have equal weights."""
        return {
            "name": self.name,
            "dimensions": int(self.network.output_shape[-1]),
            "checksum": _checksum(self.network.get_weights()),
            **self.details,
        }

    def __call__(
        self, images: NDArray[np.uint8], progress: Progress = silent, label: str = "features"
    ) -> NDArray[np.float32]:
        """Return the vectors of images.

        Args:
            images: uint8 levels 0..255, (N, H, W, C).
            progress: Shown meanwhile.
            label: What the progress is called.

        Returns:
            (N, F), float32.
        """
        # What a network holds at a time grows with the size that it works on.
        side = _INCEPTION_SIDE if self.name == "inception" else 0
        size = fitting_batch_size(tuple(max(side, length) for length in images.shape[1:3]))
        return np.concatenate(
            [
                keras.ops.convert_to_numpy(self.network.predict_on_batch(images[start : start + size]))
                for start in progress(range(0, len(images), size), label)
            ]
        )


def choose(name: str | None, splits: Splits, *, seed: int = 0, progress: Progress = silent) -> Features:
    """Return features by name.

    Args:
        name: `"classifier"`, trained on the data's own labels; `"random"`, a network of fixed random weights;
            `"inception"`, Keras's InceptionV3. None takes the classifier where there are labels of two classes or
            more, else the random network.
        splits: Where the images that are to be compared come from.
        seed: Fixes the classifier's training, or the random weights.
        progress: Shown while the classifier learns.

    Raises:
        InputError: There is no such name, or a classifier is asked for where there is nothing to tell apart.
        RunError: The weights of InceptionV3 are not to be had.
    """
    if name is None:
        name = "classifier" if _classes(splits.train) > 1 else "random"
    if name == "classifier":
        return classifier(splits, seed=seed, progress=progress)
    if name == "random":
        return random(splits.train.image_shape, seed=seed)
    if name == "inception":
        return inception(splits.train.image_shape)
    raise unknown("features", name, get_args(Name))


def random(image_shape: ImageShape, *, seed: int = 0) -> Features:
    """Return a convolutional network of random weights, equal on every backend.

    Random convolutions keep enough of an image's structure to compare sets of images by, without labels and without
    weights from elsewhere (Naeem et al., arXiv 2002.09797, use them so).

    Args:
        image_shape: (H, W, C).
        seed: Fixes the weights.

    Example:
        >>> random((9, 11, 3))(np.zeros((2, 9, 11, 3), np.uint8)).shape
        (2, 128)
    """
    return Features("random", _body(_network(image_shape, 1, seed)), {"seed": seed})


def inception(image_shape: ImageShape, *, side: int = _INCEPTION_SIDE) -> Features:
    """Return the pooled features of Keras's InceptionV3, trained on ImageNet (Szegedy et al., arXiv 1512.00567).

    Images are resized to `side` × `side`, bilinearly, and gray is repeated to RGB. The weights are Keras's: distances
    compare with each other, and not with published ones, which come from weights of another origin.

    Args:
        image_shape: (H, W, C).
        side: Height and width in pixels at which the network sees the images, at least 75.

    Raises:
        RunError: The weights are neither in Keras's cache nor to be downloaded.
    """
    try:
        network = keras.applications.InceptionV3(
            include_top=False, weights="imagenet", pooling="avg", input_shape=(side, side, 3)
        )
    # Keras raises a bare Exception for a failed download.
    except Exception as error:
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise RunError(
            f"features = inception: the weights of InceptionV3 could not be loaded: {reason}. Go on with features ="
            " classifier or features = random, which need no download"
        ) from error
    inputs = layers.Input(image_shape, dtype="uint8")
    units = layers.Rescaling(1 / 127.5, offset=-1.0, dtype="float32")(inputs)
    resized = layers.Resizing(side, side, interpolation="bilinear", antialias=True, dtype="float32")(units)
    colored = layers.Concatenate()([resized] * 3) if image_shape[-1] == 1 else resized
    return Features(
        "inception", _model(inputs, network(colored, training=False)), {"side": side, "weights": "imagenet (Keras)"}
    )


def classifier(splits: Splits, *, seed: int = 0, progress: Progress = silent) -> Features:
    """Return the last hidden layer of a small convolutional classifier that learnt the data's own labels.

    It learns from all images but those that models are judged on, in an order of its own, so that runs whose
    validation images differ share one classifier; where nothing was held out a tenth is, for its accuracy. Its
    weights are kept in `cache_folder()`.

    Args:
        splits: Images with labels.
        seed: Fixes its first weights and the order of the images.
        progress: Shown while it learns.

    Raises:
        InputError: There are no labels, or all are the same.
    """
    learnt, labels, judged = _pools(splits, seed)
    names, targets = np.unique(labels, return_inverse=True)
    network = _network(learnt.image_shape, len(names), seed)
    path = cache_folder() / f"classifier-{_key(learnt, seed)}.npz"
    found = path.exists()
    notes: tuple[str, ...] = ()
    if not (found and _restore(network, path)):
        _train(network, learnt.images, targets, seed, progress)
        damaged = ("the classifier kept from an earlier evaluation was damaged, and was trained anew",)
        notes = (*(damaged if found else ()), *_keep(network, path))
    accuracy = None
    if judged.labels is not None:
        logits = Features("classifier", network)(judged.images, progress, "accuracy of the classifier")
        accuracy = float((names[logits.argmax(axis=1)] == judged.labels).mean())
    details = {
        "seed": seed,
        "recipe": RECIPE,
        "training_images": len(learnt),
        "accuracy": accuracy,
        "accuracy_images": len(judged),
        "accuracy_split": judged.split,
    }
    return Features("classifier", _body(network), details, notes)


def cache_folder() -> Path:
    """Return where what was worked out once is kept: `$KERAS_VAE_CACHE`, else `~/.cache/keras-vae`."""
    value = os.environ.get(CACHE_VARIABLE)
    return Path(value or os.path.join("~", ".cache", "keras-vae")).expanduser()


def _classes(dataset: Dataset) -> int:
    return 0 if dataset.labels is None else len(np.unique(dataset.labels))


def _pools(splits: Splits, seed: int) -> tuple[Dataset, NDArray[np.int64], Dataset]:
    """Return the images that the classifier learns from, their labels, and the images that judge its accuracy."""
    judged = splits.held_out
    labeled = [(part, part.labels) for part in splits if part is not None and part is not judged]
    images = np.concatenate([part.images for part, _ in labeled])
    labels = np.concatenate([labels for _, labels in labeled if labels is not None] or [np.zeros(0, np.int64)])
    if len(labels) < len(images) or len(np.unique(labels)) < 2:
        raise InputError(
            f"features = classifier: {splits.train.name} has no labels of two classes or more; take features = random"
        )
    # The same images are the same pool, whichever seed divided them.
    pairs = zip(images, labels, strict=True)
    digests = [hashlib.sha256(image.tobytes() + label.tobytes()).digest() for image, label in pairs]
    order = np.array(sorted(range(len(digests)), key=digests.__getitem__))
    pool = Dataset(images[order], labels[order], splits.train.name, splits.train.split)
    if judged is not None:
        return pool, labels[order], judged
    shuffled = np.random.default_rng(seed).permutation(len(pool))
    kept_back, learnt = np.split(shuffled, [max(1, len(pool) // 10)])
    return pool.subset(learnt, pool.split), labels[order][learnt], pool.subset(kept_back, pool.split)


def _network(image_shape: ImageShape, classes: int, seed: int) -> keras.Model:
    """Return a convolutional classifier for images of any size, its weights from NumPy (He et al., arXiv 1502.01852).

    Halvings go on until the longer side is at most 7. Images above 64 pixels start with a convolution whose stride
    brings them to 64 or below, so that the work stays within bounds.
    """
    side = max(image_shape[:2])
    inputs = layers.Input(image_shape, dtype="uint8")
    maps = layers.Rescaling(1 / 255, dtype="float32")(inputs)
    if side > _LARGEST_SIDE:
        stride = 2 ** math.ceil(math.log2(side / _LARGEST_SIDE))
        maps, side = _convolution(maps, _WIDTHS[0], stride + 1, stride), math.ceil(side / stride)
    halvings = max(1, math.ceil(math.log2(side / _SMALLEST_SIDE)))
    for index in range(halvings):
        maps = _convolution(maps, _WIDTHS[min(index, len(_WIDTHS) - 1)], _KERNEL, 1)
        maps = layers.MaxPooling2D(2, padding="same", dtype="float32")(maps)
    hidden = layers.Dense(DIMENSIONS, "relu", dtype="float32", kernel_initializer="zeros", name="features")(
        layers.Flatten()(maps)
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
        width, kernel, stride, padding="same", activation="relu", kernel_initializer="zeros", dtype="float32"
    )
    return layer(maps)


def _body(network: keras.Model) -> keras.Model:
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
    steps = max(_FEWEST_STEPS, _EPOCHS * len(images) // size)
    rng = np.random.default_rng([seed, 1])
    epochs = [rng.permutation(len(images)) for _ in range(math.ceil(steps * size / len(images)))]
    batches = np.concatenate(epochs)[: steps * size].reshape(steps, size)
    network.compile(
        optimizer=keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(_LEARNING_RATE, steps)),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    for chosen in progress(list(batches), "training the classifier of the features"):
        network.train_on_batch(images[chosen], targets[chosen].astype("int32"))


def _key(dataset: Dataset, seed: int) -> str:
    text = f"{dataset.checksum} seed {seed} recipe {RECIPE}"
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def _checksum(weights: Sequence[Array]) -> str:
    digest = hashlib.sha256()
    for weight in weights:
        digest.update(repr(weight.shape).encode())
        digest.update(np.ascontiguousarray(weight, dtype="<f4").data)
    return digest.hexdigest()


def _keep(network: keras.Model, path: Path) -> tuple[str, ...]:
    """Write the weights to a file; return a line if that failed, which is no reason to fail the measurement."""
    weights = network.get_weights()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            np.savez(temporary, *weights, checksum=np.array(_checksum(weights)))
    except OSError as error:
        return (f"the classifier could not be kept in {path.parent}: {error.strerror or error}",)
    return ()


def _restore(network: keras.Model, path: Path) -> bool:
    """Set the weights to those of a file; return whether it held them, whole."""
    try:
        with np.load(path, allow_pickle=False) as file:
            weights = [file[f"arr_{index}"] for index in range(len(network.weights))]
            if str(file["checksum"]) != _checksum(weights):
                return False
        network.set_weights(weights)
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile):
        return False
    return True
