"""Every entry point rejects invalid arguments in one line, on every backend."""

import re
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from keras_vae import VAE, HierarchicalVAE, InputError, load
from keras_vae.components.conditions import ClassLabel, ContinuousCondition
from keras_vae.components.priors import MixtureOfNormals
from keras_vae.core.typing import Array
from keras_vae.models.vq import VQVAE
from keras_vae.networks import MLP, Conv, ResNet

MakeVAE = Callable[..., VAE]
NAN = float("nan")


@pytest.fixture
def vae(make_vae: MakeVAE) -> VAE:
    vae = make_vae()
    vae.compile(keras.optimizers.SGD(0.0))
    return vae


def assert_one_line(call: Callable[[], Any], message: str) -> None:
    with pytest.raises(InputError) as error:
        call()
    text = str(error.value)
    assert "\n" not in text
    assert "\x1b" not in text
    assert re.search(message, text), text


@pytest.mark.parametrize("value", [0, -1, 1.5, "3", True, NAN])
def test_counts_are_integers_of_at_least_one(value: Any, vae: VAE, images: Array) -> None:
    ending = f" = {re.escape(repr(value))}: not a positive integer; pass an integer ≥ 1$"
    for call in (vae.encode, vae.reconstruct, vae.elbo):
        assert_one_line(lambda: call(images, batch_size=value), f"^batch_size{ending}")  # noqa: B023
    assert_one_line(lambda: vae.decode(np.zeros((2, 3)), batch_size=value), f"^batch_size{ending}")
    for call in (vae.fit, vae.evaluate, vae.predict, vae.image_encoder.predict):
        assert_one_line(lambda: call(images, batch_size=value, verbose=0), f"^batch_size{ending}")  # noqa: B023
    for name in ("epochs", "steps_per_epoch", "validation_steps", "validation_batch_size", "validation_freq"):
        assert_one_line(lambda: vae.fit(images, validation_data=images, **{name: value}), f"^{name}{ending}")  # noqa: B023
    for call in (vae.evaluate, vae.predict):
        assert_one_line(lambda: call(images, steps=value), f"^steps{ending}")  # noqa: B023
    for call in (vae.sample, vae.sample_prior):
        assert_one_line(lambda: call(n=value), f"^n{ending}")  # noqa: B023
    assert_one_line(lambda: VAE(latent_dim=value), f"^latent_dim{ending}")


@pytest.mark.parametrize("value", [-1, 2**31, 1.5, "a", True, NAN, [1]])
def test_seeds_are_unsigned_integers(value: Any, vae: VAE, images: Array) -> None:
    message = rf"^seed = {re.escape(repr(value))}: not a seed; pass an integer from 0 to 2147483647$"
    for call in (vae.elbo, vae.encode, vae.log_likelihood, vae.sample_posterior):
        assert_one_line(lambda: call(images, seed=value), message)  # noqa: B023
    for call in (vae.sample, vae.sample_prior):
        assert_one_line(lambda: call(2, seed=value), message)  # noqa: B023
    assert_one_line(lambda: VAE(seed=value), message)


def test_largest_and_numpy_integers_are_accepted(vae: VAE, images: Array) -> None:
    assert (
        VAE(latent_dim=np.int64(3), image_shape=(np.int32(8), 8, 1), seed=2**31 - 1).sample(np.int64(2)).shape[0] == 2
    )
    assert len(vae.elbo(images, batch_size=np.int64(5), seed=np.uint8(3))) == 24


@pytest.mark.parametrize("value", [-0.5, 1.0, 1, NAN, "0.5", True, None, 0.99])
def test_validation_split_is_a_fraction_that_leaves_images(value: Any, vae: VAE, images: Array) -> None:
    assert_one_line(lambda: vae.fit(images, validation_split=value), rf"^validation_split = {value!r}: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"initial_epoch": -1}, "^initial_epoch = -1: not an epoch; pass an integer ≥ 0$"),
        ({"verbose": "yes"}, "^verbose = 'yes': unknown; pass 0, 1, 2 or 'auto'$"),
        ({"shuffle": "yes"}, "^shuffle = 'yes': not a truth value"),
        ({"callbacks": "stop"}, r"^callbacks = 'stop': not a callback; pass instances of keras\.callbacks\.Callback$"),
        ({"callbacks": [3]}, "^callbacks = 3: not a callback"),
        ({"callbacks": keras.callbacks.History}, "^callbacks = type: not a callback"),
    ],
)
def test_options_of_fit_are_checked(arguments: dict[str, Any], message: str, vae: VAE, images: Array) -> None:
    assert_one_line(lambda: vae.fit(images, **arguments), message)
    history = vae.fit(images, callbacks=[keras.callbacks.History()], shuffle=np.bool(False), verbose=0).history
    assert np.isfinite(history["total_loss"])


NOT_IMAGES = ["x", 3, 1.5, True, b"x", object(), set(), iter([]), np.array(["a"]), lambda: 0, keras.layers.Dense(1)]


@pytest.mark.parametrize("value", NOT_IMAGES, ids=lambda value: type(value).__name__)
def test_other_objects_than_images_are_rejected_everywhere(value: Any, vae: VAE) -> None:
    names = ("fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch", "__call__")
    for name in (*names, "encode", "elbo", "reconstruct", "log_likelihood", "sample_posterior", "initialize_prior"):
        assert_one_line(lambda: getattr(vae, name)(value), "^(x = .*: not images; pass an array|images)")  # noqa: B023
    assert_one_line(lambda: vae.image_encoder(value), "^(x = .*: not images; pass an array|images)")


@pytest.mark.parametrize("value", [[1, 2], [[1, 2], [3]], [], (), {}, {"images": "x"}, {"images": None}])
def test_lists_and_dicts_without_images_are_rejected(value: Any, vae: VAE) -> None:
    for name in ("fit", "evaluate", "predict", "train_on_batch", "predict_on_batch", "encode", "elbo"):
        assert_one_line(lambda: getattr(vae, name)(value), "^x = ")  # noqa: B023


CODES = {
    "NaN": (np.full((2, 3), NAN), "^z: NaN, infinite or beyond the range of float32; pass finite numbers$"),
    "infinite": (np.full((2, 3), np.inf), "^z: NaN, infinite"),
    "overflow": (np.full((2, 3), 1e300), "^z: NaN, infinite"),
    "text": ("x", "^z = 'x': not an array of numbers; pass floats$"),
    "texts": ([["1", "2", "3"]], "^z = .*not an array of numbers"),
    "ragged": ([[1, 2, 3], [4]], r"^z = \[\[1, 2, 3\], \[4\]\]: not an array of numbers"),
    "None": (None, "^z = None: not an array of numbers"),
    "complex": (np.zeros((2, 3), complex), "^z = ndarray: not an array of numbers"),
    "number": (3, r"^z\.shape = \(\): this model decodes vectors"),
}


@pytest.mark.parametrize("case", CODES)
def test_codes_are_finite_numbers(case: str, vae: VAE) -> None:
    z, message = CODES[case]
    for call in (vae.decode, vae.image_decoder, vae.image_decoder.predict):
        assert_one_line(lambda: call(z), message)  # noqa: B023


def test_replaced_random_numbers_are_checked_and_cast(vae: VAE, images: Array) -> None:
    noise = np.random.default_rng(0).normal(size=(24, 1, 3))
    for call in (vae, vae.predict_on_batch):
        z = keras.ops.convert_to_numpy(call({"images": images, "noise": noise}).z)
        np.testing.assert_allclose(z, keras.ops.convert_to_numpy(call({"images": images, "codes": noise}).z) * 0 + z)
        for name in ("noise", "codes"):
            assert_one_line(
                lambda: call({"images": images, name: noise[:3]}),  # noqa: B023
                rf"^{name}\.shape = \(3, 1, 3\): does not fit the images; pass \(24, None, 3\)$",
            )
            assert_one_line(lambda: call({"images": images, name: np.full_like(noise, NAN)}), f"^{name}: NaN")  # noqa: B023
        assert_one_line(lambda: call({"images": images, "features": 3}), "^features = 3: not arrays")  # noqa: B023
    for call in (vae.encode, vae.elbo, vae.reconstruct):
        assert_one_line(lambda: call({"images": images, "noise": noise}), "^x = dict of images, noise: unknown 'noise'")  # noqa: B023


def test_samples_that_would_not_fit_in_memory_are_refused(vae: VAE, images: Array) -> None:
    # 10⁸ images of 9 × 11 floats of four bytes take 36.9 GiB; 4 GiB hold 2³⁰ // 99 = 10,845,877 of them.
    message = "^n = 100000000: needs 36.9 GiB of memory; pass at most 10845877, in several calls with different seeds$"
    for call in (vae.sample, vae.sample_prior):
        assert_one_line(lambda: call(10**8), message)  # noqa: B023
    assert_one_line(lambda: vae.elbo_terms(images, draws=10**9), "^draws = 1000000000: needs 268.2 GiB of memory")


def test_hierarchical_prior_is_sampled_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    ladder = HierarchicalVAE((8, 8, 1), widths=(4,), groups=(1,), latent_channels=2, seed=0)
    expected = ladder.sample_prior(5, seed=1)
    sizes = []
    top_down = ladder._top_down
    monkeypatch.setattr(ladder, "fitting_batch_size", lambda draws=1, image_shape=None: 2)
    monkeypatch.setattr(
        ladder, "_top_down", lambda start, *args: sizes.append(start.shape[0]) or top_down(start, *args)
    )
    np.testing.assert_allclose(ladder.sample_prior(5, seed=1), expected, rtol=1e-5, atol=1e-6)
    assert sizes == [2, 2, 1]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: VAE(latent_dim=10**9), "^latent_dim = 1000000000: too large; pass an integer from 1 to 65536$"),
        (lambda: VAE(latent_dim=2**70), "^latent_dim = 1180591620717411303424: too large"),
        (lambda: VAE(image_shape=(28, 28, 10**9)), r"^image_shape = \(28, 28, 1000000000\): too large; pass a shape"),
        (lambda: VAE(image_shape=(28.0, 28, 1)), r"^image_shape = \(28\.0, 28, 1\): not three integers ≥ 1"),
        (lambda: VAE(image_shape=(True, 28, 1)), r"^image_shape = \(True, 28, 1\): not three integers ≥ 1"),
        (lambda: HierarchicalVAE(8), "^image_shape = 8: not three integers ≥ 1"),
        (lambda: HierarchicalVAE("888"), "^image_shape = '888': not three integers ≥ 1"),
        (lambda: HierarchicalVAE(groups=3), "^groups = 3: not a list"),
        (
            lambda: HierarchicalVAE(groups=(1, 1, 10**9)),
            r"^groups = \[1, 1, 1000000000\]: needs one number from 0 to 1000",
        ),
        (lambda: HierarchicalVAE(groups=(1, 1, 1.5)), r"^groups = \[1, 1, 1\.5\]: needs one number"),
        (lambda: HierarchicalVAE(blocks=10**9), "^blocks = 1000000000: too large; pass an integer from 1 to 1000$"),
        (lambda: HierarchicalVAE(latent_channels="x"), "^latent_channels = 'x': not a positive integer"),
        (lambda: Conv(widths=(4, 10**9)), "^widths = 1000000000: too large; pass an integer from 1 to 65536$"),
        (lambda: MLP(widths=(1.5,)), r"^widths = \[1\.5\]: empty or below 1"),
        (lambda: ResNet(blocks="2"), "^blocks = '2': not an integer"),
        (lambda: Conv().encoder((8, 8, 1), "3"), "^latent_dim = '3': not a positive integer"),
        (lambda: ClassLabel("3"), "^classes = .3.: not an integer"),
        (lambda: ClassLabel(10**10), "^classes = 10000000000: too large"),
        (lambda: ContinuousCondition(1.5), r"^size = 1\.5: not an integer"),
        (lambda: MixtureOfNormals(num_components="3"), "^num_components = .3.: not a positive integer"),
        (lambda: MixtureOfNormals(num_components=10**9), "^num_components = 1000000000: too large"),
    ],
)
def test_sizes_of_models_and_components_are_bounded_integers(build: Callable[[], Any], message: str) -> None:
    assert_one_line(build, message)


@pytest.mark.parametrize("value", ["x", None, (3,), (None, 5, 5, 1), 4])
def test_input_shape_of_build_is_checked(value: Any, vae: VAE) -> None:
    assert_one_line(lambda: vae.build(value), r"^input_shape = .*(pass \(None, H, W, C\)|build a new model)$")
    vae.build((None, 9, 11, 1))


@pytest.mark.parametrize("value", [None, 3, "adamm", [], keras.optimizers.Adam])
def test_optimizers_are_checked(value: Any, vae: VAE) -> None:
    assert_one_line(lambda: vae.compile(value), "^optimizer = .*: not an optimizer; pass a name, such as 'adam'")


@pytest.mark.parametrize("value", [None, 3, [], {}, b"x", "nope", "a\0b", ""])
def test_load_rejects_other_objects_than_runs_and_files(value: Any) -> None:
    assert_one_line(lambda: load(value), "^run = ")


def test_unknown_proposals_are_rejected(vae: VAE, images: Array) -> None:
    assert_one_line(lambda: vae.log_likelihood(images, proposal=3), "^proposal = 3: not a proposal; pass one of ")


@pytest.mark.parametrize("value", [NAN, np.inf])
def test_weights_that_are_not_finite_do_not_load(value: float, vae: VAE, tmp_path: Any) -> None:
    kernel = vae.decoder.trainable_variables[-2]
    kernel.assign(keras.ops.full(kernel.shape, value))
    vae.save(tmp_path / "model.keras")
    assert_one_line(
        lambda: load(tmp_path / "model.keras"),
        r"model\.keras: the weight .+/kernel contains NaN or infinity; ",
    )


def test_codebook_sizes_are_bounded() -> None:
    network = Conv(widths=(4,), dense_units=4)
    assert_one_line(lambda: VQVAE.from_network(network, (8, 8, 1), code_dim="4"), "^code_dim = '4': not a positive int")
    assert_one_line(lambda: VQVAE.from_network(network, (8, 8, 1), code_dim=10**9), "^code_dim = 1000000000: too large")
