"""The perceptual loss: its value against NumPy, its network, and models that are trained with it."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from helpers import on_tensorflow
from keras_vae import VAE
from keras_vae.components.image_losses import Perceptual
from keras_vae.components.image_losses.feature_networks import feature_maps, load_feature_network
from keras_vae.components.likelihoods import Bernoulli
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Splits
from keras_vae.data.info import DatasetInfo
from keras_vae.runs.build import build_model, resolve
from keras_vae.runs.experiment import Experiment
from keras_vae.training.trainer import train

RNG = np.random.default_rng(0)
IMAGES = ndimage.gaussian_filter(RNG.random((3, 12, 10, 3)), (0, 1, 1, 0)).astype("float32")
OTHERS = RNG.random((3, 12, 10, 3)).astype("float32")


def built(shape: tuple[int, int, int] = (12, 10, 3), **settings: object) -> Perceptual:
    loss = Perceptual(**{"features": "random", **settings})
    loss.build(shape)
    return loss


def small_vae(make_vae: Callable[..., VAE], image_losses: list[Perceptual]) -> VAE:
    return make_vae((9, 11, 3), likelihood=Bernoulli(binarize="dynamic"), image_losses=image_losses)


def distance(loss: Perceptual, images: Array, others: Array) -> Array:
    terms = loss(ops.convert_to_tensor(images), ops.convert_to_tensor(others), step=0)
    return ops.convert_to_numpy(terms.metrics["perceptual_distance"])


def by_numpy(maps: list[Array], others: list[Array]) -> Array:
    """Return the distance from the outputs of the layers, position by position."""
    total = np.zeros(len(maps[0]))
    for one, other in zip(maps, others, strict=True):
        for row in range(len(one)):
            squares = []
            for f, g in zip(one[row].reshape(-1, one.shape[-1]), other[row].reshape(-1, one.shape[-1]), strict=True):
                f, g = (vector / max(np.linalg.norm(vector), 1e-5) for vector in (f, g))
                squares.append(np.sum((f - g) ** 2))
            total[row] += np.mean(squares)
    return total


def test_distance_equals_numpy_from_the_outputs_of_the_layers() -> None:
    network = load_feature_network("random", seed=3)
    first, second = ([ops.convert_to_numpy(m) for m in feature_maps(network, x)] for x in (IMAGES, OTHERS))
    assert [maps.shape[1:] for maps in first] == [(12, 10, 16), (6, 5, 32), (3, 3, 64), (2, 2, 64)]
    loss = built(seed=3, weight=0.5)
    expected = by_numpy(first, second)
    np.testing.assert_allclose(distance(loss, IMAGES, OTHERS), expected, rtol=1e-4)
    value = loss(ops.convert_to_tensor(IMAGES), ops.convert_to_tensor(OTHERS), step=0).loss
    np.testing.assert_allclose(ops.convert_to_numpy(value), 0.5 * 12 * 10 * 3 * expected, rtol=1e-4)


def test_distance_is_symmetric_zero_for_equal_images_and_grows_with_blur() -> None:
    loss = built()
    np.testing.assert_array_equal(distance(loss, OTHERS, OTHERS), 0)
    np.testing.assert_allclose(distance(loss, IMAGES, OTHERS), distance(loss, OTHERS, IMAGES), rtol=1e-5)
    blurred = [ndimage.gaussian_filter(OTHERS, (0, sigma, sigma, 0)) for sigma in (0.3, 0.6, 1.2)]
    found = np.stack([distance(loss, OTHERS, images) for images in blurred])
    assert np.all(found[0] > 0)
    assert np.all(np.diff(found, axis=0) > 0)


def test_gray_images_are_repeated_and_pixels_enlarged() -> None:
    network = load_feature_network("random")
    gray = IMAGES[..., :1]
    enlarged = np.kron(np.repeat(gray, 3, axis=-1), np.ones((1, 2, 2, 1), "float32"))
    expected = feature_maps(network, ops.convert_to_tensor(enlarged))
    found = feature_maps(network, ops.convert_to_tensor(gray), upsample=2)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(one), ops.convert_to_numpy(other), atol=1e-5)
    assert distance(built((12, 10, 1), upsample=2), gray, OTHERS[..., :1]).shape == (3,)


def test_random_weights_follow_the_seed_and_the_initialization_of_he() -> None:
    first, same, other = (load_feature_network("random", seed=seed).get_weights() for seed in (0, 0, 1))
    np.testing.assert_array_equal(first[2], same[2])
    assert np.abs(first[2] - other[2]).max() > 0.1
    assert first[2].std() == pytest.approx(np.sqrt(2 / (9 * 16)), rel=0.03)
    assert not load_feature_network("random").trainable_variables


def test_training_reduces_the_distance(images: Array, make_vae: Callable[..., VAE]) -> None:
    colored = np.repeat(images, 3, axis=-1)
    model = small_vae(make_vae, image_losses=[Perceptual(weight=5.0, features="random")])
    model.compile("adam")
    model.optimizer.learning_rate = 0.01
    model.build((None, 9, 11, 3))
    before = [model.encoder.get_weights(), model.decoder.get_weights()]
    weights = [np.copy(weight) for weight in load_feature_network("random").get_weights()]
    history = model.fit(colored, batch_size=8, epochs=5, verbose=0).history
    assert history["perceptual_distance"][-1] < 0.8 * history["perceptual_distance"][0]
    assert history["total_loss"][0] > history["negative_elbo"][0]
    for part, old in zip((model.encoder, model.decoder), before, strict=True):
        assert all(np.any(new != start) for new, start in zip(part.get_weights(), old, strict=True))
    network = model.image_losses[0]._untracked.network
    for weight, start in zip(network.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(weight, start)


def test_network_is_not_saved(images: Array, make_vae: Callable[..., VAE], tmp_path: Path) -> None:
    colored = np.repeat(images, 3, axis=-1)
    models = [small_vae(make_vae, image_losses=losses) for losses in ([Perceptual(features="random")], [])]
    for model in models:
        model.compile("adam")
        model.fit(colored, batch_size=12, epochs=1, verbose=0)
        model.save(tmp_path / f"{len(model.image_losses)}.keras")
    assert models[0].count_params() - models[1].count_params() <= 2  # the variables of one more mean
    loaded = keras.saving.load_model(tmp_path / "1.keras")
    assert loaded.image_losses[0]._untracked.network is None
    with zipfile.ZipFile(tmp_path / "1.keras") as file:
        (config,) = json.loads(file.read("config.json"))["config"]["image_losses"]
    assert config["config"]["features"] == "random"
    histories = [
        model.fit(colored, batch_size=12, epochs=1, verbose=0, shuffle=False).history for model in (models[0], loaded)
    ]
    assert histories[0] == histories[1]


def test_file_of_a_network_is_read_and_must_exist(make_vae: Callable[..., VAE], tmp_path: Path) -> None:
    inputs = keras.Input((None, None, 3))
    maps = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    keras.Model(inputs, [maps, keras.layers.MaxPooling2D(2)(maps)]).save(tmp_path / "own.keras")
    found = distance(built(features=str(tmp_path / "own.keras")), IMAGES, OTHERS)
    own = keras.saving.load_model(tmp_path / "own.keras")
    first, second = ([ops.convert_to_numpy(m) for m in own(x)] for x in (IMAGES, OTHERS))
    np.testing.assert_allclose(found, by_numpy(first, second), rtol=1e-4)
    keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(maps)).save(tmp_path / "flat.keras")
    with pytest.raises(InputError, match=r"flat.keras: not a network from images to maps"):
        built(features=str(tmp_path / "flat.keras")).prepare()
    model = small_vae(make_vae, image_losses=[Perceptual(features=str(tmp_path / "none.keras"))])
    model.compile("adam")
    with pytest.raises(InputError, match=r"features = .*none.keras: no such file; pass a file with weights, imagenet"):
        model.fit(np.zeros((4, 9, 11, 3), "uint8"), verbose=0)


@pytest.fixture
def small_vgg(monkeypatch: pytest.MonkeyPatch) -> Callable[..., keras.Model]:
    """Replace VGG16 by two of its layers of few channels, because the real one takes seconds to create."""
    module = __import__("sys").modules[keras.applications.VGG16.__module__]

    def VGG16(include_top: bool, weights: str | None) -> keras.Model:
        inputs = keras.Input((None, None, 3))
        maps = keras.layers.Conv2D(2, 3, padding="same", activation="relu", name="block1_conv2")(inputs)
        outputs = keras.layers.Conv2D(3, 3, strides=2, padding="same", name="block2_conv2")(maps)
        model = keras.Model(inputs, outputs)
        if weights == "imagenet":
            raise Exception("URL fetch failure on https://example.org: None -- no network\nsecond line")
        if weights is not None:
            model.load_weights(weights)
        return model

    VGG16.__module__ = module.__name__
    monkeypatch.setattr(keras.applications, "VGG16", VGG16)
    return VGG16


def test_network_of_keras_receives_levels_in_its_own_order(
    small_vgg: Callable[..., keras.Model], tmp_path: Path
) -> None:
    original = small_vgg(include_top=False, weights=None)
    original.save_weights(tmp_path / "vgg.weights.h5")
    names = ("block1_conv2", "block2_conv2")
    loss = built((12, 10, 3), features=str(tmp_path / "vgg.weights.h5"), layer_names=names, upsample=4)
    # VGG16 was trained on levels 0…255 in the order blue, green, red, minus their means on ImageNet.
    layers = keras.Model(original.input, [original.get_layer(name).output for name in names])
    maps = []
    for batch in (IMAGES, OTHERS):
        enlarged = np.kron(batch, np.ones((1, 4, 4, 1), "float32"))
        levels = 255 * enlarged[..., ::-1] - np.array([103.939, 116.779, 123.68], "float32")
        maps.append([ops.convert_to_numpy(output) for output in layers(levels)])
    np.testing.assert_allclose(distance(loss, IMAGES, OTHERS), by_numpy(*maps), rtol=1e-3)


def test_missing_weights_and_small_images_are_rejected(small_vgg: Callable[..., keras.Model], tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"features = imagenet: the weights of VGG16 could not be loaded \(URL f"):
        built((32, 32, 3), features="imagenet").prepare()
    with pytest.raises(InputError, match=r"upsample = 1: images of 28×28 are smaller than 32×32.*set upsample = 2"):
        built((28, 28, 1), features="imagenet")
    (tmp_path / "other.weights.h5").write_bytes(b"text")
    with pytest.raises(InputError, match=r"other.weights.h5: not the weights of VGG16"):
        built((32, 32, 3), features=str(tmp_path / "other.weights.h5")).prepare()


def test_experiments_name_the_loss_and_train_in_mixed_precision(images: Array) -> None:
    spec = {"name": "perceptual", "features": "random", "layer_names": [], "seed": 4}
    settings = {"model": {"image_losses": [spec], "network": {"name": "mlp", "widths": [4]}}}
    written = Experiment.model_validate({**settings, "training": {"precision": "mixed_bfloat16"}})
    resolved = resolve(written, DatasetInfo((9, 11, 1), images=24)).experiment
    assert Experiment.from_toml(resolved.to_toml(), "text") == resolved
    assert resolved.model.image_losses[0] == {**spec, "weight": 1.0, "network": "VGG16", "upsample": 1}
    model = build_model(resolved, DatasetInfo((9, 11, 1), images=24))
    model.compile("sgd")
    history = model.fit(images, batch_size=12, epochs=1, verbose=0).history
    assert 0 < history["perceptual_distance"][0] < 16
    network = model.image_losses[0]._untracked.network
    assert {weight.dtype for weight in network.weights} == {"float32"}
    assert network.layers[-1].compute_dtype == "float32"


def test_training_without_weights_creates_no_run(splits: Splits, tmp_path: Path) -> None:
    settings = "model.image_losses=[{name='perceptual', features='missing.weights.h5', upsample=4}]"
    experiment = Experiment.preset("classic").with_overrides([settings, "training.batch_size=8"])
    with pytest.raises(InputError, match=r"features = missing.weights.h5: no such file"):
        train(experiment, splits, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=r"upsample = 1: images of 9×11 are smaller than 32×32"):
        train(experiment.with_overrides([settings.replace(", upsample=4", "")]), splits, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@on_tensorflow("settings do not depend on the backend")
def test_invalid_settings_are_rejected() -> None:
    with pytest.raises(InputError, match=r"features = 'vgg': not a network; pass imagenet, random"):
        Perceptual(features="vgg")
    with pytest.raises(InputError, match=r"network = 'VGG61': unknown; did you mean 'VGG19'"):
        Perceptual(network="VGG61")
    with pytest.raises(InputError, match=r"ResNet50 has no default layers; name the layers"):
        Perceptual(network="ResNet50")
    with pytest.raises(InputError, match="upsample = 0: not a positive integer"):
        Perceptual(upsample=0)
    with pytest.raises(InputError, match="layer_names = 'block1_conv2': a string"):
        Perceptual(layer_names="block1_conv2")
