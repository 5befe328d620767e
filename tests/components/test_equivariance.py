"""The equivariance loss: its value computed with NumPy, its gradients, saving, and messages."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops
from tests.helpers import tensor

from keras_vae import VAE, VQVAE, InputError, conditions
from keras_vae.components.image_losses import Equivariance
from keras_vae.components.image_losses.equivariance import rotate
from keras_vae.components.likelihoods import Normal
from keras_vae.components.posteriors import Deterministic, Sampler
from keras_vae.core.typing import Array
from keras_vae.data.info import DatasetInfo
from keras_vae.networks import Conv
from keras_vae.runs.build import build_model, resolve
from keras_vae.runs.experiment import Experiment

SIZE, SCALE = 8, 0.5
MAPS = ['model.network={name="autoencoder",widths=[2,4],blocks=1,groups=2,attention=false}', "model.likelihood=normal"]


@pytest.fixture
def photos() -> Array:
    """Return random color images."""
    return np.random.default_rng(0).random((6, SIZE, SIZE, 3), dtype="float32")


def vae(*losses: Equivariance, height: int | None = None, width: int | None = None, **settings: Any) -> VAE:
    """Return a model whose networks are one convolution each: maps of half the height and width."""
    keras.utils.set_random_seed(0)
    condition = settings.get("condition")
    extra = 0 if condition is None else condition.dim
    images = keras.Input((height, width, 3 + extra))
    z = keras.Input((height and height // 2, width and width // 2, 2 + extra))
    encoder = keras.Model(images, [keras.layers.Conv2D(2, 2, strides=2)(images)])
    decoder = keras.Model(z, keras.layers.Conv2DTranspose(3, 2, strides=2)(z))
    settings = {"posterior": Deterministic(), "likelihood": Normal(scale=SCALE), **settings}
    model = VAE(encoder, decoder, image_losses=list(losses), seed=0, **settings)
    if not model.built:
        model.build((None, height or SIZE, width or SIZE, 3))
    model.compile(keras.optimizers.SGD(1e-3), run_eagerly=keras.backend.backend() != "jax")
    return model


def averaged(maps: Array, factor: int) -> Array:
    count, rows, columns, channels = maps.shape
    return maps.reshape(count, rows // factor, factor, columns // factor, factor, channels).mean(axis=(2, 4))


def expected_loss(model: VAE, x: Array, turns: Array, factors: tuple[int, ...]) -> Array:
    """Return the loss per image, computed with NumPy from the outputs of both networks."""
    z = ops.convert_to_numpy(keras.tree.flatten(model.encoder(x))[0])
    values = []
    for factor in factors:
        pair = [np.stack([np.rot90(m, int(k)) for m, k in zip(maps, turns, strict=True)]) for maps in (x, z)]
        image, code = (averaged(maps, factor) for maps in pair)
        location = ops.convert_to_numpy(model.decoder(code))
        log_prob = -0.5 * ((image - location) / SCALE) ** 2 - np.log(SCALE * np.sqrt(2 * np.pi))
        values.append(-(factor**2) * log_prob.sum(axis=(1, 2, 3)))
    return np.mean(values, axis=0)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("factors", [(1,), (1, 2, 4)])
def test_loss_equals_numpy(training: bool, factors: tuple[int, ...], photos: Array) -> None:
    model = vae(Equivariance(weight=0.7, factors=factors))
    turns = np.ones(len(photos))
    if training:
        same = Sampler(0)
        same.noise((len(photos), 1, 32))
        turns = np.floor(4 * ops.convert_to_numpy(same.uniform((len(photos),))))
        assert len(set(turns)) > 1
    loss = expected_loss(model, photos, turns, factors).mean()
    total = float(ops.convert_to_numpy(model.compute_loss(tensor(photos), training=training)))
    tracked = {name: float(metric.result()) for name, metric in model.loss_trackers.items()}
    assert tracked["equivariance_loss"] == pytest.approx(loss, rel=1e-5)
    plain = expected_loss(model, photos, np.zeros(len(photos)), (1,)).mean()
    assert tracked["reconstruction_loss"] == pytest.approx(plain, rel=1e-5)
    assert total == tracked["total_loss"] == pytest.approx(tracked["negative_elbo"] + 0.7 * loss, rel=1e-5)


def test_an_equivariant_decoder_has_the_loss_of_the_images_themselves(photos: Array) -> None:
    model = vae(Equivariance(factors=[1]))
    # The kernel repeats each position as a square, so that the order of decoding and rotating does not matter.
    kernel = np.random.default_rng(1).normal(size=(1, 1, 3, 2)).repeat(2, axis=0).repeat(2, axis=1)
    model.decoder.layers[-1].set_weights([kernel, np.zeros(3)])
    output = model(tensor(photos), training=True)
    model.compute_loss(tensor(photos), y_pred=output, training=True)
    tracked = {name: float(metric.result()) for name, metric in model.loss_trackers.items()}
    assert tracked["equivariance_loss"] == pytest.approx(tracked["reconstruction_loss"], rel=1e-5)


def test_rotate_equals_numpy() -> None:
    maps = np.random.default_rng(0).random((4, 3, 3, 2), dtype="float32")
    expected = [np.rot90(each, turns) for turns, each in enumerate(maps)]
    np.testing.assert_array_equal(ops.convert_to_numpy(rotate(tensor(maps), ops.arange(4, dtype="float32"))), expected)


def test_gradients_reach_both_networks(photos: Array) -> None:
    """One step of gradient descent with the loss differs from one without it, in the kernels of both networks."""
    kernels = []
    for losses in ([], [Equivariance()]):
        model = vae(*losses)
        model.train_on_batch(photos)
        networks = (model.encoder, model.decoder)
        kernels.append([ops.convert_to_numpy(network.layers[-1].kernel) for network in networks])
    for without, with_loss in zip(*kernels, strict=True):
        assert np.abs(without - with_loss).max() > 1e-5


def test_other_images_and_conditions(photos: Array) -> None:
    """Training on images of another size, with labels, which reach the decoder of transformed maps too."""
    model = vae(Equivariance(factors=[1, 2], rotate=False), condition=conditions.ClassLabel(classes=3))
    x, labels = photos[:, :, :4], np.arange(6) % 3
    logs = model.train_on_batch({"images": x, "condition": labels}, return_dict=True)
    assert np.isfinite(logs["equivariance_loss"])
    with pytest.raises(InputError, match=r"image_shape = \(8, 4, 3\): .* rotates squares only; pass rotate = false"):
        vae(Equivariance()).train_on_batch(x)


def test_saved_model_resumes_to_the_same_bits(photos: Array, tmp_path: Path) -> None:
    model = vae(Equivariance(factors=(1, 2), weight=2.0))
    model.train_on_batch(photos)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    config = loaded.image_losses[0].get_config()
    assert {name: config[name] for name in ("weight", "factors", "rotate")} == {
        "weight": 2.0,
        "factors": (1, 2),
        "rotate": True,
    }
    # The options of `compile` are not saved.
    loaded.run_eagerly = model.run_eagerly
    for one in (model, loaded):
        one.train_on_batch(photos[::-1])
    for left, right in zip(model.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(left), ops.convert_to_numpy(right))


def test_experiment() -> None:
    experiment = Experiment().with_overrides([*MAPS, 'model.image_losses=["equivariance"]'])
    resolved = resolve(experiment, DatasetInfo((8, 8, 3), images=16, classes=0)).experiment
    assert resolved.model.image_losses == [{"name": "equivariance", "weight": 1.0, "factors": [2], "rotate": True}]
    assert Experiment.from_toml(resolved.to_toml(), "text") == resolved


@pytest.mark.parametrize(
    ("loss", "shape", "message"),
    [
        ("factors=[3]", (8, 8, 3), "factors = [3]: 3 does not divide image_shape = (8, 8, 3); pass"),
        ("factors=[8]", (8, 8, 3), "factors = [8]: 8 does not divide latent_shape = (4, 4, 4); pass"),
        ("factors=[2]", (8, 4, 3), "image_shape = (8, 4, 3): the equivariance loss rotates squares only; pass rotate"),
        ("factors=[0]", (8, 8, 3), "factors = 0"),
        ("factors=[1], rotate=false", (8, 8, 3), "factors = [1]: no transformation of the images"),
        ("weight=0.0", (8, 8, 3), "weight = 0.0: not a valid weight"),
    ],
)
def test_transformations_that_do_not_fit_are_refused(loss: str, shape: tuple[int, ...], message: str) -> None:
    settings = [*MAPS, f'model.image_losses=[{{name="equivariance", {loss}}}]']
    with pytest.raises(InputError) as error:
        build_model(Experiment().with_overrides(settings), DatasetInfo(shape, images=16, classes=0))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_models_without_a_map_or_of_one_size_are_refused() -> None:
    with pytest.raises(InputError, match=r"image_losses\[0\] = Equivariance: transforms the latent maps of a VAE"):
        VAE(image_shape=(8, 8, 3), image_losses=[Equivariance()])
    with pytest.raises(InputError, match="but this model has none"):
        VQVAE.from_network(Conv((4, 6), 8), (8, 8, 3), code_dim=4, likelihood=Normal(), image_losses=[Equivariance()])
    with pytest.raises(InputError, match=r"factors = \[2\]: the networks accept only one size; pass \[1\]"):
        vae(Equivariance(), height=8, width=8)
    assert vae(Equivariance(factors=[1]), height=8, width=8).latent_shape == (4, 4, 2)
