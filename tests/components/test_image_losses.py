"""Image losses: the hinge loss and the gradients of a discriminator, its start, balance, saving, and messages."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from helpers import equal_arrays, gradient, tensor, weight_values
from keras_vae import VAE, VQVAE, HierarchicalVAE, InputError
from keras_vae.components.image_losses import WEIGHT_PREFIX, Adversarial
from keras_vae.components.likelihoods import Normal
from keras_vae.components.optimizers import AveragingOptimizer
from keras_vae.components.quantizers import VectorQuantizerEMA
from keras_vae.components.schedules import in_steps
from keras_vae.core.math import balanced_copies
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset
from keras_vae.data.info import DatasetInfo
from keras_vae.evaluation.likelihood import _describe_model
from keras_vae.evaluation.summary import summarize
from keras_vae.models.base import BaseVAE
from keras_vae.models.image_terms import count_parameters
from keras_vae.networks import Conv
from keras_vae.runs.build import build, build_model, resolve
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.validate import check_starts

SHAPE = (8, 8, 3)
RGB = DatasetInfo(image_shape=SHAPE, images=16, classes=0)
SMALL = [
    "model.network=conv",
    *("model.network.widths=[4, 6]", "model.network.dense_units=8", "model.likelihood=normal", "model.latent_dim=2"),
    *("training.epochs=5", "training.batch_size=8"),
]
LOSS = 'model.image_losses=[{name="adversarial", widths=[4, 8]}]'


@pytest.fixture
def photos() -> Array:
    """Return 16 random color images."""
    return np.random.default_rng(0).integers(0, 256, (16, *SHAPE), dtype=np.uint8)


def adversarial(**settings: Any) -> Adversarial:
    return Adversarial(**{"start": 0, "widths": (4, 8), **settings})


def vae(loss: Adversarial | None = None, seed: int = 0) -> VAE:
    keras.utils.set_random_seed(seed)
    conv = Conv((4, 6), 8)
    losses = [] if loss is None else [loss]
    networks = (conv.encoder(SHAPE, 2), conv.decoder(2, SHAPE))
    return VAE(*networks, likelihood=Normal(), image_losses=losses, seed=seed)


def hierarchical(loss: Adversarial) -> BaseVAE:
    return HierarchicalVAE(SHAPE, widths=(4, 8), groups=(1, 1), likelihood=Normal(), image_losses=[loss], seed=0)


def quantized(loss: Adversarial) -> BaseVAE:
    quantizer = VectorQuantizerEMA(num_codes=8)
    return VQVAE.from_network(
        Conv((4, 6), 8), SHAPE, quantizer=quantizer, code_dim=4, likelihood=Normal(), image_losses=[loss], seed=0
    )


def compiled(model: BaseVAE, optimizer: Any = "adam") -> BaseVAE:
    """Compile a model for a few steps, which are fastest without compilation, except on JAX."""
    model.compile(optimizer, run_eagerly=keras.backend.backend() != "jax")
    return model


def test_hinge_losses_and_metrics_equal_numbers_computed_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    loss = adversarial(weight=0.5, start=3)
    loss.build(SHAPE)
    real, fake = [[2.0, 0.5], [-1.0, 1.0]], [[-3.0, 0.0], [0.5, -0.5]]
    # The images and reconstructions below differ in their first pixel alone.
    outputs = {1.0: real, 0.0: fake}
    monkeypatch.setattr(
        Adversarial,
        "discriminate",
        lambda self, images, detach_weights=False: tensor([outputs[float(images[0, 0, 0, 0])]]),
    )
    images, reconstruction = ops.ones((1, *SHAPE)), ops.zeros((1, *SHAPE))
    loss_value, metrics = loss.call(images, reconstruction, ops.convert_to_tensor(3), training=True)
    # Real: relu(1 − D) = 0, 0.5, 2, 0. Fake: relu(1 + D) = 0, 1, 1.5, 0.5.
    expected = {
        "generator_loss": 3 / 4,
        "discriminator_loss": 2.5 / 4 + 3 / 4,
        "discriminator_real": 2.5 / 4,
        "discriminator_fake": -3 / 4,
        "discriminator_accuracy": (3 / 4 + 2 / 4) / 2,
    }
    assert {name: float(value[0]) for name, value in metrics.items()} == pytest.approx(expected)
    assert float(loss_value[0]) == pytest.approx(0.5 * 0.75 + 1.375)
    before = loss.call(images, reconstruction, ops.convert_to_tensor(2), training=True)
    validation = loss.call(images, reconstruction, ops.convert_to_tensor(3), training=False)
    assert float(before.loss[0]) == float(validation.loss[0]) == 0


def test_discriminator_equals_plain_numpy(photos: Array) -> None:
    loss = adversarial(widths=(4, 8))
    loss.build(SHAPE)
    rng = np.random.default_rng(1)
    loss.set_weights([rng.normal(size=weight.shape).astype("float32") for weight in loss.weights])
    images = photos[:2] / np.float32(255)
    values = {weight.name.removeprefix(WEIGHT_PREFIX): ops.convert_to_numpy(weight) for weight in loss.weights}

    def convolve(maps: Array, kernel: Array, stride: int) -> Array:
        # Padding "same": 1 and 1 for stride 2 and even sizes; 1 and 2 for stride 1.
        padded = np.pad(maps, ((0, 0), (1, 2 if stride == 1 else 1), (1, 2 if stride == 1 else 1), (0, 0)))
        size = maps.shape[1] // stride
        rows = [
            [
                np.einsum("nhwc,hwcf->nf", padded[:, stride * y : stride * y + 4, stride * x : stride * x + 4], kernel)
                for x in range(size)
            ]
            for y in range(size)
        ]
        return np.moveaxis(np.array(rows), 2, 0)

    def leaky(maps: Array) -> Array:
        return np.where(maps > 0, maps, 0.2 * maps)

    features = leaky(convolve(2 * images - 1, values["kernel_0"], 2) + values["bias_0"])
    features = convolve(features, values["kernel_1"], 2)
    for image in features:
        for group in (slice(0, 4), slice(4, 8)):
            image[..., group] = (image[..., group] - image[..., group].mean()) / np.sqrt(image[..., group].var() + 1e-5)
    features = leaky(features * values["scale_1"] + values["bias_1"])
    expected = convolve(features, values["head"], 1)[..., 0]
    np.testing.assert_allclose(ops.convert_to_numpy(loss.discriminate(tensor(images))), expected, rtol=2e-4, atol=2e-4)


@pytest.mark.parametrize("name", ["generator_loss", "discriminator_loss"])
def test_each_loss_reaches_only_its_own_player(name: str, photos: Array) -> None:
    loss = adversarial()
    loss.build(SHAPE)
    real = tensor(photos[:4] / 255)
    of_reconstruction, of_weights = gradient(
        lambda pixels: ops.sum(loss.call(real, pixels, 0, training=True).metrics[name]), photos[4:8] / 255, [loss]
    )
    is_generator = name == "generator_loss"
    assert bool(of_reconstruction.any()) == is_generator
    assert [bool(change.any()) for change in of_weights] == [not is_generator] * 6


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_balanced_gradient_equals_a_numeric_computation(scale: float) -> None:
    rng = np.random.default_rng(0)
    x, first, second, third = rng.normal(size=(4, 3, 5))

    def total(x: Any) -> Any:
        a, b, c = balanced_copies(1.0 * x, [0.5, 2.0])
        losses = (ops.sin(a) * tensor(first), 0.5 * scale * ops.square(b) * tensor(second), 2.0 * c * tensor(third))
        return sum(ops.sum(loss) for loss in losses)

    gradients = (np.cos(x) * first, scale * 2 * x * second, third)
    norms = [np.linalg.norm(gradient) for gradient in gradients]
    factors = [min(norms[0] / (norm + 1e-4), 1e4) for norm in norms[1:]]
    expected = gradients[0] + 0.5 * factors[0] * gradients[1] + 2.0 * factors[1] * gradients[2]
    np.testing.assert_allclose(gradient(total, x)[0], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("used", "expected"), [(0, 3.0), (1, 0.0)])
def test_balance_of_vanishing_gradients_is_finite(used: int, expected: float) -> None:
    found, _ = gradient(lambda x: ops.sum(3.0 * balanced_copies(1.0 * x, [1.0])[used]), np.ones((2, 2)))
    np.testing.assert_array_equal(found, np.full((2, 2), expected))


@pytest.mark.parametrize("make", [vae, hierarchical, quantized])
def test_discriminator_changes_in_every_step_after_its_start_and_in_none_before(
    make: Callable[[Adversarial], BaseVAE], photos: Array
) -> None:
    model = compiled(make(adversarial(start=2)), keras.optimizers.AdamW(1e-3, weight_decay=0.1))
    loss, generator = model.image_losses[0], model.head if isinstance(model, HierarchicalVAE) else model.decoder
    changes = []
    for _ in range(4):
        before = weight_values(loss), weight_values(generator)
        model.train_on_batch(photos[:8])
        after = weight_values(loss), weight_values(generator)
        changes.append([not any(equal_arrays(*pair)) for pair in zip(before, after, strict=True)])
    assert changes == [[False, True], [False, True], [True, True], [True, True]]


def test_nothing_of_the_model_changes_before_the_start(photos: Array) -> None:
    trained = []
    for loss in (None, adversarial(start=2)):
        model = compiled(vae(loss))
        model.fit(photos, batch_size=8, epochs=1, verbose=0, shuffle=False)
        trained.append(weight_values(model.encoder) + weight_values(model.decoder))
    for plain, other in zip(*trained, strict=True):
        np.testing.assert_allclose(plain, other, rtol=1e-5, atol=1e-7)


def test_tracked_losses(photos: Array) -> None:
    model = compiled(vae(adversarial()))
    history = model.fit(photos, batch_size=8, epochs=1, validation_data=photos, verbose=0).history
    values = {name: value[0] for name, value in history.items()}
    assert values["negative_elbo"] == pytest.approx(values["reconstruction_loss"] + values["kl_loss"], rel=1e-6)
    added = 0.5 * values["generator_loss"] + values["discriminator_loss"]
    assert values["total_loss"] == pytest.approx(values["negative_elbo"] + added, rel=1e-6)
    assert values["val_total_loss"] == pytest.approx(values["val_negative_elbo"], rel=1e-6)
    assert values["val_discriminator_loss"] > 0


@pytest.mark.parametrize("seed", range(5))
def test_training_stays_finite(seed: int, photos: Array) -> None:
    model = compiled(vae(adversarial(), seed), keras.optimizers.Adam(1e-2))
    history = model.fit(photos, batch_size=8, epochs=4, verbose=0).history
    assert np.isfinite(list(history.values())).all()
    assert all(np.isfinite(value).all() for value in weight_values(model))


def test_saved_model_contains_the_discriminator_and_resumes_to_the_same_bits(photos: Array, tmp_path: Path) -> None:
    model = compiled(vae(adversarial()))
    model.train_on_batch(photos[:8])
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.image_losses[0].get_config()["widths"] == (4, 8)
    # The options of `compile` are not saved.
    loaded.run_eagerly = model.run_eagerly
    for one in (model, loaded):
        one.train_on_batch(photos[8:])
    assert all(equal_arrays(weight_values(model), weight_values(loaded)))
    assert len(weight_values(model.image_losses[0])) == 6


def test_parameters_of_the_model_and_of_the_discriminator_are_counted_separately() -> None:
    model = vae(adversarial())
    networks = model.encoder.count_params() + model.decoder.count_params()
    # The likelihood has one learned scale. The discriminator has kernels 4×4, two biases, a scale and a head.
    discriminator = (16 * 3 * 4 + 4) + (16 * 4 * 8 + 8 + 8) + 16 * 8
    assert count_parameters(model) == {"model": networks + 1, "adversarial": discriminator}
    assert list(count_parameters(vae())) == ["model"]


def test_average_of_the_weights_leaves_out_the_discriminator(photos: Array) -> None:
    model = compiled(vae(adversarial()), AveragingOptimizer(keras.optimizers.Adam(1e-2), window=10.0))
    for _ in range(3):
        model.train_on_batch(photos[:8])
    before = weight_values(model.image_losses[0]), weight_values(model.decoder)
    model.optimizer.finalize_variable_values(model.trainable_variables)
    assert all(equal_arrays(before[0], weight_values(model.image_losses[0])))
    assert not any(equal_arrays(before[1], weight_values(model.decoder)))


def test_own_exemptions_from_weight_decay_remain(photos: Array) -> None:
    optimizer = keras.optimizers.AdamW(1e-3, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["bias"])
    model = compiled(vae(adversarial(start=9)), optimizer)
    model.train_on_batch(photos[:8])
    exempt = {weight.name for weight in model.trainable_weights if not optimizer._use_weight_decay(weight)}
    assert any(name.startswith(WEIGHT_PREFIX) for name in exempt)
    assert "bias" in exempt
    assert "kernel" not in exempt


def test_experiment_with_an_image_loss(tmp_path: Path) -> None:
    experiment = Experiment().with_overrides([*SMALL, LOSS])
    resolved = resolve(experiment, RGB)
    spec = {"name": "adversarial", "weight": 0.5, "start": 0.3, "widths": [4, 8], "adaptive": True}
    assert resolved.experiment.model.image_losses == [spec]
    assert Experiment.from_toml(resolved.experiment.to_toml(), "text") == resolved.experiment
    # 5 epochs of 2 steps.
    assert build(resolved).image_losses[0].start == 3
    assert Experiment().with_overrides(["model.image_losses=['adversarial']"]).model.image_losses == [
        {"name": "adversarial"}
    ]
    assert resolve(Experiment(), DatasetInfo((28, 28, 1), 10)).experiment.model.image_losses == []


def test_start_in_steps() -> None:
    assert in_steps(Adversarial(start=0.25), total=200).start == 50
    assert in_steps(Adversarial(start=0.0), total=200).start == 0
    assert in_steps(Adversarial(start=7), total=200).start == 7


@pytest.mark.parametrize("start", [10, 25, 1.0])
def test_start_after_the_last_step_is_refused(start: float) -> None:
    with pytest.raises(InputError, match=rf"model.image_losses\[0\].start = {start}: the training has 10 steps"):
        check_starts([Adversarial(start=start)], 10)
    check_starts([Adversarial(start=9), Adversarial(start=0.9)], 10)


@pytest.mark.parametrize("names", [[], ["adversarial", "perceptual"]])
def test_evaluation_states_that_the_minimized_loss_is_not_a_bound(names: list[str], photos: Array) -> None:
    model = vae(adversarial() if names else None)
    described = _describe_model(model, Dataset(photos, None, "photos", "test"))
    assert described["image_losses"] == names[:1]
    section = {**described, "image_losses": names, "images": 16, "split": "test", "held_out": True}
    stated = [line for line in summarize({"likelihood": section}) if "total_loss is not a bound" in line]
    assert stated == [
        f"trained with image losses ({', '.join(names)}): total_loss is not a bound on −log p(x)" for _ in names[:1]
    ]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ('[{name="adverserial"}]', "did you mean 'adversarial'"),
        ('[{name="adversarial", wieght=2}]', "model.image_losses[0].wieght = 2: no such argument of adversarial"),
        ('[{name="adversarial", weight=-1.0}]', "model.image_losses[0].weight = -1.0: not a valid weight"),
        ('[{name="adversarial", start=-1}]', "model.image_losses[0].start = -1: not a valid step"),
        ('[{name="adversarial", widths=[]}]', "widths = []: the discriminator has no layer"),
        ('["adversarial", "adversarial"]', "image_losses[1] = Adversarial: a second loss of this kind"),
        ('[{name="adversarial", widths=[4, 8, 16]}]', "image_shape = (8, 8, 3): too small for a discriminator"),
        ("[{weight=1.0}]", "has no short name"),
        ("3", "model.image_losses = 3"),
    ],
)
def test_invalid_image_losses_are_refused_in_one_line(setting: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        build_model(Experiment().with_overrides([*SMALL, f"model.image_losses={setting}"]), RGB)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ("adversarial", "image_losses = 'adversarial'"),
        (
            ["adversarial"],
            r"image_losses\[0\] = 'adversarial': not an instance of ImageLoss; .*image_losses.Adversarial",
        ),
        ([Adversarial], r"image_losses\[0\] = Adversarial: a class; pass an instance"),
        ([Adversarial(start=0.3, widths=(4,))], r"start = 0.3: a fraction of all training steps"),
    ],
)
def test_invalid_arguments_are_refused(losses: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        VAE(latent_dim=2, image_shape=SHAPE, image_losses=losses)


def test_one_pixel_maps_are_refused() -> None:
    with pytest.raises(InputError, match=r"image_shape = \(1, 1, 3\): too small .* at least 4×4, or fewer widths"):
        Adversarial(start=0, widths=(4,)).build((1, 1, 3))
