"""Feature networks: the classes that they distinguish, and their reproducibility."""

from pathlib import Path

import keras
import numpy as np
import pytest

from helpers import on_tensorflow
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.data import sources
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.evaluation import features
from keras_vae.evaluation.features import (
    Features,
    classifier_features,
    inception_features,
    load_features,
    random_features,
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cache classifiers in a temporary folder that does not exist yet, and train for a few steps only."""
    monkeypatch.setenv("KERAS_VAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(features, "_MIN_STEPS", 3)
    return tmp_path / "cache"


@pytest.fixture
def dark_and_bright() -> Dataset:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 60)
    images = rng.integers(0, 100, (60, 6, 7, 1)) + 150 * labels[:, None, None, None]
    # Labels need not be counted from 0 without gaps.
    return Dataset.from_arrays(images, labels * 5 + 2, name="frames")


@pytest.fixture
def splits(dark_and_bright: Dataset) -> Splits:
    return split(dark_and_bright, None, validation=10, test_size=20, holdout=True, seed=0)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of images of each training, which is left out: weights only change by a factor."""
    sizes: list[int] = []

    def counted(network: keras.Model, images: Array, *args: object) -> None:
        sizes.append(len(images))
        network.set_weights([1.5 * weight for weight in network.get_weights()])

    monkeypatch.setattr(features, "_train", counted)
    return sizes


def _numbers(shape: tuple[int, ...]) -> Array:
    return np.random.default_rng(1).integers(0, 256, shape, dtype="uint8")


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 3, 3), (9, 11, 1), (1, 40, 1), (130, 66, 3)])
def test_images_of_any_size_have_features(shape: tuple[int, int, int]) -> None:
    images = _numbers((3, *shape))
    rows = random_features(shape)(images)
    assert rows.shape == (3, 128)
    assert rows.dtype == np.float32
    assert np.isfinite(rows).all()
    assert (rows[0] != rows[1]).any()


def test_the_random_network_is_the_same_on_every_backend() -> None:
    chosen = random_features((9, 11, 1), seed=3)
    rows = chosen(_numbers((4, 9, 11, 1)))
    # The numbers of one run on TensorFlow.
    np.testing.assert_allclose(rows.mean(axis=1), [0.379306, 0.312372, 0.380043, 0.324731], rtol=1e-4)
    checksum = "7d00c84367509a71984252dc54d6711a0e6119dbc04dfc512f8c1ee61ff6a762"
    assert chosen.describe() == {"name": "random", "dimensions": 128, "checksum": checksum, "seed": 3}


def test_the_random_network_matches_a_computation_by_hand() -> None:
    """A 2×2 image is halved once: convolution, maximum, dense layer."""
    images = _numbers((2, 2, 2, 1))
    chosen = random_features((2, 2, 1))
    kernel, bias, dense, shift = chosen.network.get_weights()
    assert not bias.any()
    assert not shift.any()
    padded = np.pad(images[..., 0] / 255, ((0, 0), (2, 2), (2, 2)))
    maps = np.array(
        [
            [[np.tensordot(image[i : i + 5, j : j + 5], kernel[..., 0, :], 2) for j in range(2)] for i in range(2)]
            for image in padded
        ]
    )
    expected = np.maximum(np.maximum(maps, 0).max(axis=(1, 2)) @ dense, 0)
    np.testing.assert_allclose(chosen(images), expected, rtol=1e-4, atol=1e-5)


def test_large_images_are_processed_in_batches_with_progress() -> None:
    seen: list[str] = []

    def progress(items: object, label: str) -> object:
        seen.append(f"{label} {len(list(items))}")  # type: ignore[call-overload]
        return items

    images = _numbers((5, 900, 900, 1))
    assert len(random_features((900, 900, 1))(images, progress, "frames")) == 5
    assert seen == ["frames 5"]


def test_classifier_features_separate_the_classes(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_MIN_STEPS", 40)
    chosen = load_features(None, splits)
    details = chosen.describe()
    assert details.pop("checksum")
    assert details == {
        "name": "classifier",
        "dimensions": 128,
        "seed": 0,
        "recipe": features.RECIPE,
        "training_images": 20,
        "accuracy": 1.0,
        "accuracy_images": 20,
        "accuracy_split": "test",
    }
    assert chosen.notes == ()
    rows = chosen(splits.train.images)
    assert rows.shape == (30, 128)
    dark = splits.train.labels == 1
    within = np.linalg.norm(rows[dark] - rows[dark].mean(0), axis=1).mean()
    assert np.linalg.norm(rows[dark].mean(0) - rows[~dark].mean(0)) > 2 * within


@pytest.mark.slow
@on_tensorflow("the learning speed does not depend on the backend")
def test_the_classifier_learns_digits_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "_MIN_STEPS", 80)
    train = sources.load("digits").train
    digits = split(train, None, validation=0.0, test_size=0.2, holdout=True, seed=0)
    assert classifier_features(digits).describe()["accuracy"] > 0.95


def test_the_classifier_is_trained_on_no_compared_image(splits: Splits) -> None:
    """Copies of held-out images, and of reserved images, are not trained on either."""
    copied = np.concatenate([splits.train.images, splits.test.images[:5], splits.train.images])
    labels = np.concatenate([splits.train.labels, splits.test.labels[:5], splits.train.labels])
    train = Dataset.from_arrays(copied, labels, name="frames", split="train")
    seen, reserved = features._divide_training_images(splits._replace(train=train))
    assert len(reserved) == 20
    trained, compared = (
        {image.tobytes() for image in images}
        for images in (seen.images, np.concatenate([reserved.images, splits.test.images]))
    )
    assert trained
    assert not trained & compared


def test_training_images_that_are_all_compared_give_random_features(splits: Splits) -> None:
    same = splits._replace(validation=None, test=splits.train)
    chosen = load_features(None, same)
    assert chosen.name == "random"
    assert chosen.notes == (
        "features = classifier: frames has too few training images besides the compared ones; use features = random, "
        "as was done here",
    )
    with pytest.raises(InputError, match="has too few training images besides the compared ones"):
        load_features("classifier", same)


def test_the_classifier_is_cached(splits: Splits, trainings: list[int], cache: Path) -> None:
    first = classifier_features(splits)
    second = classifier_features(splits)
    assert trainings == [20]
    assert second.describe() == first.describe()
    np.testing.assert_array_equal(first(splits.train.images), second(splits.train.images))
    assert [path.suffix for path in cache.iterdir()] == [".npz"]


def test_another_seed_gives_another_classifier(splits: Splits) -> None:
    assert features._cache_key(splits.train, 0) != features._cache_key(splits.train, 1)
    assert features._checksum(features._network((6, 7, 1), 2, 0).get_weights()) != features._checksum(
        features._network((6, 7, 1), 2, 1).get_weights()
    )


def test_runs_with_different_validation_images_share_one_classifier(dark_and_bright: Dataset) -> None:
    test = dark_and_bright.subset(np.arange(20), "test")
    rest = dark_and_bright.subset(np.arange(20, 60), "train")
    parts = [
        split(rest, test, validation=size, test_size=0.0, holdout=True, seed=seed)
        for size, seed in [(0.0, 0), (10, 0), (0.5, 7)]
    ]
    keys = {features._cache_key(features._divide_training_images(part)[0], 0) for part in parts}
    assert len(keys) == 1


def test_a_damaged_cache_file_is_reported_and_replaced(splits: Splits, trainings: list[int], cache: Path) -> None:
    whole = classifier_features(splits)
    (path,) = cache.iterdir()
    path.write_bytes(path.read_bytes()[:1000])
    again = classifier_features(splits)
    assert trainings == [20, 20]
    assert again.notes == ("the cached classifier was damaged and has been trained again",)
    np.testing.assert_array_equal(again(splits.train.images), whole(splits.train.images))
    assert classifier_features(splits).notes == ()
    assert len(trainings) == 2


def test_the_training_is_reproducible(splits: Splits) -> None:
    first, second = (features._network((6, 7, 1), 2, 0) for _ in range(2))
    untrained = first.get_weights()
    for network in (first, second):
        features._train(network, splits.train.images, splits.train.labels, 0, lambda items, label: items)
    changed = [np.abs(after - before).max() for after, before in zip(first.get_weights(), untrained, strict=True)]
    assert max(changed) > 1e-3
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("damage", ["none", "flipped", "cut", "empty", "text", "other weights", "no checksum"])
def test_a_cache_file_is_loaded_only_if_it_is_intact(tmp_path: Path, damage: str) -> None:
    kept, other = (features._network((6, 7, 1), 2, seed) for seed in (0, 1))
    path = tmp_path / "kept.npz"
    assert features._cache_weights(kept, path) == ()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    with np.load(path) as file:
        arrays = dict(file)
    if damage == "other weights":
        np.savez(path, **arrays | {"arr_0": arrays["arr_0"] + np.float32(1)})
    elif damage == "no checksum":
        np.savez(path, **{name: values for name, values in arrays.items() if name != "checksum"})
    elif damage != "none":
        path.write_bytes({"flipped": bytes(content), "cut": bytes(content[:1000]), "empty": b""}.get(damage, b"hello"))
    before = [weight.copy() for weight in other.get_weights()]
    assert features._restore_weights(other, path) == (damage == "none")
    for now, expected in zip(other.get_weights(), kept.get_weights() if damage == "none" else before, strict=True):
        np.testing.assert_array_equal(now, expected)


@pytest.mark.usefixtures("trainings")
def test_a_failure_to_cache_is_noted(splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "file"
    file.write_text("no folder")
    monkeypatch.setenv("KERAS_VAE_CACHE", str(file / "cache"))
    (note,) = classifier_features(splits).notes
    assert note == f"the classifier could not be cached in {file / 'cache'}: Not a directory"


def test_without_held_out_images_half_of_them_are_reserved(dark_and_bright: Dataset, trainings: list[int]) -> None:
    whole = split(dark_and_bright, None, validation=0.0, test_size=0.0, holdout=False, seed=0)
    details = classifier_features(whole).describe()
    assert (details["training_images"], details["accuracy_images"], details["accuracy_split"]) == (30, 30, "all")
    assert trainings == [30]


@pytest.mark.usefixtures("trainings")
def test_unlabeled_images_give_no_accuracy(splits: Splits) -> None:
    test = Dataset.from_arrays(splits.train.images, name="others", split="test")
    assert classifier_features(splits._replace(test=test)).describe()["accuracy"] is None


@pytest.mark.parametrize("labels", [None, np.zeros(30, int)])
def test_without_two_classes_the_network_is_random(labels: Array | None) -> None:
    images = _numbers((30, 5, 5, 1))
    blank = Dataset.from_arrays(images, labels, name="blank")
    parts = split(blank, None, validation=5, test_size=5, holdout=True, seed=0)
    assert load_features(None, parts).name == "random"
    with pytest.raises(InputError, match=r"features = classifier: blank has no labels of two or more classes; use"):
        load_features("classifier", parts)


def test_unknown_features_are_an_error(splits: Splits) -> None:
    with pytest.raises(InputError, match=r"features = 'inceptoin': unknown; did you mean 'inception'\?"):
        load_features("inceptoin", splits)


@pytest.mark.parametrize("channels", [1, 3])
def test_inception_receives_resized_images_from_minus_one_to_one(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def builder(include_top: bool, weights: str, pooling: str, input_shape: tuple[int, int, int]) -> keras.Model:
        assert (include_top, weights, pooling) == (False, "imagenet", "avg")
        inputs = keras.Input(input_shape)
        pooled = [keras.layers.GlobalAveragePooling2D()(inputs), keras.layers.GlobalMaxPooling2D()(inputs)]
        return keras.Model(inputs, keras.layers.Concatenate()(pooled))

    monkeypatch.setattr(keras.applications, "InceptionV3", builder)
    chosen = inception_features((10, 10, channels), side=20)
    images = np.zeros((2, 10, 10, channels), "uint8")
    images[1, 5:] = 255
    np.testing.assert_allclose(chosen(images), [[-1] * 6, [0] * 3 + [1] * 3], atol=1e-5)
    assert {**chosen.describe(), "checksum": ""} == {
        "name": "inception",
        "dimensions": 6,
        "checksum": "",
        "side": 20,
        "weights": "imagenet (Keras)",
    }


def test_a_failed_download_is_a_one_line_error(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    def builder(**kwargs: object) -> keras.Model:
        raise Exception("URL fetch failure on https://example.org/weights.h5: None -- timed out\nand more")

    monkeypatch.setattr(keras.applications, "InceptionV3", builder)
    with pytest.raises(RunError) as caught:
        load_features("inception", splits)
    assert str(caught.value) == (
        "features = inception: the weights of InceptionV3 could not be loaded (URL fetch failure on "
        "https://example.org/weights.h5: None -- timed out); use features = classifier or features = random, "
        "which need no download"
    )


@pytest.mark.slow
@on_tensorflow("Keras loads its weights on every backend, and the images are tested above")
def test_inception_loads_its_weights_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from keras.src.utils import file_utils

    stub = tmp_path / "inception.weights.h5"
    blank = keras.applications.InceptionV3(include_top=False, weights=None, pooling="avg", input_shape=(75, 75, 3))
    blank.save_weights(stub)
    asked: list[str] = []

    def get_file(name: str, origin: str, **kwargs: object) -> str:
        asked.append(name)
        return str(stub)

    monkeypatch.setattr(file_utils, "get_file", get_file)
    chosen: Features = inception_features((28, 28, 1), side=75)
    assert asked == ["inception_v3_weights_tf_dim_ordering_tf_kernels_notop.h5"]
    # A single call is faster without a graph.
    assert chosen.network(_numbers((1, 28, 28, 1))).shape == (1, 2048)
    for loaded, saved in zip(chosen.network.get_weights(), blank.get_weights(), strict=True):
        np.testing.assert_array_equal(loaded, saved)


@pytest.mark.slow
@on_tensorflow("the accuracy does not depend on the backend, and TensorFlow trains fast")
def test_the_classifier_learns_mnist_to_99_percent(real_mnist: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    monkeypatch.setenv("KERAS_VAE_DATA", str(real_mnist))
    loaded = sources.load("mnist")
    mnist = split(loaded.train, loaded.test, validation=10_000, test_size=0.0, holdout=True, seed=0)
    train, reserved = features._divide_training_images(mnist)
    assert (len(train), len(reserved)) == (50_000, 10_000)
    network = features._network((28, 28, 1), 10, 0)
    features._train(network, train.images, train.labels, 0, lambda items, label: items)
    logits = Features("classifier", network)(mnist.test.images)
    assert (logits.argmax(axis=1) == mnist.test.labels).mean() >= 0.99
