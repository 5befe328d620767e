"""Disentanglement scores of codes with known answers: perfect, permuted, rotated, doubled, random and constant."""

import itertools
import json
import math
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from keras_vae import VAE
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.data.factors import Factors
from keras_vae.evaluation.disentanglement import bootstrap_error, measure_disentanglement
from keras_vae.evaluation.disentanglement_scores import (
    beta_vae_score,
    dci,
    dci_with_errors,
    factor_vae_score,
    mig,
    modularity,
    mutual_information,
    sap,
    sap_with_error,
)
from keras_vae.evaluation.factor_sampler import FactorSampler
from keras_vae.models.encoding import Encoding

RNG = np.random.default_rng(0)
SIZES = (3, 4, 5)
# All combinations are equally frequent: mutual information and correlations between factors are exactly 0.
FACTORS = np.array(list(itertools.product(*map(range, SIZES))) * 40)
PERFECT = FACTORS / np.array(SIZES)
N = len(FACTORS)
ROTATED = (PERFECT - PERFECT.mean(0)) / PERFECT.std(0) @ np.linalg.qr(np.random.default_rng(3).normal(size=(3, 3)))[0]
RANDOM = RNG.normal(size=(N, 6))
FEW: dict[str, Any] = {"train": 600, "test": 600}

PERFECT_ALIKE = {
    "perfect": PERFECT,
    "permuted and scaled": PERFECT[:, [2, 0, 1]] * [-3.0, 0.7, 20.0] + [5.0, 0.0, -100.0],
    "perfect among float32": PERFECT.astype("float32"),
}


@pytest.mark.parametrize("codes", PERFECT_ALIKE.values(), ids=PERFECT_ALIKE)
def test_perfect_codes_score_1(codes: Array) -> None:
    assert beta_vae_score(codes, FACTORS, **FEW) == 1
    assert factor_vae_score(codes, FACTORS, **FEW) == 1
    assert mig(codes, FACTORS) == pytest.approx(1, abs=1e-6)
    assert modularity(codes, FACTORS) == pytest.approx(1, abs=1e-6)
    assert sap(codes, FACTORS, continuous=True) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(dci(codes, FACTORS), 1, atol=0.01)


def test_constant_dimensions_lower_only_the_modularity_of_perfect_codes() -> None:
    codes = np.concatenate([PERFECT, np.zeros((N, 2)), 1e-3 * RNG.normal(size=(N, 1))], axis=1)
    assert factor_vae_score(codes, FACTORS, **FEW) == 1
    assert mig(codes, FACTORS) == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(dci(codes, FACTORS), 1, atol=0.03)
    # Dimensions without information count as 0.
    assert modularity(codes[:, :5], FACTORS) == pytest.approx(3 / 5, abs=1e-6)


def test_doubled_codes_are_modular_but_not_complete() -> None:
    codes = np.concatenate([PERFECT, PERFECT], axis=1)
    assert mig(codes, FACTORS) == pytest.approx(0, abs=1e-12)
    assert sap(codes, FACTORS) == pytest.approx(0, abs=1e-12)
    assert sap(codes, FACTORS, continuous=True) == pytest.approx(0, abs=1e-12)
    assert modularity(codes, FACTORS) == pytest.approx(1, abs=1e-6)
    found = dci(codes, FACTORS)
    assert found.disentanglement == pytest.approx(1, abs=0.01)
    # Shared equally by two of six dimensions: 1 − log 2 / log 6.
    assert found.completeness == pytest.approx(1 - math.log(2) / math.log(6), abs=0.08)


def test_one_dimension_for_two_factors_lowers_the_modularity_but_not_the_gap() -> None:
    pairs = FACTORS[:, 0] * 4 + FACTORS[:, 1]
    codes = np.stack([pairs, FACTORS[:, 2]], axis=1).astype(float)
    # The squares of the first dimension are (log 3)², (log 4)², 0; the second dimension is modular.
    first = 1 - (math.log(3) / math.log(4)) ** 2 / 2
    assert modularity(codes, FACTORS) == pytest.approx((first + 1) / 2)
    assert mig(codes, FACTORS) == pytest.approx(1)


def test_the_mutual_information_is_that_of_the_bins() -> None:
    # 40 values in 20 bins, two per bin, keep log 20 of log 40 nats. Two values keep log 2.
    factors = np.array(list(itertools.product(range(40), range(2))) * 10)
    found = mutual_information(factors.astype(float), factors, bins=20)
    np.testing.assert_allclose(found, [[math.log(20), 0], [0, math.log(2)]], atol=1e-9)
    assert mig(factors.astype(float), factors) == pytest.approx((math.log(20) / math.log(40) + 1) / 2)


def test_outliers_do_not_change_the_bins() -> None:
    rng = np.random.default_rng(1)
    factors = rng.integers(0, 2, (4000, 2))
    codes = 4.0 * factors - 2 + rng.normal(size=factors.shape)
    wild = codes.copy()
    wild[:20] *= 100
    for score in (mig, modularity):
        assert score(wild, factors) == pytest.approx(score(codes, factors), abs=0.01)
        # Bins of equally many codes only use their order.
        assert score(np.exp(codes), factors) == pytest.approx(score(codes, factors), abs=1e-9)
    # A value of 1 % of the codes keeps its own bin: 0.056 nats.
    rare = np.stack([np.arange(1000) % 100 == 0, np.arange(1000) % 2 == 0], axis=1).astype(int)
    entropy = -(0.01 * math.log(0.01) + 0.99 * math.log(0.99))
    assert mutual_information(rare.astype(float), rare)[0, 0] == pytest.approx(entropy)


def test_sap_is_that_of_classifiers_of_all_points() -> None:
    rng = np.random.default_rng(2)
    factors = rng.integers(0, 2, (3000, 2))
    codes = factors + 0.5 * rng.normal(size=factors.shape)
    # The threshold halfway between two values is right for P(n < 1) = Φ(1) of normal codes, and guesses otherwise.
    scores = [[((codes[:, d] > 0.5) == factors[:, k]).mean() for d in range(2)] for k in range(2)]
    expected = np.mean([max(row) - min(row) for row in scores])
    score, error = sap_with_error(codes, factors)
    assert score == pytest.approx(expected, abs=0.015)
    # Each accuracy has a variance of p(1 − p)/N, and both are measured on nearly independent events.
    accuracy = np.array(scores)
    assert error == pytest.approx(math.sqrt((accuracy * (1 - accuracy)).sum() / 3000) / 2, rel=0.2)


@pytest.mark.parametrize("score", [mig, lambda codes, factors: dci(codes, factors).informativeness], ids=["mig", "dci"])
def test_standard_errors_are_deviations_over_samples_of_images(score: Callable[..., float]) -> None:
    def draw(seed: int) -> tuple[Array, Array]:
        rng = np.random.default_rng(seed)
        factors = rng.integers(0, 3, (600, 2))
        return factors + 0.4 * rng.normal(size=factors.shape), factors

    codes, factors = draw(0)
    deviation = np.std([score(*draw(seed)) for seed in range(1, 13)], ddof=1)
    if score is mig:
        error = bootstrap_error(score, codes, factors, replicates=50)
    else:
        error = dci_with_errors(codes, factors)[1].informativeness
    # Twelve samples determine a standard deviation to about 20 %.
    assert 0.5 < error / deviation < 2


def test_rotated_codes_are_informative_but_less_disentangled() -> None:
    assert mig(ROTATED, FACTORS) < 0.3
    assert sap(ROTATED, FACTORS, continuous=True) < 0.6
    found = dci(ROTATED, FACTORS)
    assert found.disentanglement < 0.6
    assert found.completeness < 0.6
    assert found.informativeness > 0.8
    # The squared correlations of a rotation of independent, standardized factors are its squared entries.
    rotation = ROTATED.T @ ((FACTORS - FACTORS.mean(0)) / FACTORS.std(0)) / N
    best = np.sort(rotation**2, axis=0)
    assert sap(ROTATED, FACTORS, continuous=True) == pytest.approx((best[-1] - best[-2]).mean())


def test_random_codes_score_at_chance() -> None:
    # Three standard deviations of an accuracy of 1/3 on 2,000 points, and the bias of the majority, are below 0.06.
    many = {"train": 2000, "test": 2000}
    assert beta_vae_score(RANDOM, FACTORS, **many) == pytest.approx(1 / 3, abs=0.06)
    assert factor_vae_score(RANDOM, FACTORS, **many) == pytest.approx(1 / 3, abs=0.06)
    assert mig(RANDOM, FACTORS) < 0.02
    assert sap(RANDOM, FACTORS) < 0.06
    assert sap(RANDOM, FACTORS, continuous=True) < 0.01
    found = dci(RANDOM, FACTORS)
    assert found.disentanglement < 0.05
    assert found.completeness < 0.05
    assert found.informativeness == pytest.approx(np.mean([1 / size for size in SIZES]), abs=0.06)


def test_constant_codes_score_at_chance_or_0() -> None:
    codes = np.zeros((N, 3))
    assert beta_vae_score(codes, FACTORS, **FEW) == pytest.approx(1 / 3, abs=0.06)
    assert factor_vae_score(codes, FACTORS, **FEW) == 0
    assert mig(codes, FACTORS) == modularity(codes, FACTORS) == sap(codes, FACTORS) == 0
    assert sap(codes, FACTORS, continuous=True) == 0
    assert dci(codes, FACTORS)[:2] == (0, 0)


def test_a_single_dimension_scores_against_0() -> None:
    codes, factors = PERFECT[:, :1], FACTORS[:, :2]
    # All information about one factor, none about the other.
    assert mig(codes, factors) == pytest.approx(0.5)
    assert dci(codes, factors).completeness == 1


def test_perfect_codes_reach_the_maximum_of_sap_for_factors_of_two_values() -> None:
    # A linear classifier separates the two values; all other dimensions guess.
    factors = np.array(list(itertools.product(range(2), range(2))) * 200)
    assert sap(factors * 4.0 - 2, factors) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score])
def test_the_seed_fixes_the_score(score: Callable[..., float]) -> None:
    assert score(ROTATED, FACTORS, **FEW) == score(ROTATED, FACTORS, **FEW)
    assert 1 / 3 < score(ROTATED, FACTORS, **FEW, seed=1) <= 1


def test_draws_share_the_value_of_the_factor() -> None:
    sampler = FactorSampler(FACTORS[:, 1])
    points = RNG.integers(N, size=(50, 7))
    for drawn in (sampler.draw_others(points, RNG), sampler.draw_any(points, RNG)):
        np.testing.assert_array_equal(FACTORS[drawn, 1], FACTORS[points, 1])
    assert (sampler.draw_others(points, RNG) != points).all()


def test_draws_are_uniform_over_the_other_points() -> None:
    sampler = FactorSampler(np.array([0, 1, 0, 0, 1, 2]))
    drawn = sampler.draw_others(np.zeros(6000, int), np.random.default_rng(0))
    assert set(drawn.tolist()) == {2, 3}
    assert np.mean(drawn == 2) == pytest.approx(0.5, abs=0.03)
    assert sampler.draw_others(np.array([5]), RNG).tolist() == [5]
    assert set(sampler.draw_shared(100, RNG).tolist()) == {0, 1, 2, 3, 4}
    assert set(sampler.draw_any(np.full(100, 4), RNG).tolist()) == {1, 4}


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score, mig, modularity, mutual_information, dci, sap])
@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (PERFECT[:5], FACTORS, r"shape \(5, 3\), \(2400, 3\): do not match; pass \(N, D\) and \(N, F\)"),
        (PERFECT[:, 0], FACTORS, "do not match"),
        (PERFECT * np.nan, FACTORS, "codes = array with NaN or infinite values"),
        (PERFECT, PERFECT, "factors = array of float64: not discrete; pass integers"),
        (
            PERFECT,
            FACTORS[:, :1],
            r"factors = array of shape \(2400, 1\): too few; pass at least 6 points and 2 factors",
        ),
        (PERFECT, FACTORS * [1, 0, 1], "2 factors, all varying"),
        (PERFECT[:3], FACTORS[:3], "at least 6 points"),
        (PERFECT[:8], np.arange(16).reshape(8, 2), "all differ in one factor: cannot be paired; pass more points"),
    ],
)
def test_codes_and_factors_without_a_score_are_errors(
    score: Callable[..., Any], codes: Array, factors: Array, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        score(codes, factors)


def data(images: Array, split: str = "test") -> Dataset:
    values = RNG.integers(0, [2, 1, 3], (len(images), 3))
    factors = Factors(("side", "constant", "size"), (2, 1, 3), values)
    return Dataset(images.astype(np.uint8), None, "own", split, factors=factors)


def as_test_split(dataset: Dataset) -> Splits:
    """Return splits whose training and test images are the same."""
    return Splits(dataset, None, dataset)


def test_the_section_is_complete_and_reproducible(make_vae: Callable[..., VAE], images: Array) -> None:
    dataset, model, seen = data(np.tile(images, (20, 1, 1, 1))), make_vae(), []

    def show(items: Iterable[Any], label: str, /) -> Iterable[Any]:
        seen.append(label)
        return items

    found = measure_disentanglement(model, as_test_split(dataset), points=300, seed=3, progress=show)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {name: found[name] for name in ("data", "split", "held_out", "images", "seed", "bins", "checksum")} == {
        "data": "own",
        "split": "test",
        # The test images are the training images, so they are not held out.
        "held_out": False,
        "images": 300,
        "seed": 3,
        "bins": 20,
        "checksum": dataset.checksum,
    }
    assert found["factors"] == ["side", "size"]
    assert np.shape(found["mutual_information"]) == (3, 2)
    scores = [f"dci_{name}" for name in ("disentanglement", "completeness", "informativeness")]
    scores += ["beta_vae", "factor_vae", "mig", "modularity", "sap"]
    assert all(0 <= found[name]["mean"] <= 1 and found[name]["standard_error"] >= 0 for name in scores)
    assert seen == ["measuring disentanglement"]
    assert measure_disentanglement(model, as_test_split(dataset), points=300, seed=3) == found


def test_the_posterior_means_are_measured(
    make_vae: Callable[..., VAE], images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = data(np.tile(images, (20, 1, 1, 1)), "train")
    assert dataset.factors is not None
    model = make_vae()
    # A corner of each image stores its factors; a model that reads them has perfect codes.
    marked = dataset.images.copy()
    marked[:, 0, :3, 0] = dataset.factors.values
    dataset = replace(dataset, images=marked)

    def encode(x: Array, **kwargs: object) -> Encoding:
        means = x[:, 0, :3, 0].astype("float32")
        return Encoding(z_mean=means)

    monkeypatch.setattr(model, "encode", encode)
    found = measure_disentanglement(model, Splits(dataset, None, None))
    perfect = {"mean": 1.0, "standard_error": 0.0}
    assert (found["beta_vae"], found["factor_vae"]) == (perfect, perfect)
    assert (found["images"], found["held_out"]) == (480, False)
    # The factors of 480 random points are not quite independent.
    assert found["mig"]["mean"] == pytest.approx(1, abs=0.03)


def test_models_and_images_that_cannot_be_measured_are_errors(
    make_vae: Callable[..., VAE], images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, dataset = make_vae(), data(images)
    with pytest.raises(InputError, match="data = own: has no factors"):
        measure_disentanglement(model, as_test_split(replace(dataset, factors=None)))
    with pytest.raises(InputError, match="points = 1: too few; use at least 2"):
        measure_disentanglement(model, as_test_split(dataset), points=1)
    with pytest.raises(InputError, match="at least 6 points"):
        measure_disentanglement(model, as_test_split(dataset), points=3)
    monkeypatch.setattr(VAE, "has_latent_vector", False)
    with pytest.raises(InputError, match="model = VAE: its codes are not vectors"):
        measure_disentanglement(model, as_test_split(dataset))
