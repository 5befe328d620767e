"""Autoregressive prior: normalization, causality, sampling and errors."""

import itertools
from collections.abc import Mapping

import numpy as np
import pytest
from keras import ops

from keras_vae.components import autoregressive_prior
from keras_vae.components.autoregressive_prior import AutoregressivePrior
from keras_vae.core import backend
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array, Tensor


@pytest.fixture
def prior() -> AutoregressivePrior:
    """A prior over 2×2 maps of 3 codes, with 2 conditions and large weights, so that all inputs matter."""
    prior = AutoregressivePrior(width=4, num_blocks=1, num_heads=2)
    prior.build((None, 2, 2, 3), (None, 2))
    rng = np.random.default_rng(2)
    prior.set_weights([rng.normal(0, 0.8, weight.shape) for weight in prior.get_weights()])
    return prior


def all_maps() -> Array:
    """Return the 3⁴ maps of 2×2 codes."""
    return np.array(list(itertools.product(range(3), repeat=4)), "int32").reshape(-1, 2, 2)


def all_log_probs(prior: AutoregressivePrior, label: int) -> Array:
    return ops.convert_to_numpy(prior.log_prob(all_maps(), np.eye(2, dtype="float32")[np.full(81, label)]))


def test_probabilities_sum_to_one_and_depend_on_the_condition(prior: AutoregressivePrior) -> None:
    for label in (0, 1):
        assert np.exp(all_log_probs(prior, label).astype("float64")).sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(all_log_probs(prior, 0) - all_log_probs(prior, 1)).max() > 0.1


def test_each_position_depends_only_on_those_before_it(prior: AutoregressivePrior) -> None:
    def log_probs(indices: list[int]) -> Array:
        inputs = {"indices": np.array(indices, "int32").reshape(1, 2, 2), "condition": np.zeros((1, 2), "float32")}
        return ops.convert_to_numpy(prior(inputs)).reshape(4, 3)

    original = [0, 1, 2, 0]
    for changed in range(4):
        modified = [(code + (position == changed)) % 3 for position, code in enumerate(original)]
        differs = np.abs(log_probs(original) - log_probs(modified)).max(-1) > 1e-4
        np.testing.assert_array_equal(differs, np.arange(4) > changed)


def test_samples_have_the_frequencies_of_the_prior(prior: AutoregressivePrior) -> None:
    n, condition = 4000, np.eye(2, dtype="float32")[np.ones(4000, int)]
    samples = prior.sample(n, np.random.default_rng(0), condition)
    observed = np.bincount(samples.reshape(n, 4) @ [27, 9, 3, 1], minlength=81)
    expected = n * np.exp(all_log_probs(prior, 1).astype("float64"))
    frequent = expected > 5
    chi_square = ((observed - expected)[frequent] ** 2 / expected[frequent]).sum()
    assert frequent.sum() > 30
    assert chi_square < frequent.sum() + 4 * np.sqrt(2 * frequent.sum())


def sample_with_the_whole_model(prior: AutoregressivePrior, n: int, seed: int, condition: Array | None) -> Array:
    """Sample by calling the model once per position; indices whose noisy log-probabilities tie are -1."""
    generator, indices = np.random.default_rng(seed), np.zeros((n, *prior.map_shape[:2]), "int32")
    tied = np.zeros(indices.shape, bool)
    for position in np.ndindex(*indices.shape[1:]):
        inputs = {"indices": indices} if condition is None else {"indices": indices, "condition": condition}
        log_probs = ops.convert_to_numpy(prior(inputs))[:, *position]
        noisy = log_probs + generator.gumbel(size=log_probs.shape)
        indices[:, *position] = noisy.argmax(-1)
        highest = np.sort(noisy, axis=-1)
        tied[:, *position] = highest[:, -1] - highest[:, -2] < 1e-5
    assert not tied.any(), "choose another seed"
    return indices


@pytest.mark.parametrize(
    ("map_shape", "noise_values", "conditional"),
    [((3, 5), 2**23, False), ((4, 2), 200, True), ((1, 7), 200, False)],
)
def test_samples_equal_those_of_the_whole_model_called_per_position(
    map_shape: tuple[int, int], noise_values: int, conditional: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoregressive_prior, "_NOISE_VALUES", noise_values)
    prior = AutoregressivePrior(width=8, num_blocks=2, num_heads=2)
    prior.build((None, *map_shape, 11), (None, 2 * conditional))
    rng = np.random.default_rng(3)
    prior.set_weights([rng.normal(0, 0.8, weight.shape) for weight in prior.get_weights()])
    condition = rng.normal(size=(6, 2)).astype("float32") if conditional else None
    samples = prior.sample(6, np.random.default_rng(4), condition)
    assert samples.dtype == np.int32
    np.testing.assert_array_equal(samples, sample_with_the_whole_model(prior, 6, 4, condition))


def test_changed_weights_change_the_samples(prior: AutoregressivePrior) -> None:
    condition = np.eye(2, dtype="float32")[np.zeros(50, int)]
    prior.sample(50, np.random.default_rng(0), condition)
    prior.set_weights([3 * weight for weight in prior.get_weights()])
    samples = prior.sample(50, np.random.default_rng(0), condition)
    np.testing.assert_array_equal(samples, sample_with_the_whole_model(prior, 50, 0, condition))


def test_many_maps_are_sampled_in_batches_that_continue_the_noise(
    prior: AutoregressivePrior, monkeypatch: pytest.MonkeyPatch
) -> None:
    condition = np.eye(2, dtype="float32")[np.arange(5) % 2]
    # A map of 4 positions keeps 4 · 4 keys and as many values of 4 bytes.
    monkeypatch.setattr(autoregressive_prior, "_CACHE_BYTES", 3 * 128)
    generator = np.random.default_rng(0)
    parts = [prior.sample(3, generator, condition[:3]), prior.sample(2, generator, condition[3:])]
    samples = prior.sample(5, np.random.default_rng(0), condition)
    np.testing.assert_array_equal(samples, np.concatenate(parts))


def test_noise_is_that_of_numpy() -> None:
    noise = autoregressive_prior._gumbel(np.random.default_rng(0), (100, 7))
    np.testing.assert_allclose(noise, np.random.default_rng(0).gumbel(size=(100, 7)), rtol=1e-12)


def test_log_prob_and_its_gradient_are_those_of_the_log_probabilities(prior: AutoregressivePrior) -> None:
    indices, condition = all_maps(), np.random.default_rng(1).normal(size=(81, 2)).astype("float32")

    def from_log_probs(condition: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        log_probs = prior({"indices": inputs["indices"], "condition": condition})
        return ops.sum(ops.take_along_axis(log_probs, inputs["indices"][..., None], axis=-1), axis=(1, 2, 3))

    def from_log_prob(condition: Tensor, inputs: Mapping[str, Tensor]) -> Tensor:
        return prior.log_prob(inputs["indices"], condition)

    results = [
        backend.value_and_gradient(function, prior.variables)(condition, {"indices": indices})
        for function in (from_log_probs, from_log_prob)
    ]
    for expected, actual in zip(*results, strict=True):
        np.testing.assert_allclose(ops.convert_to_numpy(actual), ops.convert_to_numpy(expected), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 6, "num_heads": 4}, "width = 6: not divisible by num_heads; pass a multiple of 4"),
        ({"num_blocks": 0}, "num_blocks = 0"),
    ],
)
def test_errors_name_the_setting_and_its_value(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AutoregressivePrior(**settings)
