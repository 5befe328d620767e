"""Posteriors: distributions built from encoder outputs, against NumPy and SciPy."""

import math
from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

from helpers import gradient, jacobians, randomize, tensor, to_numpy
from keras_vae.components.posteriors import (
    LOG_VAR_RANGE,
    Deterministic,
    DiagonalNormal,
    FullCovarianceNormal,
    InverseAutoregressiveFlow,
    Posterior,
    Sampler,
)
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array

rng = np.random.default_rng(6)


@pytest.fixture(autouse=True)
def reset_random_numbers() -> None:
    rng.bit_generator.state = np.random.default_rng(6).bit_generator.state


def features(posterior: Posterior, latent_dim: int, batch: tuple[int, ...]) -> list[Array]:
    return [rng.normal(size=(*batch, size)).astype("float32") for size in posterior.param_sizes(latent_dim).values()]


def iaf(latent_dim: int, steps: int = 2) -> InverseAutoregressiveFlow:
    posterior = InverseAutoregressiveFlow(steps=steps, hidden=(12,), context_dim=3)
    posterior.build((None, latent_dim), (None, 2, 2, 1), (None, 0))
    randomize(posterior, 0.4)
    return posterior


def test_diagonal_normal_has_the_moments_of_the_encoder() -> None:
    mean, log_var = features(DiagonalNormal(), 3, (5,))
    z = rng.normal(size=(5, 3))
    expected = stats.norm(mean, np.exp(log_var / 2)).logpdf(z).sum(-1)
    distribution = DiagonalNormal()([tensor(mean), tensor(log_var)])
    np.testing.assert_allclose(to_numpy(distribution.log_prob(tensor(z))), expected, rtol=1e-5)


@pytest.mark.parametrize("latent_dim", [1, 2, 4])
def test_full_normal_fills_its_lower_triangle_row_by_row(latent_dim: int) -> None:
    posterior = FullCovarianceNormal()
    mean, log_var, *lower = features(posterior, latent_dim, (5, 1))
    scale = np.zeros((5, 1, latent_dim, latent_dim))
    for row in range(latent_dim):
        scale[..., row, row] = np.exp(log_var[..., row] / 2)
        for column in range(row):
            scale[..., row, column] = lower[0][..., row * (row - 1) // 2 + column]
    distribution = posterior([tensor(mean), tensor(log_var), *map(tensor, lower)])
    np.testing.assert_allclose(to_numpy(distribution.scale), scale, rtol=1e-5, atol=1e-6)
    z = rng.normal(size=(5, 1, latent_dim))
    expected = [
        stats.multivariate_normal(m[0], s[0] @ s[0].T).logpdf(at) for m, s, at in zip(mean, scale, z, strict=True)
    ]
    np.testing.assert_allclose(to_numpy(distribution.log_prob(tensor(z)))[:, 0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("steps", [1, 2])
def test_density_of_an_iaf_follows_from_numerical_jacobians(latent_dim: int, steps: int) -> None:
    posterior = iaf(latent_dim, steps)
    outputs = features(posterior, latent_dim, (4,))
    distribution = posterior([tensor(values) for values in outputs])
    noise = rng.normal(size=(4, latent_dim)).astype("float32")
    jacobian = jacobians(lambda noise: distribution.rsample(noise).z, noise)
    expected = stats.norm.logpdf(noise).sum(-1) - np.linalg.slogdet(jacobian)[1]
    z, log_prob = distribution.rsample(tensor(noise))
    np.testing.assert_allclose(to_numpy(log_prob), expected, atol=5e-3)
    np.testing.assert_allclose(to_numpy(distribution.log_prob(z)), expected, atol=5e-3)
    # One step depends on earlier dimensions only. A second step in reverse order also depends on later ones.
    above = np.abs(jacobian[:, *np.triu_indices(latent_dim, 1)])
    assert above.max(initial=0) == 0 if steps == 1 else above.min(initial=1) > 1e-4


def test_samples_of_an_iaf_depend_on_its_context() -> None:
    posterior = iaf(2)
    mean, log_var, context = features(posterior, 2, (4,))
    noise = tensor(rng.normal(size=(4, 2)))
    one, other = (
        to_numpy(posterior([tensor(mean), tensor(log_var), tensor(values)]).rsample(noise).z)
        for values in (context, -context)
    )
    assert np.abs(one - other).min() > 1e-3


def test_deterministic_posterior_returns_the_output_of_the_encoder() -> None:
    (codes,) = features(Deterministic(), 3, (5,))
    np.testing.assert_array_equal(to_numpy(Deterministic()([tensor(codes)]).rsample(tensor(np.ones((5, 3)))).z), codes)


@pytest.mark.parametrize(
    "make", [DiagonalNormal, FullCovarianceNormal, lambda: iaf(2)], ids=["normal", "full-normal", "iaf"]
)
def test_log_variances_are_clipped_but_keep_their_gradients(make: Callable[[], Posterior]) -> None:
    posterior = make()
    first, _, *rest = features(posterior, 2, (3,))
    rest = [0.0 * values for values in rest]
    extreme = np.array([[-300.0, 300.0], [-20.5, 20.5], [-1.0, 2.0]])

    def base(log_var: object) -> object:
        distribution = posterior([tensor(first), log_var, *map(tensor, rest)])
        return getattr(distribution, "base", distribution)

    clipped = to_numpy(base(tensor(extreme)).log_var)
    np.testing.assert_allclose(clipped, np.clip(extreme, *LOG_VAR_RANGE), rtol=1e-5)
    noise = tensor(rng.normal(size=(3, 2)))
    slopes, _ = gradient(lambda log_var: -ops.sum(base(log_var).rsample(noise).log_prob), extreme)
    np.testing.assert_allclose(slopes, 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        lambda: InverseAutoregressiveFlow(steps=0),
        lambda: InverseAutoregressiveFlow(hidden=(8, 0)),
        lambda: InverseAutoregressiveFlow(context_dim=0),
    ],
)
def test_iaf_with_an_invalid_size_is_rejected(build: Callable[[], Posterior]) -> None:
    with pytest.raises(
        InputError, match=r"steps = \d+, hidden = \[.*\], context_dim = \d+: not all positive; pass integers ≥ 1"
    ):
        build()


def test_samples_have_the_given_moments() -> None:
    mean, log_var = np.full((40_000, 2), [1.0, -2.0], "float32"), np.full((40_000, 2), [0.0, -1.0], "float32")
    z = to_numpy(Sampler(seed=0)([mean, log_var]))
    np.testing.assert_allclose(z.mean(0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(z.var(0), np.exp([0.0, -1.0]), rtol=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (3, 64)])
def test_sampler_accepts_any_shape_and_draws_new_samples_each_time(shape: tuple[int, int]) -> None:
    sampler, zeros = Sampler(seed=0), np.zeros(shape, "float32")
    first, second = to_numpy(sampler([zeros, zeros])), to_numpy(sampler([zeros, zeros]))
    assert first.shape == shape
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, to_numpy(Sampler(seed=0)([zeros, zeros])))


def test_sampler_accepts_an_unknown_batch_size() -> None:
    moments = [keras.Input((5,)), keras.Input((5,))]
    assert Sampler()(moments).shape == (None, 5)


def test_noise_of_the_sampler_is_normal_or_uniform() -> None:
    sampler = Sampler(seed=1)
    assert stats.kstest(to_numpy(sampler.noise((4000,))), "norm").pvalue > 1e-3
    uniform = to_numpy(sampler.uniform((4000,)))
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert 0 <= uniform.min() < uniform.max() < 1
    assert math.isclose(np.corrcoef(to_numpy(sampler.noise((4000,))), uniform)[0, 1], 0, abs_tol=0.06)
