"""Tiled encoding and decoding."""

from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from keras_vae import VAE
from keras_vae.components import likelihoods
from keras_vae.core.errors import InputError
from keras_vae.models.tiling import Tiles


def normalized(features: Any) -> Any:
    return layers.Activation("swish")(layers.GroupNormalization(2)(features))


def network_of_small_receptive_field() -> VAE:
    """Return a model whose encoder and decoder see at most two positions of the code to each side."""
    images = keras.Input((None, None, 3))
    features = normalized(layers.Conv2D(4, 4, strides=4)(images))
    features = normalized(layers.Conv2D(4, 3, padding="same")(features))
    moments = [layers.Conv2D(2, 3, padding="same")(features) for _ in range(2)]
    z = keras.Input((None, None, 2))
    features = normalized(layers.Conv2D(4, 3, padding="same")(z))
    features = normalized(layers.Conv2D(4, 3, padding="same")(layers.UpSampling2D(2)(features)))
    decoder = keras.Model(z, layers.Conv2D(3, 3, padding="same")(layers.UpSampling2D(2)(features)))
    vae = VAE(keras.Model(images, moments), decoder, likelihood=likelihoods.Normal(), seed=0)
    vae.build((None, 16, 16, 3))
    return vae


def images(rows: int, columns: int) -> Any:
    """Return an image whose left half is dark, so that no tile has the moments of the whole."""
    x = np.random.default_rng(0).random((1, rows, columns, 3), dtype="float32")
    x[:, :, : columns // 2] *= 0.1
    return x


@pytest.mark.parametrize(("rows", "columns"), [(80, 112), (32, 96)])
def test_tiles_equal_the_whole_image(rows: int, columns: int) -> None:
    vae, x = network_of_small_receptive_field(), images(rows, columns)
    whole = vae.encode(x)
    tiles = vae.encode(x, tile=48)
    np.testing.assert_allclose(tiles.z_mean, whole.z_mean, atol=0.01 * whole.z_mean.std())
    np.testing.assert_allclose(tiles.z_log_var, whole.z_log_var, atol=0.01 * whole.z_log_var.std())
    codes = 3 * whole.z_mean
    assert np.ptp(vae.decode(codes)) > 0.2
    np.testing.assert_allclose(vae.decode(codes, tile=48, overlap=32), vae.decode(codes), atol=2 / 255)
    np.testing.assert_array_equal(vae.decode(codes, tile=48), vae.decode(codes, tile=48, overlap=24))


@pytest.mark.parametrize(("length", "size", "overlap"), [(40, 16, 4), (33, 12, 6), (10, 16, 4), (17, 8, 0)])
def test_weights_of_all_tiles_sum_to_one(length: int, size: int, overlap: int) -> None:
    tiles, total = Tiles.cover(length, size, overlap), np.zeros(length)
    for start, weights in zip(tiles.starts, tiles.weights, strict=True):
        total[start : start + len(weights)] += weights
    np.testing.assert_allclose(total, 1.0, rtol=1e-6)


def test_tiles_that_do_not_fit_are_refused() -> None:
    vae, x = network_of_small_receptive_field(), images(32, 32)
    with pytest.raises(InputError, match="tile = 18: not a multiple of 4"):
        vae.encode(x, tile=18)
    with pytest.raises(InputError, match="overlap = 16: not a number of pixels below tile"):
        vae.decode(vae.encode(x).codes, tile=16, overlap=16)
    with pytest.raises(InputError, match="accept only one size"):
        VAE(seed=0).encode(np.zeros((1, 28, 28, 1), "uint8"), tile=16)
