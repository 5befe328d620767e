"""Measures of image quality against independent computations, and the stage of a small model."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras import ops
from scipy import ndimage

from helpers import on_tensorflow
from keras_vae.components.image_losses.feature_networks import load_feature_network
from keras_vae.core.errors import RunError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation import image_quality
from keras_vae.evaluation.features import random_features
from keras_vae.evaluation.image_quality import code_usage, measure_image_quality, psnr, ssim
from keras_vae.evaluation.ranking import COLUMNS, MeasuredRun, rank
from keras_vae.evaluation.set_distances import frechet_distance, frechet_distance_error
from keras_vae.evaluation.summary import summarize
from keras_vae.report.html import render

SHAPE = (17, 13, 3)


def image_pairs(count: int, shape: tuple[int, ...] = SHAPE) -> tuple[Array, Array]:
    """Return smooth images in [0, 1] and noisy copies of them."""
    rng = np.random.default_rng(3)
    images = ndimage.gaussian_filter(rng.random((count, *shape)), (0, 2, 2, 0))
    images = (images - images.min()) / np.ptp(images)
    strength = np.linspace(0.01, 0.3, count)[:, None, None, None]
    return images, np.clip(images + strength * rng.standard_normal(images.shape), 0, 1)


def slow_ssim(x: Array, y: Array) -> float:
    """Return the SSIM of two images by SciPy's filter, channel by channel, as in Wang et al. 2004."""
    values = []
    for channel in range(x.shape[-1]):
        a, b = x[..., channel], y[..., channel]
        # A filter of radius 5, without the positions where it extends beyond the image.
        mean = lambda image: ndimage.gaussian_filter(image, 1.5, radius=5)[5:-5, 5:-5]  # noqa: E731
        mean_a, mean_b = mean(a), mean(b)
        variance_a, variance_b = mean(a**2) - mean_a**2, mean(b**2) - mean_b**2
        covariance = mean(a * b) - mean_a * mean_b
        luminance = (2 * mean_a * mean_b + 1e-4) / (mean_a**2 + mean_b**2 + 1e-4)
        structure = (2 * covariance + 9e-4) / (variance_a + variance_b + 9e-4)
        values.append((luminance * structure).mean())
    return float(np.mean(values))


def test_ssim_equals_a_computation_by_scipy() -> None:
    images, others = image_pairs(5)
    found = ssim(images, others)
    np.testing.assert_allclose(found, [slow_ssim(*pair) for pair in zip(images, others, strict=True)], rtol=1e-10)
    assert np.all(np.diff(found) < 0)  # the noise grows
    np.testing.assert_allclose(ssim(images, images), 1)
    np.testing.assert_allclose(ssim(others, images), found)


def test_ssim_and_psnr_equal_those_of_tensorflow() -> None:
    tf = pytest.importorskip("tensorflow")
    images, others = (array.astype("float32") for array in image_pairs(4, (32, 20, 1)))
    np.testing.assert_allclose(ssim(images, others), tf.image.ssim(images, others, 1.0).numpy(), atol=2e-5)
    np.testing.assert_allclose(psnr(images, others), tf.image.psnr(images, others, 1.0).numpy(), rtol=1e-4)


def test_psnr_is_that_of_the_mean_squared_error() -> None:
    zeros = np.zeros((3, *SHAPE))
    # An error of 1/100 everywhere, and of 1 in one of 663 values: 40 dB, and 10·log10 663 dB.
    one = zeros[0].copy()
    one[4, 5, 1] = 1
    found = psnr(zeros, np.stack([zeros[0] + 0.01, one, zeros[0]]))
    np.testing.assert_allclose(found, [40, 10 * math.log10(663), 20 * math.log10(255 * math.sqrt(12))])


def test_code_usage_and_its_error_follow_the_jackknife() -> None:
    rng = np.random.default_rng(0)
    indices = np.minimum(rng.geometric(0.2, (30, 2, 3)) - 1, 19)
    found = code_usage(indices, 20)
    counts = [len(np.unique(np.delete(indices, row, axis=0))) for row in range(30)]
    assert found["mean"] == len(np.unique(indices)) / 20
    assert found["standard_error"] == pytest.approx(math.sqrt(29 * np.var(counts)) / 20)
    assert found["standard_error"] > 0
    assert code_usage(indices[:1], 20)["standard_error"] is None


def test_error_of_a_frechet_distance_of_pairs_is_the_spread_over_new_pairs() -> None:
    # Pairs (x, x + noise): for equal means, the sets of a pair vary together, and the distance varies little.
    rng = np.random.default_rng(1)

    def pairs() -> tuple[Array, Array]:
        x = rng.standard_normal((400, 3))
        return x, 0.7 * x + 0.1 * rng.standard_normal(x.shape) + 0.2

    drawn = [pairs() for _ in range(300)]
    spread = np.std([frechet_distance(*pair) for pair in drawn], ddof=1)
    estimated = np.mean([frechet_distance_error(*pair, paired=True) for pair in drawn[:50]])
    independent = np.mean([frechet_distance_error(*pair) for pair in drawn[:50]])
    assert estimated == pytest.approx(spread, rel=0.15)
    assert abs(independent - spread) > 0.3 * spread


@dataclass
class BlurModel:
    """Stands in for a model that blurs its images, or paints them with one level."""

    level: float | None = None
    num_codes: int | None = None
    condition: Any = None

    def reconstruct(self, x: Array, *, condition: Array | None = None) -> Array:
        images = x.astype("float32") / 255
        if self.level is not None:
            return np.full_like(images, self.level)
        return ndimage.gaussian_filter(images, (0, 1, 1, 0))

    def number_codes(self, x: Array, *, condition: Array | None = None) -> Array:
        return x[:, :2, :2, 0].astype(int) // 64


def splits_of(images: Array) -> Splits:
    train = Dataset.from_arrays(255 - images, name="smooth", split="train")
    return Splits(train, None, Dataset.from_arrays(images[::-1], name="smooth", split="test"))


def test_section_contains_means_over_held_out_images() -> None:
    images = (255 * image_pairs(20)[1]).astype("uint8")
    splits, features = splits_of(images), random_features(SHAPE)
    result = measure_image_quality(BlurModel(num_codes=8), splits, features=features)
    section, held_out = result.section, splits.test.images
    blurred = ndimage.gaussian_filter(held_out / 255, (0, 1, 1, 0))
    ratios = -10 * np.log10(np.square(blurred - held_out / 255).mean(axis=(1, 2, 3)))
    np.testing.assert_allclose(result.per_image["psnr"], ratios, rtol=1e-5)
    assert section["psnr"]["mean"] == pytest.approx(ratios.mean(), rel=1e-5)
    assert section["psnr"]["standard_error"] == pytest.approx(ratios.std(ddof=1) / math.sqrt(20), rel=1e-4)
    similar = [slow_ssim(*pair) for pair in zip(held_out / 255, blurred, strict=True)]
    assert section["ssim"]["mean"] == pytest.approx(np.mean(similar), rel=1e-5)
    distance = frechet_distance(features(np.rint(255 * blurred).astype("uint8")), features(held_out))
    assert section["reconstruction_frechet_distance"]["mean"] == pytest.approx(distance, rel=1e-3)
    assert section["code_usage"]["mean"] == len(np.unique(held_out[:, :2, :2, 0] // 64)) / 8
    assert (section["split"], section["held_out"], section["num_codes"]) == ("test", True, 8)
    assert any("20 images for 128 features" in note for note in section["notes"])


def test_perceptual_distance_needs_downloaded_weights(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    images = (255 * image_pairs(3)[1]).astype("uint8")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    missing = measure_image_quality(BlurModel(), splits_of(images), features=random_features(SHAPE)).section
    assert missing["perceptual_distance"] is missing["perceptual_features"] is None
    assert any("weights of VGG16, which are not in the cache" in note for note in missing["notes"])
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "vgg16_weights_tf_dim_ordering_tf_kernels_notop.h5").touch()
    network = load_feature_network("random")
    monkeypatch.setattr(image_quality, "load_feature_network", lambda features, network: load_feature_network("random"))
    found = measure_image_quality(BlurModel(), splits_of(images), features=random_features(SHAPE))
    # Images of 17×13 pixels are enlarged three times, to at least 32×32.
    assert found.section["perceptual_features"] == {"name": "VGG16", "upsample": 3}
    held_out = images[::-1] / np.float32(255)
    blurred = ndimage.gaussian_filter(held_out, (0, 1, 1, 0))
    maps = [network(np.kron(batch, np.ones((1, 3, 3, 1), "float32"))) for batch in (held_out, blurred)]
    expected = np.zeros(3)
    for one, other in zip(*maps, strict=True):
        units = [m / np.linalg.norm(m, axis=-1, keepdims=True) for m in map(ops.convert_to_numpy, (one, other))]
        expected += np.square(units[0] - units[1]).sum(axis=-1).mean(axis=(1, 2))
    np.testing.assert_allclose(found.per_image["perceptual_distance"], expected, rtol=1e-3)


def test_quality_is_summarized_compared_and_shown_in_the_report() -> None:
    error = {"mean": 31.5, "standard_error": 0.25}
    section = {"psnr": error, "ssim": {"mean": 0.875, "standard_error": 0.002}, "reconstruction_frechet_distance": None}
    section |= {"code_usage": {"mean": 0.75, "standard_error": 0.01}, "num_codes": 512, "images": 212, "split": "test"}
    section |= {"held_out": True, "features": {"name": "classifier"}, "checksum": "a", "notes": ["a remark"]}
    lines = summarize({"image_quality": section})
    assert lines[0].split() == ["psnr", "31.50", "±", "0.25", "dB"]
    assert any("of 512 codes" in line for line in lines)
    assert "a remark" in lines
    assert not any("frechet_distance" in line for line in lines)
    better = section | {"psnr": {"mean": 33.0, "standard_error": 0.25}}
    runs = [MeasuredRun(name, {"image_quality": part}, {}) for name, part in (("a", section), ("b", better))]
    cells = {column.name: rank(column, runs).cells for column in COLUMNS if column.section == "image_quality"}
    assert [cell.best for cell in cells["psnr"]] == [False, True]
    assert cells["code_usage"][0].mean == 0.75
    fewer = [runs[0], runs[1]._replace(evaluation={"image_quality": better | {"num_codes": 64}})]
    usage = next(column for column in COLUMNS if column.name == "code_usage")
    assert rank(usage, fewer).not_ranked == "measured with different numbers of codes (a: 512, b: 64)"
    page = render(title="run", summary="", experiment_toml="", environment={}, metrics={},
                  evaluation={"image_quality": section}, figures={})  # fmt: skip
    assert "Image quality" in page
    assert "± 0.25" in page
    assert "212 images of the test split compared with their reconstructions" in page


@on_tensorflow("the measures are NumPy's")
def test_exact_small_and_broken_reconstructions() -> None:
    black = splits_of(np.zeros((4, 9, 30, 1), "uint8") + np.arange(4, dtype="uint8")[:, None, None, None])
    section = measure_image_quality(BlurModel(level=0.0), black, features="random").section
    assert "code_usage" not in section
    assert section["ssim"] is None
    assert "ssim: images of less than 11 pixels" in " ".join(section["notes"])
    assert "psnr: 1 reconstructions are exact to 8 bits, and count as 58.9" in section["notes"]
    with pytest.raises(RunError, match="reconstructions are NaN"):
        measure_image_quality(BlurModel(level=math.nan), black, features="random")
