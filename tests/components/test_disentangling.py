"""Objectives for disentangled codes against NumPy and the formulas of their papers."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from keras import ops
from loss_terms import distortion_and_kl, make_terms, values
from scipy import special, stats

from helpers import gradient, tensor, to_numpy
from keras_vae.components.objectives import DIPVAE, BetaTC, ELBOTerms, InfoVAE, Latents
from keras_vae.components.posteriors import (
    Deterministic,
    DiagonalNormal,
    FullCovarianceNormal,
    InverseAutoregressiveFlow,
)
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array

rng = np.random.default_rng(9)


@pytest.fixture(autouse=True)
def reset_random_numbers() -> None:
    rng.bit_generator.state = np.random.default_rng(9).bit_generator.state


def aggregate(correlation: float, images: int, noise: float = 0.4) -> tuple[ELBOTerms, Latents, Array]:
    """Return one sample from each of many posteriors whose mixture is close to a correlated unit normal."""
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
    """Return the weight of image j at sample i in a batch of M + 1 images (Chen et al., appendix C.2)."""
    rest = batch - 1
    if j == i:
        return 1 / images
    return (images - rest) / (images * rest) if j == (i + 1) % batch else 1 / rest


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
@pytest.mark.parametrize("images", [12, 5000])
def test_beta_tc_estimates_densities_with_weights_that_sum_to_one(sampling: str, images: int) -> None:
    terms, latents, pairs = aggregate(0.5, 12)
    weights = np.full((12, 12), (images - 1) / (images * 11))
    np.fill_diagonal(weights, 1 / images)
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
def test_beta_tc_is_finite_on_batches_of_one_image_and_of_more_than_the_training_set(
    sampling: str, images: int
) -> None:
    terms, latents, _ = aggregate(0.5, images)
    assert np.isfinite(values(BetaTC(sampling=sampling, images=5), terms, latents)).all()


def test_weighted_densities_are_exact_if_the_batch_contains_all_images() -> None:
    terms, latents, pairs = aggregate(0.5, 40)
    log_q = special.logsumexp(pairs.sum(-1), axis=1) - math.log(40)
    log_product = (special.logsumexp(pairs, axis=1) - math.log(40)).sum(-1)
    information, correlation, _ = map(to_numpy, BetaTC(images=40).decompose(terms, latents))
    np.testing.assert_allclose(information, to_numpy(terms.log_posterior)[:, 0] - log_q, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(correlation, log_q - log_product, rtol=1e-4, atol=1e-4)


def test_weighted_gradient_is_that_of_the_paper() -> None:
    """Compare with central differences of the paper's estimator, whose weights are 1/NM."""
    terms, latents, _ = aggregate(0.5, 6)
    spread = np.exp(to_numpy(latents.z_log_var).astype("float64") / 2)
    log_posterior, log_prior = (
        to_numpy(part).astype("float64")[:, 0] for part in (terms.log_posterior, terms.log_prior)
    )

    def paper_loss(z: Array) -> float:
        pairs = stats.norm(to_numpy(latents.z_mean).astype("float64")[None], spread[None]).logpdf(z[:, None])
        log_q = special.logsumexp(pairs.sum(-1), axis=1) - math.log(6 * 1000)
        log_product = (special.logsumexp(pairs, axis=1) - math.log(6 * 1000)).sum(-1)
        return (2 * (log_posterior - log_q) + 6 * (log_q - log_product) + 3 * (log_product - log_prior)).mean()

    objective, z = BetaTC(alpha=2.0, beta=6.0, gamma=3.0, images=1000), to_numpy(latents.z)
    found, _ = gradient(lambda z: ops.mean(objective(terms, latents._replace(z=z), 0)), z)
    steps = 1e-5 * np.eye(z.size).reshape(-1, *z.shape)
    expected = [(paper_loss(z + step) - paper_loss(z - step)) / 2e-5 for step in steps]
    np.testing.assert_allclose(found.ravel(), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
def test_loss_in_small_batches_is_that_of_all_images(sampling: str) -> None:
    """The paper's weights alone would add (α + β(D − 1) − γD) log NM, 30 to 45 nats."""
    terms, latents, _ = aggregate(0.5, 640)
    objective = BetaTC(beta=6.0, sampling=sampling, images=640)
    exact = values(objective, terms, latents).mean()
    for size in (16, 64):
        batches = [slice(start, start + size) for start in range(0, 640, size)]
        losses = [
            values(
                objective, ELBOTerms(*(part[rows] for part in terms)), Latents(*(part[rows] for part in latents[:3]))
            )
            for rows in batches
        ]
        assert np.mean(losses) == pytest.approx(exact, abs=1.0)


@pytest.mark.parametrize("sampling", ["weighted", "stratified"])
@pytest.mark.parametrize("correlation", [0.0, 0.9])
def test_total_correlation_equals_that_of_the_aggregate_posterior(sampling: str, correlation: float) -> None:
    images = 800
    terms, latents, _ = aggregate(correlation, images)
    _, total, _ = map(to_numpy, BetaTC(sampling=sampling, images=images).decompose(terms, latents))
    exact = -0.5 * math.log(1 - correlation**2)
    assert total.mean() == pytest.approx(exact, abs=0.1)


@pytest.mark.parametrize("variant", ["i", "ii"])
def test_dip_vae_penalizes_the_distance_of_the_covariance_from_the_identity(variant: str) -> None:
    terms, means, log_vars = make_terms(rng, images=30), rng.normal(size=(30, 4)), rng.normal(size=(30, 4))
    covariance = np.cov(means.T, bias=True)
    if variant == "ii":
        covariance = covariance + np.diag(np.exp(log_vars).mean(0))
    off = covariance - np.diag(np.diag(covariance))
    penalty = 3.0 * (off**2).sum() + 7.0 * ((np.diag(covariance) - 1) ** 2).sum()
    distortion, kl_per_group = distortion_and_kl(terms)
    latents = Latents(None, tensor(means), tensor(log_vars))
    loss = values(DIPVAE(variant=variant, off_diagonal=3.0, diagonal=7.0), terms, latents)
    np.testing.assert_allclose(loss, distortion + kl_per_group.sum(-1) + penalty, rtol=1e-4)


def kernel(kind: str, one: Array, other: Array) -> float:
    """Return the kernel averaged over seven widths around 2D, the mean squared distance of standard normal samples."""
    squared, widths = ((one - other) ** 2).sum(), 2 * len(one) * np.array([0.1, 0.2, 0.5, 1, 2, 5, 10])
    return float((widths / (widths + squared) if kind == "imq" else np.exp(-squared / widths)).mean())


@pytest.mark.parametrize("kind", ["imq", "rbf"])
def test_discrepancy_equals_the_unbiased_double_sum(kind: str) -> None:
    one, other = rng.normal(0.5, 1.0, (9, 3)), rng.normal(0.0, 2.0, (9, 3))
    within = [
        sum(kernel(kind, z[i], z[j]) for i in range(9) for j in range(9) if i != j) / (9 * 8) for z in (one, other)
    ]
    between = sum(kernel(kind, a, b) for a in one for b in other) / 81
    found = float(InfoVAE(kernel=kind).discrepancy(tensor(one), tensor(other)))
    assert found == pytest.approx(sum(within) - 2 * between, rel=1e-4)


@pytest.mark.parametrize("kind", ["imq", "rbf"])
def test_discrepancy_of_a_single_image_uses_no_pairs_within_the_batch(kind: str) -> None:
    one, other = tensor([[0.5, 1.0]]), tensor([[0.0, 2.0]])
    expected = -2 * kernel(kind, np.array([0.5, 1.0]), np.array([0.0, 2.0]))
    assert float(InfoVAE(kernel=kind).discrepancy(one, other)) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["imq", "rbf"])
def test_discrepancy_is_zero_on_average_only_for_equal_distributions(kind: str) -> None:
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
def test_info_vae_is_the_weighted_sum_of_rate_and_discrepancy(alpha: float, weight: float) -> None:
    terms = make_terms(rng)
    distortion, kl_per_group = distortion_and_kl(terms)
    z, prior = rng.normal(1.0, 1.0, (6, 2)), rng.normal(size=(6, 2))
    objective = InfoVAE(alpha=alpha, weight=weight)
    assert objective.requires_prior_samples
    discrepancy = float(objective.discrepancy(tensor(z), tensor(prior)))
    expected = distortion + (1 - alpha) * kl_per_group.sum(-1) + (alpha + weight - 1) * discrepancy
    latents = Latents(tensor(z), None, None, tensor(prior))
    np.testing.assert_allclose(values(objective, terms, latents), expected, rtol=1e-4)


def test_info_vae_with_alpha_one_ignores_the_rate() -> None:
    terms = make_terms(rng)._replace(kl_per_group=tensor(np.full((6, 3), np.inf)))
    latents = Latents(tensor(rng.normal(size=(6, 2))), None, None, tensor(rng.normal(size=(6, 2))))
    assert np.isfinite(values(InfoVAE(alpha=1.0), terms, latents)).all()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: BetaTC(beta=-1.0), "beta = -1.0"),
        (lambda: BetaTC(alpha=-1.0), "alpha = -1.0"),
        (lambda: BetaTC(gamma=math.nan), "gamma = nan"),
        (lambda: BetaTC(sampling="all"), "sampling = 'all': unknown; accepted: stratified, weighted"),
        (lambda: BetaTC(images=1), "images = 1: too few training images; pass an integer ≥ 2"),
        (lambda: BetaTC().check_posterior(DiagonalNormal()), r"images = None: .*; pass BetaTC\(images=…\)"),
        (
            lambda: BetaTC(images=9).check_posterior(FullCovarianceNormal()),
            "objective = beta-tc: .* set posterior = 'normal'",
        ),
        (lambda: DIPVAE(variant="iii"), r"variant = 'iii': unknown; did you mean 'ii'\? accepted: i, ii"),
        (lambda: DIPVAE(diagonal=-1.0), "^diagonal = -1.0"),
        (lambda: DIPVAE(off_diagonal=-1.0), "off_diagonal = -1.0"),
        (
            lambda: DIPVAE().check_posterior(InverseAutoregressiveFlow()),
            "objective = dip-vae: .* or objective = 'elbo'",
        ),
        (lambda: InfoVAE(alpha=1.5), "alpha = 1.5: out of range; pass a finite number ≤ 1"),
        (lambda: InfoVAE(alpha=-math.inf), "alpha = -inf"),
        (lambda: InfoVAE(weight=0.5), "weight = 0.5: out of range; pass a finite number ≥ 1 − alpha = 1"),
        (lambda: InfoVAE(weight=math.inf), "weight = inf"),
        (lambda: InfoVAE(kernel="linear"), "kernel = 'linear': unknown; accepted: imq, rbf"),
    ],
)
def test_invalid_objective_is_rejected(act: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        act()


def test_compatible_posterior_is_accepted() -> None:
    for objective in (BetaTC(images=9), DIPVAE(), InfoVAE()):
        objective.check_posterior(DiagonalNormal())
    InfoVAE(alpha=1.0).check_posterior(Deterministic())
