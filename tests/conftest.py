"""What the tests share: small images and small models."""

import os
from collections.abc import Callable

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# JAX compiles every shape that a test comes up with; most of its time goes into making that code fast.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

import numpy as np
import pytest

from keras_vae import VAE, Conv
from keras_vae.types import Array


@pytest.fixture
def images() -> Array:
    """Noisy black frames with a bright middle, of an odd, non-square size that no stride divides."""
    images = np.random.default_rng(7).integers(0, 60, (24, 9, 11, 1), dtype="uint8")
    images[:, 2:7, 3:8] += 190
    return images


@pytest.fixture
def make_vae() -> Callable[..., VAE]:
    """Build a small VAE of the house's own networks for images of a shape."""

    def make(image_shape: tuple[int, int, int] = (9, 11, 1), latent_dim: int = 3, **kwargs: object) -> VAE:
        network = Conv(widths=(4, 6), dense=8)
        kwargs.setdefault("seed", 5)
        return VAE(network.encoder(image_shape, latent_dim), network.decoder(latent_dim, image_shape), **kwargs)

    return make
