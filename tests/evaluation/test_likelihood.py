"""Held-out likelihood, against closed forms, an evaluator in NumPy, and the published protocol."""

import json
import math
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers
from scipy import special, stats

from keras_vae import VAE
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.likelihoods import Bernoulli, Normal
from keras_vae.core.blocks import BlockFolder
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, split
from keras_vae.evaluation.likelihood import binarize, measure_likelihood
from keras_vae.models.importance_sampling import ImportanceSampling
from keras_vae.networks.mlp import MLP


def splits_of(images: Array, validation: int = 0, test: Array | None = None) -> Splits:
    whole = Dataset.from_arrays(images, name="frames")
    held = None if test is None else Dataset.from_arrays(test, name="frames", split="test")
    return split(whole, held, validation=validation, test_size=4, holdout=True, seed=0)


@pytest.fixture(scope="module")
def gray() -> Array:
    return np.random.default_rng(0).integers(0, 256, (40, 4, 5, 1), dtype="uint8")


def small_vae(shape: tuple[int, int, int] = (4, 5, 1), **kwargs: object) -> VAE:
    network = MLP(widths=(8,))
    return VAE(network.encoder(shape, 3), network.decoder(3, shape), seed=0, **kwargs)


def linear_gaussian(sigma: float) -> tuple[VAE, Array, Array]:
    """Return a VAE with an affine decoder and an inaccurate encoder, and the loadings and mean of its p(x)."""
    rng = np.random.default_rng(1)
    loadings, mean = rng.normal(scale=0.1, size=(2, 6)), rng.uniform(0.4, 0.6, 6)
    inputs, z = keras.Input((2, 3, 1)), keras.Input((2,))
    flat = layers.Flatten()(inputs)
    param_sizes = [layers.Dense(2, name=name) for name in ("z_mean", "z_log_var")]
    encoder = keras.Model(inputs, [head(flat) for head in param_sizes])
    dense = layers.Dense(6)
    decoder = keras.Model(z, layers.Reshape((2, 3, 1))(dense(z)))
    dense.set_weights([loadings, mean])
    precision = loadings @ loadings.T / sigma**2 + np.eye(2)
    matrix = np.linalg.inv(precision) @ loadings / sigma**2
    param_sizes[0].set_weights([0.8 * matrix.T, -0.8 * matrix @ mean + 0.3])
    param_sizes[1].set_weights([np.zeros((6, 2)), np.log(3.0 / np.diagonal(precision))])
    return VAE(encoder, decoder, likelihood=Normal(scale=sigma), seed=0), loadings, mean


def test_nll_of_a_linear_gaussian_model_matches_the_closed_form() -> None:
    sigma = 0.1
    vae, loadings, mean = linear_gaussian(sigma)
    rng = np.random.default_rng(2)
    flat = mean + rng.normal(size=(50, 2)) @ loadings + sigma * rng.normal(size=(50, 6))
    dataset = Dataset.from_arrays(np.clip(flat, 0, 1).reshape(-1, 2, 3, 1), name="linear")
    section = measure_likelihood(
        vae, Splits(dataset, None, replace(dataset, split="test")), seed=0, samples=5000
    ).section
    exact = -stats.multivariate_normal(mean, loadings.T @ loadings + sigma**2 * np.eye(6)).logpdf(
        dataset.images.reshape(50, 6) / 255.0
    )
    # The tolerance covers the noise of the draws, which is far below that of the images, but excludes the ELBO.
    assert section["nll"]["mean"] == pytest.approx(exact.mean(), abs=2e-3)
    assert section["nll"]["standard_error"] == pytest.approx(exact.std(ddof=1) / math.sqrt(50), rel=1e-2)
    assert section["negative_elbo"]["mean"] > exact.mean() + 0.1
    assert section["density"]
    assert section["bits_per_dim"] is None
    assert 1 < section["effective_sample_size"]["percentile_5"] < section["effective_sample_size"]["median"] < 5000
    assert section["trusted"]


@pytest.mark.usefixtures("quick_search")
def test_nll_matches_an_evaluator_in_numpy(gray: Array) -> None:
    vae, samples, seed = small_vae(), 250, 3
    splits = splits_of(gray)
    section = measure_likelihood(vae, splits, seed=seed, samples=samples, proposal="posterior").section

    x = splits.test.images.reshape(4, 20) / 255.0
    kernels, biases = vae.encoder.get_weights()[::2], vae.encoder.get_weights()[1::2]
    hidden = np.tanh(x @ kernels[0] + biases[0])
    z_mean, z_log_var = (hidden @ kernel + bias for kernel, bias in zip(kernels[1:], biases[1:], strict=True))
    (first, first_bias, last, last_bias), weights = vae.decoder.get_weights(), np.empty((4, samples))
    for image in range(4):
        noise = np.random.default_rng([seed, 2, image]).standard_normal((samples, 3), dtype="float32")
        z = z_mean[image] + np.exp(z_log_var[image] / 2) * noise
        p = special.expit(np.tanh(z @ first + first_bias) @ last + last_bias)
        log_likelihood = (x[image] * np.log(p) + (1 - x[image]) * np.log(1 - p)).sum(-1)
        log_prior = stats.norm.logpdf(z).sum(-1)
        log_posterior = stats.norm.logpdf(z, z_mean[image], np.exp(z_log_var[image] / 2)).sum(-1)
        weights[image] = log_likelihood + log_prior - log_posterior
    expected = -special.logsumexp(weights, axis=1) + math.log(samples)
    assert section["nll"]["mean"] == pytest.approx(expected.mean(), abs=1e-3)
    normalized = special.softmax(weights, axis=1)
    sizes = 1 / (normalized**2).sum(axis=1)
    assert section["effective_sample_size"]["median"] == pytest.approx(np.median(sizes), rel=1e-3)
    assert not section["normalized"]
    assert section["bits_per_dim"] is None


def test_the_published_protocol_draws_the_last_training_images_first() -> None:
    rng = np.random.default_rng(4)
    images, test = (rng.integers(0, 256, (n, 4, 5, 1), dtype="uint8") for n in (30, 7))
    splits = splits_of(images, validation=9, test=test)
    generator = np.random.RandomState(777)
    generator.binomial(1, images[-7:] / 255.0)
    expected = generator.binomial(1, test / 255.0)
    drawn = binarize(splits, splits.test)
    np.testing.assert_array_equal(drawn.images, 255 * expected)
    assert drawn.split == "test"
    validation = np.random.RandomState(777).binomial(1, splits.validation.images / 255.0)
    np.testing.assert_array_equal(binarize(splits, splits.validation).images, 255 * validation)


@pytest.mark.usefixtures("quick_search")
def test_binarized_images_are_measured_and_give_bits_per_dim(gray: Array) -> None:
    vae, splits = small_vae(likelihood=Bernoulli(binarize="dynamic")), splits_of(gray)
    section = measure_likelihood(vae, splits, seed=0, samples=20).section
    black_and_white = binarize(splits, splits.test).images
    assert section["negative_elbo"]["mean"] == pytest.approx(-vae.elbo(black_and_white).mean(), rel=1e-6)
    assert section["nll"]["mean"] == pytest.approx(-vae.log_likelihood(black_and_white, samples=20).mean(), rel=1e-6)
    assert section["bits_per_dim"]["mean"] == pytest.approx(section["nll"]["mean"] / (20 * math.log(2)))
    assert section["normalized"]
    assert section["binarization_seed"] == 777


@pytest.mark.usefixtures("quick_search")
def test_a_low_effective_sample_size_is_not_trusted(gray: Array) -> None:
    vae = small_vae()
    vae.encoder.get_layer("z_log_var").set_weights([np.zeros((8, 3)), np.full(3, 8.0)])
    section = measure_likelihood(vae, splits_of(gray), seed=0, samples=50, proposal="posterior").section
    assert section["effective_sample_size"]["percentile_5"] < 5
    assert not section["trusted"]


@pytest.mark.usefixtures("quick_search")
def test_a_single_draw_is_not_trusted(gray: Array) -> None:
    section = measure_likelihood(small_vae(), splits_of(gray), seed=0, samples=1).section
    assert section["effective_sample_size"] == {"median": 1.0, "percentile_5": 1.0}
    assert not section["trusted"]


def test_training_images_given_as_test_images_are_not_held_out(gray: Array) -> None:
    splits, vae = splits_of(gray), small_vae()
    assert measure_likelihood(vae, splits, seed=0).section["held_out"]
    same = replace(splits.train.subset(np.arange(6), "test"), positions=None)
    assert not measure_likelihood(vae, splits._replace(test=same), seed=0).section["held_out"]


def test_the_condition_of_the_model_is_recorded(gray: Array) -> None:
    network, shape = MLP(widths=(8,)), (4, 5, 1)
    vae = VAE(network.encoder((4, 5, 3), 3), network.decoder(5, shape), condition=ClassLabel(classes=2), seed=0)
    labeled = split(
        Dataset.from_arrays(gray, np.arange(40) % 2, name="frames"),
        None,
        validation=0,
        test_size=4,
        holdout=True,
        seed=0,
    )
    assert measure_likelihood(vae, labeled, seed=0).section["condition"] == "label"
    assert measure_likelihood(small_vae(), labeled, seed=0).section["condition"] is None


@pytest.mark.usefixtures("quick_search")
def test_an_interrupted_measurement_resumes(gray: Array, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    vae, splits, folder = (
        small_vae(),
        Splits(Dataset.from_arrays(gray, name="frames"), None, None),
        BlockFolder(tmp_path / "evaluation.json", {"samples": 10}),
    )
    # Blocks of four images.
    monkeypatch.setattr("keras_vae.models.importance_sampling._PIXELS_AT_ONCE", 4 * 10 * 20)
    monkeypatch.setattr("keras_vae.evaluation.likelihood._IMAGES_BETWEEN_SAVES", 1)
    whole = measure_likelihood(vae, splits, seed=0, samples=10).section

    def cut(blocks: list[slice], label: str, /) -> object:
        yield from blocks[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        measure_likelihood(vae, splits, seed=0, samples=10, progress=cut, folder=folder)
    computed = []
    original = ImportanceSampling.__call__
    monkeypatch.setattr(
        ImportanceSampling, "__call__", lambda self, block: computed.append(block) or original(self, block)
    )
    assert measure_likelihood(vae, splits, seed=0, samples=10, folder=folder).section == whole
    assert sorted(block.start for block in computed) == list(range(8, 40, 4))
    folder.file(0).write_bytes(b"torn")
    assert measure_likelihood(vae, splits, seed=0, samples=10, folder=folder).section == whole


def test_sections_are_json_and_negative_samples_are_an_error(gray: Array) -> None:
    section = measure_likelihood(small_vae(), splits_of(gray), seed=0).section
    assert json.loads(json.dumps(section)) == section
    assert "nll" not in section
    with pytest.raises(InputError, match="samples = -1"):
        measure_likelihood(small_vae(), splits_of(gray), seed=0, samples=-1)
