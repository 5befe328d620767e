"""The VQ model against what NumPy computes: codebook, prior over indices, bound, verbs, and what it refuses."""

import itertools
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae import ELBO, VAE
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.likelihoods import Bernoulli, DiscretizedLogistic
from keras_vae.components.objectives import DIPVAE, IWAE
from keras_vae.components.priors import VampPrior
from keras_vae.components.vector_quantizer import AutoregressivePrior, VectorQuantizerEMA, codebook_usage
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
            "codebook": VectorQuantizerEMA(num_codes=5),
            "prior": AutoregressivePrior(width=8, blocks=1, heads=2),
            "seed": 5,
            **kwargs,
        }
        return VQVAE.from_network(Conv(widths=(4, 6)), image_shape, code_dim=3, **kwargs)

    return make


@pytest.fixture
def tiny_prior() -> AutoregressivePrior:
    """3 codes on 2×2 positions under 2 conditions, with weights so large that everything depends on everything."""
    prior = AutoregressivePrior(width=4, blocks=1, heads=2)
    prior.build((None, 2, 2, 3), (None, 2))
    rng = np.random.default_rng(2)
    prior.set_weights([rng.normal(0, 0.8, weight.shape) for weight in prior.get_weights()])
    return prior


def scrambled(vae: VQVAE) -> VQVAE:
    """Return the model with distinct codes and weights that make its outputs depend on them."""
    rng = np.random.default_rng(0)
    for part in (vae.encoder, vae.decoder, vae.prior):
        part.set_weights([rng.normal(0, 0.4, weight.shape) for weight in part.get_weights()])
    maps = vae.encoder.predict_on_batch(rng.random((24, *vae.image_shape), "float32"))
    vae.codebook(ops.cast(maps, "float32"), np.linspace(0, 0.99, vae.codebook.num_codes).astype("float32"))
    return vae


def brute_force(maps: Array, vectors: Array) -> Array:
    return ((maps[..., None, :] - vectors) ** 2).sum(-1).argmin(-1)


def filled(codebook: VectorQuantizerEMA, counts: Array, vectors: Array) -> VectorQuantizerEMA:
    codebook.build((None, 3, 2, vectors.shape[1]))
    codebook.counts.assign(counts)
    codebook.sums.assign(counts[:, None] * vectors)
    return codebook


def test_codes_are_the_nearest() -> None:
    rng = np.random.default_rng(1)
    maps, vectors = rng.normal(size=(7, 3, 2, 4)).astype("float32"), rng.normal(size=(6, 4))
    result = filled(VectorQuantizerEMA(num_codes=6), np.full(6, 10.0), vectors)(maps)
    indices = brute_force(maps, vectors)
    np.testing.assert_array_equal(ops.convert_to_numpy(result.indices), indices)
    np.testing.assert_allclose(ops.convert_to_numpy(result.vectors), vectors[indices], rtol=1e-4, atol=1e-5)
    distance = ((maps - vectors[indices]) ** 2).sum((1, 2, 3))
    np.testing.assert_allclose(ops.convert_to_numpy(result.distance), distance, rtol=1e-4)


def test_averages_follow_the_outputs_in_training_alone() -> None:
    rng = np.random.default_rng(2)
    maps, vectors, counts = rng.normal(size=(7, 3, 2, 4)), rng.normal(size=(6, 4)), rng.uniform(1, 5, 6)
    codebook = filled(VectorQuantizerEMA(num_codes=6, decay=0.9, dead_code_threshold=0.0), counts, vectors)
    codebook(maps.astype("float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(codebook.counts), counts, rtol=1e-6)

    codebook(maps.astype("float32"), np.zeros(6, "float32"))
    chosen = np.eye(6)[brute_force(maps, vectors).reshape(-1)]
    sums = 0.9 * counts[:, None] * vectors + 0.1 * chosen.T @ maps.reshape(-1, 4)
    counts = 0.9 * counts + 0.1 * chosen.sum(0)
    smoothed = (counts + 1e-5) / (counts.sum() + 6e-5) * counts.sum()
    np.testing.assert_allclose(ops.convert_to_numpy(codebook.counts), counts, rtol=1e-5)
    np.testing.assert_allclose(ops.convert_to_numpy(codebook.vectors), sums / smoothed[:, None], rtol=1e-4, atol=1e-5)


def test_the_first_batch_replaces_every_code_by_its_outputs() -> None:
    maps = np.random.default_rng(3).normal(size=(7, 3, 2, 4)).astype("float32")
    codebook = VectorQuantizerEMA(num_codes=6, decay=0.999999)
    assert not ops.convert_to_numpy(codebook(maps).vectors).any()
    codebook(maps, np.linspace(0, 0.99, 6).astype("float32"))
    gaps = ((ops.convert_to_numpy(codebook.vectors)[:, None] - maps.reshape(-1, 4)) ** 2).sum(-1)
    assert gaps.min(1).max() < 1e-6
    assert len(set(gaps.argmin(1))) == 6


def test_a_dead_code_becomes_an_output_that_no_code_is_near() -> None:
    vectors = np.array([[0.0, 0.0], [1.0, 0.0], [50.0, 50.0]])
    maps = np.zeros((4, 3, 2, 2), "float32")
    maps[:2, ..., 0] = 1
    maps[3, 1, 1] = [-7, 3]
    codebook = filled(VectorQuantizerEMA(num_codes=3, decay=0.999999), np.array([12.0, 12.0, 0.1]), vectors)
    codebook(maps, np.array([0.3, 0.5, 0.9], "float32"))
    np.testing.assert_allclose(ops.convert_to_numpy(codebook.vectors), [[0, 0], [1, 0], [-7, 3]], atol=1e-3)


def test_gradients_pass_the_codes_as_if_they_were_the_outputs() -> None:
    class Quadratic(keras.Model):
        def __init__(self, codebook: VectorQuantizerEMA) -> None:
            super().__init__()
            self.dense, self.codebook = keras.layers.Dense(4, use_bias=False), codebook

        def call(self, x: object) -> object:
            return self.codebook(self.dense(x)).vectors

        def compute_loss(self, x: object, y: object, y_pred: object, *args: object, **kwargs: object) -> object:
            return ops.sum(ops.square(y_pred))

    rng = np.random.default_rng(4)
    x, vectors = rng.normal(size=(2, 3, 2, 5)).astype("float32"), rng.normal(size=(6, 4))
    model = Quadratic(filled(VectorQuantizerEMA(num_codes=6), np.full(6, 10.0), vectors))
    model.compile(keras.optimizers.SGD(1.0))
    model(x)
    before = model.dense.get_weights()[0]
    codes = vectors[brute_force(x @ before, vectors)]
    model.train_on_batch(x, x)
    # The decoder, here a square, has the gradient 2·code at its input.
    expected = np.einsum("nijk,nijd->kd", x, 2 * codes)
    np.testing.assert_allclose(before - model.dense.get_weights()[0], expected, rtol=1e-3, atol=1e-4)


def test_perplexity_and_used_codes() -> None:
    indices = np.array([[[0, 0], [0, 3]], [[3, 3], [5, 0]]], "int32")
    shares = np.array([4, 3, 1]) / 8
    perplexity, used = codebook_usage(indices, 6)
    assert float(perplexity) == pytest.approx(np.exp(-(shares * np.log(shares)).sum()), rel=1e-5)
    assert float(used) == 3
    assert float(codebook_usage(np.zeros((2, 2, 2), "int32"), 6)[0]) == pytest.approx(1)


def every_map() -> Array:
    return np.array(list(itertools.product(range(3), repeat=4)), "int32").reshape(-1, 2, 2)


def tiny_log_probs(prior: AutoregressivePrior, label: int) -> Array:
    return ops.convert_to_numpy(prior.log_prob(every_map(), np.eye(2, dtype="float32")[np.full(81, label)]))


def test_prior_sums_to_one_over_all_maps_and_depends_on_the_condition(tiny_prior: AutoregressivePrior) -> None:
    for label in (0, 1):
        assert np.exp(tiny_log_probs(tiny_prior, label).astype("float64")).sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(tiny_log_probs(tiny_prior, 0) - tiny_log_probs(tiny_prior, 1)).max() > 0.1


def test_a_position_sees_those_before_it_and_no_others(tiny_prior: AutoregressivePrior) -> None:
    def logits(indices: list[int]) -> Array:
        inputs = {"indices": np.array(indices, "int32").reshape(1, 2, 2), "condition": np.zeros((1, 2), "float32")}
        return ops.convert_to_numpy(tiny_prior(inputs)).reshape(4, 3)

    base = [0, 1, 2, 0]
    for changed in range(4):
        other = [(value + (place == changed)) % 3 for place, value in enumerate(base)]
        differs = np.abs(logits(base) - logits(other)).max(-1) > 1e-4
        np.testing.assert_array_equal(differs, np.arange(4) > changed)


def test_draws_have_the_frequencies_of_the_prior(tiny_prior: AutoregressivePrior) -> None:
    n, condition = 4000, np.eye(2, dtype="float32")[np.ones(4000, int)]
    draws = tiny_prior.sample(n, np.random.default_rng(0), condition)
    observed = np.bincount(draws.reshape(n, 4) @ [27, 9, 3, 1], minlength=81)
    expected = n * np.exp(tiny_log_probs(tiny_prior, 1).astype("float64"))
    common = expected > 5
    chi_square = ((observed - expected)[common] ** 2 / expected[common]).sum()
    assert common.sum() > 30
    assert chi_square < common.sum() + 4 * np.sqrt(2 * common.sum())


def test_bound_is_the_distortion_and_the_rate_of_the_codes(make_vq: MakeVQ, images: Array) -> None:
    vae = scrambled(make_vq())
    terms = vae.elbo_terms(images, draws=3)
    assert vae.has_bound
    x = images.astype("float64") / 255
    maps = vae.encoder.predict_on_batch(x.astype("float32"))
    vectors = ops.convert_to_numpy(vae.codebook.vectors)
    indices = brute_force(maps, vectors)
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
    measured = vae.evaluate(images, verbose=0, return_dict=True)
    assert measured["negative_elbo"] == pytest.approx((distortion + rate).mean(), rel=1e-4)
    assert measured["perplexity"] == pytest.approx(float(codebook_usage(indices, 5)[0]), rel=1e-4)
    assert measured["used_codes"] == len(np.unique(indices))


def test_trains_saves_and_goes_on_as_the_saved_model_would(make_vq: MakeVQ, images: Array, tmp_path: Path) -> None:
    vae = make_vq()
    vae.compile(keras.optimizers.Adam(1e-2))
    history = vae.fit(images, batch_size=12, epochs=4, shuffle=False, verbose=0).history
    assert history["total_loss"][-1] < history["total_loss"][0]
    assert 0.999 < history["perplexity"][-1] <= history["used_codes"][-1] + 1e-3 < 5.01
    total = np.add(history["reconstruction_loss"], history["kl_loss"])
    np.testing.assert_allclose(history["negative_elbo"], total, rtol=1e-5)
    vae.save(tmp_path / "vq.keras")
    loaded = keras.saving.load_model(tmp_path / "vq.keras", safe_mode=True)
    for ours, theirs in zip(vae.codebook.get_weights(), loaded.codebook.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(loaded.elbo(images), vae.elbo(images))
    np.testing.assert_array_equal(loaded.sample(3), vae.sample(3))
    for model in (vae, loaded):
        model.fit(images, batch_size=12, shuffle=False, verbose=0)
    np.testing.assert_array_equal(loaded.elbo(images), vae.elbo(images))


def test_codes_and_nats_are_float32_under_mixed_precision(make_vq: MakeVQ, images: Array) -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        vae = make_vq()
    finally:
        keras.config.set_dtype_policy(policy)
    output = scrambled(vae)(images)
    dtypes = {keras.backend.standardize_dtype(tensor.dtype) for tensor in (*output.terms, output.reconstruction)}
    assert dtypes == {"float32"}
    assert {weight.dtype for weight in vae.prior.weights} == {"float32"}


def test_two_steps_move_every_weight_and_evaluation_moves_none(images: Array) -> None:
    keras.utils.set_random_seed(3)
    vae = VQVAE.from_network(
        Conv(widths=(4, 6)),
        (10, 12, 3),
        code_dim=3,
        codebook=VectorQuantizerEMA(num_codes=5),
        prior=AutoregressivePrior(width=8, blocks=1, heads=2),
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
    still = [w.path for w, old, new in zip(vae.weights, before, after, strict=True) if np.array_equal(old, new)]
    assert not still
    assert all(np.isfinite(weight).all() for weight in after)
    vae.evaluate(data, verbose=0)
    for old, new in zip(after, vae.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)

    assert vae.sample(2, seed=0, condition=3).shape == (2, 10, 12, 3)
    assert vae.encode(data["images"], condition=data["condition"]).indices.shape == (16, 3, 3)
    with pytest.raises(InputError, match="condition = None"):
        vae.sample(1)


def test_sample_repeats_with_a_seed_and_moves_on_without(make_vq: MakeVQ) -> None:
    vae = scrambled(make_vq())
    np.testing.assert_array_equal(vae.sample(3, seed=1), vae.sample(3, seed=1))
    assert not np.array_equal(vae.sample(3, seed=1), vae.sample(3, seed=2))
    assert not np.array_equal(vae.sample(3), vae.sample(3))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"objective": IWAE()}, r"several draws .* take ELBO\(\)"),
        ({"objective": IWAE(samples=1)}, "several draws"),
        ({"objective": DIPVAE()}, "compares codes of one vector"),
        ({"objective": ELBO(free_bits=1.0)}, "trains its prior alone"),
        ({"prior": VampPrior()}, r"prior = VampPrior: .* take CodePrior\(\)"),
        ({"likelihood": Bernoulli(from_logits=False)}, "without an activation"),
        ({"image_shape": (8, 8, 3)}, "bernoulli knows black and white only"),
    ],
)
def test_parts_that_do_not_fit_are_refused_when_the_model_is_built(
    make_vq: MakeVQ, kwargs: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        make_vq(**kwargs)


def test_networks_without_a_map_are_refused() -> None:
    shape, network = (8, 8, 1), Conv(widths=(2,), dense_units=2)
    with pytest.raises(InputError, match="codes on a map"):
        VQVAE.from_network(MLP(), shape)
    with pytest.raises(InputError, match="needs one map"):
        VQVAE(network.encoder(shape, 2), network.decoder(2, shape))
    with pytest.raises(InputError, match=r"decoder takes \(None, 4, 4, 3\)"):
        VQVAE(network.map_encoder(shape, 2), network.map_decoder((4, 4, 3), shape))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: vae.sample(0), "n = 0"),
        (lambda vae: vae.decode(np.zeros((2, 3, 3))), "whole numbers"),
        (lambda vae: vae.decode(np.zeros((2, 3, 2), "int32")), r"\(\'n\', 3, 3\)"),
        (lambda vae: vae.decode(np.full((2, 3, 3), 5)), "they run from 0 to 4"),
        (lambda vae: VectorQuantizerEMA(num_codes=1), "codes = 1"),
        (lambda vae: VectorQuantizerEMA(decay=1.0), r"decay = 1\.0"),
        (lambda vae: VectorQuantizerEMA(commitment=-1.0), r"commitment = -1\.0"),
        (lambda vae: AutoregressivePrior(width=6, heads=4), "multiple of heads"),
    ],
)
def test_wrong_arguments(call: Callable[[VAE], object], message: str, make_vq: MakeVQ) -> None:
    with pytest.raises(InputError, match=message):
        call(make_vq())
