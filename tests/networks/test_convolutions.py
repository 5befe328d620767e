"""Convolutions as matrix products: same outputs, gradients and configuration as the layers of Keras."""

from collections.abc import Callable
from types import ModuleType

import keras
import numpy as np
import pytest
from keras import layers, ops

from helpers import gradient, randomize, to_numpy
from keras_vae.core import backend
from keras_vae.core.typing import Array
from keras_vae.networks import convolutions

CASES = {
    "classic, down": ((28, 28, 1), lambda kind: kind.Conv2D(32, 3, strides=2, padding="same", activation="relu")),
    "odd, not square": ((7, 10, 3), lambda kind: kind.Conv2D(5, 3, strides=2, padding="same")),
    "other strides": ((9, 8, 2), lambda kind: kind.Conv2D(4, (4, 5), strides=(3, 2), padding="same", use_bias=False)),
    # oneDNN computes a wrong gradient for four or fewer channels: see `test_backend.py`.
    "strides that skip": ((9, 7, 8), lambda kind: kind.Conv2D(4, 1, strides=2, padding="same")),
    "few filters": ((5, 8, 32), lambda kind: kind.Conv2D(1, 3, padding="same")),
    "few filters, even": ((6, 5, 32), lambda kind: kind.Conv2D(2, (2, 4), padding="same", activation="tanh")),
    "many filters": ((5, 4, 3), lambda kind: kind.Conv2D(8, 3, padding="same")),
    "not padded": ((9, 8, 3), lambda kind: kind.Conv2D(8, 3, strides=2)),
    "classic, up": (
        (7, 7, 64),
        lambda kind: kind.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu"),
    ),
    "up, one pixel": ((1, 1, 3), lambda kind: kind.Conv2DTranspose(4, 3, strides=2, padding="same")),
    "up, four taps": ((3, 5, 3), lambda kind: kind.Conv2DTranspose(4, 4, strides=2, padding="same")),
    "up, five taps": ((4, 3, 3), lambda kind: kind.Conv2DTranspose(2, 5, strides=2, padding="same", use_bias=False)),
    "up, other strides": ((3, 4, 2), lambda kind: kind.Conv2DTranspose(4, (3, 5), strides=(3, 1), padding="same")),
    "up, strides that skip": ((3, 4, 2), lambda kind: kind.Conv2DTranspose(8, 1, strides=2, padding="same")),
    "up, not padded": ((3, 4, 2), lambda kind: kind.Conv2DTranspose(4, 3, strides=2)),
}


@pytest.fixture
def force_matrix_products(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the matrix products on every backend and device."""
    monkeypatch.setattr(backend, "prefers_matmul_to_convolution", lambda: True)
    monkeypatch.setattr(backend, "prefers_matmul_for_few_filters", lambda: True)


@pytest.mark.parametrize(("shape", "make"), CASES.values(), ids=CASES)
def test_outputs_and_gradients_equal_those_of_keras(
    shape: tuple[int, int, int], make: Callable[[object], keras.layers.Layer], force_matrix_products: None
) -> None:
    ours, plain = make(convolutions), make(layers)
    for layer in (ours, plain):
        layer.build((None, *shape))
        randomize(layer, 0.3)
    images = np.random.default_rng(1).normal(size=(3, *shape)).astype("float32")
    np.testing.assert_allclose(to_numpy(ours(images)), to_numpy(plain(images)), rtol=1e-5, atol=1e-5)
    assert ours.compute_output_shape((None, *shape)) == plain.compute_output_shape((None, *shape))

    input_gradient, weight_gradients = gradient(lambda x: ops.sum(ops.square(ours(x))), images, [ours])
    expected_input_gradient, expected_weight_gradients = gradient(
        lambda x: ops.sum(ops.square(plain(x))), images, [plain]
    )
    gradients = [input_gradient, *weight_gradients]
    expected_gradients = [expected_input_gradient, *expected_weight_gradients]
    for got, expected in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def test_each_layer_uses_the_expected_matrix_product(
    force_matrix_products: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    used = []
    for name in ("convolve_im2col", "convolve_shift_and_add", "convolve_transposed"):
        original = getattr(convolutions, name)
        monkeypatch.setattr(
            convolutions, name, lambda *args, original=original, name=name: (used.append(name), original(*args))[1]
        )
    for shape, make in CASES.values():
        make(convolutions)(np.zeros((1, *shape), "float32"))
    assert {name: used.count(name) for name in used} == {
        "convolve_im2col": 4,
        "convolve_shift_and_add": 2,
        "convolve_transposed": 5,
    }


def test_matrix_products_are_chosen_by_backend_and_device() -> None:
    name, on_cpu = keras.backend.backend(), True
    if name == "jax":
        import jax

        on_cpu = jax.default_backend() == "cpu"
    if name == "tensorflow":
        import tensorflow as tf

        on_cpu = not tf.config.get_visible_devices("GPU")
    assert backend.prefers_matmul_to_convolution() is (on_cpu and name == "jax")
    assert backend.prefers_matmul_for_few_filters() is (on_cpu and name != "torch")


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
def test_training_steps_equal_those_of_keras(compiled: bool, force_matrix_products: None) -> None:
    """A layer with few filters has a custom gradient, which must reach the layer before it."""

    def trained(kind: ModuleType) -> list[Array]:
        keras.utils.set_random_seed(0)
        model = keras.Sequential(
            [keras.Input((6, 5, 3)), kind.Conv2D(36, 3, padding="same"), kind.Conv2D(1, 3, padding="same")]
        )
        model.compile(optimizer=keras.optimizers.SGD(0.1), loss="mse", run_eagerly=not compiled, jit_compile=False)
        images = np.random.default_rng(0).normal(size=(8, 6, 5, 3)).astype("float32")
        model.fit(images, images[..., :1], batch_size=4, epochs=2, shuffle=False, verbose=0)
        return [to_numpy(weight) for weight in model.weights]

    for got, expected in zip(trained(convolutions), trained(layers), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)


def test_configuration_equals_that_of_keras() -> None:
    for kind in ("Conv2D", "Conv2DTranspose"):
        ours, plain = (getattr(module, kind)(4, 3, strides=2, name="layer") for module in (convolutions, layers))
        assert ours.get_config() == plain.get_config()
