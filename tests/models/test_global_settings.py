"""Global settings of Keras do not change a model: image format, float type, precision policy, epsilon, eager steps."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

from keras_vae import VAE, HierarchicalVAE
from keras_vae.networks import MLP, Conv, ResNet


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    config = keras.config
    before = (config.image_data_format(), config.floatx(), config.epsilon(), config.dtype_policy())
    yield
    config.set_image_data_format(before[0])
    config.set_floatx(before[1])
    config.set_epsilon(before[2])
    config.set_dtype_policy(before[3])


def result(network: Any = None) -> np.ndarray:
    """Train for one step, and return the bounds and the pixels of samples."""
    keras.utils.set_random_seed(0)
    if network == "ladder":
        vae: Any = HierarchicalVAE((9, 11, 1), widths=(4, 4), groups=(1, 1), latent_channels=2, seed=0)
    else:
        network = network or Conv(widths=(4, 6), dense_units=8)
        vae = VAE(network.encoder((9, 11, 1), 2), network.decoder(2, (9, 11, 1)), seed=0)
    images = np.random.default_rng(0).integers(0, 256, (6, 9, 11, 1), dtype="uint8")
    vae.compile(keras.optimizers.SGD(1e-3))
    vae.fit(images, shuffle=False, verbose=0)
    assert {keras.backend.standardize_dtype(weight.dtype) for weight in vae.trainable_variables} == {"float32"}
    codes = vae.encode(images).z_mean
    assert codes.dtype == np.float32
    return np.concatenate([vae.elbo(images), np.ravel(vae.sample(2, seed=0))])


@pytest.fixture(scope="module")
def expected() -> np.ndarray:
    """The result of the default network under the default settings."""
    return result()


@pytest.mark.parametrize(
    "network",
    [None, ResNet(widths=(4, 6), blocks=1, groups=2), MLP(widths=(6,)), "ladder"],
    ids=["conv", "resnet", "mlp", "ladder"],
)
def test_images_are_channels_last_in_every_network(network: Any, expected: np.ndarray) -> None:
    usual = expected if network is None else result(network)
    keras.config.set_image_data_format("channels_first")
    np.testing.assert_allclose(result(network), usual, rtol=1e-5, atol=1e-6)


def test_default_networks_of_a_model_are_channels_last() -> None:
    keras.config.set_image_data_format("channels_first")
    assert VAE(seed=0).sample(2, seed=0).shape == (2, 28, 28, 1)


def test_float_type_of_keras_does_not_change_a_model(expected: np.ndarray) -> None:
    for floatx, tolerance in (("float64", 1e-5), ("float16", 0.02)):
        keras.config.set_floatx(floatx)
        keras.config.set_dtype_policy("float32")
        np.testing.assert_allclose(result(), expected, rtol=tolerance, atol=tolerance)


SETTINGS: dict[str, tuple[Callable[[], None], float]] = {
    "epsilon": (functools.partial(keras.config.set_epsilon, 1e-2), 1e-6),
    "mixed_bfloat16": (functools.partial(keras.config.set_dtype_policy, "mixed_bfloat16"), 0.02),
    "mixed_float16": (functools.partial(keras.config.set_dtype_policy, "mixed_float16"), 0.02),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_precision_and_epsilon_change_results_by_rounding_at_most(name: str, expected: np.ndarray) -> None:
    change, tolerance = SETTINGS[name]
    change()
    np.testing.assert_allclose(result(), expected, rtol=tolerance, atol=tolerance)


def test_eager_steps_give_the_same_losses() -> None:
    losses = []
    for run_eagerly in (False, True):
        keras.utils.set_random_seed(0)
        network = Conv(widths=(4,), dense_units=4)
        vae = VAE(network.encoder((8, 8, 1), 2), network.decoder(2, (8, 8, 1)), seed=0)
        vae.compile(keras.optimizers.SGD(1e-3), run_eagerly=run_eagerly)
        images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype="uint8")
        losses.append(vae.fit(images, batch_size=4, shuffle=False, verbose=0).history["total_loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)
