"""The flow-matching prior: its density integrates to one, equals closed forms and follows its samples."""

import math
from collections.abc import Callable

import numpy as np
import pytest
from keras import ops
from scipy import integrate, linalg, stats

from helpers import integral, jacobians, randomize, tensor, to_numpy
from keras_vae.components.priors import FlowMatching, PriorInputs
from keras_vae.components.priors.velocity import VelocityUNet
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, Tensor
from keras_vae.distributions import ContinuousFlow, VelocityField

rng = np.random.default_rng(8)


@pytest.fixture(autouse=True)
def reset_random_numbers() -> None:
    rng.bit_generator.state = np.random.default_rng(8).bit_generator.state


def built(latent_dim: int = 2, conditions: int = 0, scale: float = 0.3, **settings: object) -> FlowMatching:
    """Return a small prior whose weights are far from their initial values."""
    prior = FlowMatching(**{"width": 8, "num_blocks": 2, "steps": 20, **settings})
    prior.build((None, latent_dim), (None, 2, 2, 1), (None, conditions))
    randomize(prior, scale)
    prior.mean.assign(np.linspace(-0.5, 0.5, latent_dim, dtype="float32"))
    prior.scale.assign(np.linspace(0.7, 1.3, latent_dim, dtype="float32"))
    return prior


def distribution(prior: FlowMatching, condition: Array | None = None) -> ContinuousFlow:
    inputs = PriorInputs(prior.latent_dim, lambda inputs: inputs, None if condition is None else tensor(condition))
    return prior(inputs)


class Linear(VelocityField):
    """The linear field v(u, t) = A u, whose flow is the matrix exponential of A."""

    steps, has_divergence = 50, True

    def __init__(self, matrix: Array) -> None:
        self.matrix, self.latent_dim = matrix.astype("float32"), len(matrix)

    def velocity(self, u: Tensor, time: Tensor, condition: Tensor) -> Tensor:
        return ops.matmul(u, ops.convert_to_tensor(self.matrix.T))

    def velocity_and_divergence(self, u: Tensor, time: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        return self.velocity(u, time, condition), ops.zeros_like(u[:, 0]) + float(np.trace(self.matrix))

    @property
    def compiled_transform(self) -> Callable[[dict[str, Tensor]], Tensor]:
        return lambda inputs: self.transport(inputs["noise"], None)


def test_linear_field_has_the_density_of_the_normal_distribution_that_it_makes() -> None:
    matrix = np.array([[0.3, -0.8, 0.1], [0.5, 0.2, 0.0], [-0.2, 0.4, -0.6]])
    mean, scale = np.array([1.0, -2.0, 0.5]), np.array([0.5, 2.0, 1.0])
    flow = ContinuousFlow(Linear(matrix), tensor(mean), tensor(scale))
    factor = scale[:, None] * linalg.expm(matrix)
    z = rng.normal(size=(4, 5, 3)) * 1.5 + mean
    expected = stats.multivariate_normal(mean, factor @ factor.T).logpdf(z)
    np.testing.assert_allclose(to_numpy(flow.log_prob(tensor(z))), expected, rtol=1e-3, atol=2e-3)
    noise = rng.normal(size=(7, 3))
    np.testing.assert_allclose(to_numpy(flow.transform(tensor(noise))), noise @ factor.T + mean, atol=2e-3)


def test_constant_network_moves_the_standard_normal() -> None:
    # v = u (2t − 1) / m² + b with m² = t² + (1 − t)² has the solution u(1) = u(0) + b ∫ dt / m.
    prior = built(latent_dim=2, scale=0.0, steps=50)
    prior.network.leave.bias.assign([0.6, -0.4])
    shift, _ = integrate.quad(lambda time: 1 / math.sqrt(time**2 + (1 - time) ** 2), 0, 1)
    assert shift == pytest.approx(math.sqrt(2) * math.asinh(1))
    mean, scale = to_numpy(prior.mean), to_numpy(prior.scale)
    center = mean + scale * shift * np.array([0.6, -0.4])
    z = rng.normal(size=(20, 2))
    expected = stats.norm(center, scale).logpdf(z).sum(-1)
    np.testing.assert_allclose(to_numpy(distribution(prior).log_prob(tensor(z))), expected, atol=2e-3)
    noise = rng.normal(size=(20, 2))
    drawn = to_numpy(distribution(prior).transform(tensor(noise)))
    np.testing.assert_allclose(drawn, center + scale * noise, atol=2e-3)


def test_density_integrates_to_one() -> None:
    assert integral(distribution(built()).log_prob, reach=12, points=201) == pytest.approx(1.0, abs=3e-3)
    axis = np.linspace(-15, 15, 3001, dtype="float32")[:, None]
    density = np.exp(to_numpy(distribution(built(latent_dim=1)).log_prob(tensor(axis))).astype("float64"))
    assert density.sum() * 0.01 == pytest.approx(1.0, abs=3e-3)


@pytest.mark.parametrize(("guidance", "latent_dim", "scale"), [(1.0, 3, 0.3), (2.5, 3, 0.3), (1.0, 64, 0.1)])
def test_divergence_is_the_trace_of_the_finite_difference_jacobian(
    guidance: float, latent_dim: int, scale: float
) -> None:
    prior = built(latent_dim, conditions=2, guidance=guidance, scale=scale)
    points, condition = rng.normal(size=(5, latent_dim)).astype("float32"), tensor(np.tile([[0.0, 1.0]], (5, 1)))
    for time in (0.2, 0.9):
        velocity, divergence = prior.velocity_and_divergence(tensor(points), time, condition)
        np.testing.assert_allclose(
            to_numpy(velocity), to_numpy(prior.velocity(tensor(points), time, condition)), atol=1e-5
        )
        found = jacobians(lambda u, at=time: prior.velocity(u, at, condition), points)
        np.testing.assert_allclose(to_numpy(divergence), np.trace(found, axis1=1, axis2=2), atol=2e-3)


def test_density_follows_from_the_jacobian_of_the_samples() -> None:
    density = distribution(built(latent_dim=3, steps=60))
    noise = rng.normal(size=(6, 3)).astype("float32")
    log_volume = np.linalg.slogdet(jacobians(density.transform, noise))[1]
    expected = stats.norm.logpdf(noise).sum(-1) - log_volume
    np.testing.assert_allclose(to_numpy(density.log_prob(density.transform(tensor(noise)))), expected, atol=0.02)


def test_samples_depend_on_the_seed_only_and_have_the_moments_of_the_density() -> None:
    density = distribution(built())
    axis = np.linspace(-12, 12, 201, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
    weights = np.exp(to_numpy(density.log_prob(tensor(grid))).astype("float64"))
    weights /= weights.sum()
    drawn = to_numpy(density.sample(40_000, seed=1))
    np.testing.assert_allclose(drawn.mean(0), weights @ grid, atol=0.04)
    # The batches of a large number of samples do not change them.
    np.testing.assert_array_equal(to_numpy(density.sample(40_000, seed=1)), drawn)
    noise = rng.normal(size=(9, 2)).astype("float32")
    rows = np.concatenate([to_numpy(density.transform(tensor(noise[row : row + 1]))) for row in range(9)])
    np.testing.assert_allclose(to_numpy(density.transform(tensor(noise))), rows, atol=1e-5)


def test_guidance_extrapolates_from_the_velocity_without_a_condition() -> None:
    points, conditions = tensor(rng.normal(size=(4, 2))), tensor(np.eye(3)[[0, 1, 2, 0]])
    prior = built(conditions=3)
    given, free = (to_numpy(prior.conditional_velocity(points, _rows(0.3), conditions, keep)) for keep in (1.0, 0.0))
    assert np.abs(given - free).max() > 0.05
    for guidance, expected in {0.0: free, 1.0: given, 3.0: free + 3 * (given - free)}.items():
        found = built(conditions=3, guidance=guidance).velocity(points, 0.3, conditions)
        np.testing.assert_allclose(to_numpy(found), expected, atol=1e-5)
    # Without a condition, its value has no effect.
    other = to_numpy(prior.conditional_velocity(points, _rows(0.3), ops.flip(conditions, axis=0), 0.0))
    np.testing.assert_allclose(other, free, atol=1e-6)


def _rows(time: float) -> Tensor:
    return tensor(np.full((4, 1), time))


def test_condition_is_broadcast_to_the_samples_of_each_image() -> None:
    prior, conditions = built(conditions=3), np.eye(3, dtype="float32")[:, None]
    z = rng.normal(size=(3, 4, 2)).astype("float32")
    together = to_numpy(distribution(prior, conditions).log_prob(tensor(z)))
    for row in range(3):
        one = distribution(prior, np.tile(conditions[row], (4, 1))).log_prob(tensor(z[row]))
        np.testing.assert_allclose(together[row], to_numpy(one), atol=1e-4)


@pytest.mark.parametrize("shape", [(8, 8, 2), (6, 12, 1), (5, 7, 3)])
def test_maps_use_a_convolutional_network_without_a_density(shape: tuple[int, int, int]) -> None:
    size = math.prod(shape)
    prior = built(size, map_shape=shape, width=16, steps=2, scale=0.1)
    assert isinstance(prior.network, VelocityUNet)
    assert prior.density == "none"
    assert tuple(distribution(prior).sample(3, seed=0).shape) == (3, size)
    with pytest.raises(InputError, match=f"log_prob: the divergence in {size} dimensions is too expensive"):
        distribution(prior).log_prob(tensor(np.zeros((1, size))))


def test_small_maps_have_a_density() -> None:
    assert built(64, map_shape=(4, 4, 4)).density == "ode"
    assert built(65).density == "none"


def test_standardization_is_per_dimension_of_vectors_and_per_channel_of_maps() -> None:
    codes = rng.normal(size=(500, 12)).astype("float32") * np.arange(1, 13) + 3
    prior = built(12)
    prior.initialize(codes)
    np.testing.assert_allclose(to_numpy(prior.mean), codes.mean(0), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(prior.scale), codes.std(0), rtol=1e-5)
    prior = built(12, map_shape=(2, 2, 3))
    prior.initialize(codes)
    maps = codes.reshape(-1, 2, 2, 3)
    np.testing.assert_allclose(to_numpy(prior.mean).reshape(2, 2, 3)[1, 0], maps.mean((0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(to_numpy(prior.scale).reshape(2, 2, 3)[0, 1], maps.std((0, 1, 2)), rtol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "width = 0: not a positive integer; pass an integer ≥ 1"),
        ({"steps": 0}, "steps = 0: not a positive integer; pass an integer ≥ 1"),
        ({"guidance": -1.0}, "guidance = -1.0: not a finite number ≥ 0"),
        ({"guidance": 2.0}, "guidance = 2.0: the model has no condition to guide to"),
        ({"map_shape": (2, 2)}, r"map_shape = \(2, 2\): not the size of a map"),
        ({"map_shape": (2, 2, 2)}, r"map_shape = \(2, 2, 2\): does not fit codes of 2 values"),
    ],
)
def test_invalid_prior_is_rejected(settings: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        built(**settings)
