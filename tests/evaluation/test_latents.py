"""Latent metrics, against closed forms, numerical integration and independent implementations."""

import math
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score
from sklearn.neighbors import NearestNeighbors

from keras_vae.core.typing import Array
from keras_vae.evaluation import kl_decomposition
from keras_vae.evaluation.kl_decomposition import aggregate_densities
from keras_vae.evaluation.latents import active_units, aggregate_moments, probe_hits
from keras_vae.evaluation.per_image import mean_and_error


def normal(z: Array, mean: Array | float = 0.0, log_var: Array | float = 0.0) -> Array:
    """Return log-densities of each dimension."""
    return -0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))


# aggregate densities


def test_distant_posteriors_identify_their_images() -> None:
    rng = np.random.default_rng(0)
    mean = 1e3 * np.stack([np.arange(50), rng.permutation(50)], 1)
    own, mixed, *_ = aggregate_densities(mean, np.zeros((50, 2)), mean + rng.normal(size=(50, 2)))
    np.testing.assert_allclose(own - mixed, math.log(50), atol=1e-6)


def test_equal_posteriors_carry_no_information() -> None:
    z = np.random.default_rng(0).normal(size=(40, 3))
    own, mixed, *_ = aggregate_densities(np.zeros((40, 3)), np.zeros((40, 3)), z)
    np.testing.assert_allclose(own, mixed, atol=1e-12)
    np.testing.assert_allclose(mixed, normal(z).sum(1), atol=1e-12)


@pytest.mark.parametrize("pairs_at_once", [1, 100, 2**22])
def test_densities_match_a_double_loop(monkeypatch: pytest.MonkeyPatch, pairs_at_once: int) -> None:
    monkeypatch.setattr(kl_decomposition, "_PAIRS_AT_ONCE", pairs_at_once)
    rng = np.random.default_rng(1)
    mean, log_var = 2.0 + rng.normal(size=(30, 4)), rng.uniform(-9, 1, size=(30, 4))
    z = mean + np.exp(log_var / 2) * rng.normal(size=(30, 4))
    pairs = np.array([[normal(code, *moments).sum() for moments in zip(mean, log_var, strict=True)] for code in z])
    own, mixed, *_ = aggregate_densities(mean, log_var, z)
    np.testing.assert_allclose(own, np.diag(pairs), atol=1e-9)
    np.testing.assert_allclose(mixed, np.logaddexp.reduce(pairs, axis=1) - np.log(30), atol=1e-9)


def test_densities_of_narrow_posteriors_stay_exact_in_float32() -> None:
    rng = np.random.default_rng(2)
    mean = rng.normal(5.0, 1.0, size=(20, 8)).astype("float32")
    log_var = np.full_like(mean, -20.0)
    z = mean + np.exp(log_var / 2) * rng.normal(size=mean.shape).astype("float32")
    own, mixed, *_ = aggregate_densities(mean, log_var, z)
    doubles = (values.astype("float64") for values in (z, mean, log_var))
    np.testing.assert_allclose(own, normal(*doubles).sum(1), atol=1e-5)
    np.testing.assert_allclose(own - mixed, math.log(20), atol=1e-5)


def test_information_and_divergence_match_numerical_integration() -> None:
    means, deviation, copies = np.array([-1.2, 0.1, 0.9]), 0.6, 4000
    line = np.linspace(-9, 9, 20_001)
    components = np.exp(normal(line, means[:, None], 2 * math.log(deviation)))
    mixture = components.mean(0)
    step = line[1] - line[0]
    information = (components * np.log(components / mixture)).sum() * step / 3
    divergence = (mixture * (np.log(mixture) - normal(line))).sum() * step

    mean = np.repeat(means, copies // 3)[:, None]
    log_var = np.full_like(mean, 2 * math.log(deviation))
    z = mean + deviation * np.random.default_rng(3).normal(size=mean.shape)
    own, mixed, *_ = aggregate_densities(mean, log_var, z)
    for values, exact in ((own - mixed, information), (mixed - normal(z)[:, 0], divergence)):
        assert abs(values.mean() - exact) < 3 * values.std() / math.sqrt(len(z))


def test_information_of_linear_gaussian_codes_matches_the_closed_form() -> None:
    # z = x + noise, both normal: I = ½ log(1 + signal/noise) in each dimension.
    rng = np.random.default_rng(4)
    mean, log_var = rng.normal(size=(4000, 2)), np.full((4000, 2), math.log(0.25))
    z = mean + 0.5 * rng.normal(size=mean.shape)
    own, mixed, *_ = aggregate_densities(mean, log_var, z)
    assert abs((own - mixed).mean() - math.log(1 + 4.0)) < 0.06


# active units and moments


def test_active_units_are_those_with_varying_means() -> None:
    wave = np.tile([1.0, -1.0], 50)
    deviations = [0.0, 0.0999, 0.1001, 2.0]
    z_mean = np.stack([3.0 + deviation * wave for deviation in deviations], 1).astype("float32")
    assert active_units(z_mean) == {"count": 2, "dimensions": [2, 3], "threshold": 0.01}


def test_moments_match_numpy() -> None:
    rng = np.random.default_rng(5)
    z = rng.normal(size=(500, 3)) @ np.array([[1.0, 0.8, 0.0], [0.0, 0.6, -0.3], [0.0, 0.0, 2.0]]) + [0.0, 1.0, -2.0]
    found = aggregate_moments(z.astype("float32"))
    covariance = np.cov(z.T, ddof=0)
    np.testing.assert_allclose(found["mean"], z.mean(0), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["variance"], np.diag(covariance), rtol=1e-5)
    assert found["largest_correlation"] == pytest.approx(np.abs(np.corrcoef(z.T) - np.eye(3)).max(), rel=1e-5)
    expected = np.linalg.norm(z.mean(0)) ** 2 + np.linalg.norm(covariance - np.eye(3)) ** 2
    assert found["squared_deviation"] == pytest.approx(expected, rel=1e-4)


def test_moments_of_one_code_or_constant_codes_are_finite() -> None:
    assert aggregate_moments(np.array([[2.0]])) == {
        **{"mean": [2.0], "variance": [0.0], "largest_correlation": None, "squared_deviation": 5.0},
    }
    still = np.array([[0.0, 1.0], [0.0, -1.0]])
    assert aggregate_moments(still)["largest_correlation"] == 0.0


# probes


def probe_accuracies(codes: Array, labels: Array, others: Array, other_labels: Array) -> dict[str, Any]:
    hits = probe_hits(codes, labels, others, other_labels)
    return {name: mean_and_error(values) for name, values in hits.items()}


def test_separable_codes_predict_every_label() -> None:
    labels = np.arange(120) % 3
    corners = 10.0 * np.array([[0, 0], [0, 1], [1, 0]])
    rng = np.random.default_rng(6)
    codes, others = (corners[labels] + rng.normal(size=(120, 2)) for _ in range(2))
    found = probe_accuracies(codes, labels, others, labels)
    assert found["knn_accuracy"] == found["linear_probe_accuracy"] == {"mean": 1.0, "standard_error": 0.0}
    assert found["chance_accuracy"]["mean"] == pytest.approx(1 / 3)


def test_labels_independent_of_codes_are_predicted_by_chance() -> None:
    rng = np.random.default_rng(7)
    codes, others = rng.normal(size=(2, 600, 3))
    labels, other_labels = (rng.random((2, 600)) < 0.3).astype("int64")
    found = probe_accuracies(codes, labels, others, other_labels)
    chance = found["chance_accuracy"]
    share = (other_labels == 0).mean()
    assert chance["mean"] == pytest.approx(share)
    assert chance["standard_error"] == pytest.approx(math.sqrt(share * (1 - share) / 600), rel=1e-2)
    assert found["linear_probe_accuracy"]["mean"] == pytest.approx(chance["mean"], abs=3 * chance["standard_error"])
    assert found["knn_accuracy"]["mean"] < chance["mean"] + 3 * chance["standard_error"]


def test_knn_accuracy_matches_a_majority_vote() -> None:
    rng = np.random.default_rng(8)
    codes, others = rng.normal(size=(2, 90, 2))
    labels, other_labels = rng.integers(0, 2, (2, 90))
    found = probe_accuracies(codes, labels, others, other_labels)
    votes = labels[NearestNeighbors(n_neighbors=10).fit(codes).kneighbors(others, return_distance=False)].mean(1)
    assert found["knn_accuracy"]["mean"] == pytest.approx(accuracy_score(other_labels, votes > 0.5))


def test_the_linear_probe_ignores_shift_and_scale_of_codes() -> None:
    rng = np.random.default_rng(9)
    codes, others = rng.normal(size=(2, 80, 2))
    labels, other_labels = ((values @ [1.0, 0.2] + 0.3 * rng.normal(size=80) > 0) for values in (codes, others))
    scores = [
        probe_accuracies(scale * codes + shift, labels, scale * others + shift, other_labels)["linear_probe_accuracy"]
        for scale, shift in ((1.0, 0.0), (np.array([1e-3, 1e3]), 50.0))
    ]
    assert scores[0] == scores[1]
