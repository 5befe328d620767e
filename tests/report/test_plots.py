"""Plots: which dimensions are shown where there are many."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_vae import VAE
from keras_vae.components.posteriors import Deterministic, DiagonalNormal
from keras_vae.components.priors import MixtureOfNormals
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.networks import Conv
from keras_vae.report.plots import Subject, applicable, latents, rates, traversals
from keras_vae.runs.run import Run


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


@pytest.mark.parametrize("parts", [{"prior": MixtureOfNormals(3)}, {"posterior": Deterministic()}])
def test_where_only_the_sum_of_the_rates_is_known_spread_orders_the_dimensions(
    parts: dict[str, Any], images: Array
) -> None:
    network, heads = Conv(widths=(4, 6), dense_units=8), parts.get("posterior", DiagonalNormal()).heads(4)
    vae = VAE(network.encoder((9, 11, 1), 4, heads), network.decoder(4, (9, 11, 1)), seed=5, **parts)
    kernel = vae.encoder.get_layer("z_mean").get_weights()[0]
    vae.encoder.get_layer("z_mean").set_weights([kernel * np.array([0.0, 1.0, 0.0, 50.0]), np.zeros(4)])
    subject = Subject(Run(Path("nowhere")), vae, Splits(Dataset.from_arrays(images, name="frames"), None, None))
    assert subject.rates is None
    assert subject.order[0] == 3
    assert subject.plane == (1, 3)
    assert "rates" not in applicable(subject)
    assert traversals(subject, n=2).names[0] == "z[3]"
    with pytest.raises(InputError, match="only the sum over dimensions is known"):
        rates(subject)


def test_plane_of_one_or_two_dimensions_needs_no_choice(make_vae: Callable[..., VAE]) -> None:
    assert Subject(Run(Path("nowhere")), make_vae(latent_dim=1)).plane == (0, 1)
