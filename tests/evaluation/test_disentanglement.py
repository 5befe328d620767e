"""Codes whose scores are known: perfect, permuted, rotated, doubled, random and empty ones."""

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
from keras_vae.data.dataset import Dataset, Factors, Splits
from keras_vae.evaluation import disentanglement
from keras_vae.evaluation.disentanglement import (
    beta_vae_score,
    dci,
    factor_vae_score,
    measure_disentanglement,
    mig,
    modularity,
    mutual_information,
    sap,
)

RNG = np.random.default_rng(0)
SIZES = (3, 4, 5)
# Every combination equally often: mutual informations and correlations between factors are exactly 0.
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
def test_a_perfect_code(codes: Array) -> None:
    assert beta_vae_score(codes, FACTORS, **FEW) == 1
    assert factor_vae_score(codes, FACTORS, **FEW) == 1
    assert mig(codes, FACTORS) == pytest.approx(1, abs=1e-6)
    assert modularity(codes, FACTORS) == pytest.approx(1, abs=1e-6)
    assert sap(codes, FACTORS, continuous=True) == pytest.approx(1, abs=1e-6)
    np.testing.assert_allclose(dci(codes, FACTORS), 1, atol=0.01)


def test_a_perfect_code_beside_empty_ones() -> None:
    codes = np.concatenate([PERFECT, np.zeros((N, 2)), 1e-3 * RNG.normal(size=(N, 1))], axis=1)
    assert factor_vae_score(codes, FACTORS, **FEW) == 1
    assert mig(codes, FACTORS) == pytest.approx(1, abs=0.03)
    np.testing.assert_allclose(dci(codes, FACTORS), 1, atol=0.03)
    # Codes that know of nothing count 0.
    assert modularity(codes[:, :5], FACTORS) == pytest.approx(3 / 5, abs=1e-6)


def test_a_doubled_code_is_modular_but_not_complete() -> None:
    codes = np.concatenate([PERFECT, PERFECT], axis=1)
    assert mig(codes, FACTORS) == pytest.approx(0, abs=1e-12)
    assert sap(codes, FACTORS) == pytest.approx(0, abs=1e-12)
    assert sap(codes, FACTORS, continuous=True) == pytest.approx(0, abs=1e-12)
    assert modularity(codes, FACTORS) == pytest.approx(1, abs=1e-6)
    found = dci(codes, FACTORS)
    assert found.disentanglement == pytest.approx(1, abs=0.01)
    # Evenly shared by two of six codes: 1 − log 2 / log 6.
    assert found.completeness == pytest.approx(1 - math.log(2) / math.log(6), abs=0.08)


def test_one_code_for_two_factors() -> None:
    pairs = FACTORS[:, 0] * 4 + FACTORS[:, 1]
    codes = np.stack([pairs, FACTORS[:, 2]], axis=1).astype(float)
    # Of squares (log 3)², (log 4)², 0 the first code keeps the largest; the second is modular.
    first = 1 - (math.log(3) / math.log(4)) ** 2 / 2
    assert modularity(codes, FACTORS) == pytest.approx((first + 1) / 2)
    assert mig(codes, FACTORS) == pytest.approx(1)


def test_the_binned_information_is_that_of_the_bins() -> None:
    # 40 values in 20 bins, two in each: log 20 of log 40 nats are left. Two values: log 2.
    factors = np.array(list(itertools.product(range(40), range(2))) * 10)
    found = mutual_information(factors.astype(float), factors, bins=20)
    np.testing.assert_allclose(found, [[math.log(20), 0], [0, math.log(2)]], atol=1e-9)
    assert mig(factors.astype(float), factors) == pytest.approx((math.log(20) / math.log(40) + 1) / 2)


def test_a_rotated_code_is_as_informative_and_less_disentangled() -> None:
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


def test_a_random_code_is_at_chance() -> None:
    # Three standard deviations of an accuracy of 1/3 on 2,000 points, and the majority's luck, are below 0.06.
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


def test_an_empty_code() -> None:
    codes = np.zeros((N, 3))
    assert beta_vae_score(codes, FACTORS, **FEW) == pytest.approx(1 / 3, abs=0.06)
    assert factor_vae_score(codes, FACTORS, **FEW) == 0
    assert mig(codes, FACTORS) == modularity(codes, FACTORS) == sap(codes, FACTORS) == 0
    assert sap(codes, FACTORS, continuous=True) == 0
    assert dci(codes, FACTORS)[:2] == (0, 0)


def test_one_code() -> None:
    codes, factors = PERFECT[:, :1], FACTORS[:, :2]
    # All of one factor, nothing of the other.
    assert mig(codes, factors) == pytest.approx(0.5)
    assert dci(codes, factors).completeness == 1


def test_the_best_that_a_classifier_of_two_values_can_reach() -> None:
    # A linear classifier parts two values of a factor; no other code does better than guessing.
    factors = np.array(list(itertools.product(range(2), range(2))) * 200)
    assert sap(factors * 4.0 - 2, factors) == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score])
def test_a_seed_fixes_the_score(score: Callable[..., float]) -> None:
    assert score(ROTATED, FACTORS, **FEW) == score(ROTATED, FACTORS, **FEW)
    assert 1 / 3 < score(ROTATED, FACTORS, **FEW, seed=1) <= 1


def test_draws_share_the_factor() -> None:
    sharing = disentanglement._Sharing(FACTORS[:, 1])
    points = RNG.integers(N, size=(50, 7))
    for drawn in (sharing.others(points, RNG), sharing.any_of(points, RNG)):
        np.testing.assert_array_equal(FACTORS[drawn, 1], FACTORS[points, 1])
    assert (sharing.others(points, RNG) != points).all()


def test_draws_are_uniform_over_the_others() -> None:
    sharing = disentanglement._Sharing(np.array([0, 1, 0, 0, 1, 2]))
    drawn = sharing.others(np.zeros(6000, int), np.random.default_rng(0))
    assert set(drawn.tolist()) == {2, 3}
    assert np.mean(drawn == 2) == pytest.approx(0.5, abs=0.03)
    assert sharing.others(np.array([5]), RNG).tolist() == [5]
    assert set(sharing.among_several(100, RNG).tolist()) == {0, 1, 2, 3, 4}
    assert set(sharing.any_of(np.full(100, 4), RNG).tolist()) == {1, 4}


@pytest.mark.parametrize("score", [beta_vae_score, factor_vae_score, mig, modularity, mutual_information, dci, sap])
@pytest.mark.parametrize(
    ("codes", "factors", "message"),
    [
        (PERFECT[:5], FACTORS, r"codes \(5, 3\), factors \(2400, 3\): accepted: N x D and N x F"),
        (PERFECT[:, 0], FACTORS, "accepted: N x D"),
        (PERFECT * np.nan, FACTORS, "codes: NaN or infinite"),
        (PERFECT, PERFECT, "factors: an array of float64; accepted: integers"),
        (PERFECT, FACTORS[:, :1], "factors: 1 on 2400 points; accepted: two or more that vary"),
        (PERFECT, FACTORS * [1, 0, 1], "two or more that vary"),
        (PERFECT[:3], FACTORS[:3], "six points or more"),
        (PERFECT[:8], np.arange(16).reshape(8, 2), "no value that two points share; give more points"),
    ],
)
def test_what_cannot_be_measured(score: Callable[..., Any], codes: Array, factors: Array, message: str) -> None:
    with pytest.raises(InputError, match=message):
        score(codes, factors)


def data(images: Array, split: str = "test") -> Dataset:
    values = RNG.integers(0, [2, 1, 3], (len(images), 3))
    factors = Factors(("side", "constant", "size"), (2, 1, 3), values)
    return Dataset(images.astype(np.uint8), None, "own", split, factors=factors)


def held(dataset: Dataset) -> Splits:
    """Return splits whose test images these are."""
    return Splits(dataset, None, dataset)


def test_the_stage(make_vae: Callable[..., VAE], images: Array) -> None:
    dataset, model, seen = data(np.tile(images, (20, 1, 1, 1))), make_vae(), []

    def show(items: Iterable[Any], label: str, /) -> Iterable[Any]:
        seen.append(label)
        return items

    found = measure_disentanglement(model, held(dataset), points=300, seed=3, progress=show)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert {name: found[name] for name in ("data", "split", "held_out", "images", "seed", "bins", "checksum")} == {
        "data": "own",
        "split": "test",
        # The same images as it was trained on, whatever they are called.
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
    assert all(0 <= found[name] <= 1 for name in scores)
    assert seen == ["measuring disentanglement"]
    assert measure_disentanglement(model, held(dataset), points=300, seed=3) == found


def test_the_stage_measures_the_posteriors_means(
    make_vae: Callable[..., VAE], images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = data(np.tile(images, (20, 1, 1, 1)), "train")
    assert dataset.factors is not None
    model = make_vae()
    # One corner of each image tells its factors; a model that reads them has a perfect code.
    marked = dataset.images.copy()
    marked[:, 0, :3, 0] = dataset.factors.values
    dataset = replace(dataset, images=marked)

    def encode(x: Array, **kwargs: object) -> Any:
        means = x[:, 0, :3, 0].astype("float32")
        return type("Moments", (), {"z_mean": means})

    monkeypatch.setattr(model, "encode", encode)
    found = measure_disentanglement(model, Splits(dataset, None, None))
    assert (found["beta_vae"], found["factor_vae"], found["images"], found["held_out"]) == (1, 1, 480, False)
    # 480 points drawn at random: their factors are not quite independent.
    assert found["mig"] == pytest.approx(1, abs=0.03)


def test_the_stage_refuses_what_it_cannot_measure(
    make_vae: Callable[..., VAE], images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, dataset = make_vae(), data(images)
    with pytest.raises(InputError, match="data = own: its factors are not known"):
        measure_disentanglement(model, held(replace(dataset, factors=None)))
    with pytest.raises(InputError, match="points = 1: must be at least 2"):
        measure_disentanglement(model, held(dataset), points=1)
    with pytest.raises(InputError, match="six points or more"):
        measure_disentanglement(model, held(dataset), points=3)
    monkeypatch.setattr(model, "encode", lambda *args, **kwargs: np.zeros((len(images), 2, 2), int))
    with pytest.raises(InputError, match="model = VAE: its code is not one vector of one posterior"):
        measure_disentanglement(model, held(dataset))
