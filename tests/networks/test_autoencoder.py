"""The autoencoder network: sizes, gradients, files, precision and errors; its layers against independent formulas."""

from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from helpers import randomize, to_numpy
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.networks import Autoencoder
from keras_vae.networks.autoencoder import SelfAttention

SMALL = Autoencoder(widths=(4, 8), latent_channels=2, groups=2)


def noise(*shape: int) -> Array:
    return np.random.default_rng(3).normal(size=shape).astype("float32")


@pytest.mark.parametrize("size", [(8, 8), (4, 12), (16, 6)], ids=str)
def test_one_model_maps_images_of_every_size_to_maps_and_back(size: tuple[int, int]) -> None:
    encoder, decoder = SMALL.encoder((8, 8, 3)), SMALL.decoder(None, (8, 8, 6))
    assert [layer.name for layer in encoder.layers[-2:]] == ["z_mean", "z_log_var"]
    maps = encoder(noise(2, *size, 3))
    assert [tuple(values.shape) for values in maps] == [(2, size[0] // 2, size[1] // 2, 2)] * 2
    assert tuple(decoder(maps[0]).shape) == (2, *size, 6)


def test_shapes_follow_from_the_number_of_widths() -> None:
    network = Autoencoder(widths=(8, 8, 8, 8), latent_channels=5)
    assert (network.factor, network.latent_shape((64, 128, 3), 8 * 16 * 5)) == (8, (8, 16, 5))
    assert Autoencoder(widths=(8,)).latent_shape((9, 11, 1)) == (9, 11, 4)


def test_outputs_follow_the_order_of_param_sizes() -> None:
    encoder = SMALL.encoder((8, 8, 1), 32, {"z_mean": 32, "context": 16})
    outputs = encoder(noise(2, 8, 8, 1))
    assert [tuple(output.shape) for output in outputs] == [(2, 4, 4, 2), (2, 4, 4, 1)]
    single = SMALL.encoder((8, 8, 1), 32, {"z_mean": 32})(noise(2, 8, 8, 1))
    assert tuple(keras.tree.flatten(single)[0].shape) == (2, 4, 4, 2)


def test_condition_adds_channels_to_the_code() -> None:
    assert SMALL.decoder(32, (8, 8, 3), condition_dim=5).input_shape == (None, None, None, 7)


def test_gradients_reach_every_weight() -> None:
    encoder, decoder = SMALL.encoder((8, 8, 1)), SMALL.decoder(None, (8, 8, 1))
    images = keras.Input((8, 8, 1))
    model = keras.Model(images, decoder(ops.add(*encoder(images))))
    before = [to_numpy(weight) for weight in model.trainable_weights]
    # The first convolution of each block has no gradient before its second one is not zero.
    # Without compilation, three steps are faster, except on JAX, which would compile each operation separately.
    eager = keras.backend.backend() != "jax"
    model.compile(keras.optimizers.Adam(1e-2), "mse", jit_compile=False, run_eagerly=eager)
    model.fit(noise(4, 8, 8, 1), noise(4, 8, 8, 1), epochs=3, verbose=0)
    unchanged = [
        weight.path
        for weight, old in zip(model.trainable_weights, before, strict=True)
        if np.array_equal(to_numpy(weight), old)
    ]
    assert unchanged == []


def test_saved_and_loaded_models_have_equal_outputs(tmp_path: Path) -> None:
    encoder = SMALL.encoder((8, 8, 3))
    randomize(encoder, 0.3, seed=5)
    encoder.save(tmp_path / "encoder.keras")
    loaded = keras.saving.load_model(tmp_path / "encoder.keras", safe_mode=True)
    images = noise(2, 8, 12, 3)
    for left, right in zip(encoder(images), loaded(images), strict=True):
        np.testing.assert_array_equal(to_numpy(left), to_numpy(right))


def test_outputs_are_float32_under_mixed_precision() -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        encoder, decoder = SMALL.encoder((8, 8, 1)), SMALL.decoder(None, (8, 8, 1))
    finally:
        keras.config.set_dtype_policy(policy)
    maps = encoder(noise(2, 8, 8, 1))
    outputs = [*maps, decoder(maps[0])]
    assert {keras.backend.standardize_dtype(output.dtype) for output in outputs} == {"float32"}
    assert "bfloat16" in {layer.compute_dtype for layer in encoder.layers}
    for output in map(to_numpy, outputs):
        assert (output != to_numpy(ops.cast(ops.cast(output, "bfloat16"), "float32"))).any()


def test_map_models_have_the_sizes_that_a_vq_vae_needs() -> None:
    encoder, decoder = SMALL.map_encoder((8, 12, 3), 5), SMALL.map_decoder((4, 6, 2), (8, 12, 3))
    assert (encoder.output_shape, decoder.output_shape) == ((None, 4, 6, 5), (None, 8, 12, 3))
    with pytest.raises(InputError, match=r"map_shape = \(4, 4, 2\).*use \(4, 6, 2\)"):
        SMALL.map_decoder((4, 4, 2), (8, 12, 3))


def test_attention_equals_the_formula_of_the_transformer() -> None:
    layer, maps = SelfAttention(), noise(2, 3, 5, 4)
    layer(maps)
    rng = np.random.default_rng(1)
    query, key, value, out = rng.normal(size=(4, 4, 4)).astype("float32")
    query_bias, key_bias, value_bias, out_bias = rng.normal(size=(4, 4)).astype("float32")
    layer.to_q.set_weights([query, query_bias])
    layer.to_k.set_weights([key])
    layer.to_v.set_weights([value, value_bias])
    layer.to_out.set_weights([out, out_bias])
    layer.key_bias.assign(key_bias)
    positions = maps.reshape(2, 15, 4)
    scores = (positions @ query + query_bias) @ (positions @ key + key_bias).transpose(0, 2, 1) / 2.0
    shares = np.exp(scores) / np.exp(scores).sum(-1, keepdims=True)
    expected = shares @ (positions @ value + value_bias) @ out + out_bias
    np.testing.assert_allclose(to_numpy(layer(maps)), expected.reshape(2, 3, 5, 4), rtol=1e-4, atol=1e-5)
    assert "to_k_bias" in {weight.name for weight in layer.non_trainable_weights}


@pytest.mark.parametrize(
    ("widths", "shape", "message"),
    [
        ((8, 8, 8), (30, 30, 3), "multiples of 4, the factor of 3 widths; resize the images to 32x32"),
        ((8, 8), (8, 7, 1), r"image_shape = \(8, 7, 1\): height and width are not multiples of 2"),
        ((8, 8), (1, 1, 1), "resize the images to 2x2"),
        ((4, 4, 8), (4, 4, 1), "1×1 map.*choose groups below 8"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(widths: tuple[int, ...], shape: tuple[int, int, int], message: str) -> None:
    network = Autoencoder(widths=widths)
    for build in (lambda: network.encoder(shape), lambda: network.decoder(None, shape)):
        with pytest.raises(InputError, match=message):
            build()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"latent_channels": 0}, "latent_channels = 0"),
        ({"groups": 0}, "groups = 0"),
        ({"blocks": 0}, "blocks = 0"),
        ({"widths": ()}, r"widths = \[\]"),
    ],
)
def test_settings_below_one_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Autoencoder(**arguments)


def test_latent_dim_and_param_sizes_have_to_fit_the_map() -> None:
    with pytest.raises(InputError, match=r"latent_dim = 7: .* is a map \(4, 4, 2\)"):
        SMALL.encoder((8, 8, 1), 7)
    with pytest.raises(InputError, match="z_lower does not fit a map of 4×4"):
        SMALL.encoder((8, 8, 1), 32, {"z_mean": 32, "z_log_var": 32, "z_lower": 31})
