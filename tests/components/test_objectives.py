"""Objectives against NumPy, closed forms and known limits."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from helpers import gradient, tensor, to_numpy
from keras_vae.components.objectives import DIPVAE, ELBO, IWAE, BetaTC, ELBOTerms, InfoVAE, Latents, Objective
from keras_vae.components.posteriors import (
    Deterministic,
    DiagonalNormal,
    FullCovarianceNormal,
    InverseAutoregressiveFlow,
)
from keras_vae.components.schedules import Cyclical, WarmUp
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.distributions import latent

rng = np.random.default_rng(9)


@pytest.fixture(autouse=True)
def same_numbers_whatever_ran_before() -> None:
    rng.bit_generator.state = np.random.default_rng(9).bit_generator.state


def make_terms(images: int = 6, draws: int = 1, groups: int = 3) -> ELBOTerms:
    log_likelihood, log_prior, log_posterior = (rng.normal(-5, 2, (images, draws)) for _ in range(3))
    kl_per_group = rng.gamma(1.0, 1.0, (images, groups))
    return ELBOTerms(*map(tensor, (log_likelihood, log_prior, log_posterior, kl_per_group, np.zeros(images))))


def weights_only(log_weight: Array) -> ELBOTerms:
    zeros = np.zeros_like(log_weight)
    return ELBOTerms(*map(tensor, (log_weight, zeros, zeros, zeros[:, :1], zeros[:, 0])))


def values(objective: Objective, terms: ELBOTerms, latents: Latents | None = None, step: int = 0) -> Array:
    return to_numpy(objective(terms, latents, ops.convert_to_tensor(step, "int32"))).astype("float64")


def parts(terms: ELBOTerms) -> tuple[Array, Array]:
    """Return the distortion (N,) and the rates (N, G)."""
    return -to_numpy(terms.log_likelihood).mean(-1), to_numpy(terms.kl_per_group)


@pytest.mark.parametrize("draws", [1, 4])
def test_elbo_weighs_the_rate(draws: int) -> None:
    terms = make_terms(draws=draws)
    distortion, kl_per_group = parts(terms)
    np.testing.assert_allclose(values(ELBO(), terms), distortion + kl_per_group.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(values(ELBO(beta=4.0), terms), distortion + 4 * kl_per_group.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(terms.negative_elbo), distortion + kl_per_group.sum(-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [(WarmUp(steps=10), {0: 0, 5: 0.5, 10: 1, 99: 1}), (Cyclical(steps=10), {0: 0, 2: 0.4, 5: 1, 9: 1, 12: 0.4})],
)
def test_elbo_s_weight_follows_its_schedule(schedule: Any, factors: dict[int, float]) -> None:
    terms = make_terms()
    distortion, kl_per_group = parts(terms)
    for step, factor in factors.items():
        loss = values(ELBO(beta=2.0, schedule=schedule), terms, step=step)
        np.testing.assert_allclose(loss, distortion + 2 * factor * kl_per_group.sum(-1), rtol=1e-5)


def test_free_bits_leave_each_group_what_it_may_cost() -> None:
    terms = make_terms()
    distortion, kl_per_group = parts(terms)
    kl_per_group = kl_per_group.copy()
    kl_per_group[:, 0] *= 0.01
    terms = terms._replace(kl_per_group=tensor(kl_per_group))
    means = kl_per_group.mean(0)
    free = float(np.sort(means)[:2].mean())
    assert (means < free).sum() == 1
    expected = distortion + sum(max(free, mean) for mean in means)
    np.testing.assert_allclose(values(ELBO(free_bits=free), terms), expected, rtol=1e-5)
    # A group below its allowance has no gradient, the others have one.
    slopes, _ = gradient(
        lambda kl_per_group: ops.mean(
            ELBO(free_bits=free)(terms._replace(kl_per_group=kl_per_group), None, ops.zeros(()))
        ),
        kl_per_group,
    )
    np.testing.assert_allclose(slopes, np.tile(np.where(means < free, 0, 1 / 6), (6, 1)), atol=1e-6)


@pytest.mark.parametrize(("step", "target"), [(0, 0.0), (5, 10.0), (50, 20.0)])
def test_capacity_holds_the_rate_at_a_target_that_grows(step: int, target: float) -> None:
    terms = make_terms()
    distortion, kl_per_group = parts(terms)
    expected = distortion + 3 * abs(kl_per_group.sum(-1).mean() - target)
    loss = values(ELBO(beta=3.0, capacity=20.0, schedule=WarmUp(steps=10)), terms, step=step)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_iwae_of_one_draw_is_the_monte_carlo_elbo() -> None:
    terms = make_terms(draws=1)
    expected = -(to_numpy(terms.log_likelihood) + to_numpy(terms.log_prior) - to_numpy(terms.log_posterior))[:, 0]
    for kind in ("plain", "stl", "dreg"):
        np.testing.assert_allclose(values(IWAE(samples=1, gradient=kind), terms), expected, rtol=1e-5)


@pytest.mark.parametrize(("samples", "groups", "weight"), [(6, 1, 0.0), (3, 2, 0.0), (2, 3, 0.25), (6, 1, 1.0)])
def test_miwae_and_ciwae_are_means_of_bounds(samples: int, groups: int, weight: float) -> None:
    log_weight = rng.normal(-80, 5, (7, 6))
    bounds = [
        special.logsumexp(log_weight[:, start : start + samples], axis=1) - math.log(samples)
        for start in range(0, 6, samples)
    ]
    expected = (1 - weight) * np.mean(bounds, axis=0) + weight * log_weight.mean(1)
    for kind in ("plain", "stl", "dreg"):
        objective = IWAE(samples=samples, groups=groups, elbo_weight=weight, gradient=kind)
        assert objective.num_samples == 6
        np.testing.assert_allclose(values(objective, weights_only(log_weight)), -expected, rtol=1e-5)


def test_iwae_rises_with_k_towards_the_exact_evidence() -> None:
    """p(z) = N(0, 1), p(x|z) = N(z, ½²), x = 1.2, under a posterior that is wrong in place and size."""
    z = rng.normal(0.3, 0.6, (20_000, 32))
    log_weight = stats.norm(z, 0.5).logpdf(1.2) + stats.norm.logpdf(z) - stats.norm(0.3, 0.6).logpdf(z)
    exact = stats.norm(0, math.sqrt(1.25)).logpdf(1.2)
    bounds = [-values(IWAE(samples=k), weights_only(log_weight[:, :k])) for k in (1, 2, 4, 8, 16, 32)]
    means = [bound.mean() for bound in bounds]
    errors = [bound.std() / math.sqrt(len(bound)) for bound in bounds]
    for below, above, error in zip(means, means[1:], errors, strict=False):
        assert above > below + 3 * error
    elbo = -0.5 * (np.log(2 * np.pi * 0.25) + ((1.2 - 0.3) ** 2 + 0.36) / 0.25)
    elbo -= 0.5 * (0.36 + 0.09 - 1 - math.log(0.36))
    assert means[0] == pytest.approx(elbo, abs=4 * errors[0])
    assert means[-1] < exact + 3 * errors[-1]
    assert exact - means[-1] < 0.05 * (exact - means[0])


NOISE = np.random.default_rng(10).normal(size=(4000, 8, 2))
X, SCALE = np.array([1.0, -0.7]), 0.6
START = {"mean": np.array([0.4, 0.1]), "log_var": np.array([-0.5, -1.2]), "slope": 0.8}


def toy_gradient(objective: IWAE, noise: Array) -> Array:
    """Return the gradient in the mean, the log-variance and the decoder's slope, (N, 5), of N images of their own.

    p(z) = N(0, I), p(x|z) = N(slope·z, SCALE²).
    """

    def loss(parameters: object) -> object:
        mean, log_var, slope = (parameters[:, None, part] for part in (slice(0, 2), slice(2, 4), slice(4, 5)))
        posterior = latent.DiagonalNormal(mean, log_var)

        def terms(draw: Any) -> ELBOTerms:
            pixels = latent.DiagonalNormal(slope * draw.z, tensor(2 * math.log(SCALE)))
            log_prior = latent.DiagonalNormal(tensor([0.0, 0.0]), tensor([0.0, 0.0])).log_prob(draw.z)
            return ELBOTerms(pixels.log_prob(tensor(X)), log_prior, draw.log_prob, mean[:, 0], None)

        draw = objective.gradient_estimator(
            posterior, posterior.rsample(tensor(noise)), lambda draw: terms(draw).log_weight
        )
        return ops.sum(objective(terms(draw), None, ops.zeros(())))

    start = np.concatenate([START["mean"], START["log_var"], [START["slope"]]])
    return gradient(loss, np.tile(start, (len(noise), 1)))[0]


def paper_gradient(kind: str, noise: Array, samples: int, groups: int = 1, elbo_weight: float = 0.0) -> Array:
    """The same, by the estimators' formulas and derivatives taken by hand."""
    mean, spread, slope = START["mean"], np.exp(START["log_var"] / 2), START["slope"]
    z = mean + spread * noise
    residual = (X - slope * z) / SCALE**2
    log_weight = (
        stats.norm(slope * z, SCALE).logpdf(X) + stats.norm.logpdf(z) - stats.norm(mean, spread).logpdf(z)
    ).sum(-1)
    normalized = special.softmax(log_weight.reshape(len(noise), groups, samples), axis=-1)
    powers = {
        power: ((1 - elbo_weight) * normalized**power / groups + elbo_weight / (groups * samples)).reshape(
            len(noise), -1, 1
        )
        for power in (1, 2)
    }
    # ∂ log w/∂z with q held, then the chain through z = μ + σε.
    of_z = slope * residual - z + noise / spread
    weighted = powers[2 if kind == "dreg" else 1] * of_z
    of_mean, of_log_var = weighted, weighted * spread * noise / 2
    if kind == "plain":
        of_mean = of_mean - powers[1] * noise / spread
        of_log_var = of_log_var - powers[1] * (noise**2 - 1) / 2
    of_slope = powers[1] * (residual * z).sum(-1, keepdims=True)
    return -np.concatenate([part.sum(1) for part in (of_mean, of_log_var, of_slope)], axis=-1)


@pytest.mark.parametrize("kind", ["plain", "stl", "dreg"])
@pytest.mark.parametrize(("samples", "groups", "weight"), [(8, 1, 0.0), (4, 2, 0.0), (2, 4, 0.3), (1, 8, 0.0)])
def test_gradient_is_the_paper_s_estimator(kind: str, samples: int, groups: int, weight: float) -> None:
    objective = IWAE(samples=samples, groups=groups, elbo_weight=weight, gradient=kind)
    noise = NOISE[:50]
    expected = paper_gradient(kind, noise, samples, groups, weight)
    np.testing.assert_allclose(toy_gradient(objective, noise), expected, rtol=1e-3, atol=1e-4)


def test_doubly_reparameterized_gradient_has_the_same_mean_and_less_variance() -> None:
    plain, dreg, stl = (toy_gradient(IWAE(samples=8, gradient=kind), NOISE) for kind in ("plain", "dreg", "stl"))
    difference = (plain - dreg)[:, :4]
    error = difference.std(0) / math.sqrt(len(difference))
    assert (np.abs(difference.mean(0)) < 4 * error).all()
    assert (dreg[:, :4].var(0) < plain[:, :4].var(0)).all()
    assert dreg[:, :4].var(0).sum() < 0.2 * plain[:, :4].var(0).sum()
    # Only the first can be called unbiased: without the score the gradient leans to one side.
    lean = (stl - plain)[:, :4]
    assert (np.abs(lean.mean(0)) > 6 * lean.std(0) / math.sqrt(len(lean))).any()
    for other in (dreg, stl):
        np.testing.assert_allclose(other[:, 4], plain[:, 4], rtol=1e-4, atol=1e-5)


def test_with_one_draw_a_bound_all_estimators_have_the_same_mean() -> None:
    one, noise = NOISE[:, :1], NOISE[:, :1]
    plain, dreg, stl = (toy_gradient(IWAE(samples=1, gradient=kind), noise)[:, :4] for kind in ("plain", "dreg", "stl"))
    np.testing.assert_allclose(dreg, stl, rtol=1e-4, atol=1e-5)
    difference = plain - stl
    assert (np.abs(difference.mean(0)) < 4 * difference.std(0) / math.sqrt(len(one))).all()


def test_weights_that_leave_no_float_keep_gradients_finite() -> None:
    noise = 60 * NOISE[:20]
    for kind in ("plain", "stl", "dreg"):
        assert np.isfinite(toy_gradient(IWAE(samples=8, gradient=kind), noise)).all()


def aggregate(correlation: float, images: int, noise: float = 0.4) -> tuple[ELBOTerms, Latents, Array]:
    """Return one draw of each of many posteriors whose mixture is nearly a unit normal of a correlation."""
    covariance = np.array([[1, correlation], [correlation, 1]])
    means = rng.multivariate_normal([0, 0], (covariance - noise * np.eye(2) * (1 - abs(correlation))), images)
    spread = math.sqrt(noise * (1 - abs(correlation)))
    z = means + spread * rng.normal(size=means.shape)
    log_posterior = stats.norm(means, spread).logpdf(z).sum(-1)
    log_prior = stats.norm.logpdf(z).sum(-1)
    zeros = np.zeros((images, 1))
    terms = ELBOTerms(*map(tensor, (zeros, log_prior[:, None], log_posterior[:, None], zeros, zeros[:, 0])))
    latents = Latents(tensor(z), tensor(means), tensor(np.full_like(means, 2 * math.log(spread))))
    return terms, latents, stats.norm(means[None], spread).logpdf(z[:, None])


def stratified_weight(i: int, j: int, batch: int, images: int) -> float:
    """Chen et al., appendix C.2: a batch of M + 1 images, of which image i is the draw's own and one is the last."""
    rest = batch - 1
    if j == i:
        return 1 / images
    return (images - rest) / (images * rest) if j == (i + 1) % batch else 1 / rest


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
@pytest.mark.parametrize("images", [12, 5000])
def test_beta_tc_estimates_densities_as_the_paper_does(sampling: str, images: int) -> None:
    terms, latents, pairs = aggregate(0.5, 12)
    weights = np.full((12, 12), 1 / (12 * images))
    if sampling == "stratified":
        weights = np.array([[stratified_weight(i, j, 12, images) for j in range(12)] for i in range(12)])
        np.testing.assert_allclose(weights.sum(1), 1)
    log_q = np.log((weights * np.exp(pairs.sum(-1))).sum(1))
    log_product = np.log((weights[..., None] * np.exp(pairs)).sum(1)).sum(-1)
    log_posterior, log_prior = (to_numpy(part)[:, 0] for part in (terms.log_posterior, terms.log_prior))
    expected = log_posterior - log_q, log_q - log_product, log_product - log_prior
    found = BetaTC(sampling=sampling, images=images).decompose(terms, latents)
    np.testing.assert_allclose([to_numpy(part) for part in found], expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(sum(map(to_numpy, found)), log_posterior - log_prior, atol=1e-4)
    loss = values(BetaTC(beta=6.0, alpha=2.0, gamma=3.0, sampling=sampling, images=images), terms, latents)
    np.testing.assert_allclose(loss, 2 * expected[0] + 6 * expected[1] + 3 * expected[2], rtol=1e-4, atol=1e-3)
    even = values(BetaTC(beta=1.0, sampling=sampling, images=images), terms, latents)
    np.testing.assert_allclose(even, log_posterior - log_prior, atol=1e-4)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
@pytest.mark.parametrize("images", [1, 12])
def test_beta_tc_stays_finite_on_batches_of_one_and_of_more_than_are_trained_on(sampling: str, images: int) -> None:
    terms, latents, _ = aggregate(0.5, images)
    assert np.isfinite(values(BetaTC(sampling=sampling, images=5), terms, latents)).all()


def test_weighted_densities_are_those_of_the_exact_mixture_but_for_a_constant() -> None:
    """The paper's weight is 1/NM: with the whole data as the batch, each density is the exact one less log N."""
    terms, latents, pairs = aggregate(0.5, 40)
    log_q = special.logsumexp(pairs.sum(-1), axis=1) - math.log(40)
    log_product = (special.logsumexp(pairs, axis=1) - math.log(40)).sum(-1)
    information, correlation, _ = map(to_numpy, BetaTC(images=40).decompose(terms, latents))
    log_posterior = to_numpy(terms.log_posterior)[:, 0]
    np.testing.assert_allclose(information, log_posterior - log_q + math.log(40), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(correlation, log_q - log_product + math.log(40), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_total_correlation_is_that_of_the_aggregate(sampling: str, correlation: float) -> None:
    images = 800
    terms, latents, _ = aggregate(correlation, images)
    _, total, _ = map(to_numpy, BetaTC(sampling=sampling, images=images).decompose(terms, latents))
    constant = math.log(images) if sampling == "weighted" else 0.0
    exact = -0.5 * math.log(1 - correlation**2)
    assert total.mean() - constant == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("variant", ["i", "ii"])
def test_dip_vae_penalizes_the_covariance(variant: str) -> None:
    terms, means, log_vars = make_terms(images=30), rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    covariance = np.cov(means.T, bias=True)
    if variant == "ii":
        covariance = covariance + np.diag(np.exp(log_vars).mean(0))
    off = covariance - np.diag(np.diag(covariance))
    penalty = 3.0 * (off**2).sum() + 7.0 * ((np.diag(covariance) - 1) ** 2).sum()
    distortion, kl_per_group = parts(terms)
    latents = Latents(None, tensor(means), tensor(log_vars))
    loss = values(DIPVAE(variant=variant, off_diagonal=3.0, diagonal=7.0), terms, latents)
    np.testing.assert_allclose(loss, distortion + kl_per_group.sum(-1) + penalty, rtol=1e-4)


def kernel(kind: str, one: Array, other: Array) -> float:
    """The mean over seven widths around the mean squared distance of two standard normal draws, 2D."""
    squared, widths = ((one - other) ** 2).sum(), 2 * len(one) * np.array([0.1, 0.2, 0.5, 1, 2, 5, 10])
    return float((widths / (widths + squared) if kind == "imq" else np.exp(-squared / widths)).mean())


@pytest.mark.parametrize("kind", ["imq", "rbf"])
def test_discrepancy_is_the_unbiased_double_loop(kind: str) -> None:
    one, other = rng.normal(0.5, 1.0, (9, 3)), rng.normal(0.0, 2.0, (9, 3))
    within = [
        sum(kernel(kind, z[i], z[j]) for i in range(9) for j in range(9) if i != j) / (9 * 8) for z in (one, other)
    ]
    between = sum(kernel(kind, a, b) for a in one for b in other) / 81
    found = float(InfoVAE(kernel=kind).discrepancy(tensor(one), tensor(other)))
    assert found == pytest.approx(sum(within) - 2 * between, rel=1e-4)


@pytest.mark.parametrize("kind", ["imq", "rbf"])
def test_discrepancy_of_single_images_has_no_pairs(kind: str) -> None:
    one, other = tensor([[0.5, 1.0]]), tensor([[0.0, 2.0]])
    expected = -2 * kernel(kind, np.array([0.5, 1.0]), np.array([0.0, 2.0]))
    assert float(InfoVAE(kernel=kind).discrepancy(one, other)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["imq", "rbf"])
def test_discrepancy_is_zero_on_average_for_equal_distributions_and_positive_for_others(kind: str) -> None:
    objective = InfoVAE(kernel=kind)
    equal, shifted = (
        [
            float(objective.discrepancy(tensor(rng.normal(size=(5, 2))), tensor(rng.normal(shift, 1, (5, 2)))))
            for _ in range(120)
        ]
        for shift in (0.0, 1.0)
    )
    assert abs(np.mean(equal)) < 4 * np.std(equal) / math.sqrt(120)
    assert min(equal) < 0
    assert np.mean(shifted) > 6 * np.std(shifted) / math.sqrt(120)


@pytest.mark.parametrize(("alpha", "weight"), [(0.0, 100.0), (-0.5, 3.0), (0.4, 2.0), (1.0, 10.0)])
def test_info_vae_weighs_rate_and_discrepancy(alpha: float, weight: float) -> None:
    terms = make_terms()
    distortion, kl_per_group = parts(terms)
    z, prior = rng.normal(1.0, 1.0, (6, 2)), rng.normal(size=(6, 2))
    objective = InfoVAE(alpha=alpha, weight=weight)
    assert objective.needs_prior_draws
    between = float(objective.discrepancy(tensor(z), tensor(prior)))
    expected = distortion + (1 - alpha) * kl_per_group.sum(-1) + (alpha + weight - 1) * between
    latents = Latents(tensor(z), None, None, tensor(prior))
    np.testing.assert_allclose(values(objective, terms, latents), expected, rtol=1e-4)


def test_info_vae_without_a_rate_does_not_look_at_it() -> None:
    terms = make_terms()._replace(kl_per_group=tensor(np.full((6, 3), np.inf)))
    latents = Latents(tensor(rng.normal(size=(6, 2))), None, None, tensor(rng.normal(size=(6, 2))))
    assert np.isfinite(values(InfoVAE(alpha=1.0), terms, latents)).all()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: ELBO(beta=-1.0), "beta = -1.0: must be a finite number ≥ 0"),
        (lambda: ELBO(beta=math.nan), "beta = nan"),
        (lambda: ELBO(beta=math.inf), "beta = inf"),
        (lambda: ELBO(free_bits=-0.1), "free_bits = -0.1"),
        (lambda: ELBO(capacity=-5.0), "capacity = -5.0"),
        (lambda: ELBO(free_bits=0.5, capacity=5.0), "free_bits = 0.5, capacity = 5.0: give one of the two"),
        (lambda: IWAE(samples=0), "iwae: samples = 0, groups = 1: each must be ≥ 1"),
        (lambda: IWAE(groups=0), "groups = 0: each must be ≥ 1"),
        (lambda: IWAE(elbo_weight=1.5), r"elbo_weight = 1.5: must lie in \[0, 1\]"),
        (lambda: IWAE(elbo_weight=math.nan), "elbo_weight = nan"),
        (lambda: IWAE(gradient="none"), "gradient = 'none': plain, stl or dreg"),
        (lambda: IWAE().check_posterior(Deterministic()), "draws without noise have no weights; take posterior"),
        (lambda: BetaTC(beta=-1.0), "beta = -1.0"),
        (lambda: BetaTC(alpha=-1.0), "alpha = -1.0"),
        (lambda: BetaTC(gamma=math.nan), "gamma = nan"),
        (lambda: BetaTC(sampling="all"), "beta-tc: sampling = 'all': weighted or stratified"),
        (lambda: BetaTC(images=1), "beta-tc: images = 1: the number of training images, at least 2"),
        (lambda: BetaTC().check_posterior(DiagonalNormal()), r"images = None: .* BetaTC\(images=…\)"),
        (lambda: BetaTC(images=9).check_posterior(FullCovarianceNormal()), "beta-tc: .* set posterior = 'normal'"),
        (lambda: DIPVAE(variant="iii"), "dip-vae: variant = 'iii': i or ii"),
        (lambda: DIPVAE(diagonal=-1.0), "^diagonal = -1.0"),
        (lambda: DIPVAE(off_diagonal=-1.0), "off_diagonal = -1.0"),
        (lambda: DIPVAE().check_posterior(InverseAutoregressiveFlow()), "dip-vae: .* take objective = 'elbo'"),
        (lambda: InfoVAE(alpha=1.5), "info-vae: alpha = 1.5: must be ≤ 1"),
        (lambda: InfoVAE(alpha=-math.inf), "alpha = -inf"),
        (lambda: InfoVAE(weight=0.5), "info-vae: weight = 0.5: must be ≥ 1 − alpha = 1"),
        (lambda: InfoVAE(weight=math.inf), "weight = inf"),
        (lambda: InfoVAE(kernel="linear"), "info-vae: kernel = 'linear': imq or rbf"),
    ],
)
def test_what_is_no_bound_or_has_no_formula_is_refused(act: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        act()


def test_what_goes_together_is_taken() -> None:
    for objective in (ELBO(), IWAE(), BetaTC(images=9), DIPVAE(), InfoVAE()):
        objective.check_posterior(DiagonalNormal())
    for objective in (ELBO(), InfoVAE(alpha=1.0)):
        objective.check_posterior(Deterministic())
