"""Plots: which dimensions are shown where there are many."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from keras_vae import VAE
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.plots import Subject, latents
from keras_vae.run import Run
from keras_vae.types import Array


@pytest.fixture
def subject(make_vae: Callable[..., VAE], images: Array) -> Subject:
    """A model whose dimensions 3 and 1 carry a half and an eighth of a nat, and the others nothing."""
    vae = make_vae(latent_dim=4)
    for name, bias in (("z_mean", [0.0, 0.5, 0.0, -1.0]), ("z_log_var", [0.0, 0.0, 0.0, 0.0])):
        kernel, _ = vae.encoder.get_layer(name).get_weights()
        vae.encoder.get_layer(name).set_weights([np.zeros_like(kernel), np.array(bias)])
    return Subject(Run(Path("nowhere")), vae, Splits(Dataset.from_arrays(images, name="frames"), None, None))


def test_rates_are_those_of_the_moments_and_choose_the_plane(subject: Subject) -> None:
    np.testing.assert_allclose(subject.rates, [0, 0.125, 0, 0.5], atol=1e-6)
    assert subject.plane == (1, 3)
    axes = latents(subject).axes[0]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("z[1]", "z[3]")


def test_plane_of_one_or_two_dimensions_needs_no_choice(make_vae: Callable[..., VAE]) -> None:
    assert Subject(Run(Path("nowhere")), make_vae(latent_dim=1)).plane == (0, 1)
