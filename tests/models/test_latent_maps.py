"""Latent maps: codes (h, w, c) of a `VAE`, for images of any size."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae import VAE
from keras_vae.components import conditions, likelihoods, posteriors, priors
from keras_vae.core.errors import InputError
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.integrations.export.exporter import export
from keras_vae.models.encoding import LatentStatistics
from keras_vae.runs.experiment import Experiment
from keras_vae.training.trainer import train

FACTOR, CHANNELS = 4, 2


def networks(size: int | None = None, condition_dim: int = 0, outputs: int = 2) -> tuple[keras.Model, keras.Model]:
    """Return a map encoder and decoder of one convolution each, with known functions."""
    positions = size and size // FACTOR
    images = keras.Input((size, size, 1 + condition_dim))
    features = [keras.layers.Conv2D(CHANNELS, FACTOR, strides=FACTOR)(images) for _ in range(outputs)]
    z = keras.Input((positions, positions, CHANNELS + condition_dim))
    return keras.Model(images, features), keras.Model(z, keras.layers.Conv2DTranspose(1, FACTOR, strides=FACTOR)(z))


def model(size: int | None = None, **settings: Any) -> VAE:
    vae = VAE(*networks(size), likelihood=likelihoods.Normal(scale=0.5), seed=0, **settings)
    if not vae.built:
        vae.build((None, 8, 8, 1))
    return vae


def images(count: int, rows: int, columns: int, seed: int = 0) -> Any:
    return np.random.default_rng(seed).random((count, rows, columns, 1), dtype="float32")


def patches(x: Any, kernel: Any, bias: Any) -> Any:
    """Return the map of a linear function of non-overlapping patches, computed with NumPy."""
    count, rows, columns, _ = x.shape
    blocks = x.reshape(count, rows // FACTOR, FACTOR, columns // FACTOR, FACTOR)
    return np.einsum("nrpcq,pqk->nrck", blocks, kernel[:, :, 0]) + bias


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (12, 8), (4, 20)])
def test_encode_returns_the_map_of_images_of_any_size(rows: int, columns: int) -> None:
    vae, x = model(), images(3, rows, columns)
    kernel, bias = (ops.convert_to_numpy(weight) for weight in vae.encoder.layers[1].weights)
    assert vae.latent_shape == (2, 2, 2)
    assert vae.latent_dim == 8
    np.testing.assert_allclose(vae.encode(x).z_mean, patches(x, kernel, bias), atol=1e-5)
    assert vae.reconstruct(x).shape == x.shape


@pytest.mark.parametrize(("rows", "columns"), [(8, 8), (16, 12)])
def test_elbo_equals_the_sums_over_all_positions(rows: int, columns: int) -> None:
    """Kingma and Welling, appendix B, with the noise of the documented generator."""
    vae, x = model(), images(3, rows, columns)
    code = vae.encode(x)
    mean, log_var = code.z_mean.astype("float64"), code.z_log_var.astype("float64")
    size = (3, 1, rows * columns // FACTOR**2 * CHANNELS)
    noise = np.random.default_rng(0).standard_normal(size, dtype="float32").reshape(mean.shape)
    z = mean + np.exp(0.5 * log_var) * noise
    kl = 0.5 * (np.exp(log_var) + mean**2 - 1 - log_var).sum(axis=(1, 2, 3))
    location = ops.convert_to_numpy(vae.decoder(ops.convert_to_tensor(z.astype("float32"))))
    log_likelihood = (-0.5 * ((x - location) / 0.5) ** 2 - np.log(0.5 * np.sqrt(2 * np.pi))).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(vae.elbo(x), log_likelihood - kl, rtol=1e-4)


def test_codes_of_samples_are_maps_and_decode_accepts_both_forms() -> None:
    vae = model()
    codes = vae.sample_prior(3, seed=0)
    assert codes.shape == (3, 2, 2, 2)
    assert vae.sample_posterior(images(3, 8, 12)).shape == (3, 2, 3, 2)
    assert vae.sample(3, seed=0).shape == (3, 8, 8, 1)
    np.testing.assert_array_equal(vae.decode(codes), vae.decode(codes.reshape(3, -1)))
    assert vae.decode(np.zeros((1, 5, 3, 2))).shape == (1, 20, 12, 1)


def test_a_network_of_fixed_size_keeps_its_error() -> None:
    vae = model(8)
    with pytest.raises(InputError, match=r"images.shape = \(1, 12, 8, 1\): the model expects \(n, 8, 8, 1\)"):
        vae.encode(images(1, 12, 8))
    with pytest.raises(InputError, match=r"z.shape = .*decodes maps; pass \(n, 2, 2, 2\) or \(n, 8\)"):
        vae.decode(np.zeros((1, 3, 2, 2)))


def test_a_prior_with_a_fixed_number_of_dimensions_encodes_but_has_no_elbo_of_other_sizes() -> None:
    vae = model(prior=priors.RealNVP(num_couplings=1, hidden=(4,)))
    assert vae.sample_prior(2, seed=0).shape == (2, 2, 2, 2)
    assert vae.reconstruct(images(1, 12, 8)).shape == (1, 12, 8, 1)
    with pytest.raises(InputError, match=r"the model expects \(n, 8, 8, 1\)"):
        vae.elbo(images(1, 12, 8))


def test_sizes_that_the_factor_does_not_divide_are_refused() -> None:
    vae = model()
    for method in (vae.encode, vae.reconstruct, vae.elbo):
        with pytest.raises(InputError, match="divides the height by 4"):
            method(images(1, 10, 8))
    with pytest.raises(InputError, match=r"z.shape = \(1, 2, 2, 3\): this model decodes maps"):
        vae.decode(np.zeros((1, 2, 2, 3)))
    with pytest.raises(InputError, match="log p\\(x\\) is only estimated"):
        vae.log_likelihood(images(1, 12, 8), samples=1)


@pytest.mark.parametrize("posterior", [posteriors.FullCovarianceNormal(), posteriors.InverseAutoregressiveFlow()])
def test_posteriors_that_relate_dimensions_are_refused(posterior: Any) -> None:
    with pytest.raises(InputError, match="relates all dimensions of a vector, but the encoder outputs maps"):
        VAE(*networks(8), posterior=posterior)


def test_a_decoder_of_vectors_is_refused() -> None:
    z = keras.Input((8,))
    decoder = keras.Model(z, keras.layers.Reshape((8, 8, 1))(keras.layers.Dense(64)(z)))
    with pytest.raises(InputError, match=r"build a decoder for \(None, 2, 2, 2\)"):
        VAE(networks(8)[0], decoder)


def test_conditions_are_constant_channels_of_both_networks() -> None:
    condition = conditions.ClassLabel(classes=3)
    vae = VAE(*networks(condition_dim=3), condition=condition, seed=0)
    vae.build((None, 8, 8, 1))
    labels = np.array([0, 2])
    codes = vae.sample_prior(2, seed=0, condition=labels)
    channels = np.broadcast_to(np.eye(3, dtype="float32")[labels][:, None, None], (2, 2, 2, 3))
    logits = ops.convert_to_numpy(vae.decoder(np.concatenate([codes, channels], axis=-1)))
    np.testing.assert_allclose(vae.decode(codes, condition=labels), 1 / (1 + np.exp(-logits)), atol=1e-5)
    assert np.isfinite(vae.elbo(images(2, 8, 8).round(), condition=labels)).all()


def test_a_saved_model_returns_the_same_maps(tmp_path: Path) -> None:
    vae, x = model(), images(2, 12, 8)
    vae.measure_latent_statistics(x)
    vae.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.encode(x).z_mean, vae.encode(x).z_mean)
    assert loaded.latent_statistics == vae.latent_statistics
    assert loaded.with_prior(priors.StandardNormal()).latent_statistics == vae.latent_statistics


def test_export_has_maps_as_ports_and_the_statistics(tmp_path: Path) -> None:
    vae = model()
    vae.measure_latent_statistics(images(8, 8, 8))
    folder = export(vae, "keras", tmp_path / "export")
    manifest = json.loads((folder / "manifest.json").read_text("utf-8"))
    assert manifest["model"]["latent_shape"] == [2, 2, 2]
    assert manifest["model"]["latent_statistics"]["mean"] == list(vae.latent_statistics.mean)
    assert manifest["graphs"]["encoder"]["outputs"]["z_mean"]["shape"] == [None, 2, 2, 2]
    assert manifest["graphs"]["decoder"]["inputs"]["z"]["shape"] == [None, 2, 2, 2]
    assert manifest["graphs"]["sampler"]["inputs"]["noise"]["shape"] == [None, 2, 2, 2]


@pytest.mark.parametrize("is_map", [True, False], ids=["map", "vector"])
def test_normalized_codes_have_mean_zero_and_deviation_one(is_map: bool) -> None:
    vae = model() if is_map else VAE(image_shape=(8, 8, 1), latent_dim=3, seed=0)
    with pytest.raises(InputError, match="measure_latent_statistics"):
        vae.encode(images(1, 8, 8), normalized=True)
    statistics = vae.measure_latent_statistics(images(4000, 8, 8))
    assert len(statistics.mean) == (CHANNELS if is_map else 3)
    held_out = images(4000, 8, 8, seed=1)
    code = vae.encode(held_out, normalized=True)
    noise = np.random.default_rng(2).standard_normal(code.z_mean.shape)
    z = (code.z_mean + np.exp(0.5 * code.z_log_var) * noise).reshape(-1, len(statistics.mean))
    assert np.abs(z.mean(axis=0)).max() < 0.05
    assert np.abs(z.std(axis=0) - 1).max() < 0.05
    few = held_out[:3]
    decoded = vae.decode(vae.encode(few, normalized=True).codes, normalized=True)
    np.testing.assert_allclose(decoded, vae.reconstruct(few), atol=1e-5)


def test_statistics_are_those_of_numpy() -> None:
    codes = np.random.default_rng(0).normal(3.0, 2.0, (5, 2, 3, 4)).astype("float32")
    statistics = LatentStatistics.of(codes)
    np.testing.assert_allclose(statistics.mean, codes.mean(axis=(0, 1, 2)), rtol=1e-5)
    np.testing.assert_allclose(statistics.std, codes.std(axis=(0, 1, 2)), rtol=1e-5)
    assert statistics.images == 5


SETTINGS = [
    'model.network={name="autoencoder",widths=[2,4],blocks=1,latent_channels=2,groups=2,attention=false}',
    "training.epochs=2",
    "training.batch_size=8",
]


def splits(*shape: int) -> Splits:
    levels = np.random.default_rng(0).integers(0, 256, (2, 24, *shape), dtype="uint8")
    train, validation = (Dataset.from_arrays(x, name="noise") for x in levels)
    return Splits(train, validation, None)


def experiment(*settings: str) -> Experiment:
    return Experiment().with_overrides([*SETTINGS, *settings])


def test_a_run_derives_the_latent_size_and_stores_the_statistics(tmp_path: Path) -> None:
    data = splits(8, 8, 1)
    run = train(experiment(), data, tmp_path / "run")
    assert run.experiment.model.latent_dim == 4 * 4 * 2
    vae = run.load_model()
    assert vae.latent_shape == (4, 4, 2)
    code = vae.encode(data.train.images, normalized=True)
    noise = np.random.default_rng(3).standard_normal(code.z_mean.shape)
    z = code.z_mean + np.exp(0.5 * code.z_log_var) * noise
    assert np.abs(z.mean(axis=(0, 1, 2))).max() < 0.2
    assert vae.latent_statistics.images == len(data.train)


def test_a_wrong_number_of_latent_dimensions_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"latent_dim = 3: .* is a map \(4, 4, 2\)"):
        train(experiment("model.latent_dim=3"), splits(8, 8, 1), tmp_path / "run")
    with pytest.raises(InputError, match="not multiples of 2"):
        train(experiment(), splits(7, 8, 1), tmp_path / "run")
    assert not (tmp_path / "run").exists()
