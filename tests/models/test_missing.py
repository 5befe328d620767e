"""Missing pixels: likelihoods of the observed ones, and imputation, against closed forms of a linear-Gaussian model."""

import contextlib

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import integrate, special, stats

from helpers import gradient, to_numpy
from keras_vae import VAE, VQVAE, BaseVAE, HierarchicalVAE, load
from keras_vae.components.likelihoods import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    Laplace,
    Likelihood,
    Normal,
)
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.networks import Conv

SHAPE, PIXELS, LATENT, SIGMA = (2, 3, 1), 6, 2, 0.05
RNG = np.random.default_rng(7)
LOADINGS = RNG.normal(size=(PIXELS, LATENT)) * 0.1
MEAN = np.full(PIXELS, 0.5)


def linear_vae(**kwargs: object) -> VAE:
    """Return the model p(x) = N(MEAN, LOADINGS LOADINGSᵀ + SIGMA² I), with an encoder that is not its posterior."""
    inputs = keras.Input((*SHAPE[:2], 2 if kwargs.get("mask_channels") else 1))
    features = layers.Flatten()(inputs)
    wide = keras.initializers.Constant(-4.0)
    z_mean = layers.Dense(LATENT, kernel_initializer=keras.initializers.RandomNormal(stddev=0.1, seed=1))(features)
    z_log_var = layers.Dense(LATENT, kernel_initializer="zeros", bias_initializer=wide)(features)
    z = keras.Input((LATENT,))
    decoded = layers.Dense(PIXELS, name="loadings")(z)
    decoder = keras.Model(z, layers.Reshape(SHAPE)(decoded))
    vae = VAE(keras.Model(inputs, [z_mean, z_log_var]), decoder, likelihood=Normal(scale=SIGMA), seed=0, **kwargs)
    decoder.get_layer("loadings").set_weights([LOADINGS.T, MEAN])
    return vae


def draw_images(n: int, seed: int) -> tuple[Array, Array]:
    """Return images from the model, and masks that hide about half of their pixels."""
    rng = np.random.default_rng(seed)
    flat = MEAN + rng.normal(size=(n, LATENT)) @ LOADINGS.T + SIGMA * rng.normal(size=(n, PIXELS))
    return np.clip(flat, 0, 1).reshape(n, *SHAPE).astype("float32"), rng.random((n, *SHAPE)) < 0.5


def conditional(image: Array, mask: Array) -> tuple[Array, Array, float]:
    """Return mean and variances of all pixels given the observed ones, and log p of those: normal conditioning."""
    covariance = LOADINGS @ LOADINGS.T + SIGMA**2 * np.eye(PIXELS)
    x, known = image.ravel().astype("float64"), mask.ravel()
    if not known.any():
        return MEAN, np.diagonal(covariance), 0.0
    between, inverse = covariance[:, known], np.linalg.inv(covariance[np.ix_(known, known)])
    mean = MEAN + between @ inverse @ (x - MEAN)[known]
    variance = np.diagonal(covariance - between @ inverse @ between.T)
    log_prob = stats.multivariate_normal(MEAN[known], covariance[np.ix_(known, known)]).logpdf(x[known])
    return mean, variance, float(log_prob)


def test_imputation_and_likelihood_equal_those_of_a_linear_gaussian_model() -> None:
    vae = linear_vae()
    images, mask = draw_images(6, seed=3)
    mask[0] = False
    exact = [conditional(*pair) for pair in zip(images, mask, strict=True)]
    imputed = vae.impute(np.where(mask, images, np.nan), samples=1000, seed=1)
    assert (imputed.effective_sample_size > 300).all()
    for row in range(6):
        mean, variance, log_prob = exact[row]
        missing = ~mask[row].ravel()
        assert imputed.log_likelihood[row] == pytest.approx(log_prob, abs=0.1)
        deviation = np.sqrt(variance[missing])
        np.testing.assert_allclose(imputed.images[row].ravel()[missing], mean[missing], atol=0.25 * deviation.max())
        for bounds, quantile in ((imputed.lower, 0.05), (imputed.upper, 0.95)):
            expected = mean[missing] + stats.norm.ppf(quantile) * deviation
            np.testing.assert_allclose(bounds[row].ravel()[missing], expected, atol=0.5 * deviation.max())
        np.testing.assert_array_equal(imputed.images[row][mask[row]], images[row][mask[row]])
        np.testing.assert_array_equal(imputed.lower[row][mask[row]], images[row][mask[row]])
    found = vae.log_likelihood({"images": images, "mask": mask}, samples=1000, seed=1)
    np.testing.assert_allclose(found, imputed.log_likelihood, atol=1e-4)


def test_imputation_of_one_latent_dimension_equals_quadrature() -> None:
    z_input = keras.Input((1,))
    hidden = layers.Dense(8, activation="tanh", kernel_initializer=keras.initializers.RandomNormal(0, 2, seed=4))
    last = layers.Dense(PIXELS, kernel_initializer=keras.initializers.RandomNormal(0, 1, seed=5))
    decoder = keras.Model(z_input, layers.Reshape(SHAPE)(last(hidden(z_input))))
    inputs = keras.Input(SHAPE)
    zero = layers.Dense(1, kernel_initializer="zeros")
    vae = VAE(keras.Model(inputs, [zero(layers.Flatten()(inputs))] * 2), decoder, likelihood=Bernoulli(), seed=0)
    image = np.array([1, 0, 1, 1, 0, 0], "float32").reshape(1, *SHAPE)
    mask = np.array([1, 1, 0, 1, 0, 0], bool).reshape(1, *SHAPE)
    grid = np.linspace(-6, 6, 2001)
    probs = to_numpy(special.expit(to_numpy(decoder(grid[:, None].astype("float32"))))).reshape(len(grid), PIXELS)
    x, known = image.ravel(), mask.ravel()
    joint = stats.norm.pdf(grid) * np.prod(np.where(x == 1, probs, 1 - probs)[:, known], axis=1)
    evidence = integrate.simpson(joint, x=grid)
    expected = integrate.simpson(joint[:, None] * probs, x=grid, axis=0) / evidence
    # The encoder returns the prior, so that the proposal is the prior.
    imputed = vae.impute({"images": image, "mask": mask}, samples=20_000, proposal="posterior")
    assert imputed.log_likelihood[0] == pytest.approx(np.log(evidence), abs=0.02)
    np.testing.assert_allclose(imputed.images.ravel()[~known], expected[~known], atol=0.02)


def models() -> dict[str, BaseVAE]:
    """Return small models of all kinds for images of 8×8."""
    shape = (8, 8, 1)
    conv = Conv(widths=(2,), dense_units=4)
    posterior = {"z_mean": 2, "z_log_var": 2}
    return {
        "vae": VAE(conv.encoder(shape, 2, posterior), conv.decoder(2, shape), seed=0),
        "masked encoder": VAE(
            conv.encoder((8, 8, 2), 2, posterior), conv.decoder(2, shape), mask_channels=True, seed=0
        ),
        "ladder": HierarchicalVAE(shape, widths=(2, 3), groups=(1, 1), latent_channels=1, mask_channels=True, seed=0),
        "vq": VQVAE.from_network(conv, shape, code_dim=3, mask_channels=True, seed=0),
    }


@pytest.mark.parametrize("name", ["vae", "ladder", "vq"])
def test_a_complete_mask_changes_nothing_and_hidden_values_count_nowhere(name: str) -> None:
    model = models()[name]
    rng = np.random.default_rng(0)
    images, mask = rng.random((4, 8, 8, 1)).astype("float32"), rng.random((4, 8, 8)) < 0.5
    noise = rng.normal(size=(4, 1, model.latent_dim)).astype("float32")
    plain = model.loss_terms({"images": images, "noise": noise})
    complete = model.loss_terms({"images": images, "noise": noise, "mask": np.ones((4, 8, 8, 1), bool)})
    for one, other in zip(plain, complete, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(other))
    hidden = {"images": np.where(mask[..., None], images, np.nan).astype("float32"), "mask": mask}
    one = model.elbo(hidden, seed=1)
    other = model.elbo({"images": np.where(mask[..., None], images, 0.9), "mask": mask}, seed=1)
    np.testing.assert_array_equal(one, other)
    assert np.isfinite(one).all()
    assert (one != model.elbo(images, seed=1)).all()
    np.testing.assert_array_equal(one, model.elbo(np.ma.masked_array(images, ~mask[..., None]), seed=1))
    few = pytest.warns(UserWarning, match="the effective sample size is below 10")
    with few if model.is_stochastic else contextlib.nullcontext():
        imputed = model.impute(hidden, samples=5, proposal="posterior")
    assert imputed.images.shape == images.shape
    assert np.isfinite(imputed.upper).all()
    assert (imputed.lower <= imputed.upper).all()


@pytest.mark.parametrize("name", ["vae", "vq"])
def test_training_does_not_depend_on_hidden_values(name: str) -> None:
    rng = np.random.default_rng(0)
    images, mask = rng.random((6, 8, 8, 1)).astype("float32"), rng.random((6, 8, 8)) < 0.5
    trained = []
    for hidden in (np.nan, 0.7):
        model = models()[name]
        for variable, value in zip(model.trainable_variables, values_like(model.trainable_variables), strict=True):
            variable.assign(value)
        model.compile(optimizer=keras.optimizers.SGD(1e-3))
        x = {"images": np.where(mask[..., None], images, hidden).astype("float32"), "mask": mask}
        history = model.fit(x, epochs=1, batch_size=3, shuffle=False, verbose=0)
        assert np.isfinite(history.history["total_loss"]).all()
        trained.append([to_numpy(variable) for variable in model.trainable_variables])
    for one, other in zip(*trained, strict=True):
        np.testing.assert_array_equal(one, other)


def values_like(variables: list[keras.Variable]) -> list[Array]:
    rng = np.random.default_rng(1)
    return [0.3 * rng.normal(size=variable.shape) for variable in variables]


LIKELIHOODS = [
    (Bernoulli(), 1),
    (ContinuousBernoulli(), 3),
    (Normal(scale="pixel"), 3),
    (Laplace(scale=0.2), 3),
    (DiscretizedLogistic(), 3),
    (DiscretizedLogistic(num_components=3), 3),
    (Categorical(), 1),
]


@pytest.mark.parametrize(("likelihood", "channels"), LIKELIHOODS, ids=lambda value: str(value)[:30])
def test_log_prob_of_observed_pixels_is_the_sum_of_single_pixels(likelihood: Likelihood, channels: int) -> None:
    rng = np.random.default_rng(0)
    outputs = rng.normal(size=(2, 3, 4, likelihood.decoder_channels(channels))).astype("float32")
    images = (rng.integers(0, 256, (2, 3, 4, channels)) / 255).astype("float32")
    per_channel = likelihood.has_independent_channels
    mask = rng.random((2, 3, 4, channels if per_channel else 1)) < 0.5

    def log_prob(values: Array, mask: Array | None) -> Array:
        pixels = likelihood(ops.convert_to_tensor(values))
        return pixels.log_prob(ops.convert_to_tensor(images), None if mask is None else ops.convert_to_tensor(mask))

    whole = np.broadcast_to(mask, images.shape)
    # The log-probability of an image without one value differs by that of the value, whatever the others are.
    parts = np.zeros(2)
    for position in np.argwhere(np.ones(mask.shape[1:], bool)):
        single = np.zeros(mask.shape, bool)
        single[(slice(None), *position)] = mask[(slice(None), *position)]
        parts += to_numpy(log_prob(outputs, single))
    np.testing.assert_allclose(to_numpy(log_prob(outputs, mask)), parts, rtol=2e-5, atol=1e-4)
    np.testing.assert_array_equal(to_numpy(log_prob(outputs, np.ones_like(mask))), to_numpy(log_prob(outputs, None)))
    slopes, _ = gradient(lambda values: ops.sum(log_prob(values, mask)), outputs)
    assert np.isfinite(slopes).all()
    if likelihood.decoder_channels(channels) == channels:
        assert (slopes[~whole] == 0).all()
        assert (slopes[whole] != 0).all()


def test_single_channels_of_a_dependent_likelihood_are_not_a_number() -> None:
    likelihood = DiscretizedLogistic(num_components=2)
    outputs, images = np.ones((1, 2, 2, 20), "float32"), np.zeros((1, 2, 2, 3), "float32")
    mask = np.ones((1, 2, 2, 3), bool)
    mask[0, 0, 0, 1] = False
    found = likelihood(ops.convert_to_tensor(outputs)).log_prob(
        ops.convert_to_tensor(images), ops.convert_to_tensor(mask)
    )
    assert np.isnan(to_numpy(found)).all()
    vae = VAE(image_shape=(8, 8, 3), likelihood=likelihood, seed=0)
    mask = np.ones((2, 8, 8, 3), bool)
    mask[0, 0, 0, 1] = False
    with pytest.raises(InputError, match=r"^mask: hides single channels of pixels, but the channels"):
        vae.fit({"images": np.zeros((2, 8, 8, 3), "uint8"), "mask": mask}, verbose=0)


IMAGES = np.full((3, 2, 3, 1), 0.5, "float32")
KNOWN = np.ones((3, 2, 3), bool)


@pytest.mark.parametrize(
    ("images", "mask", "message"),
    [
        (IMAGES, KNOWN[:2], r"^mask.shape = \(2, 2, 3\): does not fit images of \(3, 2, 3, 1\); pass \(3, 2, 3\)"),
        (IMAGES, KNOWN.astype("float32"), "^mask.dtype = float32: not a mask; pass booleans"),
        (IMAGES * np.nan, None, r'^images: NaN or infinite pixels; .* \{"images": x, "mask": ~np.isnan\(x\)\}'),
        (np.where(KNOWN[..., None], np.nan, IMAGES), KNOWN, "^images: NaN or infinite pixels"),
        (
            IMAGES,
            KNOWN & (np.arange(3) > 1)[:, None, None],
            "^mask: 2 of 3 images have no observed pixel, first image 0",
        ),
        (np.ma.masked_array(IMAGES, IMAGES < 0), KNOWN, "^mask: the images are a masked array"),
    ],
)
def test_wrong_masks_are_refused_before_training(images: Array, mask: Array | None, message: str) -> None:
    vae = linear_vae()
    vae.compile()
    with pytest.raises(InputError, match=message):
        vae.fit({"images": images} if mask is None else {"images": images, "mask": mask}, verbose=0)
    assert int(vae.step) == 0


def test_metrics_of_keras_and_encoders_without_mask_are_refused() -> None:
    vae = linear_vae()
    vae.compile(metrics=["mse"])
    with pytest.raises(InputError, match=r"^metrics: metrics of Keras cannot leave out missing pixels"):
        vae.fit({"images": IMAGES, "mask": KNOWN}, verbose=0)
    network = Conv(widths=(2,), dense_units=4)
    encoder = network.encoder((8, 8, 3), 2, {"z_mean": 2, "z_log_var": 2})
    decoder = network.decoder(2, (8, 8, 1))
    with pytest.raises(InputError, match=r"^mask_channels = True: the encoder has 3"):
        VAE(encoder, decoder, mask_channels=True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"x": IMAGES}, "^mask = None: the images are complete"),
        ({"x": {"images": IMAGES, "mask": KNOWN}, "mask": KNOWN}, r'^mask, x\["mask"\]: the mask is given twice'),
        ({"x": IMAGES, "mask": KNOWN, "interval": 1.5}, "^interval = 1.5: not a probability"),
        ({"x": IMAGES, "mask": KNOWN, "samples": 0}, "^samples = 0"),
        ({"x": IMAGES, "mask": KNOWN[0]}, "^mask.shape"),
    ],
)
def test_wrong_arguments_of_impute_are_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        linear_vae().impute(**arguments)


def test_a_low_effective_sample_size_is_reported() -> None:
    vae = linear_vae()
    images, mask = draw_images(4, seed=0)
    low = r"^samples = 2: the effective sample size is below 10 for 4 of 4 images, .*; use more samples"
    with pytest.warns(UserWarning, match=f"{low}, or proposal = 'mixture'$"):
        vae.impute(images, mask, samples=2, proposal="posterior")
    with pytest.warns(UserWarning, match=f"{low}$"):
        vae.impute(images, mask, samples=2)


def test_a_model_that_encodes_masks_is_saved_with_its_setting(tmp_path: object) -> None:
    vae = linear_vae(mask_channels=True)
    images, mask = draw_images(4, seed=0)
    x = {"images": images, "mask": mask}
    vae.save(f"{tmp_path}/model.keras")
    loaded = keras.saving.load_model(f"{tmp_path}/model.keras")
    assert loaded.mask_channels
    np.testing.assert_array_equal(loaded.elbo(x), vae.elbo(x))
    assert (vae.encode(x).z_mean != vae.encode(images * mask).z_mean).any()
    with pytest.raises(InputError, match=r"^mask_channels = False: fixed when"):
        vae.mask_channels = False


def test_pretrained_models_impute() -> None:
    images = np.zeros((2, 28, 28, 1), "uint8")
    images[:, 8:20, 13:15] = 255
    mask = np.ones((2, 28, 28), bool)
    mask[:, 14:] = False
    imputed = load("mnist-2d").impute(images, mask, samples=100, proposal="mixture")
    lower_stroke = imputed.images[:, 14:19, 13:15].mean()
    assert lower_stroke > 0.5, "a stroke that is cut off continues"
    assert imputed.images[:, 14:, :4].max() < 0.05
