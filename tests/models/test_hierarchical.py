"""The hierarchy: its terms against densities computed by hand, and its verbs on every backend."""

import math
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae.components.conditions import ClassLabel
from keras_vae.components.likelihoods import Bernoulli, Normal
from keras_vae.components.objectives import DIPVAE, ELBO, IWAE, BetaTC, Objective
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.models.hierarchical import HierarchicalVAE

SMALL = {"widths": (4, 8), "groups": (1, 2), "latent_channels": 2}
SHAPES = [(3, 3, 2), (3, 3, 2), (5, 6, 2)]
ENDS = np.cumsum([math.prod(shape) for shape in SHAPES])


def make(image_shape: tuple[int, int, int] = (9, 11, 1), **kwargs: object) -> HierarchicalVAE:
    return HierarchicalVAE(image_shape, **{**SMALL, "seed": 5, **kwargs})


@pytest.fixture(scope="module")
def loud() -> HierarchicalVAE:
    """Weights so large that every group's prior and posterior depend on the groups above and on the image."""
    model, rng = make(), np.random.default_rng(0)
    for part in (*model.priors, *model.posteriors, *model.merges, model.bottom_up, model.start, model.head):
        part.set_weights([rng.normal(0, 0.15, weight.shape) for weight in part.get_weights()])
    return model


def compiled(model: HierarchicalVAE, learning_rate: float = 1e-3) -> HierarchicalVAE:
    model.compile(keras.optimizers.Adam(learning_rate))
    # Under TensorFlow, an optimizer that is built inside the first step has that step traced twice.
    model.optimizer.build(model.trainable_variables)
    return model


def moments(maps: object) -> tuple[Array, Array]:
    """Return means and log-variances, which lie behind one another in the channels, flat."""
    values = ops.convert_to_numpy(maps).astype("float64")
    mean, log_var = values[..., :2], values[..., 2:]
    return mean.reshape(len(values), -1), log_var.reshape(len(values), -1)


def log_normal(z: Array, mean: Array, log_var: Array) -> Array:
    return (-0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))).sum(-1)


def test_terms_are_those_of_the_densities_that_the_networks_name(loud: HierarchicalVAE, images: Array) -> None:
    """The ladder walked by hand, one network at a time, two draws an image, one after the other."""
    x, draws = images[:4].astype("float32") / 255, 2
    terms = loud.elbo_terms(images[:4], seed=3, draws=draws)
    noise = np.random.default_rng(3).standard_normal((4, draws, ENDS[-1]), dtype="float32")
    maps = [ops.convert_to_numpy(features) for features in loud.bottom_up(x)]
    got = {name: ops.convert_to_numpy(getattr(terms, name)) for name in terms._fields}
    kl = np.zeros((4, draws, 3))
    for k in range(draws):
        features, log_prior, log_posterior = loud.start(np.ones((4, 1), "float32")), 0.0, 0.0
        for group, (level, end) in enumerate(zip((2, 2, 1), ENDS, strict=True)):
            start = end - math.prod(SHAPES[group])
            mean, log_var = moments(loud.priors[group](features))
            change = moments(loud.posteriors[group]([features, ops.convert_to_tensor(maps[level - 1])]))
            q_mean, q_log_var = mean + change[0], log_var + change[1]
            z = q_mean + np.exp(q_log_var / 2) * noise[:, k, start:end]
            log_prior = log_prior + log_normal(z, mean, log_var)
            log_posterior = log_posterior + log_normal(z, q_mean, q_log_var)
            ratio = np.exp(q_log_var - log_var)
            distance = (q_mean - mean) ** 2 / np.exp(log_var)
            kl[:, k, group] = 0.5 * (ratio + distance - 1 - np.log(ratio)).sum(-1)
            features = loud.merges[group]([features, ops.convert_to_tensor(z.astype("float32"))])
        logits = ops.convert_to_numpy(loud.head(features)).astype("float64")
        log_likelihood = (x * logits - np.logaddexp(0, logits)).sum((1, 2, 3))
        np.testing.assert_allclose(got["log_likelihood"][:, k], log_likelihood, rtol=1e-4)
        np.testing.assert_allclose(got["log_prior"][:, k], log_prior, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(got["log_posterior"][:, k], log_posterior, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(got["kl_per_group"], kl.mean(1), rtol=1e-3, atol=1e-4)
    assert (got["kl_per_group"] > 0.05).all()


def test_rates_are_the_mean_of_log_q_minus_log_p(loud: HierarchicalVAE, images: Array) -> None:
    terms = loud.elbo_terms(images[:4], draws=1500)
    difference = ops.convert_to_numpy(terms.log_posterior) - ops.convert_to_numpy(terms.log_prior)
    error = float(difference.std()) / math.sqrt(difference.size)
    assert float(difference.mean()) == pytest.approx(float(ops.mean(terms.kl_loss)), abs=4 * error)


def test_bound_of_many_draws_is_above_the_elbo(loud: HierarchicalVAE, images: Array) -> None:
    terms = loud.elbo_terms(images, draws=50)
    losses = {
        name: float(ops.mean(objective(terms, None, 0))) for name, objective in (("elbo", ELBO()), ("iwae", IWAE(50)))
    }
    assert losses["iwae"] < losses["elbo"] - 0.1
    assert loud.log_likelihood(images, samples=50).mean() == pytest.approx(-losses["iwae"], abs=0.5)


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (31, 45, 3), (9, 11, 1)])
def test_any_size_comes_back_exactly(image_shape: tuple[int, int, int]) -> None:
    model = make(image_shape, groups=(0, 1), likelihood=Normal())
    x = np.random.default_rng(0).integers(0, 256, (2, *image_shape), dtype="uint8")
    z = model.encode(x).z_mean
    assert model.map_shapes == ((-(-image_shape[0] // 4), -(-image_shape[1] // 4), 2),)
    assert z.shape == (2, model.latent_dim) == (2, math.prod(model.map_shapes[0]))
    assert model.decode(z).shape == x.shape
    np.testing.assert_allclose(model.reconstruct(x), model.decode(z), atol=1e-6)


@pytest.mark.parametrize("objective", [ELBO(free_bits=0.01), IWAE(3)])
def test_training_moves_every_weight_and_reports_every_group(objective: Objective, images: Array) -> None:
    model = compiled(make(objective=objective, groups=(1, 1)))
    before = [weight.copy() for weight in model.get_weights()]
    history = model.fit(images, batch_size=12, verbose=0).history
    assert all(not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    assert math.isfinite(history["total_loss"][0])
    kl_per_group = [history[f"kl_group_{number}"][0] for number in (1, 2)]
    assert sum(kl_per_group) == pytest.approx(history["kl_loss"][0], rel=1e-4)


def test_new_model_has_a_standard_prior_and_a_posterior_equal_to_it(images: Array) -> None:
    terms = make().elbo_terms(images)
    assert float(ops.max(terms.kl_loss)) < 0.05
    expected = -0.5 * ENDS[-1] * (math.log(2 * math.pi) + 1)
    assert float(ops.mean(terms.log_prior)) == pytest.approx(expected, rel=0.05)


LABELS = np.arange(24) % 3


@pytest.fixture(scope="module")
def told() -> HierarchicalVAE:
    """Trained for two steps on images that come with labels."""
    model = compiled(make(condition=ClassLabel(classes=3), objective=ELBO(beta=0.5), groups=(1, 1)), 1e-2)
    x = np.random.default_rng(0).integers(0, 256, (24, 9, 11, 1), dtype="uint8")
    model.fit({"images": x, "condition": LABELS}, batch_size=12, verbose=0)
    return model


def test_file_goes_on_where_the_model_stopped(told: HierarchicalVAE, images: Array, tmp_path: Path) -> None:
    told.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.get_config() == told.get_config()
    np.testing.assert_array_equal(loaded.elbo(images, condition=LABELS), told.elbo(images, condition=LABELS))
    np.testing.assert_array_equal(loaded.sample(3, condition=1), told.sample(3, condition=1))


def test_condition_changes_what_is_drawn_and_what_is_read(told: HierarchicalVAE, images: Array) -> None:
    assert not np.array_equal(told.sample(2, seed=1, condition=0), told.sample(2, seed=1, condition=2))
    assert not np.array_equal(told.encode(images, condition=0).z_mean, told.encode(images, condition=2).z_mean)
    z = told.encode(images, condition=LABELS).z_mean
    reconstruction = told.reconstruct(images, condition=LABELS)
    np.testing.assert_allclose(reconstruction, told.decode(z, condition=LABELS), atol=1e-6)
    with pytest.raises(InputError, match="condition = None"):
        told.sample(2)


def test_draws_repeat_with_a_seed_and_move_on_without(loud: HierarchicalVAE, images: Array) -> None:
    np.testing.assert_array_equal(loud.sample(3, seed=1), loud.sample(3, seed=1))
    assert not np.array_equal(loud.sample(3, seed=1), loud.sample(3, seed=2))
    assert not np.array_equal(loud.sample(3), loud.sample(3))
    np.testing.assert_array_equal(loud.elbo(images, seed=4), loud.elbo(images, seed=4))
    np.testing.assert_allclose(loud.elbo(images, batch_size=5), loud.elbo(images), rtol=1e-4)


def test_drawing_from_the_prior_is_decoding_its_draws(loud: HierarchicalVAE) -> None:
    """Noise becomes z by the prior's own moments, group by group."""
    noise = np.random.default_rng(1).standard_normal((2, ENDS[-1]), dtype="float32")
    features, z = loud.start(np.ones((2, 1), "float32")), []
    for group, piece in enumerate(np.split(noise, ENDS[:-1], axis=1)):
        mean, log_var = moments(loud.priors[group](features))
        z.append((mean + np.exp(log_var / 2) * piece).astype("float32"))
        features = loud.merges[group]([features, ops.convert_to_tensor(z[-1])])
    np.testing.assert_allclose(loud.decode(np.concatenate(z, axis=1)), loud.sample(2, seed=1), atol=1e-5)


def test_half_precision_keeps_the_terms_in_float32(images: Array) -> None:
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = compiled(make(groups=(0, 1)))
        history = model.fit(images, verbose=0).history
        terms = model.elbo_terms(images)
    finally:
        keras.config.set_dtype_policy(before)
    assert math.isfinite(history["total_loss"][0])
    assert {keras.backend.standardize_dtype(term.dtype) for term in terms} == {"float32"}
    assert model.merges[0].compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: make(groups=(1,)), r"groups = \[1\]: give how many .* 2 halvings"),
        (lambda: make(groups=(1, 0)), "smallest size must have a group"),
        (lambda: make(groups=(-1, 1)), r"groups = \[-1, 1\]"),
        (lambda: make(widths=()), r"widths = \[\]"),
        (lambda: make(latent_channels=0), "latent_channels = 0"),
        (lambda: make((9, 11)), r"image_shape = \(9, 11\)"),
        (lambda: make((9, 11, 3), likelihood=Bernoulli()), "images of 3 channels"),
        (lambda: make(objective=BetaTC(images=24)), "objective = 'elbo'"),
        (lambda: make(objective=DIPVAE()), "objective = 'elbo'"),
        (lambda: make(objective=IWAE(2, gradient="stl")), "gradient = 'plain'"),
        (lambda: make().sample(0), "n = 0"),
        (lambda: make().decode(np.zeros((3, 2))), r"this model decodes \(n, 96\)"),
        (lambda: make().elbo(np.zeros((2, 8, 8, 1), "uint8")), r"this model takes \(n, 9, 11, 1\)"),
    ],
)
def test_wrong_settings_and_arguments(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
