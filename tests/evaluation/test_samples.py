"""The distances between sets of images, against plain loops, closed forms and sets whose answer is known."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from keras_vae import VAE
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.likelihoods import Bernoulli, Likelihood, Normal
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.evaluation.features import random
from keras_vae.evaluation.samples import (
    compare,
    frechet_distance,
    kid,
    manifold,
    measure_samples,
    memorization,
    nearest,
)

SHAPE = (6, 7, 1)


@dataclass
class Replaying:
    """In the place of a model: its samples are given images, or of the color of their label."""

    images: Array | None = None
    condition: ClassLabel | None = None
    likelihood: Likelihood = field(default_factory=Bernoulli)
    told: list[int] = field(default_factory=list)
    given: int = 0

    def sample(self, n: int, seed: int, *, condition: Array | None = None) -> Array:
        if self.images is None:
            assert condition is not None
            self.told += condition.tolist()
            return np.ones((n, *SHAPE), "float32") * condition[:, None, None, None] / 10
        images = np.resize(np.roll(self.images, -self.given, axis=0), (n, *self.images.shape[1:]))
        self.given += n
        return images.astype("float32") / 255


def frames(count: int, seed: int) -> Array:
    """Images of three numbers: a bright block, its place and its level."""
    rng = np.random.default_rng(seed)
    images = np.zeros((count, *SHAPE), "uint8")
    for image in images:
        row, column = rng.integers(0, 4, 2)
        image[row : row + 3, column : column + 3] = rng.integers(100, 256)
    return (images + rng.integers(0, 40, images.shape)).clip(0, 255).astype("uint8")


@pytest.fixture(scope="module")
def splits() -> Splits:
    train = Dataset.from_arrays(frames(300, 0), np.arange(300) % 10 // 7, name="frames")
    return split(
        train, Dataset.from_arrays(frames(150, 1), np.zeros(150, int), name="frames"),
        validation=0.0, test_size=0.0, holdout=True, seed=0,
    )  # fmt: skip


def with_moments(mean: Array, covariance: Array, count: int = 200) -> Array:
    """Return vectors whose sample mean and covariance are exactly these."""
    rows = np.random.default_rng(0).standard_normal((count, len(mean)))
    rows -= rows.mean(0)
    white = rows @ np.linalg.inv(np.linalg.cholesky(np.cov(rows.T))).T
    return white @ np.linalg.cholesky(covariance).T + mean


def test_frechet_distance_of_normals_that_share_their_axes_is_the_closed_form() -> None:
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((3, 3)))[0]
    first, second = np.array([1.0, 4.0, 9.0]), np.array([4.0, 0.25, 1.0])
    means = np.array([1.0, 2.0, 3.0]), np.array([0.0, 2.0, -1.0])
    expected = 17 + np.sum((np.sqrt(first) - np.sqrt(second)) ** 2)
    sets = [with_moments(mean, turn * spread @ turn.T) for mean, spread in zip(means, (first, second), strict=True)]
    assert frechet_distance(*sets) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_any_two_is_that_by_eigenvalues() -> None:
    rng = np.random.default_rng(3)
    first, second = rng.standard_normal((50, 8)), rng.standard_normal((40, 8)) @ rng.standard_normal((8, 8)) + 1
    a, b = np.cov(first.T), np.cov(second.T)
    roots = np.sqrt(np.linalg.eigvals(a @ b).astype(complex)).real.sum()
    expected = np.sum((first.mean(0) - second.mean(0)) ** 2) + np.trace(a) + np.trace(b) - 2 * roots
    assert frechet_distance(first, second) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))


def test_frechet_distance_needs_no_covariance_of_full_rank() -> None:
    few = np.random.default_rng(4).standard_normal((3, 200)).astype("float32")
    assert frechet_distance(few, few) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(few, few + 2) == pytest.approx(800, rel=1e-4)
    # Two lines at right angles: nothing of one covariance lies in the other.
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


def test_kid_is_the_double_loop() -> None:
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


def test_kid_is_zero_on_average_and_its_error_is_honest() -> None:
    rng = np.random.default_rng(6)
    found = [kid(*rng.standard_normal((2, 100, 3))) for _ in range(300)]
    means, errors = (np.array([one[name] for one in found]) for name in ("mean", "standard_error"))
    assert abs(means.mean()) < 4 * means.std() / math.sqrt(300)
    assert (means < 0).any()
    assert np.sqrt((errors**2).mean()) == pytest.approx(means.std(), rel=0.2)
    shifted = kid(rng.standard_normal((100, 3)), rng.standard_normal((100, 3)) + 1)
    assert shifted["mean"] > 3 * shifted["standard_error"]


def naive_manifold(samples: Array, real: Array, k: int) -> tuple[float, float, float, float]:
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
def test_manifold_is_the_double_loop(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_vae.evaluation.samples._VALUES_AT_ONCE", 100)
    rng = np.random.default_rng(7)
    real, samples = rng.standard_normal((30, 2)), rng.standard_normal((41, 2)) * 1.3 + 0.7
    assert tuple(manifold(samples, real, k)) == pytest.approx(naive_manifold(samples, real, k))


def test_manifolds_that_are_the_same_and_that_are_apart() -> None:
    rows = np.random.default_rng(8).standard_normal((50, 3)).astype("float32")
    same = manifold(rows, rows)
    assert (same.precision, same.recall, same.coverage) == (1, 1, 1)
    assert same.density == pytest.approx(naive_manifold(rows, rows, 5)[2])
    assert tuple(manifold(rows + 100, rows)) == (0, 0, 0, 0)


def test_a_model_of_one_mode_is_precise_and_recalls_half() -> None:
    rng = np.random.default_rng(9)
    two = np.concatenate([rng.standard_normal((100, 2)), rng.standard_normal((100, 2)) + 50])
    found = manifold(rng.standard_normal((200, 2)) * 0.7, two)
    assert found.precision > 0.95
    assert found.recall < 0.55
    assert found.coverage < 0.55


def test_so_few_images_have_no_manifold() -> None:
    rows = np.random.default_rng(10).standard_normal((5, 3))
    found = compare(rows, rows)
    assert found["precision"] is found["recall"] is found["density"] is found["coverage"] is None
    assert found["frechet_distance"] == pytest.approx(0, abs=1e-9)
    alone = compare(rows[:1], rows)
    assert alone["frechet_distance"] is alone["kid"] is None


def test_nearest_is_the_double_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_vae.evaluation.samples._VALUES_AT_ONCE", 100)
    images, among = frames(9, 2), frames(31, 3)
    images[4] = among[17]
    found = nearest(images, among)
    distances = [[math.dist(one.ravel() / 255, other.ravel() / 255) for other in among] for one in images]
    assert found.indices.tolist() == np.argmin(distances, axis=1).tolist()
    np.testing.assert_allclose(found.distances, np.min(distances, axis=1), rtol=1e-5, atol=1e-6)
    assert (found.indices[4], found.distances[4]) == (17, 0)


@pytest.mark.parametrize(
    ("images", "among"),
    [
        (np.zeros((2, 3)), np.zeros((2, 4))),
        (np.zeros((2, 3)), np.zeros((0, 3))),
        (np.zeros((2, 3), "uint8"), np.zeros((2, 3))),
    ],
)
def test_neighbors_are_of_one_kind(images: Array, among: Array) -> None:
    with pytest.raises(InputError, match=r"images, among: .* accepted: images or vectors of one size"):
        nearest(images, among)


def test_the_three_sample_statistic_is_mann_whitneys() -> None:
    stats = pytest.importorskip("scipy.stats")
    rng = np.random.default_rng(11)
    # On a line, rounded, so that there are ties.
    trained, held = rng.integers(0, 90, (40, 1)), rng.integers(0, 90, (120, 1))
    samples = np.clip(trained[rng.integers(0, 40, 130)] + rng.integers(-1, 2, (130, 1)), 0, 89)
    found = memorization(samples.astype(float), held.astype(float), trained.astype(float))
    ours, theirs = (np.abs(rows - trained.T).min(1) for rows in (samples, held))
    test = stats.mannwhitneyu(ours, theirs, method="asymptotic", use_continuity=False)
    assert found["mann_whitney_auc"] == pytest.approx(1 - test.statistic / (130 * 120))
    assert 2 * stats.norm.cdf(-abs(found["three_sample_z"])) == pytest.approx(test.pvalue)
    assert found["three_sample_z"] < 0
    assert found["median_distance"] == np.median(ours)
    assert found["median_distance_held_out"] == np.median(theirs)


def test_where_all_distances_are_equal_nothing_is_nearer() -> None:
    found = memorization(np.zeros((4, 1)), np.zeros((3, 1)), np.zeros((2, 1)))
    assert (found["mann_whitney_auc"], found["three_sample_z"]) == (0.5, 0)
    assert found["median_distance_ratio"] is found["share_of_near_copies"] is found["copying_suspected"] is None


@pytest.mark.parametrize("copied", [1.0, 0.2])
def test_copies_are_noticed(splits: Splits, copied: float) -> None:
    fresh, trained = frames(200, 5), splits.train.images
    images = np.concatenate([trained[: int(copied * 200)], fresh[int(copied * 200) :]])
    found = measure_samples(Replaying(images), splits, n=200, features="random")["memorization"]
    assert found["copying_suspected"] is True
    assert found["share_of_near_copies"] >= copied
    assert found["mann_whitney_auc"] > 0.5
    if copied == 1:
        assert found["median_distance_ratio"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", [20, 21, 22])
def test_fresh_images_are_no_copies_and_are_as_near_as_the_floor(splits: Splits, seed: int) -> None:
    section = measure_samples(Replaying(frames(200, seed)), splits, n=200, features="random")
    found, floor = section["memorization"], section["floor"]
    assert found["copying_suspected"] is False
    assert abs(found["three_sample_z"]) < 3.5
    assert found["median_distance_ratio"] == pytest.approx(1, abs=0.15)
    assert 1 / 3 < section["frechet_distance"] / floor["frechet_distance"] < 3
    for name in ("precision", "recall", "coverage"):
        assert section[name] == pytest.approx(floor[name], abs=0.15)


def plain(value: Any) -> bool:
    """Whether JSON gives it back as it is: no NumPy numbers, no NaN."""
    return json.loads(json.dumps(value, allow_nan=False)) == value


def test_the_section_of_a_model(splits: Splits, make_vae: Callable[..., VAE]) -> None:
    model = make_vae(SHAPE)
    section = measure_samples(model, splits, n=160, features="random", seed=3)
    assert plain(section)
    assert {name: section[name] for name in ("data", "split", "held_out", "images", "seed", "samples")} == {
        "data": "frames",
        "split": "test",
        "held_out": True,
        "images": 150,
        "seed": 3,
        "samples": 160,
    }
    assert section["checksum"] == splits.test.checksum
    assert (section["images_scored"], section["binarization"]) == ("means", "none")
    assert section["features"] == random(SHAPE).describe()
    assert section["notes"] == ["150 samples of 160 compared: as many as there are held-out images"]
    # An untrained model's samples are far from anything.
    assert section["frechet_distance"] > 20 * section["floor"]["frechet_distance"]
    assert section["precision"] + section["coverage"] < 0.1
    again = measure_samples(model, splits, n=160, features=random(SHAPE), seed=3)
    other = measure_samples(model, splits, n=160, features="random", seed=4)
    assert again == section
    assert other["frechet_distance"] != section["frechet_distance"]
    assert other["features"] == section["features"]


def test_the_floor_is_that_of_training_images(splits: Splits) -> None:
    features = random(SHAPE)
    section = measure_samples(Replaying(frames(150, 5)), splits, n=150, features=features)
    held = np.random.default_rng([0, 4]).permutation(150)
    rows = features(splits.test.images)[held]
    floors = [
        compare(features(splits.train.images)[np.random.default_rng(seed).permutation(300)[:150]], rows)
        for seed in range(3)
    ]
    values = [floor["frechet_distance"] for floor in floors]
    assert min(values) / 2 < section["floor"]["frechet_distance"] < max(values) * 2


def test_three_test_images_give_what_three_can(splits: Splits) -> None:
    few = splits._replace(test=splits.test.subset(np.arange(3), "test"))
    section = measure_samples(Replaying(frames(40, 5)), few, n=40, features="random")
    assert plain(section)
    assert section["images"] == 3
    assert section["frechet_distance"] > 0
    assert section["kid"]["standard_error"] is None
    assert section["precision"] is section["recall"] is section["density"] is section["coverage"] is None
    assert section["memorization"]["median_distance"] > 0
    assert section["memorization"]["copying_suspected"] is None
    assert section["notes"] == [
        "3 samples of 40 compared: as many as there are held-out images",
        "precision, recall, density and coverage need more than 5 images a side, not 3",
        "3 images a side for 128 features: the Fréchet distance is far above what many images would give, and compares "
        "with its floor only",
        "3 held-out images are too few to tell copies from chance: 100 are needed",
    ]


def test_one_test_image_gives_no_distance(splits: Splits) -> None:
    one = splits._replace(test=splits.test.subset(np.arange(1), "test"))
    section = measure_samples(Replaying(frames(40, 5)), one, n=40, features="random")
    assert plain(section)
    assert section["frechet_distance"] is section["kid"] is None
    assert section["notes"][1] == "the Fréchet and kernel distances need more than 1 image a side"


def test_without_held_out_images_there_is_no_floor(splits: Splits) -> None:
    section = measure_samples(Replaying(frames(40, 5)), Splits(splits.train, None, None), n=40, features="random")
    assert (section["split"], section["held_out"], section["images"]) == ("train", False, 40)
    assert section["floor"] is section["memorization"] is None
    assert (
        "no held-out data: compared with the training images, without floor and memorization check" in section["notes"]
    )
    assert section["frechet_distance"] > 0


def test_labels_are_drawn_in_the_training_datas_proportions(splits: Splits) -> None:
    model = Replaying(condition=ClassLabel(classes=2))
    measure_samples(model, splits, n=2000, features="random")
    assert len(model.told) == 2000
    assert np.mean(model.told) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 2000))


def test_draws_are_black_and_white_as_are_the_images_beside_them(
    splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, Array] = {}
    features = random(SHAPE)

    def spy(images: Array, progress: object, label: str) -> Array:
        seen[label] = images
        return features(images)

    class Spying(type(features)):  # type: ignore[misc]
        __call__ = staticmethod(spy)

    chosen = Spying(features.name, features.network, features.details)
    means = np.full((200, *SHAPE), 64, "uint8")
    for binarize, recorded in [
        ("none", "dynamic"),
        ("dynamic", "dynamic"),
        ("threshold", "threshold"),
        ("static",) * 2,
    ]:
        model = Replaying(means, likelihood=Bernoulli(binarize=binarize))
        section = measure_samples(model, splits, n=200, features=chosen, scored="draws")
        assert (section["images_scored"], section["binarization"]) == ("draws", recorded)
        for images in seen.values():
            assert set(np.unique(images)) == {0, 255}
        share = (seen["features of the samples"] == 255).mean()
        assert share == pytest.approx(64 / 255, abs=4 * math.sqrt(0.19 / means.size))
        real, gray = seen["features of the held-out images"], splits.test.images
        if recorded == "threshold":
            np.testing.assert_array_equal(real == 255, gray >= 128)
        else:
            assert (real == 255).mean() == pytest.approx(gray.mean() / 255, abs=0.02)


def test_only_a_bernoulli_is_drawn_from(splits: Splits) -> None:
    with pytest.raises(InputError, match=r"scored = 'draws': .* is no Bernoulli"):
        measure_samples(Replaying(likelihood=Normal(scale=0.1)), splits, n=20, scored="draws")
    with pytest.raises(InputError, match=r"scored = 'mean': accepted: means, draws"):
        measure_samples(Replaying(), splits, n=20, scored="mean")


@pytest.mark.parametrize("n", [1, 0, -5])
def test_a_set_is_of_two_at_least(splits: Splits, n: int) -> None:
    with pytest.raises(InputError, match=rf"n = {n}: sets of samples are compared; ask for at least 2"):
        measure_samples(Replaying(), splits, n=n)


def test_a_model_that_diverged_is_a_failure(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = Replaying(frames(20, 5))
    monkeypatch.setattr(broken, "sample", lambda n, seed, condition: np.full((n, *SHAPE), np.nan))
    with pytest.raises(RunError, match="samples: images are not finite"):
        measure_samples(broken, splits, n=20, features="random")
