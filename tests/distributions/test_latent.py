"""Distributions over codes against SciPy, closed forms, numerical Jacobians and many draws."""

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
    kl_divergence,
    stop_gradient,
    tree_map,
)

rng = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def same_numbers_whatever_ran_before() -> None:
    rng.bit_generator.state = np.random.default_rng(3).bit_generator.state


def normal(mean: object, log_var: object) -> DiagonalNormal:
    return DiagonalNormal(tensor(mean), tensor(log_var))


def triangles(*shape: int) -> Array:
    """Random lower triangular matrices with a positive diagonal."""
    below = np.tril(rng.normal(scale=0.6, size=(*shape, shape[-1])), -1)
    return (below + np.eye(shape[-1]) * rng.uniform(0.4, 1.6, (*shape, 1))).astype("float32")


def flow(
    normalizing: bool, dimensions: int = 3, batch: tuple[int, ...] = (), frozen: bool = False
) -> TransformedDistribution:
    order = list(range(dimensions))
    steps = [MaskedAffineBijector(order if index % 2 == 0 else order[::-1], (12,), 2) for index in range(2)]
    for index, step in enumerate(steps):
        randomize(step, 0.4, seed=index)
    base = normal(rng.normal(size=(*batch, dimensions)), 0.5 * rng.normal(size=(*batch, dimensions)))
    return TransformedDistribution(base, steps, normalizing, tensor(rng.normal(size=(*batch, 2))), frozen)


def test_normal_is_scipy_s_density() -> None:
    mean, log_var, z = (rng.normal(size=(5, 4)).astype("float32") for _ in range(3))
    expected = stats.norm(mean, np.exp(log_var / 2)).logpdf(z)
    per_dimension = to_numpy(normal(mean, log_var).log_prob_per_dimension(tensor(z)))
    np.testing.assert_allclose(per_dimension, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(to_numpy(normal(mean, log_var).log_prob(tensor(z))), expected.sum(-1), rtol=1e-5)


@pytest.mark.parametrize("latent_dim", [1, 3])
def test_full_normal_is_scipy_s_density(latent_dim: int) -> None:
    mean, scale = rng.normal(size=(4, 1, latent_dim)), triangles(4, 1, latent_dim)
    z = rng.normal(scale=2.0, size=(4, 5, latent_dim))
    view = MultivariateNormalTriL(tensor(mean), tensor(scale))
    expected = [
        stats.multivariate_normal(m[0], s[0] @ s[0].T).logpdf(z) for m, s, z in zip(mean, scale, z, strict=True)
    ]
    np.testing.assert_allclose(to_numpy(view.log_prob(tensor(z))), expected, rtol=1e-4, atol=1e-4)
    variances = np.diagonal(scale @ np.swapaxes(scale, -1, -2), axis1=-2, axis2=-1)
    np.testing.assert_allclose(to_numpy(view.log_var), np.log(variances), atol=1e-5)


def test_full_normal_with_a_diagonal_is_the_diagonal_normal() -> None:
    mean, log_var, noise = (rng.normal(size=(6, 3)).astype("float32") for _ in range(3))
    one = normal(mean, log_var)
    other = MultivariateNormalTriL(tensor(mean), tensor(np.exp(log_var / 2)[..., None] * np.eye(3)))
    for ours, theirs in zip(one.rsample(tensor(noise)), other.rsample(tensor(noise)), strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), rtol=1e-5, atol=1e-5)
    reference = normal(rng.normal(size=3), rng.normal(size=3))
    np.testing.assert_allclose(
        to_numpy(one.kl_divergence(reference)).sum(-1),
        to_numpy(other.kl_divergence(reference))[:, 0],
        rtol=1e-4,
        atol=1e-4,
    )
    np.testing.assert_allclose(to_numpy(other.log_var), log_var, atol=1e-5)


@pytest.mark.parametrize("full", [False, True])
def test_mixture_is_the_weighted_sum_of_scipy_s_densities_and_draws_from_it(full: bool) -> None:
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


def test_mixture_far_from_every_component_falls_off_like_a_parabola() -> None:
    mixture = Mixture(tensor([0.0, 0.0]), normal([[0.0], [1.0]], [[0.0], [0.0]]))
    expected = stats.norm(1.0).logpdf(1000.0) - math.log(2)
    assert float(mixture.log_prob(tensor([1000.0]))) == pytest.approx(expected, rel=1e-6)


def test_choice_of_component_and_noise_are_independent() -> None:
    """The same integer twice would make draws of one component come from one end of its noise."""
    drawn = to_numpy(Mixture(tensor([0.0, 0.0]), normal([[0.0], [100.0]], [[0.0], [0.0]])).sample(20_000, seed=1))[:, 0]
    for part in (drawn[drawn < 50], drawn[drawn > 50] - 100):
        assert len(part) == pytest.approx(10_000, abs=300)
        assert stats.kstest(part, "norm").pvalue > 1e-4


@pytest.mark.parametrize(
    "view",
    [
        normal(rng.normal(size=(4, 1, 3)), rng.normal(size=(4, 1, 3))),
        MultivariateNormalTriL(tensor(rng.normal(size=(4, 1, 3))), tensor(triangles(4, 1, 3))),
        flow(False, batch=(4, 1)),
        flow(True, batch=(4, 1)),
    ],
)
def test_density_of_a_draw_is_the_density_at_the_draw(view: Any) -> None:
    z, log_prob = view.rsample(tensor(rng.normal(size=(4, 6, 3))))
    assert tuple(z.shape) == (4, 6, 3)
    np.testing.assert_allclose(to_numpy(log_prob), to_numpy(view.log_prob(z)), rtol=1e-4, atol=1e-3)


def test_draws_have_the_moments_they_are_asked_for() -> None:
    scale, mean, noise = triangles(3), rng.normal(size=3), rng.normal(size=(40_000, 3))
    drawn = to_numpy(MultivariateNormalTriL(tensor(mean), tensor(scale)).rsample(tensor(noise)).z)
    np.testing.assert_allclose(drawn, mean + noise @ scale.T, atol=1e-4)
    drawn = to_numpy(normal([1.0, -2.0], [0.0, -1.0]).sample(40_000, seed=1))
    np.testing.assert_allclose(drawn.mean(0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(np.cov(drawn.T), np.diag(np.exp([0.0, -1.0])), atol=0.04)
    assert not np.allclose(drawn, to_numpy(normal([1.0, -2.0], [0.0, -1.0]).sample(40_000, seed=2)))


def test_a_batch_of_distributions_is_sampled_once_each() -> None:
    batch = normal([[0.0, 50.0], [100.0, -50.0]], [[0.0, 0.0], [0.0, 0.0]])
    np.testing.assert_allclose(to_numpy(batch.sample(2, seed=3)), to_numpy(batch.mean), atol=6)


def test_closed_kl_of_each_dimension_is_the_integral() -> None:
    one, other = (normal(rng.normal(size=4), rng.normal(size=4)) for _ in range(2))
    axis = np.linspace(-25, 25, 20_001)
    densities = [
        stats.norm(to_numpy(view.mean)[:, None], np.exp(to_numpy(view.log_var)[:, None] / 2)).logpdf(axis)
        for view in (one, other)
    ]
    expected = (np.exp(densities[0]) * (densities[0] - densities[1])).sum(-1) * (axis[1] - axis[0])
    np.testing.assert_allclose(to_numpy(one.kl_divergence(other)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("full", [False, True])
def test_closed_kl_agrees_with_monte_carlo(full: bool) -> None:
    mean, scale = tensor(rng.normal(size=(1, 3))), tensor(triangles(1, 3))
    posterior: Any = MultivariateNormalTriL(mean, scale) if full else normal(mean, rng.normal(size=(1, 3)))
    prior = normal(rng.normal(size=3), 0.5 * rng.normal(size=3))
    draw = posterior.rsample(tensor(rng.normal(size=(200_000, 3))))
    # A mixture of one has no closed form.
    estimates = to_numpy(
        kl_divergence(posterior, Mixture(tensor([0.0]), tree_map(prior, lambda values: values[None])), draw)
    )
    closed = to_numpy(kl_divergence(posterior, prior, draw))
    assert estimates.shape == (200_000, 1)
    assert closed.shape == (1, 1 if full else 3)
    error = estimates.std() / math.sqrt(len(estimates))
    assert error < 0.01 * closed.sum()
    assert abs(estimates.mean() - closed.sum()) < 4 * error


def test_kl_of_a_distribution_to_itself_is_zero_and_else_positive() -> None:
    one, other = normal([[0.2]], [[-3.0]]), normal([[0.2]], [[-2.9]])
    assert to_numpy(one.kl_divergence(one))[0, 0] == pytest.approx(0, abs=1e-6)
    assert to_numpy(one.kl_divergence(other))[0, 0] > 1e-4


def test_point_has_no_spread_and_costs_only_its_prior() -> None:
    codes = rng.normal(size=(4, 1, 2)).astype("float32")
    point, prior = Deterministic(tensor(codes)), normal([0.0, 0.0], [0.0, 0.0])
    draw = point.rsample(tensor(rng.normal(size=(4, 3, 2))))
    np.testing.assert_array_equal(to_numpy(draw.z), np.repeat(codes, 3, 1))
    np.testing.assert_allclose(
        to_numpy(kl_divergence(point, prior, draw))[..., 0],
        -stats.norm.logpdf(np.repeat(codes, 3, 1)).sum(-1),
        rtol=1e-5,
    )
    assert (to_numpy(point.log_var) == -math.inf).all()
    assert not to_numpy(draw.log_prob).any()


@pytest.mark.parametrize("normalizing", [False, True])
@pytest.mark.parametrize("dimensions", [1, 3])
def test_flow_changes_variables_as_a_numerical_jacobian_does(normalizing: bool, dimensions: int) -> None:
    view, noise = flow(normalizing, dimensions), rng.normal(size=(6, dimensions)).astype("float32")
    generated = jacobians(lambda noise: view.rsample(noise).z, noise)
    expected = stats.norm.logpdf(noise).sum(-1) - np.linalg.slogdet(generated)[1]
    z, log_prob = view.rsample(tensor(noise))
    np.testing.assert_allclose(to_numpy(log_prob), expected, atol=5e-3)

    def normalize(z: object) -> object:
        for step in view.steps if normalizing else reversed(view.steps):
            z = (step.transform if normalizing else step.inverse)(z, view.context)[0]
        return z

    z = to_numpy(z)
    base = stats.norm(to_numpy(view.base.mean), np.exp(to_numpy(view.base.log_var) / 2))
    inverted = jacobians(normalize, z)
    expected = base.logpdf(to_numpy(normalize(tensor(z)))).sum(-1) + np.linalg.slogdet(inverted)[1]
    np.testing.assert_allclose(to_numpy(view.log_prob(tensor(z))), expected, atol=5e-3)


@pytest.mark.parametrize("normalizing", [False, True])
def test_flow_integrates_to_one_and_draws_what_its_density_says(normalizing: bool) -> None:
    view = flow(normalizing, dimensions=2)
    assert integral(view.log_prob, reach=25, points=501) == pytest.approx(1.0, abs=5e-3)
    drawn = to_numpy(view.sample(20_000, seed=1))
    axis = np.linspace(-25, 25, 501, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(to_numpy(view.log_prob(tensor(grid))))
    density /= density.sum()
    mean = density @ grid
    covariance = (density[:, None] * (grid - mean)).T @ (grid - mean)
    np.testing.assert_allclose(drawn.mean(0), mean, atol=5 * math.sqrt(covariance.max() / 20_000))
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.06 * covariance.max())


def test_moments_of_a_flow_are_those_of_its_linearisation_at_the_mean() -> None:
    view = flow(False, batch=(4,))
    center = to_numpy(view.rsample(tensor(np.zeros((4, 3)))).z)
    np.testing.assert_allclose(to_numpy(view.mean), center, atol=1e-5)
    # Two steps in opposite orders are no longer triangular; one alone is.
    single = TransformedDistribution(view.base, view.steps[:1], False, view.context)
    scales = jacobians(lambda u: single._generate(u)[0], to_numpy(view.base.mean)).diagonal(axis1=1, axis2=2)
    np.testing.assert_allclose(to_numpy(single.log_var), to_numpy(view.base.log_var) + 2 * np.log(scales), atol=5e-3)


NOISE = rng.normal(size=(5, 3)).astype("float32")
LOWER = triangles(5, 3)


def test_detached_normal_has_gradients_through_z_only() -> None:
    mean, log_var = rng.normal(size=(2, 5, 3)).astype("float32")

    def loss(view: DiagonalNormal, apart: Callable[[DiagonalNormal], DiagonalNormal]) -> object:
        return ops.sum(apart(view).log_prob(view.rsample(tensor(NOISE)).z))

    moments = np.stack([mean, log_var])
    through_z, _ = gradient(lambda both: loss(DiagonalNormal(both[0], both[1]), stop_gradient), moments)
    # ∂ log q/∂z = −ε/σ, ∂z/∂μ = 1, ∂z/∂ log σ² = σε/2.
    np.testing.assert_allclose(through_z, np.stack([-NOISE / np.exp(log_var / 2), -(NOISE**2) / 2]), atol=1e-4)
    every, _ = gradient(lambda both: loss(DiagonalNormal(both[0], both[1]), lambda view: view), moments)
    # The density of a reparameterized draw depends on σ alone.
    np.testing.assert_allclose(every, np.stack([np.zeros((5, 3)), np.full((5, 3), -0.5)]), atol=1e-4)


def test_detached_full_normal_has_gradients_through_z_only() -> None:
    def loss(mean: object) -> object:
        view = MultivariateNormalTriL(mean, tensor(LOWER))
        return ops.sum(stop_gradient(view).log_prob(view.rsample(tensor(NOISE)).z))

    through_z, _ = gradient(loss, rng.normal(size=(5, 3)))
    expected = [-np.linalg.solve(scale.T, noise) for scale, noise in zip(LOWER, NOISE, strict=True)]
    np.testing.assert_allclose(through_z, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("normalizing", [False, True])
def test_detached_flow_has_gradients_through_z_only(normalizing: bool) -> None:
    view, z = flow(normalizing, batch=(5,)), rng.normal(size=(5, 3)).astype("float32")
    moments = np.stack([to_numpy(view.base.mean), to_numpy(view.base.log_var)])

    def at(both: object) -> TransformedDistribution:
        return TransformedDistribution(DiagonalNormal(both[0], both[1]), view.steps, normalizing, view.context)

    def summed(one: TransformedDistribution, z: object) -> object:
        return ops.sum(one.log_prob(z))

    # With z held, nothing is left of the gradient, in the moments and in the steps; without `stop_gradient` it all is.
    held, of_steps = gradient(lambda both: summed(stop_gradient(at(both)), tensor(z)), moments, view.steps)
    assert not held.any()
    assert not any(change.any() for change in of_steps)
    free, of_steps = gradient(lambda both: summed(at(both), tensor(z)), moments, view.steps)
    assert np.abs(free).min() > 1e-6
    assert all(change.any() for change in of_steps)
    context = to_numpy(view.context)
    held, _ = gradient(
        lambda context: summed(
            stop_gradient(TransformedDistribution(view.base, view.steps, normalizing, context)), tensor(z)
        ),
        context,
    )
    assert not held.any()
    # In z, it is the whole gradient.
    through_z, _ = gradient(lambda z: summed(stop_gradient(view), z), z)
    expected = jacobians(lambda z: view.log_prob(z)[..., None], z)[:, 0]
    np.testing.assert_allclose(through_z, expected, rtol=1e-2, atol=1e-2)


def test_detached_mixture_is_constant() -> None:
    z = tensor(rng.normal(size=(7, 2)))

    def loss(values: object, apart: Callable[[Mixture], Mixture]) -> object:
        return ops.sum(apart(Mixture(values[:, 0], DiagonalNormal(values[:, 1:3], values[:, 3:]))).log_prob(z))

    values = rng.normal(size=(4, 5))
    assert not gradient(lambda values: loss(values, stop_gradient), values)[0].any()
    assert gradient(lambda values: loss(values, lambda mixture: mixture), values)[0].all()
