"""Distributions over codes against SciPy, closed forms, numerical Jacobians and many samples."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from keras import ops
from scipy import stats

from helpers import gradient, integral, jacobians, randomize, tensor, to_numpy
from keras_vae.core.typing import Array
from keras_vae.distributions.bijectors import MaskedAffineBijector
from keras_vae.distributions.latent import (
    Deterministic,
    DiagonalNormal,
    Mixture,
    MultivariateNormalTriL,
    TransformedDistribution,
    stop_gradient,
)

rng = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def reset_random_numbers() -> None:
    rng.bit_generator.state = np.random.default_rng(3).bit_generator.state


def normal(mean: object, log_var: object) -> DiagonalNormal:
    return DiagonalNormal(tensor(mean), tensor(log_var))


def triangles(*shape: int) -> Array:
    """Return random lower triangular matrices with a positive diagonal."""
    lower = np.tril(rng.normal(scale=0.6, size=(*shape, shape[-1])), -1)
    return (lower + np.eye(shape[-1]) * rng.uniform(0.4, 1.6, (*shape, 1))).astype("float32")


def flow(
    maps_to_base: bool, dimensions: int = 3, batch: tuple[int, ...] = (), detach_weights: bool = False
) -> TransformedDistribution:
    order = list(range(dimensions))
    bijectors = [MaskedAffineBijector(order if index % 2 == 0 else order[::-1], (12,), 2) for index in range(2)]
    for index, bijector in enumerate(bijectors):
        randomize(bijector, 0.4, seed=index)
    base = normal(rng.normal(size=(*batch, dimensions)), 0.5 * rng.normal(size=(*batch, dimensions)))
    return TransformedDistribution(base, bijectors, maps_to_base, tensor(rng.normal(size=(*batch, 2))), detach_weights)


def test_diagonal_normal_has_the_density_of_scipy() -> None:
    mean, log_var, z = (rng.normal(size=(5, 4)).astype("float32") for _ in range(3))
    expected = stats.norm(mean, np.exp(log_var / 2)).logpdf(z)
    per_dimension = to_numpy(normal(mean, log_var).log_prob_per_dimension(tensor(z)))
    np.testing.assert_allclose(per_dimension, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_numpy(normal(mean, log_var).log_prob(tensor(z))), expected.sum(-1), rtol=1e-5)


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_full_normal_has_the_density_of_scipy(latent_dim: int) -> None:
    mean, scale = rng.normal(size=(4, 1, latent_dim)), triangles(4, 1, latent_dim)
    z = rng.normal(scale=2.0, size=(4, 5, latent_dim))
    distribution = MultivariateNormalTriL(tensor(mean), tensor(scale))
    expected = [
        stats.multivariate_normal(m[0], s[0] @ s[0].T).logpdf(z) for m, s, z in zip(mean, scale, z, strict=True)
    ]
    np.testing.assert_allclose(to_numpy(distribution.log_prob(tensor(z))), expected, rtol=1e-4, atol=1e-4)
    variances = np.diagonal(scale @ np.swapaxes(scale, -1, -2), axis1=-2, axis2=-1)
    np.testing.assert_allclose(to_numpy(distribution.log_var), np.log(variances), atol=1e-5)


def test_full_normal_with_a_diagonal_scale_equals_the_diagonal_normal() -> None:
    mean, log_var, noise = (rng.normal(size=(6, 3)).astype("float32") for _ in range(3))
    one = normal(mean, log_var)
    other = MultivariateNormalTriL(tensor(mean), tensor(np.exp(log_var / 2)[..., None] * np.eye(3)))
    for ours, theirs in zip(one.rsample(tensor(noise)), other.rsample(tensor(noise)), strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_numpy(other.log_var), log_var, atol=1e-5)


@pytest.mark.parametrize("full", [False, True])
def test_mixture_has_the_weighted_density_of_scipy_and_samples_follow_it(full: bool) -> None:
    logits, mean, scale = np.array([0.5, -1.0, 3.0]), rng.normal(scale=2.0, size=(3, 2)), triangles(3, 2)
    if not full:
        scale = scale * np.eye(2)
    log_var = 2 * np.log(np.diagonal(scale, axis1=1, axis2=2))
    components = MultivariateNormalTriL(tensor(mean), tensor(scale)) if full else normal(mean, log_var)
    mixture = Mixture(tensor(logits), components)
    weights, covariances = np.exp(logits) / np.exp(logits).sum(), scale @ np.swapaxes(scale, 1, 2)
    z = rng.normal(scale=3.0, size=(4, 5, 2))
    expected = sum(
        weight * stats.multivariate_normal(m, c).pdf(z) for weight, m, c in zip(weights, mean, covariances, strict=True)
    )
    np.testing.assert_allclose(to_numpy(mixture.log_prob(tensor(z))), np.log(expected), rtol=1e-4, atol=1e-4)

    drawn = to_numpy(mixture.sample(40_000, seed=1))
    center = weights @ mean
    spread = sum(w * (c + np.outer(m - center, m - center)) for w, m, c in zip(weights, mean, covariances, strict=True))
    np.testing.assert_allclose(drawn.mean(0), center, atol=5 * math.sqrt(spread.max() / 40_000))
    np.testing.assert_allclose(np.cov(drawn.T), spread, atol=0.05 * spread.max())
    assert not np.allclose(drawn, to_numpy(mixture.sample(40_000, seed=2)))
    np.testing.assert_array_equal(drawn, to_numpy(mixture.sample(40_000, seed=1)))


def test_log_density_of_a_mixture_stays_exact_far_from_every_component() -> None:
    mixture = Mixture(tensor([0.0, 0.0]), normal([[0.0], [1.0]], [[0.0], [0.0]]))
    expected = stats.norm(1.0).logpdf(1000.0) - math.log(2)
    assert float(mixture.log_prob(tensor([1000.0]))) == pytest.approx(expected, rel=1e-6)


def test_choice_of_component_and_noise_of_a_mixture_are_independent() -> None:
    """If both used the same seed, all samples of a component would come from one tail of its noise."""
    drawn = to_numpy(Mixture(tensor([0.0, 0.0]), normal([[0.0], [100.0]], [[0.0], [0.0]])).sample(20_000, seed=1))[:, 0]
    for part in (drawn[drawn < 50], drawn[drawn > 50] - 100):
        assert len(part) == pytest.approx(10_000, abs=300)
        assert stats.kstest(part, "norm").pvalue > 1e-4


@pytest.mark.parametrize(
    "distribution",
    [
        normal(rng.normal(size=(4, 1, 3)), rng.normal(size=(4, 1, 3))),
        MultivariateNormalTriL(tensor(rng.normal(size=(4, 1, 3))), tensor(triangles(4, 1, 3))),
        flow(False, batch=(4, 1)),
        flow(True, batch=(4, 1)),
    ],
)
def test_rsample_returns_the_log_density_of_its_samples(distribution: Any) -> None:
    z, log_prob = distribution.rsample(tensor(rng.normal(size=(4, 6, 3))))
    assert tuple(z.shape) == (4, 6, 3)
    np.testing.assert_allclose(to_numpy(log_prob), to_numpy(distribution.log_prob(z)), rtol=1e-4, atol=1e-3)


def test_samples_of_normals_have_their_moments() -> None:
    scale, mean, noise = triangles(3), rng.normal(size=3), rng.normal(size=(40_000, 3))
    full = MultivariateNormalTriL(tensor(mean), tensor(scale))
    np.testing.assert_allclose(to_numpy(full.rsample(tensor(noise)).z), mean + noise @ scale.T, atol=1e-4)
    drawn = to_numpy(full.sample(40_000, seed=1))
    np.testing.assert_allclose(drawn.mean(0), mean, atol=0.05)
    np.testing.assert_allclose(np.cov(drawn.T), scale @ scale.T, atol=0.1)
    drawn = to_numpy(normal([1.0, -2.0], [0.0, -1.0]).sample(40_000, seed=1))
    np.testing.assert_allclose(drawn.mean(0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), np.diag(np.exp([0.0, -1.0])), atol=0.04)
    assert not np.allclose(drawn, to_numpy(normal([1.0, -2.0], [0.0, -1.0]).sample(40_000, seed=2)))


def test_batch_of_distributions_returns_one_sample_per_distribution() -> None:
    batch = normal([[0.0, 50.0], [100.0, -50.0]], [[0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(to_numpy(batch.sample(2, seed=3)), to_numpy(batch.mean), atol=6)


def test_point_mass_has_no_variance_and_a_log_density_of_zero() -> None:
    codes = rng.normal(size=(4, 1, 2)).astype("float32")
    point = Deterministic(tensor(codes))
    draw = point.rsample(tensor(rng.normal(size=(4, 3, 2))))
    np.testing.assert_array_equal(to_numpy(draw.z), np.repeat(codes, 3, 1))
    assert (to_numpy(point.log_var) == -math.inf).all()
    assert not to_numpy(draw.log_prob).any()
    np.testing.assert_array_equal(to_numpy(Deterministic(tensor(codes[0, 0])).sample(5, seed=1)), codes[[0] * 5, 0])


@pytest.mark.parametrize("maps_to_base", [False, True])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_density_of_a_flow_follows_from_numerical_jacobians(maps_to_base: bool, dimensions: int) -> None:
    distribution, noise = flow(maps_to_base, dimensions), rng.normal(size=(6, dimensions)).astype("float32")
    generated = jacobians(lambda noise: distribution.rsample(noise).z, noise)
    expected = stats.norm.logpdf(noise).sum(-1) - np.linalg.slogdet(generated)[1]
    z, log_prob = distribution.rsample(tensor(noise))
    np.testing.assert_allclose(to_numpy(log_prob), expected, atol=5e-3)

    def normalize(z: object) -> object:
        for bijector in distribution.bijectors if maps_to_base else reversed(distribution.bijectors):
            z = (bijector.transform if maps_to_base else bijector.inverse)(z, distribution.context)[0]
        return z

    z = to_numpy(z)
    base = stats.norm(to_numpy(distribution.base.mean), np.exp(to_numpy(distribution.base.log_var) / 2))
    inverted = jacobians(normalize, z)
    expected = base.logpdf(to_numpy(normalize(tensor(z)))).sum(-1) + np.linalg.slogdet(inverted)[1]
    np.testing.assert_allclose(to_numpy(distribution.log_prob(tensor(z))), expected, atol=5e-3)


@pytest.mark.parametrize("maps_to_base", [False, True])
def test_density_of_a_flow_integrates_to_one_and_samples_follow_it(maps_to_base: bool) -> None:
    distribution = flow(maps_to_base, dimensions=2)
    assert integral(distribution.log_prob, reach=25, points=501) == pytest.approx(1.0, abs=5e-3)
    drawn = to_numpy(distribution.sample(20_000, seed=1))
    axis = np.linspace(-25, 25, 501, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(to_numpy(distribution.log_prob(tensor(grid))))
    density /= density.sum()
    mean = density @ grid
    covariance = (density[:, None] * (grid - mean)).T @ (grid - mean)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * math.sqrt(covariance.max() / 20_000))
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.06 * covariance.max())


def test_moments_of_a_flow_are_those_of_its_linearization_at_the_mean() -> None:
    distribution = flow(False, batch=(4,))
    center = to_numpy(distribution.rsample(tensor(np.zeros((4, 3)))).z)
    np.testing.assert_allclose(to_numpy(distribution.mean), center, atol=1e-5)
    # The Jacobian of a single bijector is triangular; that of two in opposite orders is not.
    single = TransformedDistribution(distribution.base, distribution.bijectors[:1], False, distribution.context)
    scales = jacobians(lambda u: single._generate(u)[0], to_numpy(distribution.base.mean)).diagonal(axis1=1, axis2=2)
    np.testing.assert_allclose(
        to_numpy(single.log_var), to_numpy(distribution.base.log_var) + 2 * np.log(scales), atol=5e-3
    )


NOISE = rng.normal(size=(5, 3)).astype("float32")
LOWER = triangles(5, 3)


def test_stop_gradient_keeps_the_gradient_of_a_normal_through_z() -> None:
    mean, log_var = rng.normal(size=(2, 5, 3)).astype("float32")

    def loss(distribution: DiagonalNormal, transform: Callable[[DiagonalNormal], DiagonalNormal]) -> object:
        return ops.sum(transform(distribution).log_prob(distribution.rsample(tensor(NOISE)).z))

    moments = np.stack([mean, log_var])
    through_z, _ = gradient(lambda both: loss(DiagonalNormal(both[0], both[1]), stop_gradient), moments)
    # ∂ log q/∂z = −ε/σ, ∂z/∂μ = 1, ∂z/∂ log σ² = σε/2.
    np.testing.assert_allclose(through_z, np.stack([-NOISE / np.exp(log_var / 2), -(NOISE**2) / 2]), atol=1e-4)
    full, _ = gradient(lambda both: loss(DiagonalNormal(both[0], both[1]), lambda distribution: distribution), moments)
    # The log-density of a reparameterized sample depends on σ alone.
    np.testing.assert_allclose(full, np.stack([np.zeros((5, 3)), np.full((5, 3), -0.5)]), atol=1e-4)


def test_stop_gradient_keeps_the_gradient_of_a_full_normal_through_z() -> None:
    def loss(mean: object) -> object:
        distribution = MultivariateNormalTriL(mean, tensor(LOWER))
        return ops.sum(stop_gradient(distribution).log_prob(distribution.rsample(tensor(NOISE)).z))

    through_z, _ = gradient(loss, rng.normal(size=(5, 3)))
    expected = [-np.linalg.solve(scale.T, noise) for scale, noise in zip(LOWER, NOISE, strict=True)]
    np.testing.assert_allclose(through_z, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("maps_to_base", [False, True])
def test_stop_gradient_keeps_the_gradient_of_a_flow_through_z(maps_to_base: bool) -> None:
    distribution, z = flow(maps_to_base, batch=(5,)), rng.normal(size=(5, 3)).astype("float32")
    moments = np.stack([to_numpy(distribution.base.mean), to_numpy(distribution.base.log_var)])

    def at(both: object) -> TransformedDistribution:
        return TransformedDistribution(
            DiagonalNormal(both[0], both[1]), distribution.bijectors, maps_to_base, distribution.context
        )

    def summed(one: TransformedDistribution, z: object) -> object:
        return ops.sum(one.log_prob(z))

    # With a fixed z, moments and weights have gradients without `stop_gradient`, and none with it.
    held, of_weights = gradient(
        lambda both: summed(stop_gradient(at(both)), tensor(z)), moments, distribution.bijectors
    )
    assert not held.any()
    assert not any(change.any() for change in of_weights)
    free, of_weights = gradient(lambda both: summed(at(both), tensor(z)), moments, distribution.bijectors)
    assert np.abs(free).min() > 1e-6
    assert all(change.any() for change in of_weights)
    context = to_numpy(distribution.context)
    held, _ = gradient(
        lambda context: summed(
            stop_gradient(TransformedDistribution(distribution.base, distribution.bijectors, maps_to_base, context)),
            tensor(z),
        ),
        context,
    )
    assert not held.any()
    # The gradient in z is complete.
    through_z, _ = gradient(lambda z: summed(stop_gradient(distribution), z), z)
    expected = jacobians(lambda z: distribution.log_prob(z)[..., None], z)[:, 0]
    np.testing.assert_allclose(through_z, expected, rtol=1e-2, atol=1e-2)


def test_stop_gradient_makes_a_mixture_constant() -> None:
    z = tensor(rng.normal(size=(7, 2)))

    def loss(values: object, transform: Callable[[Mixture], Mixture]) -> object:
        return ops.sum(transform(Mixture(values[:, 0], DiagonalNormal(values[:, 1:3], values[:, 3:]))).log_prob(z))

    values = rng.normal(size=(4, 5))
    assert not gradient(lambda values: loss(values, stop_gradient), values)[0].any()
    assert gradient(lambda values: loss(values, lambda mixture: mixture), values)[0].all()
