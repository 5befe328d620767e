"""Autoregressive prior: normalization, causality, sampling and errors."""

import itertools

import numpy as np
import pytest
from keras import ops

from keras_vae.components.autoregressive_prior import AutoregressivePrior
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array


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
