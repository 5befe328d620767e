"""Bounds on the parts of the KL, for linear-Gaussian models with closed forms."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pytest

from keras_vae.core.typing import Array
from keras_vae.evaluation.kl_decomposition import AggregateDensities, aggregate_densities, decompose_kl


class LinearGaussian(NamedTuple):
    """Posteriors N(m, σ² I) whose means have the covariance A Aᵀ and a constant offset."""

    factor: Array
    variance: float
    offset: float = 0.0

    @property
    def truth(self) -> dict[str, float]:
        """Mutual information, and KL(q(z) ‖ N(0, I)), in nats."""
        dim = len(self.factor)
        covariance = self.factor @ self.factor.T + self.variance * np.eye(dim)
        log_det = np.linalg.slogdet(covariance)[1]
        distance = np.trace(covariance) + dim * self.offset**2 - dim - log_det
        return {
            "mutual_information": float(log_det - dim * math.log(self.variance)) / 2,
            "marginal_kl": float(distance) / 2,
        }

    def draw(self, images: int, seed: int) -> tuple[AggregateDensities, Array, Array]:
        """Return densities, codes and log p(z)."""
        rng = np.random.default_rng(seed)
        mean = self.offset + rng.normal(size=(images, len(self.factor))) @ self.factor.T
        z = mean + math.sqrt(self.variance) * rng.normal(size=mean.shape)
        log_prior = -0.5 * np.sum(z**2 + math.log(2 * math.pi), axis=1)
        return aggregate_densities(mean, np.full_like(mean, math.log(self.variance)), z), z, log_prior


STANDARD = LinearGaussian(math.sqrt(0.9) * np.eye(16), 0.1)
OFFSET = LinearGaussian(math.sqrt(0.9) * np.eye(16), 0.1, offset=1.5)
CORRELATED = LinearGaussian(np.tril(np.full((8, 8), 0.5)) + np.eye(8), 0.01)
SMALL = LinearGaussian(math.sqrt(0.75) * np.eye(1), 0.25)
PLANE = LinearGaussian(np.array([[0.8, 0.0], [0.5, 0.6]]), 0.2, offset=0.5)


def contains(bounds: Mapping[str, Any], truth: float) -> bool:
    """Return whether a value lies between two bounds, each within three standard errors."""
    lower, upper = bounds["lower"], bounds["upper"]
    above = lower["mean"] - 3 * lower["standard_error"] - 1e-9 < truth
    return bool(above and truth < upper["mean"] + 3 * upper["standard_error"] + 1e-9)


@pytest.mark.parametrize("model", [STANDARD, OFFSET, CORRELATED, SMALL, PLANE])
@pytest.mark.parametrize("images", [40, 700])
def test_the_bounds_contain_the_closed_forms(model: LinearGaussian, images: int) -> None:
    found = decompose_kl(*model.draw(images, seed=1))
    for name, truth in model.truth.items():
        assert contains(found[f"{name}_bounds"], truth), name
        if found[name]:
            assert found[name]["mean"] == pytest.approx(truth, abs=3 * found[name]["standard_error"])


@pytest.mark.parametrize("model", [STANDARD, OFFSET, CORRELATED])
def test_near_the_limit_log_n_only_bounds_are_reported(model: LinearGaussian) -> None:
    found, truth = decompose_kl(*model.draw(700, seed=2)), model.truth
    assert found["mutual_information"] is found["marginal_kl"] is None
    information, marginal = found["mutual_information_bounds"], found["marginal_kl_bounds"]
    assert information["lower"]["mean"] <= math.log(700) < truth["mutual_information"]
    # The fitted density is close to the exact normal density of the codes, so one bound of each is nearly exact.
    for bound, exact in ((information["upper"], "mutual_information"), (marginal["lower"], "marginal_kl")):
        assert bound["mean"] == pytest.approx(truth[exact], abs=0.1 + 3 * bound["standard_error"])


@pytest.mark.parametrize("model", [SMALL, PLANE])
def test_far_below_the_limit_the_bounds_meet(model: LinearGaussian) -> None:
    found = decompose_kl(*model.draw(1500, seed=3))
    for name, truth in model.truth.items():
        bounds = found[f"{name}_bounds"]
        assert 0 <= bounds["upper"]["mean"] - bounds["lower"]["mean"] < 0.03
        assert bounds["lower"]["mean"] == pytest.approx(truth, abs=0.03 + 3 * bounds["lower"]["standard_error"])
    assert found["mutual_information"] is not None


def test_standard_errors_are_deviations_over_samples_of_images() -> None:
    found = [decompose_kl(*PLANE.draw(150, seed)) for seed in range(40)]
    for name in ("mutual_information_bounds", "marginal_kl_bounds"):
        for end in ("lower", "upper"):
            means = [one[name][end]["mean"] for one in found]
            errors = [one[name][end]["standard_error"] for one in found]
            # Forty samples determine a standard deviation to 11 %.
            assert 0.65 < np.mean(errors) / np.std(means, ddof=1) < 1.6, (name, end)


def test_without_a_prior_only_the_information_is_bounded() -> None:
    densities, z, _ = PLANE.draw(300, seed=4)
    found = decompose_kl(densities, z, None)
    assert found["marginal_kl"] is found["marginal_kl_bounds"] is found["kl_monte_carlo"] is None
    assert contains(found["mutual_information_bounds"], PLANE.truth["mutual_information"])


def test_a_single_image_has_no_bounds() -> None:
    found = decompose_kl(*PLANE.draw(1, seed=5))
    assert found["mutual_information_bounds"] is found["mutual_information"] is found["marginal_kl"] is None
