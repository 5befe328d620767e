"""Posteriors: from what an encoder says to a distribution, against NumPy."""

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
def same_numbers_whatever_ran_before() -> None:
    rng.bit_generator.state = np.random.default_rng(6).bit_generator.state


def features(posterior: Posterior, latent_dim: int, batch: tuple[int, ...]) -> list[Array]:
    return [rng.normal(size=(*batch, size)).astype("float32") for size in posterior.param_sizes(latent_dim).values()]


def iaf(latent_dim: int, steps: int = 2) -> InverseAutoregressiveFlow:
    posterior = InverseAutoregressiveFlow(steps=steps, hidden=(12,), context_dim=3)
    posterior.build((None, latent_dim), (None, 2, 2, 1), (None, 0))
    randomize(posterior, 0.4)
    return posterior


def test_diagonal_normal_is_what_the_encoder_says() -> None:
    mean, log_var = features(DiagonalNormal(), 3, (5,))
    z = rng.normal(size=(5, 3))
    expected = stats.norm(mean, np.exp(log_var / 2)).logpdf(z).sum(-1)
    view = DiagonalNormal()([tensor(mean), tensor(log_var)])
    np.testing.assert_allclose(to_numpy(view.log_prob(tensor(z))), expected, rtol=1e-5)


@pytest.mark.parametrize("latent_dim", [1, 2, 4])
def test_full_normal_fills_the_triangle_row_by_row(latent_dim: int) -> None:
    posterior = FullCovarianceNormal()
    mean, log_var, *lower = features(posterior, latent_dim, (5, 1))
    scale = np.zeros((5, 1, latent_dim, latent_dim))
    for row in range(latent_dim):
        scale[..., row, row] = np.exp(log_var[..., row] / 2)
        for column in range(row):
            scale[..., row, column] = lower[0][..., row * (row - 1) // 2 + column]
    view = posterior([tensor(mean), tensor(log_var), *map(tensor, lower)])
    np.testing.assert_allclose(to_numpy(view.scale), scale, rtol=1e-5, atol=1e-6)
    z = rng.normal(size=(5, 1, latent_dim))
    expected = [
        stats.multivariate_normal(m[0], s[0] @ s[0].T).logpdf(at) for m, s, at in zip(mean, scale, z, strict=True)
    ]
    np.testing.assert_allclose(to_numpy(view.log_prob(tensor(z)))[:, 0], expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("latent_dim", [1, 3])
@pytest.mark.parametrize("steps", [1, 2])
def test_iaf_changes_variables_as_a_numerical_jacobian_does(latent_dim: int, steps: int) -> None:
    posterior = iaf(latent_dim, steps)
    outputs = features(posterior, latent_dim, (4,))
    view = posterior([tensor(values) for values in outputs])
    noise = rng.normal(size=(4, latent_dim)).astype("float32")
    jacobian = jacobians(lambda noise: view.rsample(noise).z, noise)
    expected = stats.norm.logpdf(noise).sum(-1) - np.linalg.slogdet(jacobian)[1]
    z, log_prob = view.rsample(tensor(noise))
    np.testing.assert_allclose(to_numpy(log_prob), expected, atol=5e-3)
    np.testing.assert_allclose(to_numpy(view.log_prob(z)), expected, atol=5e-3)
    # One step looks at earlier dimensions only; the next one, in the reverse order, at the others too.
    above = np.abs(jacobian[:, *np.triu_indices(latent_dim, 1)])
    assert above.max(initial=0) == 0 if steps == 1 else above.min(initial=1) > 1e-4


def test_iaf_is_steered_by_its_context() -> None:
    posterior = iaf(2)
    mean, log_var, context = features(posterior, 2, (4,))
    noise = tensor(rng.normal(size=(4, 2)))
    one, other = (
        to_numpy(posterior([tensor(mean), tensor(log_var), tensor(values)]).rsample(noise).z)
        for values in (context, -context)
    )
    assert np.abs(one - other).min() > 1e-3


def test_deterministic_is_the_encoder_s_output() -> None:
    (codes,) = features(Deterministic(), 3, (5,))
    np.testing.assert_array_equal(to_numpy(Deterministic()([tensor(codes)]).rsample(tensor(np.ones((5, 3)))).z), codes)


@pytest.mark.parametrize(
    "make", [DiagonalNormal, FullCovarianceNormal, lambda: iaf(2)], ids=["normal", "full-normal", "iaf"]
)
def test_log_variances_stay_within_their_range_and_can_come_back(make: Callable[[], Posterior]) -> None:
    posterior = make()
    first, _, *rest = features(posterior, 2, (3,))
    rest = [0.0 * values for values in rest]
    wild = np.array([[-300.0, 300.0], [-20.5, 20.5], [-1.0, 2.0]])

    def base(log_var: object) -> object:
        view = posterior([tensor(first), log_var, *map(tensor, rest)])
        return getattr(view, "base", view)

    kept = to_numpy(base(tensor(wild)).log_var)
    np.testing.assert_allclose(kept, np.clip(wild, *LOG_VAR_RANGE), rtol=1e-5)
    noise = tensor(rng.normal(size=(3, 2)))
    slopes, _ = gradient(lambda log_var: -ops.sum(base(log_var).rsample(noise).log_prob), wild)
    np.testing.assert_allclose(slopes, 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    "build",
    [
        lambda: InverseAutoregressiveFlow(steps=0),
        lambda: InverseAutoregressiveFlow(hidden=(8, 0)),
        lambda: InverseAutoregressiveFlow(context_dim=0),
    ],
)
def test_flow_of_no_size_is_refused(build: Callable[[], Posterior]) -> None:
    with pytest.raises(InputError, match=r"iaf: steps = \d+, hidden = \[.*\], context_dim = \d+: each ≥ 1"):
        build()


def test_sampler_draws_have_the_moments_it_is_given() -> None:
    mean, log_var = np.full((40_000, 2), [1.0, -2.0], "float32"), np.full((40_000, 2), [0.0, -1.0], "float32")
    z = to_numpy(Sampler(seed=0)([mean, log_var]))
    np.testing.assert_allclose(z.mean(0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(z.var(0), np.exp([0.0, -1.0]), rtol=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (3, 64)])
def test_sampler_takes_any_batch_and_latent_size_and_draws_anew(shape: tuple[int, int]) -> None:
    sampler, zeros = Sampler(seed=0), np.zeros(shape, "float32")
    first, second = to_numpy(sampler([zeros, zeros])), to_numpy(sampler([zeros, zeros]))
    assert first.shape == shape
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, to_numpy(Sampler(seed=0)([zeros, zeros])))


def test_sampler_works_with_unknown_batch_size() -> None:
    moments = [keras.Input((5,)), keras.Input((5,))]
    assert Sampler()(moments).shape == (None, 5)


def test_sampler_s_noise_is_normal_and_uniform() -> None:
    sampler = Sampler(seed=1)
    assert stats.kstest(to_numpy(sampler.noise((4000,))), "norm").pvalue > 1e-3
    uniform = to_numpy(sampler.uniform((4000,)))
    assert stats.kstest(uniform, "uniform").pvalue > 1e-3
    assert 0 <= uniform.min() < uniform.max() < 1
    assert math.isclose(np.corrcoef(to_numpy(sampler.noise((4000,))), uniform)[0, 1], 0, abs_tol=0.06)
