"""ELBO and importance-weighted bounds against NumPy, closed forms and known limits."""

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from keras import ops
from loss_terms import distortion_and_kl, make_terms, values
from scipy import special, stats

from helpers import gradient, tensor, to_numpy
from keras_vae.components.objectives import ELBO, IWAE, ELBOTerms
from keras_vae.components.posteriors import Deterministic, DiagonalNormal
from keras_vae.components.schedules import Cyclical, WarmUp
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.distributions import latent

pytestmark = pytest.mark.filterwarnings("ignore:gradient = 'stl'")

rng = np.random.default_rng(9)


@pytest.fixture(autouse=True)
def reset_random_numbers() -> None:
    rng.bit_generator.state = np.random.default_rng(9).bit_generator.state


def terms_with_weights(log_weight: Array) -> ELBOTerms:
    zeros = np.zeros_like(log_weight)
    return ELBOTerms(*map(tensor, (log_weight, zeros, zeros, zeros[:, :1], zeros[:, 0])))


@pytest.mark.parametrize("draws", [1, 4])
def test_beta_multiplies_the_rate_of_the_elbo(draws: int) -> None:
    terms = make_terms(rng, draws=draws)
    distortion, kl_per_group = distortion_and_kl(terms)
    np.testing.assert_allclose(values(ELBO(), terms), distortion + kl_per_group.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(values(ELBO(beta=4.0), terms), distortion + 4 * kl_per_group.sum(-1), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(terms.negative_elbo), distortion + kl_per_group.sum(-1), rtol=1e-5)


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [(WarmUp(steps=10), {0: 0, 5: 0.5, 10: 1, 99: 1}), (Cyclical(steps=10), {0: 0, 2: 0.4, 5: 1, 9: 1, 12: 0.4})],
)
def test_weight_of_the_rate_follows_the_schedule(schedule: Any, factors: dict[int, float]) -> None:
    terms = make_terms(rng)
    distortion, kl_per_group = distortion_and_kl(terms)
    for step, factor in factors.items():
        loss = values(ELBO(beta=2.0, schedule=schedule), terms, step=step)
        np.testing.assert_allclose(loss, distortion + 2 * factor * kl_per_group.sum(-1), rtol=1e-5)


def test_free_bits_bound_the_rate_of_each_group_from_below() -> None:
    terms = make_terms(rng)
    distortion, kl_per_group = distortion_and_kl(terms)
    kl_per_group = kl_per_group.copy()
    kl_per_group[:, 0] *= 0.01
    terms = terms._replace(kl_per_group=tensor(kl_per_group))
    means = kl_per_group.mean(0)
    free = float(np.sort(means)[:2].mean())
    assert (means < free).sum() == 1
    expected = distortion + sum(max(free, mean) for mean in means)
    np.testing.assert_allclose(values(ELBO(free_bits=free), terms), expected, rtol=1e-5)
    # A group below its free bits has no gradient; the others have one.
    slopes, _ = gradient(
        lambda kl_per_group: ops.mean(
            ELBO(free_bits=free)(terms._replace(kl_per_group=kl_per_group), None, ops.zeros(()))
        ),
        kl_per_group,
    )
    np.testing.assert_allclose(slopes, np.tile(np.where(means < free, 0, 1 / 6), (6, 1)), atol=1e-6)


@pytest.mark.parametrize(("step", "target"), [(0, 0.0), (5, 10.0), (50, 20.0)])
def test_capacity_is_a_growing_target_of_the_rate(step: int, target: float) -> None:
    terms = make_terms(rng)
    distortion, kl_per_group = distortion_and_kl(terms)
    expected = distortion + 3 * abs(kl_per_group.sum(-1).mean() - target)
    loss = values(ELBO(beta=3.0, capacity=20.0, schedule=WarmUp(steps=10)), terms, step=step)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_iwae_with_one_sample_is_the_monte_carlo_elbo() -> None:
    terms = make_terms(rng, draws=1)
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
        np.testing.assert_allclose(values(objective, terms_with_weights(log_weight)), -expected, rtol=1e-5)


def test_iwae_rises_with_the_number_of_samples_toward_the_exact_likelihood() -> None:
    """Use p(z) = N(0, 1), p(x|z) = N(z, ½²), x = 1.2, and a posterior with a wrong mean and variance."""
    z = rng.normal(0.3, 0.6, (20_000, 32))
    log_weight = stats.norm(z, 0.5).logpdf(1.2) + stats.norm.logpdf(z) - stats.norm(0.3, 0.6).logpdf(z)
    exact = stats.norm(0, math.sqrt(1.25)).logpdf(1.2)
    bounds = [-values(IWAE(samples=k), terms_with_weights(log_weight[:, :k])) for k in (1, 2, 4, 8, 16, 32)]
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
    """Return gradients in the mean, the log-variance and the decoder's slope, (N, 5), one per image.

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
    """Return the same gradients from the formulas of the estimators, with derivatives taken by hand."""
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
    # ∂ log w/∂z with constant q, then the chain rule through z = μ + σε.
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
def test_gradient_equals_the_estimator_of_the_paper(kind: str, samples: int, groups: int, weight: float) -> None:
    objective = IWAE(samples=samples, groups=groups, elbo_weight=weight, gradient=kind)
    noise = NOISE[:50]
    expected = paper_gradient(kind, noise, samples, groups, weight)
    np.testing.assert_allclose(toy_gradient(objective, noise), expected, rtol=1e-3, atol=1e-4)


def test_dreg_has_the_mean_of_the_plain_gradient_and_less_variance() -> None:
    plain, dreg, stl = (toy_gradient(IWAE(samples=8, gradient=kind), NOISE) for kind in ("plain", "dreg", "stl"))
    difference = (plain - dreg)[:, :4]
    error = difference.std(0) / math.sqrt(len(difference))
    assert (np.abs(difference.mean(0)) < 4 * error).all()
    assert (dreg[:, :4].var(0) < plain[:, :4].var(0)).all()
    assert dreg[:, :4].var(0).sum() < 0.2 * plain[:, :4].var(0).sum()
    # Sticking the landing, which omits the score, is biased.
    bias = (stl - plain)[:, :4]
    assert (np.abs(bias.mean(0)) > 6 * bias.std(0) / math.sqrt(len(bias))).any()
    for other in (dreg, stl):
        np.testing.assert_allclose(other[:, 4], plain[:, 4], rtol=1e-4, atol=1e-5)


def iwae_bound(mean: float, log_var: float) -> float:
    """Return the expected bound of two samples by quadrature: p(z) = N(0, 1), p(x|z) = N(0.8z, 0.6²), x = 1."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    z = mean + math.exp(log_var / 2) * nodes
    log_weight = stats.norm(0.8 * z, 0.6).logpdf(1.0) + stats.norm.logpdf(z)
    log_weight -= stats.norm(mean, math.exp(log_var / 2)).logpdf(z)
    bounds = np.logaddexp(log_weight[:, None], log_weight[None]) - math.log(2)
    return float(weights @ bounds @ weights / (2 * math.pi))


def test_sticking_the_landing_is_biased_for_two_samples_and_dreg_is_not() -> None:
    """Compare with derivatives of the expected bound, close to the exact posterior N(0.8, 0.36)."""
    mean, log_var, step = 0.75, math.log(0.3), 1e-5
    exact = [
        (iwae_bound(mean + step, log_var) - iwae_bound(mean - step, log_var)) / (2 * step),
        (iwae_bound(mean, log_var + step) - iwae_bound(mean, log_var - step)) / (2 * step),
    ]
    nodes, weights = np.polynomial.hermite_e.hermegauss(24)
    noise = np.stack(np.meshgrid(nodes, nodes), axis=-1).reshape(-1, 2, 1)
    shares = np.outer(weights, weights).reshape(-1) / (2 * math.pi)
    found = {}
    for kind in ("plain", "stl", "dreg"):

        def loss(parameters: object, kind: str = kind) -> object:
            posterior = latent.DiagonalNormal(parameters[:, None, 0:1], parameters[:, None, 1:2])

            def terms(draw: Any) -> ELBOTerms:
                pixels = latent.DiagonalNormal(0.8 * draw.z, tensor([2 * math.log(0.6)])).log_prob(tensor([1.0]))
                prior = latent.DiagonalNormal(tensor([0.0]), tensor([0.0])).log_prob(draw.z)
                return ELBOTerms(pixels, prior, draw.log_prob, draw.z[:, 0], None)

            objective = IWAE(samples=2, gradient=kind)
            draw = posterior.rsample(tensor(noise))
            draw = objective.gradient_estimator(posterior, draw, lambda draw: terms(draw).log_weight)
            return ops.sum(objective(terms(draw), None, ops.zeros(())))

        found[kind] = -shares @ gradient(loss, np.tile([mean, log_var], (len(noise), 1)))[0]
    np.testing.assert_allclose(found["plain"], exact, rtol=0.02, atol=1e-4)
    np.testing.assert_allclose(found["dreg"], exact, rtol=0.02, atol=1e-4)
    ratios = found["stl"] / exact
    assert (np.abs(ratios - 1) > 0.5).all(), ratios


def test_biased_estimator_causes_a_warning() -> None:
    with pytest.warns(UserWarning, match=r"^gradient = 'stl', samples = 2: .* biased .*; use gradient = 'dreg'$"):
        IWAE(samples=2, gradient="stl")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for unbiased in ({"samples": 1, "groups": 4}, {"samples": 2, "elbo_weight": 1.0}):
            IWAE(gradient="stl", **unbiased)
        IWAE(samples=2, gradient="dreg")


def test_all_estimators_have_the_same_mean_with_one_sample() -> None:
    one, noise = NOISE[:, :1], NOISE[:, :1]
    plain, dreg, stl = (toy_gradient(IWAE(samples=1, gradient=kind), noise)[:, :4] for kind in ("plain", "dreg", "stl"))
    np.testing.assert_allclose(dreg, stl, rtol=1e-4, atol=1e-5)
    difference = plain - stl
    assert (np.abs(difference.mean(0)) < 4 * difference.std(0) / math.sqrt(len(one))).all()


def test_gradients_stay_finite_if_importance_weights_underflow() -> None:
    noise = 60 * NOISE[:20]
    for kind in ("plain", "stl", "dreg"):
        assert np.isfinite(toy_gradient(IWAE(samples=8, gradient=kind), noise)).all()


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (lambda: ELBO(beta=-1.0), "beta = -1.0: not a valid weight; pass a finite number ≥ 0"),
        (lambda: ELBO(beta=math.nan), "beta = nan"),
        (lambda: ELBO(beta=math.inf), "beta = inf"),
        (lambda: ELBO(free_bits=-0.1), "free_bits = -0.1"),
        (lambda: ELBO(capacity=-5.0), "capacity = -5.0"),
        (
            lambda: ELBO(free_bits=0.5, capacity=5.0),
            "free_bits = 0.5, capacity = 5.0: they exclude each other; set one of the two",
        ),
        (lambda: IWAE(samples=0), "samples = 0, groups = 1: not both positive; pass integers ≥ 1"),
        (lambda: IWAE(groups=0), "groups = 0: not both positive; pass integers ≥ 1"),
        (lambda: IWAE(elbo_weight=1.5), r"elbo_weight = 1.5: out of range; pass a number in \[0, 1\]"),
        (lambda: IWAE(elbo_weight=math.nan), "elbo_weight = nan"),
        (lambda: IWAE(gradient="none"), "gradient = 'none': unknown; accepted: dreg, plain, stl"),
        (
            lambda: IWAE().check_posterior(Deterministic()),
            "objective = iwae, posterior = deterministic: .* set posterior = 'normal'",
        ),
    ],
)
def test_invalid_bound_is_rejected(act: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        act()


def test_compatible_posterior_is_accepted() -> None:
    for objective in (ELBO(), IWAE()):
        objective.check_posterior(DiagonalNormal())
    ELBO().check_posterior(Deterministic())
