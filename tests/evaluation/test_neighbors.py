"""Nearest neighbors, and the memorization test that uses them."""

import math

import numpy as np
import pytest

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.evaluation.memorization import memorization
from keras_vae.evaluation.neighbors import NeighborIndex, nearest_neighbors


def test_nearest_neighbors_match_a_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_vae.evaluation.neighbors._VALUES_AT_ONCE", 100)
    rng = np.random.default_rng(2)
    images, among = (rng.integers(0, 256, (count, 6, 7, 1), dtype="uint8") for count in (9, 31))
    images[4] = among[17]
    found = nearest_neighbors(images, among)
    distances = [[math.dist(one.ravel() / 255, other.ravel() / 255) for other in among] for one in images]
    assert found.indices.tolist() == np.argmin(distances, axis=1).tolist()
    np.testing.assert_allclose(found.distances, np.min(distances, axis=1), rtol=1e-5, atol=1e-6)
    assert (found.indices[4], found.distances[4]) == (17, 0)
    prepared = NeighborIndex(among).query(images)
    np.testing.assert_array_equal(prepared.indices, found.indices)
    np.testing.assert_array_equal(prepared.distances, found.distances)
    assert NeighborIndex(among).query(images / np.float32(255)).indices.tolist() == found.indices.tolist()


@pytest.mark.parametrize(
    ("images", "among"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4))),
        (np.zeros((2, 3)), np.zeros((0, 3))),
        (np.zeros((2, 3), "uint8"), np.zeros((2, 3))),
    ],
)
def test_images_of_different_type_or_size_are_an_error(images: Array, among: Array) -> None:
    with pytest.raises(
        InputError, match=r"images, among = .*: cannot be compared; pass images or vectors of one type and size"
    ):
        nearest_neighbors(images, among)


def test_the_three_sample_test_matches_scipys_mann_whitney_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(11)
    # Integers on a line, so that there are ties.
    train, held_out = rng.integers(0, 90, (40, 1)), rng.integers(0, 90, (120, 1))
    samples = np.clip(train[rng.integers(0, 40, 130)] + rng.integers(-1, 2, (130, 1)), 0, 89)
    found = memorization(samples.astype(float), held_out.astype(float), train.astype(float))
    ours, theirs = (np.abs(rows - train.T).min(1) for rows in (samples, held_out))
    test = stats.mannwhitneyu(ours, theirs, method="asymptotic", use_continuity=False)
    assert found["mann_whitney_auc"] == pytest.approx(1 - test.statistic / (130 * 120))
    assert 2 * stats.norm.cdf(-abs(found["three_sample_z"])) == pytest.approx(test.pvalue)
    assert found["three_sample_z"] < 0
    assert found["median_distance"] == np.median(ours)
    assert found["median_distance_held_out"] == np.median(theirs)


def test_equal_distances_give_one_half() -> None:
    found = memorization(np.zeros((4, 1)), np.zeros((3, 1)), np.zeros((2, 1)))
    assert (found["mann_whitney_auc"], found["three_sample_z"]) == (0.5, 0)
    assert found["median_distance_ratio"] is found["share_of_near_copies"] is found["copying_suspected"] is None
