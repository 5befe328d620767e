"""VQ-VAE: loss terms against NumPy, training, inference, files and errors."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae import ELBO
from keras_vae.components.autoregressive_prior import AutoregressivePrior
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.likelihoods import Bernoulli, DiscretizedLogistic
from keras_vae.components.objectives import DIPVAE, IWAE
from keras_vae.components.priors import VampPrior
from keras_vae.components.quantizers import (
    FiniteScalarQuantizer,
    Quantizer,
    VectorQuantizerEMA,
    codebook_usage,
)
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.models.vq import VQVAE
from keras_vae.networks import Conv
from keras_vae.networks.mlp import MLP

MakeVQ = Callable[..., VQVAE]


@pytest.fixture
def make_vq() -> MakeVQ:
    def make(image_shape: tuple[int, int, int] = (9, 11, 1), **kwargs: object) -> VQVAE:
        keras.utils.set_random_seed(1)
        kwargs = {
            "quantizer": VectorQuantizerEMA(num_codes=5),
            "prior": AutoregressivePrior(width=8, num_blocks=1, num_heads=2),
            "seed": 5,
            **kwargs,
        }
        return VQVAE.from_network(Conv(widths=(4, 6)), image_shape, code_dim=3, **kwargs)

    return make


def randomized(vae: VQVAE) -> VQVAE:
    """Set random weights and distinct code vectors, so that the outputs depend on the codes."""
    rng = np.random.default_rng(0)
    for model in (vae.encoder, vae.decoder, vae.prior):
        model.set_weights([rng.normal(0, 0.4, weight.shape) for weight in model.get_weights()])
    maps = vae.encoder.predict_on_batch(rng.random((24, *vae.image_shape), "float32"))
    vae.quantizer(ops.cast(maps, "float32"), np.linspace(0, 0.99, vae.quantizer.num_codes).astype("float32"))
    return vae


def nearest_indices(maps: Array, vectors: Array) -> Array:
    return ((maps[..., None, :] - vectors) ** 2).sum(-1).argmin(-1)


def test_terms_equal_distortion_and_rate_computed_in_numpy(make_vq: MakeVQ, images: Array) -> None:
    vae = randomized(make_vq())
    terms = vae.elbo_terms(images, draws=3)
    assert vae.has_bound
    x = images.astype("float64") / 255
    maps = vae.encoder.predict_on_batch(x.astype("float32"))
    vectors = ops.convert_to_numpy(vae.quantizer.vectors)
    indices = nearest_indices(maps, vectors)
    assert len(np.unique(indices)) > 1
    logits = vae.decoder.predict_on_batch(vectors[indices]).astype("float64")
    distortion = (np.logaddexp(0, logits) - x * logits).sum((1, 2, 3))
    log_probs = vae.prior.predict_on_batch({"indices": indices.astype("int32")})
    rate = -np.take_along_axis(log_probs, indices[..., None], -1).sum((1, 2, 3))

    np.testing.assert_array_equal(vae.encode(images).indices, indices)
    np.testing.assert_allclose(terms.reconstruction_loss, distortion, rtol=1e-4)
    np.testing.assert_allclose(terms.kl_loss, rate, rtol=1e-4)
    np.testing.assert_allclose(terms.penalty, 0.25 * ((maps - vectors[indices]) ** 2).sum((1, 2, 3)), rtol=1e-3)
    np.testing.assert_allclose(terms.log_weight, np.repeat(-(distortion + rate)[:, None], 3, axis=1), rtol=1e-4)
    np.testing.assert_allclose(vae.log_likelihood(images, samples=3), -(distortion + rate), rtol=1e-4)
    np.testing.assert_allclose(vae.reconstruct(images), 1 / (1 + np.exp(-logits)), atol=1e-4)

    vae.compile()
    metrics = vae.evaluate(images, verbose=0, return_dict=True)
    assert metrics["negative_elbo"] == pytest.approx((distortion + rate).mean(), rel=1e-4)
    assert metrics["perplexity"] == pytest.approx(float(codebook_usage(indices, 5)[0]), rel=1e-4)
    assert metrics["used_codes"] == len(np.unique(indices))


@pytest.mark.parametrize("quantizer", [VectorQuantizerEMA(num_codes=5), FiniteScalarQuantizer(levels=(3, 3, 3))])
def test_loaded_model_continues_training_like_the_saved_one(
    quantizer: Quantizer, make_vq: MakeVQ, images: Array, tmp_path: Path
) -> None:
    vae = make_vq(quantizer=type(quantizer).from_config(quantizer.get_config()))
    vae.compile(keras.optimizers.Adam(1e-2))
    history = vae.fit(images, batch_size=12, epochs=4, shuffle=False, verbose=0).history
    assert history["total_loss"][-1] < history["total_loss"][0]
    assert 0.999 < history["perplexity"][-1] <= history["used_codes"][-1] + 1e-3 < vae.num_codes + 0.01
    total = np.add(history["reconstruction_loss"], history["kl_loss"])
    np.testing.assert_allclose(history["negative_elbo"], total, rtol=1e-5)
    vae.save(tmp_path / "vq.keras")
    loaded = keras.saving.load_model(tmp_path / "vq.keras", safe_mode=True)
    for saved, read in zip(vae.get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(saved, read)
    np.testing.assert_array_equal(loaded.elbo(images), vae.elbo(images))
    np.testing.assert_array_equal(loaded.sample(3), vae.sample(3))
    for model in (vae, loaded):
        model.fit(images, batch_size=12, shuffle=False, verbose=0)
    np.testing.assert_array_equal(loaded.elbo(images), vae.elbo(images))


def test_maps_are_standardized_with_the_batch_in_training_and_with_averages_at_inference(images: Array) -> None:
    # The map has a single position, so that only the mean of each image tells the images apart.
    x = images[:, :4, :4].astype("float32") / 255
    encoder = Conv(widths=(4, 6)).map_encoder((4, 4, 1), 3, deviation=1.5)
    raw = keras.Model(encoder.input, encoder.get_layer("standardized").input).predict_on_batch(x).astype("float64")
    mean, variance = raw.mean((0, 1, 2)), raw.var((0, 1, 2))
    assert (variance > 1e-6).all()
    for _ in range(3):
        found = ops.convert_to_numpy(encoder(x, training=True))
        np.testing.assert_allclose(found, 1.5 * (raw - mean) / np.sqrt(variance + 1e-6), atol=1e-3)
    # Averages with a weight of 0.1 for each batch, from the mean 0 and the variance 1.
    kept = 0.9**3
    expected = 1.5 * (raw - (1 - kept) * mean) / np.sqrt(kept + (1 - kept) * variance + 1e-6)
    np.testing.assert_allclose(encoder.predict_on_batch(x), expected, atol=1e-4)
    encoder.trainable = False
    np.testing.assert_allclose(ops.convert_to_numpy(encoder(x, training=True)), expected, atol=1e-4)


def test_terms_and_prior_are_float32_under_mixed_precision(make_vq: MakeVQ, images: Array) -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        vae = make_vq()
    finally:
        keras.config.set_dtype_policy(policy)
    output = randomized(vae)(images)
    dtypes = {keras.backend.standardize_dtype(tensor.dtype) for tensor in (*output.terms, output.reconstruction)}
    assert dtypes == {"float32"}
    assert {weight.dtype for weight in vae.prior.weights} == {"float32"}


def test_training_changes_every_weight_and_evaluation_changes_none(images: Array) -> None:
    keras.utils.set_random_seed(3)
    vae = VQVAE.from_network(
        Conv(widths=(4, 6)),
        (10, 12, 3),
        code_dim=3,
        quantizer=VectorQuantizerEMA(num_codes=5),
        prior=AutoregressivePrior(width=8, num_blocks=1, num_heads=2),
        likelihood=DiscretizedLogistic(num_components=2),
        condition=ClassLabel(classes=4),
        seed=1,
    )
    data = {
        "images": np.random.default_rng(0).integers(0, 256, (16, 10, 12, 3), dtype="uint8"),
        "condition": np.arange(16) % 4,
    }
    vae.compile(keras.optimizers.Adam(1e-2))
    before = [weight.copy() for weight in vae.get_weights()]
    vae.fit(data, batch_size=8, verbose=0)
    after = [weight.copy() for weight in vae.get_weights()]
    unchanged = [w.path for w, old, new in zip(vae.weights, before, after, strict=True) if np.array_equal(old, new)]
    assert not unchanged
    assert all(np.isfinite(weight).all() for weight in after)
    vae.evaluate(data, verbose=0)
    for old, new in zip(after, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    assert vae.sample(2, seed=0, condition=3).shape == (2, 10, 12, 3)
    assert vae.encode(data["images"], condition=data["condition"]).indices.shape == (16, 3, 3)
    with pytest.raises(InputError, match="condition = None"):
        vae.sample(1)


def test_samples_repeat_with_a_seed_and_differ_without(make_vq: MakeVQ) -> None:
    vae = randomized(make_vq())
    np.testing.assert_array_equal(vae.sample(3, seed=1), vae.sample(3, seed=1))
    assert not np.array_equal(vae.sample(3, seed=1), vae.sample(3, seed=2))
    assert not np.array_equal(vae.sample(3), vae.sample(3))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"objective": IWAE()}, r"weights several samples.* use ELBO\(\)"),
        ({"objective": IWAE(samples=1)}, "weights several samples"),
        ({"objective": DIPVAE()}, "compares the latent vectors of images"),
        ({"objective": ELBO(free_bits=1.0)}, "trains only its prior"),
        ({"prior": VampPrior()}, r"prior = VampPrior: .* use AutoregressivePrior\(\)"),
        ({"likelihood": Bernoulli(from_logits=False)}, "without an activation"),
        ({"image_shape": (8, 8, 3)}, "bernoulli"),
    ],
)
def test_components_that_do_not_fit_are_rejected(make_vq: MakeVQ, kwargs: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_vq(**kwargs)


def test_networks_without_a_fitting_map_are_rejected() -> None:
    shape, network = (8, 8, 1), Conv(widths=(2,), dense_units=2)
    with pytest.raises(InputError, match="needs a feature map"):
        VQVAE.from_network(MLP(), shape)
    with pytest.raises(InputError, match="needs a single map"):
        VQVAE(network.encoder(shape, 2), network.decoder(2, shape))
    with pytest.raises(InputError, match=r"decoder.input_shape = \(None, 4, 4, 3\)"):
        VQVAE(network.map_encoder(shape, 2), network.map_decoder((4, 4, 3), shape))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: vae.sample(0), "n = 0"),
        (lambda vae: vae.decode(np.zeros((2, 3, 3))), "z.dtype = float64"),
        (lambda vae: vae.decode(np.zeros((2, 3, 2), "int32")), r"\(\'n\', 3, 3\)"),
        (lambda vae: vae.decode(np.full((2, 3, 3), 5)), "z = 5 to 5: indices out of range; pass 0 to 4"),
    ],
)
def test_errors_name_the_argument_and_its_value(call: Callable[[VQVAE], object], message: str, make_vq: MakeVQ) -> None:
    with pytest.raises(InputError, match=message):
        call(make_vq())
