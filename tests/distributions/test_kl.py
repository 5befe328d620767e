"""KL divergences against numerical integrals and many samples."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from helpers import tensor, to_numpy
from keras_vae.core.errors import InputError
from keras_vae.distributions import (
    Deterministic,
    DiagonalNormal,
    Mixture,
    MultivariateNormalTriL,
    kl,
    kl_divergence,
    register_kl,
    tree_map,
)

rng = np.random.default_rng(3)


@pytest.fixture(autouse=True)
def reset_random_numbers() -> None:
    rng.bit_generator.state = np.random.default_rng(3).bit_generator.state


def normal(mean: object, log_var: object) -> DiagonalNormal:
    return DiagonalNormal(tensor(mean), tensor(log_var))


def triangles(*shape: int) -> np.ndarray:
    """Return random lower triangular matrices with a positive diagonal."""
    lower = np.tril(rng.normal(scale=0.6, size=(*shape, shape[-1])), -1)
    return (lower + np.eye(shape[-1]) * rng.uniform(0.4, 1.6, (*shape, 1))).astype("float32")


def as_mixture(distribution: DiagonalNormal) -> Mixture:
    """Return a mixture of one component: the same distribution, of a class without a closed form."""
    return Mixture(tensor([0.0]), tree_map(distribution, lambda values: values[None]))


def test_kl_of_diagonal_normals_equals_the_integral_in_each_dimension() -> None:
    one, other = (normal(rng.normal(size=4), rng.normal(size=4)) for _ in range(2))
    axis = np.linspace(-25, 25, 20_001)
    log_densities = [
        stats.norm(to_numpy(each.mean)[:, None], np.exp(to_numpy(each.log_var)[:, None] / 2)).logpdf(axis)
        for each in (one, other)
    ]
    integrand = np.exp(log_densities[0]) * (log_densities[0] - log_densities[1])
    expected = integrand.sum(-1) * (axis[1] - axis[0])
    np.testing.assert_allclose(to_numpy(kl_divergence(one, other)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("full", [False, True], ids=["diagonal", "full"])
def test_closed_form_agrees_with_the_estimate_from_samples(full: bool) -> None:
    mean, scale = tensor(rng.normal(size=(1, 3))), tensor(triangles(1, 3))
    posterior: Any = MultivariateNormalTriL(mean, scale) if full else normal(mean, rng.normal(size=(1, 3)))
    prior = normal(rng.normal(size=3), 0.5 * rng.normal(size=3))
    draw = posterior.rsample(tensor(rng.normal(size=(200_000, 3))))
    estimates = to_numpy(kl_divergence(posterior, as_mixture(prior), draw))
    closed = to_numpy(kl_divergence(posterior, prior, draw))
    assert estimates.shape == (200_000, 1)
    assert closed.shape == (1, 1 if full else 3)
    error = estimates.std() / math.sqrt(len(estimates))
    assert error < 0.01 * closed.sum()
    assert abs(estimates.mean() - closed.sum()) < 4 * error


def test_kl_is_zero_for_equal_distributions_and_positive_for_others() -> None:
    one, other = normal([[0.2]], [[-3.0]]), normal([[0.2]], [[-2.9]])
    assert to_numpy(kl_divergence(one, one))[0, 0] == pytest.approx(0, abs=1e-6)
    assert to_numpy(kl_divergence(one, other))[0, 0] > 1e-4


def test_kl_of_a_full_normal_with_a_diagonal_scale_equals_that_of_the_diagonal_normal() -> None:
    mean, log_var = rng.normal(size=(2, 6, 3)).astype("float32")
    full = MultivariateNormalTriL(tensor(mean), tensor(np.exp(log_var / 2)[..., None] * np.eye(3)))
    prior = normal(rng.normal(size=3), rng.normal(size=3))
    per_dimension = to_numpy(kl_divergence(normal(mean, log_var), prior))
    np.testing.assert_allclose(to_numpy(kl_divergence(full, prior))[:, 0], per_dimension.sum(-1), rtol=1e-4, atol=1e-4)


def test_kl_of_a_point_mass_is_the_negative_log_density_of_the_prior() -> None:
    codes = rng.normal(size=(4, 1, 2)).astype("float32")
    point = Deterministic(tensor(codes))
    draw = point.rsample(tensor(rng.normal(size=(4, 3, 2))))
    rate = to_numpy(kl_divergence(point, normal([0.0, 0.0], [0.0, 0.0]), draw))[..., 0]
    np.testing.assert_allclose(rate, -stats.norm.logpdf(np.repeat(codes, 3, 1)).sum(-1), rtol=1e-5)


def test_pair_without_a_closed_form_requires_samples() -> None:
    one = normal([[0.2]], [[-3.0]])
    with pytest.raises(InputError, match=r"draw = None: \(DiagonalNormal, Mixture\) has no closed form; pass samples"):
        kl_divergence(one, as_mixture(one))


def test_closed_form_of_a_user_replaces_the_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kl, "_CLOSED_FORMS", dict(kl._CLOSED_FORMS))
    register_kl(DiagonalNormal, Mixture)(lambda posterior, prior: 7.0 * posterior.mean)
    one = normal([[2.0]], [[0.0]])
    assert to_numpy(kl_divergence(one, as_mixture(one))).item() == 14.0


def test_second_closed_form_of_a_pair_is_rejected() -> None:
    with pytest.raises(InputError, match=r"register_kl\(DiagonalNormal, DiagonalNormal\): this pair already has"):
        register_kl(DiagonalNormal, DiagonalNormal)(lambda posterior, prior: prior)
