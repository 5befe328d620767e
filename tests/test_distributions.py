"""Distributions against NumPy, closed forms and numerical integrals."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae.distributions import Bernoulli, Normal
from keras_vae.priors import StandardNormal

rng = np.random.default_rng(3)


def to_numpy(tensor: object) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


def normal(mean: object, log_var: object) -> Normal:
    return Normal(ops.convert_to_tensor(mean, "float32"), ops.convert_to_tensor(log_var, "float32"))


def test_normal_density_integrates_to_one_on_a_grid() -> None:
    axis = np.linspace(-9, 9, 241, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    density = np.exp(to_numpy(normal([[0.5, -1.0]], [[0.3, -0.8]]).log_prob(ops.convert_to_tensor(grid))))
    assert density.sum() * (axis[1] - axis[0]) ** 2 == pytest.approx(1.0, abs=1e-4)


def test_normal_log_prob_is_the_textbook_formula() -> None:
    mean, log_var, z = (rng.normal(size=(5, 4)).astype("float32") for _ in range(3))
    variance = np.exp(log_var)
    expected = np.log(np.exp(-((z - mean) ** 2) / (2 * variance)) / np.sqrt(2 * np.pi * variance)).sum(-1)
    np.testing.assert_allclose(to_numpy(normal(mean, log_var).log_prob(ops.convert_to_tensor(z))), expected, rtol=1e-5)


def test_kl_to_the_standard_normal_is_the_textbook_formula() -> None:
    mean, log_var = (rng.normal(size=(6, 3)).astype("float32") for _ in range(2))
    expected = -0.5 * (1 + log_var - mean**2 - np.exp(log_var)).sum(-1)
    posterior = normal(mean, log_var)
    np.testing.assert_allclose(to_numpy(StandardNormal().kl(posterior, posterior.mean)), expected, rtol=1e-5)


def test_closed_kl_agrees_with_monte_carlo() -> None:
    posterior, other = normal([[0.7, -0.4]], [[-0.5, 0.2]]), normal([[0.1, 0.3]], [[0.4, -0.3]])
    noise = rng.normal(size=(200_000, 2)).astype("float32")
    z = posterior.sample(noise)
    estimates = to_numpy(posterior.log_prob(z) - other.log_prob(z))
    error = estimates.std() / np.sqrt(len(estimates))
    assert abs(estimates.mean() - to_numpy(posterior.kl(other))[0]) < 4 * error


def test_kl_of_a_distribution_to_itself_is_zero_and_else_positive() -> None:
    one, other = normal([[0.2]], [[-3.0]]), normal([[0.2]], [[-2.9]])
    assert to_numpy(one.kl(one))[0] == pytest.approx(0, abs=1e-6)
    assert to_numpy(one.kl(other))[0] > 1e-4


def test_prior_samples_have_the_moments_of_its_density() -> None:
    z = to_numpy(StandardNormal().sample(50_000, 2, seed=1))
    np.testing.assert_allclose(z.mean(0), 0, atol=0.02)
    np.testing.assert_allclose(np.cov(z.T), np.eye(2), atol=0.03)
    assert not np.allclose(z, to_numpy(StandardNormal().sample(50_000, 2, seed=2)))


def test_bernoulli_probabilities_of_all_images_sum_to_one() -> None:
    logits = rng.normal(size=(1, 2, 3, 1)).astype("float32") * 3
    every = np.array([[int(bit) for bit in f"{number:06b}"] for number in range(64)], "float32").reshape(64, 2, 3, 1)
    probabilities = np.exp(to_numpy(Bernoulli(ops.convert_to_tensor(np.repeat(logits, 64, 0))).log_prob(every)))
    assert probabilities.sum() == pytest.approx(1.0, rel=1e-5)


def test_bernoulli_is_exact_where_a_sigmoid_saturates() -> None:
    logits = ops.convert_to_tensor(np.full((1, 1, 1, 1), -200.0, "float32"))
    assert to_numpy(Bernoulli(logits).log_prob(np.ones((1, 1, 1, 1), "float32")))[0] == pytest.approx(-200.0)


def test_bernoulli_samples_follow_its_mean() -> None:
    pixels = Bernoulli(ops.convert_to_tensor(np.full((2000, 1, 2, 1), [[[[-1.0], [2.0]]]], "float32")))
    drawn = to_numpy(pixels.sample(seed=4))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.mean(0)[0, :, 0], 1 / (1 + np.exp([1.0, -2.0])), atol=0.04)


def test_bernoulli_log_prob_takes_a_leading_axis_of_draws() -> None:
    logits = ops.convert_to_tensor(rng.normal(size=(4, 3, 2, 2, 1)).astype("float32"))
    x = rng.random((3, 2, 2, 1), "float32")
    together = to_numpy(Bernoulli(logits).log_prob(x))
    np.testing.assert_allclose(together[2], to_numpy(Bernoulli(logits[2]).log_prob(x)), rtol=1e-6)


def test_sampler_draws_have_the_moments_it_is_given() -> None:
    from keras_vae import Sampler

    mean, log_var = np.full((40_000, 2), [1.0, -2.0], "float32"), np.full((40_000, 2), [0.0, -1.0], "float32")
    z = to_numpy(Sampler(seed=0)([mean, log_var]))
    np.testing.assert_allclose(z.mean(0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(z.var(0), np.exp([0.0, -1.0]), rtol=0.05)


@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (3, 64)])
def test_sampler_takes_any_batch_and_latent_size_and_draws_anew(shape: tuple[int, int]) -> None:
    from keras_vae import Sampler

    sampler, zeros = Sampler(seed=0), np.zeros(shape, "float32")
    first, second = to_numpy(sampler([zeros, zeros])), to_numpy(sampler([zeros, zeros]))
    assert first.shape == shape
    assert not np.allclose(first, second)
    np.testing.assert_array_equal(first, to_numpy(Sampler(seed=0)([zeros, zeros])))


def test_sampler_works_with_unknown_batch_size() -> None:
    from keras_vae import Sampler

    moments = [keras.Input((5,)), keras.Input((5,))]
    assert Sampler()(moments).shape == (None, 5)
