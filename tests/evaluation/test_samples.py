"""Sample metrics of models whose samples are given, and of a small model."""

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import on_tensorflow
from keras_vae import VAE
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.likelihoods import Bernoulli, Likelihood, Normal
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.data import sources
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.evaluation import features as networks
from keras_vae.evaluation import samples as sampling
from keras_vae.evaluation.features import random_features
from keras_vae.evaluation.samples import measure_samples
from keras_vae.evaluation.set_distances import compare_sets, frechet_distance

SHAPE = (6, 7, 1)


@dataclass
class ReplayModel:
    """Stands in for a model. Its samples are the given images, or have the brightness of their label."""

    images: Array | None = None
    condition: ClassLabel | None = None
    likelihood: Likelihood = field(default_factory=Bernoulli)
    conditions: list[int] = field(default_factory=list)
    num_drawn: int = 0

    def sample(self, n: int, seed: int, *, condition: Array | None = None) -> Array:
        if self.images is None:
            assert condition is not None
            self.conditions += condition.tolist()
            return np.ones((n, *SHAPE), "float32") * condition[:, None, None, None] / 10
        images = np.resize(np.roll(self.images, -self.num_drawn, axis=0), (n, *self.images.shape[1:]))
        self.num_drawn += n
        return images.astype("float32") / 255


def frames(count: int, seed: int) -> Array:
    """Return images of a bright block with random position and brightness."""
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


@pytest.mark.parametrize("copied", [1.0, 0.2])
def test_copies_are_detected(splits: Splits, copied: float) -> None:
    fresh, trained = frames(200, 5), splits.train.images
    images = np.concatenate([trained[: int(copied * 200)], fresh[int(copied * 200) :]])
    found = measure_samples(ReplayModel(images), splits, n=200, features="random")["memorization"]
    assert found["copying_suspected"] is True
    assert found["share_of_near_copies"] >= copied
    assert found["mann_whitney_auc"] > 0.5
    if copied == 1:
        assert found["median_distance_ratio"] == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("seed", [20, 21, 22])
def test_new_images_are_not_copies_and_are_as_close_as_the_floor(splits: Splits, seed: int) -> None:
    section = measure_samples(ReplayModel(frames(200, seed)), splits, n=200, features="random")
    found, floor = section["memorization"], section["floor"]
    assert found["copying_suspected"] is False
    assert abs(found["three_sample_z"]) < 3.5
    assert found["median_distance_ratio"] == pytest.approx(1, abs=0.15)
    assert 1 / 3 < section["frechet_distance"]["mean"] / floor["frechet_distance"]["mean"] < 3
    for name in ("precision", "recall", "coverage"):
        assert section[name]["mean"] == pytest.approx(floor[name]["mean"], abs=0.15)


def is_json(value: Any) -> bool:
    """Whether a value survives JSON unchanged: no NumPy numbers, no NaN."""
    return json.loads(json.dumps(value, allow_nan=False)) == value


def test_the_section_of_a_model_is_complete_and_reproducible(splits: Splits, make_vae: Callable[..., VAE]) -> None:
    model = make_vae(SHAPE)
    section = measure_samples(model, splits, n=160, features="random", seed=3)
    assert is_json(section)
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
    assert section["features"] == random_features(SHAPE).describe()
    assert section["notes"] == ["compared 150 of 160 samples, because there are only 150 held-out images"]
    # An untrained model's samples are far from anything.
    assert section["frechet_distance"]["mean"] > 20 * section["floor"]["frechet_distance"]["mean"]
    assert section["precision"]["mean"] + section["coverage"]["mean"] < 0.1
    again = measure_samples(model, splits, n=160, features=random_features(SHAPE), seed=3)
    other = measure_samples(model, splits, n=160, features="random", seed=4)
    assert again == section
    assert other["frechet_distance"] != section["frechet_distance"]
    assert other["features"] == section["features"]


def test_the_floor_compares_training_images(splits: Splits) -> None:
    features = random_features(SHAPE)
    section = measure_samples(ReplayModel(frames(150, 5)), splits, n=150, features=features)
    held = np.random.default_rng([0, 4]).permutation(150)
    rows = features(splits.test.images)[held]
    floors = [
        compare_sets(features(splits.train.images)[np.random.default_rng(seed).permutation(300)[:150]], rows)
        for seed in range(3)
    ]
    values = [floor["frechet_distance"]["mean"] for floor in floors]
    assert min(values) / 2 < section["floor"]["frechet_distance"]["mean"] < max(values) * 2


@pytest.mark.parametrize("held_out", [True, False])
def test_images_that_the_classifier_was_trained_on_are_not_compared(
    held_out: bool, splits: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_VAE_CACHE", str(tmp_path))
    trained, compared = [], []

    def recording_train(network: object, images: Array, *args: object) -> None:
        """Leave out the training, because the features of an untrained network tell images apart, too."""
        trained.extend(images)

    def recording_sets(samples: Array, real: Array) -> dict[str, Any]:
        compared.extend(vector.tobytes() for vector in (*samples, *real))
        return compare_sets(samples, real)

    monkeypatch.setattr(networks, "_train", recording_train)
    monkeypatch.setattr(sampling, "compare_sets", recording_sets)
    given = splits if held_out else Splits(splits.train, None, None)
    section = measure_samples(ReplayModel(frames(400, 5)), given, n=400)
    assert section["features"]["name"] == "classifier"
    assert len(trained) == section["features"]["training_images"] == 150
    assert section["images"] == 150
    vectors = networks.load_features(None, given)(np.stack(trained))
    assert len(compared) == (600 if held_out else 300)
    assert not {vector.tobytes() for vector in vectors} & set(compared)
    if not held_out:
        note = "because there are only 150 training images that the classifier was not trained on"
        assert note in section["notes"][0]


@pytest.mark.slow
@on_tensorflow("the floor is computed in NumPy")
def test_a_classifier_that_memorized_its_images_does_not_change_the_floor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With random labels, the features of the images that were trained on differ from those of all others."""
    monkeypatch.setenv("KERAS_VAE_CACHE", str(tmp_path))
    monkeypatch.setattr(networks, "_MIN_STEPS", 600)
    rng = np.random.default_rng(0)
    # A quarter of the pixels suffices.
    images = rng.permutation(sources.load("digits").train.images[:, ::2, ::2])
    whole = Dataset.from_arrays(images[:600], rng.integers(0, 4, 600), name="digits")
    parts = Splits(whole.subset(np.arange(400), "train"), None, whole.subset(np.arange(400, 600), "test"))
    section = measure_samples(ReplayModel(images[600:800]), parts, n=200)
    new, floor = section["frechet_distance"], section["floor"]["frechet_distance"]
    assert abs(new["mean"] - floor["mean"]) < 3 * math.hypot(new["standard_error"], floor["standard_error"])
    chosen = networks.load_features(None, parts)
    seen, _ = networks._divide_training_images(parts)
    assert frechet_distance(chosen(seen.images), chosen(parts.test.images)) > 1.05 * floor["mean"]


def test_three_test_images_give_the_metrics_that_three_allow(splits: Splits) -> None:
    few = splits._replace(test=splits.test.subset(np.arange(3), "test"))
    section = measure_samples(ReplayModel(frames(40, 5)), few, n=40, features="random")
    assert is_json(section)
    assert section["images"] == 3
    assert section["frechet_distance"]["mean"] > 0
    assert section["kid"]["standard_error"] is None
    assert section["precision"] is section["recall"] is section["density"] is section["coverage"] is None
    assert section["memorization"]["median_distance"] > 0
    assert section["memorization"]["copying_suspected"] is None
    assert section["notes"] == [
        "compared 3 of 40 samples, because there are only 3 held-out images",
        "precision, recall, density and coverage need more than 5 images per set, not 3",
        "3 images per set for 128 features: the Fréchet distance is far above that of larger sets; compare it only "
        "with its floor",
        "3 held-out images are too few to detect copies; at least 100 are needed",
    ]


def test_one_test_image_gives_no_distance(splits: Splits) -> None:
    one = splits._replace(test=splits.test.subset(np.arange(1), "test"))
    section = measure_samples(ReplayModel(frames(40, 5)), one, n=40, features="random")
    assert is_json(section)
    assert section["frechet_distance"] is section["kid"] is None
    assert section["notes"][1] == "the Fréchet distance and the KID need more than 1 image per set"


def test_without_held_out_images_there_is_no_floor(splits: Splits) -> None:
    section = measure_samples(ReplayModel(frames(40, 5)), Splits(splits.train, None, None), n=40, features="random")
    assert (section["split"], section["held_out"], section["images"]) == ("train", False, 40)
    assert section["floor"] is section["memorization"] is None
    note = "no held-out data: samples are compared with the training images, without floor and memorization test"
    assert note in section["notes"]
    assert section["frechet_distance"]["mean"] > 0


def test_labels_are_drawn_in_the_proportions_of_the_training_data(splits: Splits) -> None:
    model = ReplayModel(condition=ClassLabel(classes=2))
    measure_samples(model, splits, n=2000, features="random")
    assert len(model.conditions) == 2000
    assert np.mean(model.conditions) == pytest.approx(0.3, abs=4 * math.sqrt(0.21 / 2000))


def test_draws_and_real_images_are_black_and_white(splits: Splits) -> None:
    seen: dict[str, Array] = {}
    features = random_features(SHAPE)

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
        model = ReplayModel(means, likelihood=Bernoulli(binarize=binarize))
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


def test_draws_need_a_bernoulli_likelihood(splits: Splits) -> None:
    with pytest.raises(InputError, match=r"scored = 'draws': .* is not a Bernoulli likelihood"):
        measure_samples(ReplayModel(likelihood=Normal(scale=0.1)), splits, n=20, scored="draws")
    with pytest.raises(InputError, match=r"scored = 'mean': unknown; did you mean 'means'\? accepted: draws, means"):
        measure_samples(ReplayModel(), splits, n=20, scored="mean")


@pytest.mark.parametrize("n", [1, 0, -5])
def test_at_least_two_samples_are_needed(splits: Splits, n: int) -> None:
    with pytest.raises(InputError, match=rf"n = {n}: too few samples to compare; use at least 2"):
        measure_samples(ReplayModel(), splits, n=n)


def test_a_diverged_model_is_an_error(splits: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = ReplayModel(frames(20, 5))
    monkeypatch.setattr(broken, "sample", lambda n, seed, condition: np.full((n, *SHAPE), np.nan))
    with pytest.raises(RunError, match="samples: some images are NaN or infinite"):
        measure_samples(broken, splits, n=20, features="random")
