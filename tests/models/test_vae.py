"""The VAE as Keras users use it (fit, evaluate, predict, save, load) on every backend and in every precision."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

import keras_vae
from helpers import on_tensorflow
from keras_vae import ELBO, VAE
from keras_vae.components.likelihoods import Bernoulli, Categorical, ContinuousBernoulli
from keras_vae.components.priors import StandardNormal
from keras_vae.core import backend
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.networks import Conv

MakeVAE = Callable[..., VAE]
LOSSES = ("total_loss", "reconstruction_loss", "kl_loss", "negative_elbo")


@pytest.fixture(params=["float32", "mixed_bfloat16"])
def policy(request: pytest.FixtureRequest) -> str:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(request.param)
    yield request.param
    keras.config.set_dtype_policy(before)


class Batches(keras.utils.PyDataset):
    def __init__(self, images: Array) -> None:
        super().__init__()
        self.images = images

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Array]:
        return (self.images[index * 8 : (index + 1) * 8],)


def as_array(images: Array) -> Array:
    return images


def as_tf_data(images: Array) -> object:
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices(images).batch(8)


@pytest.mark.parametrize("feed", [as_array, as_tf_data, Batches])
def test_model_can_be_fitted_evaluated_saved_loaded_and_fitted_again(
    feed: Callable[[Array], object], make_vae: MakeVAE, images: Array, policy: str, tmp_path: Path
) -> None:
    vae = make_vae(objective=ELBO(beta=0.5))
    vae.compile(optimizer=keras.optimizers.Adam(1e-2))
    history = vae.fit(feed(images), validation_data=feed(images), epochs=3, verbose=0).history
    assert set(history) == {prefix + name for prefix in ("", "val_") for name in LOSSES}
    assert history["total_loss"][-1] < history["total_loss"][0]
    for prefix in ("", "val_"):
        total, reconstruction, kl, bound = (np.array(history[prefix + name]) for name in LOSSES)
        np.testing.assert_allclose(total, reconstruction + 0.5 * kl, rtol=1e-5)
        np.testing.assert_allclose(bound, reconstruction + kl, rtol=1e-5)
    assert set(vae.evaluate(feed(images), return_dict=True, verbose=0)) == set(LOSSES)

    output = vae.predict(feed(images), verbose=0)
    assert isinstance(output, keras_vae.models.vae.VAEOutput)
    assert output.reconstruction.shape == images.shape
    assert output.reconstruction.min() >= 0
    assert output.reconstruction.max() <= 1
    for values, shape in ((output.z, (24, 3)), (output.z_mean, (24, 3)), (output.terms.kl_per_group, (24, 3))):
        assert values.shape == shape
        assert values.dtype == np.float32

    vae.save(tmp_path / "vae.keras")
    loaded = keras.saving.load_model(tmp_path / "vae.keras", safe_mode=True)
    np.testing.assert_array_equal(loaded.elbo(images, seed=3), vae.elbo(images, seed=3))
    # The loaded model continues with the same random numbers and training steps as the saved one.
    np.testing.assert_array_equal(loaded.sample(4), vae.sample(4))
    for model in (vae, loaded):
        model.fit(Batches(images), shuffle=False, epochs=1, verbose=0)
    np.testing.assert_array_equal(loaded.elbo(images), vae.elbo(images))


def test_history_equals_an_independent_computation(make_vae: MakeVAE, images: Array) -> None:
    """Over one epoch without learning, the trackers are means over images, including the smaller last batch."""
    vae = make_vae(objective=ELBO(beta=2.0))
    vae.compile(optimizer=keras.optimizers.SGD(0.0))
    noise = [
        ops.convert_to_numpy(keras.random.normal((size, 3), seed=generator))
        for generator in [keras.random.SeedGenerator(5)]
        for size in (10, 10, 4)
    ]
    history = vae.fit(images, batch_size=10, shuffle=False, verbose=0).history

    x = images.astype("float64") / 255
    mean, log_var = (ops.convert_to_numpy(output).astype("float64") for output in vae.encoder(x.astype("float32")))
    z = mean + np.exp(log_var / 2) * np.concatenate(noise)
    logits = ops.convert_to_numpy(vae.decoder(z.astype("float32"))).astype("float64")
    probabilities = 1 / (1 + np.exp(-logits))
    reconstruction = -(x * np.log(probabilities) + (1 - x) * np.log(1 - probabilities)).sum((1, 2, 3))
    kl = 0.5 * (mean**2 + np.exp(log_var) - 1 - log_var).sum(1)
    assert history["reconstruction_loss"][0] == pytest.approx(reconstruction.mean(), rel=1e-5)
    assert history["kl_loss"][0] == pytest.approx(kl.mean(), rel=1e-4)
    assert history["total_loss"][0] == pytest.approx((reconstruction + 2 * kl).mean(), rel=1e-5)


def test_losses_are_sums_over_the_pixels_of_an_image(images: Array) -> None:
    """A model with logits 0 has a reconstruction loss of ln 2 per pixel, for every image size."""
    for size in (4, 8):
        z, decoded = keras.Input((2,)), None
        decoded = keras.layers.Reshape((size, size, 1))(keras.layers.Dense(size * size, kernel_initializer="zeros")(z))
        vae = VAE(Conv(widths=(2,)).encoder((size, size, 1), 2), keras.Model(z, decoded))
        terms = vae.elbo_terms(np.zeros((3, size, size, 1), "uint8"))
        np.testing.assert_allclose(terms.reconstruction_loss, size * size * np.log(2), rtol=1e-5)


def test_regularizers_are_part_of_the_reported_total_loss(images: Array) -> None:
    inputs = keras.Input((9, 11, 1))
    features = keras.layers.Dense(4, kernel_regularizer=keras.regularizers.L2(0.5))(keras.layers.Flatten()(inputs))
    encoder = keras.Model(inputs, [keras.layers.Dense(2)(features), keras.layers.Dense(2)(features)])
    vae = VAE(encoder, Conv(widths=(2,)).decoder(2, (9, 11, 1)))
    vae.compile(optimizer=keras.optimizers.SGD(0.0))
    result = vae.evaluate(images, verbose=0, return_dict=True)
    penalty = 0.5 * (ops.convert_to_numpy(encoder.layers[2].kernel) ** 2).sum()
    assert penalty > 0.01
    assert result["total_loss"] == pytest.approx(result["negative_elbo"] + penalty, rel=1e-5)


def test_gradients_reach_every_weight(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    vae.compile(optimizer=keras.optimizers.SGD(1e-3))
    before = [weight.copy() for weight in vae.get_weights()]
    vae.fit(images, epochs=1, verbose=0)
    assert all(not np.array_equal(old, new) for old, new in zip(before, vae.get_weights(), strict=True))


def test_uint8_images_and_equal_floats_have_equal_results(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    np.testing.assert_allclose(vae.elbo(images), vae.elbo(images.astype("float32") / 255), rtol=1e-6)
    np.testing.assert_allclose(vae.encode(images).z_mean, vae.encode(images / 255).z_mean, rtol=1e-5, atol=1e-6)


def test_inference_does_not_depend_on_the_batch_size(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    np.testing.assert_allclose(vae.elbo(images, batch_size=5), vae.elbo(images, batch_size=100), rtol=1e-5)
    np.testing.assert_allclose(vae.reconstruct(images, batch_size=7), vae.reconstruct(images), rtol=1e-4, atol=1e-6)


def test_reconstruct_decodes_the_posterior_means(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    np.testing.assert_array_equal(vae.reconstruct(images), vae.decode(vae.encode(images).z_mean))


def test_samples_repeat_with_a_seed_and_differ_without(make_vae: MakeVAE) -> None:
    vae = make_vae()
    np.testing.assert_array_equal(vae.sample(3, seed=1), vae.sample(3, seed=1))
    assert not np.array_equal(vae.sample(3, seed=1), vae.sample(3, seed=2))
    assert not np.array_equal(vae.sample(3), vae.sample(3))


def test_elbo_repeats_with_a_seed_and_differs_between_seeds(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    assert not np.array_equal(vae.elbo(images, seed=0), vae.elbo(images, seed=1))
    np.testing.assert_array_equal(vae.elbo(images, seed=4), vae.elbo(images, seed=4))


def test_elbo_is_the_mean_log_weight_and_a_lower_bound_on_log_p(make_vae: MakeVAE, images: Array) -> None:
    """With weights w = p(x|z) p(z) / q(z|x), E[log w] is the ELBO, and the log of their mean approaches log p(x)."""
    vae, draws = make_vae(), 500
    rng = np.random.default_rng(0)
    # With large weights, the decoder depends on z, q(z|x) differs from p(z|x), and the bound is far from tight.
    for network in (vae.encoder, vae.decoder):
        network.set_weights([rng.normal(0, 0.3, weight.shape) for weight in network.get_weights()])
    x = images.astype("float64") / 255
    mean, log_var = (moment.astype("float64")[:, np.newaxis] for moment in vae.encode(images)[:2])
    noise = rng.standard_normal((len(x), draws, 3))
    z = mean + np.exp(log_var / 2) * noise
    logits = ops.convert_to_numpy(vae.decoder.predict_on_batch(z.reshape(-1, 3).astype("float32"))).astype("float64")
    logits = logits.reshape(len(x), draws, *x.shape[1:])
    log_likelihood = (x[:, np.newaxis] * logits - np.logaddexp(0, logits)).sum((2, 3, 4))
    # log p(x|z) + log p(z) − log q(z|x); the constants with 2π cancel.
    log_w = log_likelihood + 0.5 * (noise**2 + log_var - z**2).sum(2)
    log_p = np.logaddexp.reduce(log_w, axis=1) - np.log(draws)

    # Each row has its own noise, so repeated images have independent draws.
    elbo = vae.elbo(np.repeat(images, 200, axis=0), seed=1).reshape(len(images), 200).astype("float64")
    assert (log_p > elbo.mean(1) + 1).all()
    error = np.sqrt((log_w.var(1) / draws + elbo.var(1) / 200).sum()) / len(images)
    assert error < 0.05
    assert log_w.mean() == pytest.approx(elbo.mean(), abs=4 * error)


def test_sigmoid_decoder_equals_a_decoder_that_returns_logits(make_vae: MakeVAE, images: Array) -> None:
    logits = make_vae()
    outputs = keras.layers.Activation("sigmoid")(logits.decoder.output)
    probabilities = VAE(
        logits.encoder, keras.Model(logits.decoder.input, outputs), likelihood=Bernoulli(from_logits=False), seed=5
    )
    np.testing.assert_allclose(probabilities.elbo(images), logits.elbo(images), rtol=1e-5)
    np.testing.assert_allclose(probabilities.reconstruct(images), logits.reconstruct(images), atol=1e-6)


def test_bernoulli_of_probabilities_equals_the_crossentropy_of_keras(images: Array) -> None:
    rng = np.random.default_rng(0)
    x, p = images / np.float32(255), np.clip(rng.random(images.shape, "float32"), 0, 1)
    p[0, 0, 0, 0], p[0, 0, 1, 0] = 0.0, 1.0
    expected = ops.sum(ops.binary_crossentropy(x, p, from_logits=False), axis=(1, 2, 3))
    got = -ops.convert_to_numpy(Bernoulli(from_logits=False)(ops.convert_to_tensor(p)).log_prob(x))
    np.testing.assert_allclose(got, ops.convert_to_numpy(expected), rtol=1e-4)


def test_default_is_the_classic_model() -> None:
    vae = VAE()
    assert vae.image_shape == (28, 28, 1)
    assert vae.latent_dim == 2
    assert (vae.prior, vae.likelihood, vae.objective) == (StandardNormal(), Bernoulli(), ELBO(beta=1.0))
    parameters = {name: getattr(vae, name).count_params() for name in ("encoder", "decoder")}
    assert parameters == {"encoder": 69_076, "decoder": 65_089}


def test_subclassed_encoder_and_sequential_decoder_are_accepted(images: Array) -> None:
    @keras.saving.register_keras_serializable("tests")
    class Encoder(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.flatten, self.mean, self.log_var = (
                keras.layers.Flatten(),
                keras.layers.Dense(2),
                keras.layers.Dense(2),
            )

        def call(self, x: object) -> tuple[object, object]:
            features = self.flatten(x)
            return self.mean(features), self.log_var(features)

    decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(99), keras.layers.Reshape((9, 11, 1))])
    vae = VAE(Encoder(), decoder)
    with pytest.raises(InputError, match="not known yet"):
        vae.sample(1)
    vae.compile("adam")
    vae.fit(images, verbose=0)
    assert vae.elbo(images).shape == (24,)


@pytest.mark.parametrize("latent_dim", [1, 7])
def test_color_images_and_any_latent_size_are_supported(make_vae: MakeVAE, latent_dim: int) -> None:
    vae = make_vae((5, 8, 3), latent_dim, likelihood=Bernoulli(binarize="dynamic"))
    x = np.random.default_rng(0).integers(0, 256, (6, 5, 8, 3), dtype="uint8")
    vae.compile("adam")
    vae.fit(x, verbose=0)
    assert vae.sample(2, seed=0).shape == (2, 5, 8, 3)
    assert vae.encode(x).z_log_var.shape == (6, latent_dim)


def test_positional_arguments_and_validation_split_work_as_in_keras(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    vae.compile("adam")
    history = vae.fit(images, None, 10, 2, 0, None, 0.25).history
    assert len(history["val_negative_elbo"]) == 2
    assert int(keras.ops.convert_to_numpy(vae.step)) == 2 * 2, "18 of 24 images are two batches of up to ten"
    assert len(vae.evaluate(images, None, 10, 0)) == len(vae.metrics_names)
    assert len(vae.predict(images, 10, 0).reconstruction) == 24


@on_tensorflow("only TensorFlow has a faster input pipeline than Keras's")
def test_arrays_use_the_pipeline_of_the_backend(
    make_vae: MakeVAE, images: Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    fed, feed = [], backend.array_pipeline

    def record(arrays: Any, *how: Any) -> Any:
        fed.append(arrays)
        return feed(arrays, *how)

    monkeypatch.setattr(backend, "array_pipeline", record)
    vae = make_vae()
    vae.compile("adam")
    vae.fit(images, validation_split=0.5, verbose=0)
    assert [len(arrays) for arrays in fed[:2]] == [12, 12]
    for act in (vae.evaluate, vae.predict):
        act(images, verbose=0)
        assert fed[-1] is images


def test_targets_and_weights_are_rejected_with_a_remedy(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    vae.compile("adam")
    with pytest.raises(InputError, match="an unconditional model has no targets"):
        vae.fit(images, validation_data=(images, images), verbose=0)
    with pytest.raises(InputError, match="an unconditional model has no targets"):
        vae.fit(images, images, verbose=0)
    with pytest.raises(InputError, match="sample_weight"):
        vae.evaluate(images, sample_weight=np.ones(24), verbose=0)


@pytest.mark.parametrize("call", ["fit", "evaluate", "predict", "encode", "reconstruct", "elbo"])
def test_every_entry_point_rejects_floats_up_to_255(call: str, make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    vae.compile("adam")
    with pytest.raises(InputError, match="divide by 255"):
        getattr(vae, call)(images.astype("float32"))


def test_validation_images_are_checked_before_the_first_step(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    vae.compile("adam")
    floats = images.astype("float32")
    for held_out in (floats, (floats,)):
        with pytest.raises(InputError, match="divide by 255"):
            vae.fit(images, validation_data=held_out, verbose=0)
    assert int(keras.ops.convert_to_numpy(vae.step)) == 0


def test_components_that_do_not_fit_are_rejected() -> None:
    network, shape = Conv(widths=(2,), dense_units=2), (8, 8, 1)
    encoder, decoder = network.encoder(shape, 2), network.decoder(2, shape)
    with pytest.raises(InputError, match="decoder = None"):
        VAE(encoder)
    with pytest.raises(InputError, match=r"decoder outputs \(8, 8, 3\)"):
        VAE(encoder, network.decoder(2, (8, 8, 3)))
    with pytest.raises(InputError, match=r"encoder outputs .* does not fit the posterior"):
        VAE(keras.Model(encoder.input, [*encoder.outputs, encoder.outputs[0]]), decoder)
    with pytest.raises(InputError, match="ends in a sigmoid"):
        VAE(encoder, keras.Model(decoder.input, keras.layers.Conv2D(1, 1, activation="sigmoid")(decoder.output)))
    with pytest.raises(InputError, match="without an activation"):
        VAE(encoder, decoder, likelihood=Bernoulli(from_logits=False))
    with pytest.raises(InputError, match=r"ContinuousBernoulli\(\): it expects logits"):
        VAE(
            encoder,
            keras.Model(decoder.input, keras.layers.Conv2D(1, 1, activation="sigmoid")(decoder.output)),
            likelihood=ContinuousBernoulli(),
        )
    z_mean, z_log_var = encoder.outputs
    with pytest.raises(InputError, match="a dict of z_mean, z_log_var: the order is ambiguous"):
        VAE(keras.Model(encoder.input, {"z_mean": z_mean, "z_log_var": z_log_var}), decoder)


def test_default_batch_size_is_smaller_for_large_decoder_outputs(make_vae: MakeVAE) -> None:
    network, likelihood = Conv(widths=(2,), dense_units=2), Categorical()
    vae = VAE(network.encoder((8, 8, 1), 2), network.decoder(2, (8, 8, 256)), likelihood=likelihood, seed=0)
    assert (vae.fitting_batch_size(), make_vae((8, 8, 1)).fitting_batch_size()) == (32, 1024)


def test_losses_that_are_not_finite_are_reported_as_nan(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae()
    vae.compile(optimizer="sgd")
    vae.encoder.get_layer("z_mean").bias.assign(np.full(3, np.nan))
    for found in (vae.evaluate(images, verbose=0, return_dict=True), vae.train_on_batch(images, return_dict=True)):
        assert np.isnan([found["total_loss"], found["kl_loss"], found["negative_elbo"]]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda vae: vae.sample(0), "n = 0"),
        (lambda vae: vae.decode(np.zeros((3, 2))), r"z.shape = \(3, 2\): this model decodes vectors; pass \(n, 3\)"),
        (lambda vae: vae.decode(np.zeros((0, 3))), "n ≥ 1"),
        (lambda vae: vae.encode(np.zeros((2, 9, 11, 1), "uint8"), batch_size=0), "batch_size = 0"),
    ],
)
def test_invalid_arguments_of_inference_methods_are_rejected(
    call: Callable[[VAE], object], message: str, make_vae: MakeVAE
) -> None:
    with pytest.raises(InputError, match=message):
        call(make_vae())


@pytest.mark.parametrize("order", ["import keras, keras_vae", "import keras_vae; keras_vae.VAE; import keras"])
def test_file_loads_in_a_process_that_only_imports_the_package(order: str, make_vae: MakeVAE, tmp_path: Path) -> None:
    make_vae().save(tmp_path / "vae.keras")
    code = f"{order}; print(keras.saving.load_model({str(tmp_path / 'vae.keras')!r}).latent_dim)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "3", done.stderr


def test_codes_of_dynamically_binarized_images_do_not_depend_on_their_row(make_vae: MakeVAE, images: Array) -> None:
    vae = make_vae(likelihood=Bernoulli(binarize="dynamic"))
    codes = vae.encode(images, seed=2).z_mean
    np.testing.assert_allclose(vae.encode(images[::-1], seed=2).z_mean[::-1], codes, atol=1e-5)
    np.testing.assert_allclose(vae.encode(images[9:11], seed=2).z_mean, codes[9:11], atol=1e-5)
    assert (abs(vae.encode(images, seed=3).z_mean - codes).max(axis=1) > 1e-4).all()
