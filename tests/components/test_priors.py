"""Priors: densities integrate to one, samples follow them, and a VampPrior is a mixture of posteriors."""

import math
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from helpers import gradient, integral, randomize, tensor, to_numpy
from keras_vae import VAE
from keras_vae.components.conditions import ContinuousCondition
from keras_vae.components.posteriors import DiagonalNormal, FullCovarianceNormal, InverseAutoregressiveFlow, Posterior
from keras_vae.components.priors import (
    ConditionalNormal,
    MixtureOfNormals,
    Prior,
    PriorInputs,
    RealNVP,
    StandardNormal,
    VampPrior,
)
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.distributions import latent
from keras_vae.networks import MLP

rng = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def reset_random_numbers() -> None:
    rng.bit_generator.state = np.random.default_rng(8).bit_generator.state


def encode(inputs: object) -> latent.DiagonalNormal:
    """Return a posterior whose means and variances grow with the brightness of the columns of a 2×2 image."""
    columns = ops.mean(inputs[..., 0], axis=1)
    return latent.DiagonalNormal(6.0 * columns - 3.0, columns - 1.0)


def built(prior: Prior, latent_dim: int = 2, condition: Array | None = None, scale: float = 0.35) -> object:
    """Return the distribution of a prior whose weights are far from their initial values."""
    if isinstance(prior, keras.layers.Layer):
        prior.build((None, latent_dim), (None, 2, 2, 1), (None, 0 if condition is None else condition.shape[-1]))
        if not isinstance(prior, VampPrior):
            randomize(prior, scale)
    return prior(PriorInputs(latent_dim, encode, None if condition is None else tensor(condition)))


PRIORS = [
    StandardNormal,
    lambda: MixtureOfNormals(num_components=3),
    lambda: VampPrior(num_components=4),
    lambda: RealNVP(num_couplings=3, hidden=(8,)),
    lambda: RealNVP(num_couplings=2, hidden=()),
]


@pytest.mark.parametrize("make", PRIORS)
def test_density_integrates_to_one_and_samples_follow_it(make: Callable[[], Prior]) -> None:
    density = built(make(), scale=0.3)
    assert integral(density.log_prob, reach=15) == pytest.approx(1.0, abs=2e-3)
    axis = np.linspace(-15, 15, 301, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    weights = np.exp(to_numpy(density.log_prob(tensor(grid))))
    weights /= weights.sum()
    mean = weights @ grid
    covariance = (weights[:, None] * (grid - mean)).T @ (grid - mean)
    drawn = to_numpy(density.sample(20_000, seed=1))
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * math.sqrt(covariance.max() / 20_000))
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.06 * covariance.max())
    np.testing.assert_array_equal(drawn, to_numpy(density.sample(20_000, seed=1)))
    assert not np.allclose(drawn, to_numpy(density.sample(20_000, seed=2)))


@pytest.mark.parametrize("make", [StandardNormal, PRIORS[1], PRIORS[3]])
def test_density_of_one_dimension_integrates_to_one(make: Callable[[], Prior]) -> None:
    axis = np.linspace(-60, 60, 20_001, dtype="float32")
    density = built(make(), latent_dim=1, scale=0.2)
    values = np.exp(to_numpy(density.log_prob(tensor(axis[:, None]))).astype("float64"))
    assert values.sum() * 120 / 20_000 == pytest.approx(1.0, abs=2e-3)
    assert tuple(density.sample(5, seed=0).shape) == (5, 1)


def test_mixture_has_the_weighted_density_of_its_components() -> None:
    prior = MixtureOfNormals(num_components=3)
    density, z = built(prior), rng.normal(size=(4, 6, 2))
    logits, means, log_vars = (to_numpy(weight) for weight in (prior.logits, prior.means, prior.log_vars))
    parts = stats.norm(means, np.exp(log_vars / 2)).logpdf(z[..., None, :]).sum(-1)
    expected = special.logsumexp(parts + special.log_softmax(logits), axis=-1)
    np.testing.assert_allclose(to_numpy(density.log_prob(tensor(z))), expected, rtol=1e-4, atol=1e-4)


def test_all_weights_of_a_mixture_have_gradients() -> None:
    prior = MixtureOfNormals(num_components=3)
    built(prior)
    z, zeros = tensor(rng.normal(size=(5, 2))), np.zeros(1)
    inputs = PriorInputs(2, encode)
    _, changes = gradient(lambda zero: ops.sum(prior(inputs).log_prob(z)) + ops.sum(zero), zeros, [prior])
    assert all(np.abs(change).min() > 1e-5 for change in changes)


def test_realnvp_transforms_every_dimension() -> None:
    density = built(RealNVP(num_couplings=2, hidden=(16,)), latent_dim=5)
    z = rng.normal(size=(200, 5)).astype("float32")
    u = tensor(z)
    for bijector in density.bijectors:
        u = bijector.transform(u)[0]
    assert (np.abs(to_numpy(u) - z).max(0) > 0.1).all()
    assert {bijector.num_passes for bijector in density.bijectors} == {2}
    back = u
    for bijector in reversed(density.bijectors):
        back = bijector.inverse(back)[0]
    np.testing.assert_allclose(to_numpy(back), z, atol=1e-4)


def test_conditional_normal_integrates_to_one_given_each_condition() -> None:
    conditions = np.eye(3, dtype="float32")
    prior = ConditionalNormal(hidden=8)
    all_densities = built(prior, condition=conditions, scale=0.6)
    means = to_numpy(all_densities.mean)
    assert np.abs(means[0] - means[1]).max() > 0.05
    for condition in conditions:
        density = prior(PriorInputs(2, encode, tensor(condition[None])))
        assert integral(density.log_prob, reach=12) == pytest.approx(1.0, abs=2e-3)
    drawn = np.stack([to_numpy(all_densities.sample(3, seed=seed)) for seed in range(400)])
    spread = np.exp(to_numpy(all_densities.log_var) / 2)
    np.testing.assert_allclose(drawn.mean(0), means, atol=5 * spread.max() / 20)
    np.testing.assert_allclose(drawn.std(0), spread, rtol=0.2)


def test_vamp_prior_is_the_mean_of_the_posteriors_of_its_pseudo_inputs() -> None:
    prior = VampPrior(num_components=3)
    prior.build((None, 2), (None, 2, 2, 1), (None, 0))
    images = rng.uniform(-0.3, 1.3, (3, 2, 2, 1)).astype("float32")
    prior.pseudo_inputs.assign(images)
    z = rng.normal(size=(4, 6, 2))
    columns = np.clip(images, 0, 1)[..., 0].mean(1)
    parts = stats.norm(6 * columns - 3, np.exp((columns - 1) / 2)).logpdf(z[..., None, :]).sum(-1)
    expected = special.logsumexp(parts, axis=-1) - math.log(3)
    np.testing.assert_allclose(
        to_numpy(prior(PriorInputs(2, encode)).log_prob(tensor(z))), expected, rtol=1e-4, atol=1e-4
    )
    # Pixels outside of [0, 1] are clipped for the encoder, but keep their gradients.
    point = tensor([[0.5, -0.5]])
    _, (change,) = gradient(
        lambda zero: ops.sum(prior(PriorInputs(2, encode)).log_prob(point)) + ops.sum(zero), np.zeros(1), [prior]
    )
    assert ((images < 0) | (images > 1)).any()
    assert change.all()


@pytest.mark.parametrize(
    "make",
    [DiagonalNormal, FullCovarianceNormal, lambda: InverseAutoregressiveFlow(hidden=(8,), context_dim=2)],
    ids=["normal", "full-normal", "iaf"],
)
def test_vamp_prior_with_one_pseudo_input_equals_the_posterior_of_that_input(
    make: Callable[[], Posterior], images: Array
) -> None:
    posterior, network = make(), MLP(widths=(8,))
    vae = VAE(
        network.encoder((9, 11, 1), 2, posterior.param_sizes(2)),
        network.decoder(2, (9, 11, 1)),
        prior=VampPrior(num_components=1),
        posterior=posterior,
        seed=1,
    )
    vae.initialize_prior(images[:1])
    terms = vae.elbo_terms(images[:2], draws=3)
    np.testing.assert_allclose(terms.log_prior[0], terms.log_posterior[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(terms.kl_loss[0], 0, atol=1e-4)
    assert np.abs(terms.log_prior[1] - terms.log_posterior[1]).max() > 1e-3


def test_conditions_of_pseudo_inputs_are_not_clipped(images: Array) -> None:
    network, condition = MLP(widths=(8,)), np.array([[-3.0, 5.0], [0.5, 0.5]], "float32")
    vae = VAE(
        network.encoder((9, 11, 3), 2),
        network.decoder(4, (9, 11, 1)),
        prior=VampPrior(num_components=1),
        condition=ContinuousCondition(2),
        seed=1,
    )
    vae.initialize_prior(images[:1], condition=condition[:1])
    terms = vae.elbo_terms(images[:2], draws=3, condition=condition)
    np.testing.assert_allclose(terms.kl_loss[0], 0, atol=1e-4)
    assert np.abs(terms.log_prior[1] - terms.log_posterior[1]).max() > 1e-3


def test_vamp_prior_is_initialized_with_images() -> None:
    prior = VampPrior(num_components=5)
    prior.build((None, 2), (None, 2, 2, 1), (None, 0))
    images = rng.random((7, 2, 2, 1), "float32")
    prior.initialize(images)
    np.testing.assert_array_equal(to_numpy(prior.pseudo_inputs), images[:5])
    prior.initialize(images[:2])
    np.testing.assert_array_equal(to_numpy(prior.pseudo_inputs), images[[0, 1, 0, 1, 0]])


def test_model_initializes_its_vamp_prior_with_distinct_images(images: Array) -> None:
    network = MLP(widths=(8,))
    vae = VAE(network.encoder((9, 11, 1), 2), network.decoder(2, (9, 11, 1)), prior=VampPrior(num_components=6), seed=1)
    vae.initialize_prior(images, seed=3)
    levels = np.rint(to_numpy(vae.prior.pseudo_inputs) * 255).astype("uint8")
    found = [int(np.flatnonzero((images == chosen).all((1, 2, 3)))[0]) for chosen in levels]
    assert len(set(found)) == 6


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MixtureOfNormals(num_components=0), "num_components = 0: not a positive integer; pass an integer ≥ 1"),
        (lambda: VampPrior(num_components=0), "num_components = 0: not a positive integer; pass an integer ≥ 1"),
        (lambda: RealNVP(num_couplings=0), "num_couplings = 0, .*: not all positive; pass integers ≥ 1"),
        (lambda: RealNVP(hidden=(8, 0)), r"hidden = \[8, 0\]: not all positive; pass integers ≥ 1"),
        (lambda: ConditionalNormal(hidden=0), "hidden = 0: not a positive integer; pass an integer ≥ 1"),
        (lambda: built(ConditionalNormal()), "the model has no condition; set condition = 'label'"),
    ],
)
def test_invalid_prior_is_rejected(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
