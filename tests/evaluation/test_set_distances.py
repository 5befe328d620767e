"""Distances between sets of vectors, against double loops, closed forms and sets with known answers."""

import math

import numpy as np
import pytest

from keras_vae.core.typing import Array
from keras_vae.evaluation.set_distances import (
    compare_sets,
    frechet_distance,
    frechet_distance_error,
    kid,
    prdc,
    prdc_errors,
)


def with_moments(mean: Array, covariance: Array, count: int = 200) -> Array:
    """Return vectors whose sample mean and covariance are exactly these."""
    rows = np.random.default_rng(0).standard_normal((count, len(mean)))
    rows -= rows.mean(0)
    white = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_normals_with_shared_axes_matches_the_closed_form() -> None:
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
    first, second = np.array([1.0, 4.0, 9.0]), np.array([4.0, 0.25, 1.0])
    means = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, -1.0])
    expected = 17 + np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    sets = [with_moments(mean, turn * spread @ turn.T) for mean, spread in zip(means, (first, second), strict=True)]
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_matches_the_formula_with_eigenvalues() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.standard_normal((50, 8)), rng.standard_normal((40, 8)) @ rng.standard_normal((8, 8)) + 1
    a, b = np.cov(first.T), np.cov(second.T)
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(a) + np.trace(b) - 2 * roots
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))


def test_frechet_distance_accepts_singular_covariances() -> None:
    few = np.random.default_rng(4).standard_normal((3, 200)).astype("float32")
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(few, few + 2) == pytest.approx(800, rel=1e-4)
    # Two orthogonal lines: the covariances share no direction.
    across, along = np.array([[-1.0, 0.0], [1.0, 0.0]]), np.array([[0.0, -2.0], [0.0, 2.0]])
    assert frechet_distance(across, along) == pytest.approx(2 + 8)


def naive_kid(first: Array, second: Array) -> float:
    def kernel(x: Array, y: Array) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    n, m = len(first), len(second)
    return (
        sum(kernel(first[i], first[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
        + sum(kernel(second[i], second[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
        - 2 * sum(kernel(x, y) for x in first for y in second) / (n * m)
    )


def test_kid_matches_a_double_loop() -> None:
    rng = np.random.default_rng(5)
    first, second = rng.standard_normal((19, 4)), rng.standard_normal((19, 4)) + 0.5
    few = kid(first[:7], second[:7])
    assert few["mean"] == pytest.approx(naive_kid(first[:7], second[:7]), rel=1e-10)
    assert few["standard_error"] is None
    first, second = rng.standard_normal((45, 4)), rng.standard_normal((49, 4)) + 0.5
    parts = [naive_kid(first[at : at + 4], second[at : at + 4]) for at in range(0, 40, 4)]
    many = kid(first, second)
    assert many["mean"] == pytest.approx(np.mean(parts), rel=1e-10)
    assert many["standard_error"] == pytest.approx(np.std(parts, ddof=1) / math.sqrt(10), rel=1e-10)


def test_kid_is_unbiased_and_its_standard_error_is_correct() -> None:
    rng = np.random.default_rng(6)
    found = [kid(*rng.standard_normal((2, 100, 3))) for _ in range(300)]
    means, errors = (np.array([one[name] for one in found]) for name in ("mean", "standard_error"))
    assert abs(means.mean()) < 4 * means.std() / math.sqrt(300)
    assert (means < 0).any()
    assert np.sqrt((errors**2).mean()) == pytest.approx(means.std(), rel=0.2)
    shifted = kid(rng.standard_normal((100, 3)), rng.standard_normal((100, 3)) + 1)
    assert shifted["mean"] > 3 * shifted["standard_error"]


def naive_prdc(samples: Array, real: Array, k: int) -> tuple[float, float, float, float]:
    def radius(rows: Array, at: int) -> float:
        return sorted(math.dist(rows[at], other) for i, other in enumerate(rows) if i != at)[k - 1]

    fake_balls = [(row, radius(samples, at)) for at, row in enumerate(samples)]
    real_balls = [(row, radius(real, at)) for at, row in enumerate(real)]

    def inside(point: Array, balls: list[tuple[Array, float]]) -> int:
        return sum(math.dist(point, center) <= reach for center, reach in balls)

    counts = [inside(point, real_balls) for point in samples]
    covered = [any(math.dist(point, center) <= reach for point in samples) for center, reach in real_balls]
    return (
        float(np.mean([count > 0 for count in counts])),
        float(np.mean([inside(point, fake_balls) > 0 for point in real])),
        float(np.mean(counts) / k),
        float(np.mean(covered)),
    )


@pytest.mark.parametrize("k", [1, 3, 5])
def test_prdc_matches_a_double_loop(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_vae.evaluation.neighbors._VALUES_AT_ONCE", 100)
    rng = np.random.default_rng(7)
    real, samples = rng.standard_normal((30, 2)), rng.standard_normal((41, 2)) * 1.3 + 0.7
    assert tuple(prdc(samples, real, k)) == pytest.approx(naive_prdc(samples, real, k))


def test_prdc_of_equal_and_of_distant_sets() -> None:
    rows = np.random.default_rng(8).standard_normal((50, 3)).astype("float32")
    same = prdc(rows, rows)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(naive_prdc(rows, rows, 5)[2])
    assert tuple(prdc(rows + 100, rows)) == (0, 0, 0, 0)


def test_samples_of_one_of_two_modes_have_full_precision_and_half_recall() -> None:
    rng = np.random.default_rng(9)
    two = np.concatenate([rng.standard_normal((100, 2)), rng.standard_normal((100, 2)) + 50])
    found = prdc(rng.standard_normal((200, 2)) * 0.7, two)
    assert found.precision > 0.95
    assert found.recall < 0.55
    assert found.coverage < 0.55


def test_small_sets_lack_the_metrics_that_need_more_images() -> None:
    rows = np.random.default_rng(10).standard_normal((5, 3))
    found = compare_sets(rows, rows)
    assert found["precision"] is found["recall"] is found["density"] is found["coverage"] is None
    assert found["frechet_distance"]["mean"] == pytest.approx(0, abs=1e-9)
    alone = compare_sets(rows[:1], rows)
    assert alone["frechet_distance"] is alone["kid"] is None


def test_the_error_of_the_frechet_distance_of_one_feature_matches_the_delta_method() -> None:
    """For one feature, the distance is (μ₁ − μ₂)² + (σ₁ − σ₂)²; a normal μ̂ has variance σ²/N, and σ̂ has σ²/2N."""
    rng = np.random.default_rng(11)
    count, other_count, mean, scale = 4000, 6000, 0.8, 1.5
    found = frechet_distance_error(
        rng.standard_normal((count, 1)), mean + scale * rng.standard_normal((other_count, 1))
    )
    variance = 4 * mean**2 * (1 / count + scale**2 / other_count)
    variance += 4 * (scale - 1) ** 2 * (1 / (2 * count) + scale**2 / (2 * other_count))
    assert found == pytest.approx(math.sqrt(variance), rel=0.05)


@pytest.mark.parametrize(("count", "shift"), [(60, 0.5), (400, 0.3)])
def test_the_error_of_the_frechet_distance_is_its_spread(count: int, shift: float) -> None:
    """Sets of 60 vectors of 12 features, or 400; features are correlated, not normal, and sometimes constant."""
    rng = np.random.default_rng(12)
    mixing = rng.standard_normal((12, 12)) / 3

    def draw(shift: float) -> Array:
        rows = np.maximum(rng.standard_normal((count, 12)) @ mixing + shift, 0)
        rows[:, 0] = 0.25
        return rows.astype("float32")

    pairs = [(draw(0.0), draw(shift)) for _ in range(150)]
    distances = np.array([frechet_distance(*pair) for pair in pairs])
    errors = np.array([frechet_distance_error(*pair) for pair in pairs])
    # The spread of 150 values is known to 6 %.
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(distances.std(ddof=1), rel=0.25)


def test_the_error_of_the_frechet_distance_between_sets_of_one_distribution_is_not_too_small() -> None:
    rng = np.random.default_rng(13)
    pairs = [rng.standard_normal((2, 100, 5)) for _ in range(100)]
    spread = np.std([frechet_distance(*pair) for pair in pairs])
    error = np.sqrt(np.mean([frechet_distance_error(*pair) ** 2 for pair in pairs]))
    assert spread < error < 2 * spread


def test_errors_of_fewer_vectors_than_features_are_finite() -> None:
    rows = np.random.default_rng(14).standard_normal((20, 50))
    assert frechet_distance_error(rows, rows[::-1]) == pytest.approx(0, abs=1e-6)
    assert 0 < frechet_distance_error(rows, rows * 1.5 + 0.1) < 50
    assert frechet_distance_error(rows[:2], rows) is None


@pytest.mark.parametrize(("shift", "scale"), [(0.0, 1.0), (0.5, 0.8)])
def test_errors_of_precision_recall_density_and_coverage_are_their_spreads(shift: float, scale: float) -> None:
    rng = np.random.default_rng(15)
    pairs = [(shift + scale * rng.standard_normal((300, 3)), rng.standard_normal((300, 3))) for _ in range(30)]
    spreads = np.std([prdc(*pair) for pair in pairs], axis=0, ddof=1)
    errors = np.sqrt(np.mean(np.square([prdc_errors(*pair) for pair in pairs[:4]]), axis=0))
    assert (errors > spreads / 2).all()
    assert (errors < spreads * 2).all()


def test_small_sets_have_no_errors_of_precision_and_recall() -> None:
    rows = np.random.default_rng(16).standard_normal((59, 3))
    assert prdc_errors(rows, rows) is None
    assert compare_sets(rows, rows)["recall"] == {"mean": 1, "standard_error": None}
