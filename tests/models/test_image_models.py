"""`image_encoder` and `image_decoder`: Keras models of images that share a VAE's weights, on every backend."""

from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_vae import VAE, VQVAE, BaseVAE, HierarchicalVAE
from keras_vae.components.autoregressive_prior import AutoregressivePrior
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.likelihoods import Normal
from keras_vae.components.quantizers import VectorQuantizerEMA
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.networks import Conv

SHAPE = (9, 11, 1)


def vector() -> BaseVAE:
    return VAE(latent_dim=3, image_shape=SHAPE, likelihood=Normal(), seed=0)


def ladder() -> BaseVAE:
    return HierarchicalVAE(SHAPE, widths=(2, 4), groups=(1, 1), latent_channels=1, seed=0)


def codebook() -> BaseVAE:
    parts = {"quantizer": VectorQuantizerEMA(num_codes=8), "prior": AutoregressivePrior(4, 1)}
    return VQVAE.from_network(Conv(widths=(2, 4), dense_units=4), SHAPE, code_dim=4, seed=0, **parts)


@pytest.mark.parametrize("make", [vector, ladder, codebook])
def test_image_models_equal_encode_and_decode_before_and_after_loading(
    make: Callable[[], BaseVAE], images: Array, tmp_path: Path
) -> None:
    model = make()
    encoding = model.encode(images)
    decoded = model.decode(encoding.codes)
    for name, network, inputs in (
        ("encoder", model.image_encoder, images),
        ("decoder", model.image_decoder, encoding.codes),
    ):
        network.save(tmp_path / f"{name}.keras")
        loaded = keras.saving.load_model(tmp_path / f"{name}.keras", safe_mode=True)
        for found in (network.predict(inputs, verbose=0), loaded.predict(inputs, verbose=0)):
            wanted = encoding.as_dict() if name == "encoder" else {"images": decoded}
            for key, values in (found if name == "encoder" else {"images": found}).items():
                np.testing.assert_allclose(values, wanted[key], atol=1e-5)


def test_image_encoder_shares_the_weights_of_the_vae(images: Array) -> None:
    vae = vector()
    before = vae.image_encoder.predict(images, verbose=0)["z_mean"]
    assert {id(weight) for weight in vae.image_encoder.trainable_weights} == {
        id(weight) for weight in vae.encoder.trainable_weights
    }
    vae.compile(keras.optimizers.Adam(0.01))
    vae.fit(images, verbose=0)
    after = vae.image_encoder.predict(images, verbose=0)["z_mean"]
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, vae.encode(images).z_mean, atol=1e-5)


def test_image_encoder_can_be_trained_inside_another_model(images: Array) -> None:
    vae = vector()
    inputs = keras.Input(SHAPE, dtype="uint8")
    classifier = keras.Model(inputs, keras.layers.Dense(2)(vae.image_encoder(inputs)["z_mean"]))
    classifier.compile(keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = vae.encode(images).z_mean
    classifier.fit(images, np.arange(24) % 2, verbose=0)
    assert np.abs(vae.encode(images).z_mean - before).max() > 1e-6


def test_image_models_of_a_conditional_vae_accept_a_dict(images: Array) -> None:
    vae = VAE(latent_dim=2, image_shape=SHAPE, condition=ClassLabel(3), seed=0)
    labels = np.arange(24, dtype="int32") % 3
    found = vae.image_encoder.predict({"images": images, "condition": labels}, verbose=0)["z_mean"]
    np.testing.assert_allclose(found, vae.encode(images, condition=labels).z_mean, atol=1e-5)
    decoded = vae.image_decoder.predict({"codes": found, "condition": labels}, verbose=0)
    np.testing.assert_allclose(decoded, vae.decode(found, condition=labels), atol=1e-5)


def test_image_encoder_checks_images_that_are_not_symbolic(images: Array) -> None:
    encoder = vector().image_encoder
    for call in (encoder, encoder.predict, encoder.predict_on_batch):
        with pytest.raises(InputError, match=r"^images: floats from 0 to .*divide by 255"):
            call(images.astype("float32"))
        with pytest.raises(InputError, match=r"^images.dtype = int64: not supported"):
            call(images.astype("int64"))
    assert encoder(keras.Input(SHAPE))["z_mean"].shape == (None, 3)


def test_image_models_and_the_vae_check_conditions(images: Array) -> None:
    vae = VAE(latent_dim=2, image_shape=SHAPE, condition=ClassLabel(3), seed=0)
    labels, codes = np.arange(24) % 3, np.zeros((24, 2), "float32")
    for call in (vae, vae.image_encoder, vae.image_encoder.predict):
        with pytest.raises(InputError, match=r"^condition = 3: not a class label; pass labels from 0 to 2$"):
            call({"images": images, "condition": labels + 2})
        with pytest.raises(
            InputError, match=r"^condition = None: this model is conditioned on .*; pass {.images.: x, "
        ):
            call(images)
    for call in (vae.image_decoder, vae.image_decoder.predict):
        with pytest.raises(InputError, match=r"^condition = 3: not a class label"):
            call({"codes": codes, "condition": labels + 2})
        with pytest.raises(InputError, match=r"^condition = None: this model is conditioned on .*; pass {.codes.: z, "):
            call(codes)
        with pytest.raises(InputError, match=r"^inputs = dict of code: not the codes; pass {.codes.: z}"):
            call({"code": codes})


@pytest.mark.parametrize("condition", [None, ClassLabel(3)])
def test_exported_image_models_equal_the_models(condition: ClassLabel | None, images: Array, tmp_path: Path) -> None:
    vae = VAE(latent_dim=2, image_shape=SHAPE, condition=condition, seed=0)
    codes, labels = np.ones((24, 2), "float32"), np.arange(24, dtype="int32") % 3
    encoder_inputs, decoder_inputs = images, codes
    if condition is not None:
        encoder_inputs = {"images": images, "condition": labels}
        decoder_inputs = {"codes": codes, "condition": labels}
    for network, inputs in ((vae.image_encoder, encoder_inputs), (vae.image_decoder, decoder_inputs)):
        try:
            network.export(tmp_path / network.name, verbose=False)
        except RunError as error:
            assert keras.backend.backend() != "tensorflow"
            assert "use `vae export`, or KERAS_BACKEND=tensorflow" in str(error)  # noqa: PT017
            continue
        tf = pytest.importorskip("tensorflow")
        loaded = tf.saved_model.load(str(tmp_path / network.name))
        found = loaded.serve(inputs)
        keras.tree.map_structure(
            lambda one, other: np.testing.assert_allclose(one, other, atol=1e-5),
            dict(found) if isinstance(found, dict) else found,
            network.predict(inputs, verbose=0),
        )


def test_file_of_a_vae_contains_each_weight_once(images: Array, tmp_path: Path) -> None:
    vae = vector()
    vae.save(tmp_path / "before.keras")
    vae.encode(images)
    vae.save(tmp_path / "after.keras")
    sizes = [(tmp_path / f"{name}.keras").stat().st_size for name in ("before", "after")]
    assert sizes[1] == pytest.approx(sizes[0], rel=0.02)
