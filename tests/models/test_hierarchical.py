"""Hierarchical VAE: loss terms against densities in NumPy, training, inference, files and errors."""

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
LATENT_SHAPES = [(3, 3, 2), (3, 3, 2), (5, 6, 2)]
ENDS = np.cumsum([math.prod(shape) for shape in LATENT_SHAPES])
LATENT_DIM = ENDS[-1]


def make_ladder(image_shape: tuple[int, int, int] = (9, 11, 1), **kwargs: object) -> HierarchicalVAE:
    return HierarchicalVAE(image_shape, **{**SMALL, "seed": 5, **kwargs})


@pytest.fixture(scope="module")
def random_model() -> HierarchicalVAE:
    """A model with large random weights: all priors and posteriors depend on the groups above and on the image."""
    model, rng = make_ladder(), np.random.default_rng(0)
    for part in (*model.priors, *model.posteriors, *model.merges, model.bottom_up, model.initial_features, model.head):
        part.set_weights([rng.normal(0, 0.15, weight.shape) for weight in part.get_weights()])
    return model


def compiled(model: HierarchicalVAE, learning_rate: float = 1e-3) -> HierarchicalVAE:
    model.compile(keras.optimizers.Adam(learning_rate))
    # On TensorFlow, building the optimizer inside the first step would trace that step twice.
    model.optimizer.build(model.trainable_variables)
    return model


def moments(maps: object) -> tuple[Array, Array]:
    """Return the means and log-variances of a map as vectors; the means are in its first channels."""
    values = ops.convert_to_numpy(maps).astype("float64")
    mean, log_var = values[..., :2], values[..., 2:]
    return mean.reshape(len(values), -1), log_var.reshape(len(values), -1)


def log_normal(z: Array, mean: Array, log_var: Array) -> Array:
    return (-0.5 * ((z - mean) ** 2 / np.exp(log_var) + log_var + np.log(2 * np.pi))).sum(-1)


def test_terms_equal_densities_computed_in_numpy(random_model: HierarchicalVAE, images: Array) -> None:
    """Call the networks of the ladder one after another, for each of two samples per image."""
    x, draws = images[:4].astype("float32") / 255, 2
    terms = random_model.elbo_terms(images[:4], seed=3, draws=draws)
    noise = np.random.default_rng(3).standard_normal((4, draws, LATENT_DIM), dtype="float32")
    maps = [ops.convert_to_numpy(features) for features in random_model.bottom_up(x)]
    got = {name: ops.convert_to_numpy(getattr(terms, name)) for name in terms._fields}
    kl = np.zeros((4, draws, 3))
    for k in range(draws):
        features, log_prior, log_posterior = random_model.initial_features(np.ones((4, 1), "float32")), 0.0, 0.0
        for group, (level, end) in enumerate(zip((2, 2, 1), ENDS, strict=True)):
            start = end - math.prod(LATENT_SHAPES[group])
            mean, log_var = moments(random_model.priors[group](features))
            residual = moments(random_model.posteriors[group]([features, ops.convert_to_tensor(maps[level - 1])]))
            q_mean, q_log_var = mean + residual[0], log_var + residual[1]
            z = q_mean + np.exp(q_log_var / 2) * noise[:, k, start:end]
            log_prior = log_prior + log_normal(z, mean, log_var)
            log_posterior = log_posterior + log_normal(z, q_mean, q_log_var)
            variance_ratio = np.exp(q_log_var - log_var)
            scaled_distance = (q_mean - mean) ** 2 / np.exp(log_var)
            kl[:, k, group] = 0.5 * (variance_ratio + scaled_distance - 1 - np.log(variance_ratio)).sum(-1)
            features = random_model.merges[group]([features, ops.convert_to_tensor(z.astype("float32"))])
        logits = ops.convert_to_numpy(random_model.head(features)).astype("float64")
        log_likelihood = (x * logits - np.logaddexp(0, logits)).sum((1, 2, 3))
        np.testing.assert_allclose(got["log_likelihood"][:, k], log_likelihood, rtol=1e-4)
        np.testing.assert_allclose(got["log_prior"][:, k], log_prior, rtol=1e-4, atol=1e-3)
        np.testing.assert_allclose(got["log_posterior"][:, k], log_posterior, rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(got["kl_per_group"], kl.mean(1), rtol=1e-3, atol=1e-4)
    assert (got["kl_per_group"] > 0.05).all()


def test_kl_is_the_mean_of_log_q_minus_log_p(random_model: HierarchicalVAE, images: Array) -> None:
    terms = random_model.elbo_terms(images[:4], draws=1500)
    log_ratio = ops.convert_to_numpy(terms.log_posterior) - ops.convert_to_numpy(terms.log_prior)
    standard_error = float(log_ratio.std()) / math.sqrt(log_ratio.size)
    assert float(log_ratio.mean()) == pytest.approx(float(ops.mean(terms.kl_loss)), abs=4 * standard_error)


def test_importance_weighted_bound_is_tighter_than_the_elbo(random_model: HierarchicalVAE, images: Array) -> None:
    terms = random_model.elbo_terms(images, draws=50)
    losses = {
        name: float(ops.mean(objective(terms, None, 0))) for name, objective in (("elbo", ELBO()), ("iwae", IWAE(50)))
    }
    assert losses["iwae"] < losses["elbo"] - 0.1
    assert random_model.log_likelihood(images, samples=50).mean() == pytest.approx(-losses["iwae"], abs=0.5)


@pytest.mark.parametrize("image_shape", [(28, 28, 1), (31, 45, 3), (9, 11, 1)])
def test_images_of_any_size_are_reconstructed_at_that_size(image_shape: tuple[int, int, int]) -> None:
    model = make_ladder(image_shape, groups=(0, 1), likelihood=Normal())
    x = np.random.default_rng(0).integers(0, 256, (2, *image_shape), dtype="uint8")
    z = model.encode(x).z_mean
    assert model.latent_shapes == ((-(-image_shape[0] // 4), -(-image_shape[1] // 4), 2),)
    assert z.shape == (2, model.latent_dim) == (2, math.prod(model.latent_shapes[0]))
    assert model.decode(z).shape == x.shape
    np.testing.assert_allclose(model.reconstruct(x), model.decode(z), atol=1e-6)


@pytest.mark.parametrize("objective", [ELBO(free_bits=0.01), IWAE(3)])
def test_training_changes_every_weight_and_reports_every_group(objective: Objective, images: Array) -> None:
    model = compiled(make_ladder(objective=objective, groups=(1, 1)))
    before = [weight.copy() for weight in model.get_weights()]
    history = model.fit(images, batch_size=12, verbose=0).history
    assert all(not np.array_equal(old, new) for old, new in zip(before, model.get_weights(), strict=True))
    assert math.isfinite(history["total_loss"][0])
    kl_per_group = [history[f"kl_group_{group}"][0] for group in (1, 2)]
    assert sum(kl_per_group) == pytest.approx(history["kl_loss"][0], rel=1e-4)


def test_new_model_has_a_standard_normal_prior_and_an_equal_posterior(images: Array) -> None:
    terms = make_ladder().elbo_terms(images)
    assert float(ops.max(terms.kl_loss)) < 0.05
    expected = -0.5 * LATENT_DIM * (math.log(2 * math.pi) + 1)
    assert float(ops.mean(terms.log_prior)) == pytest.approx(expected, rel=0.05)


LABELS = np.arange(24) % 3


@pytest.fixture(scope="module")
def conditional_model() -> HierarchicalVAE:
    """A conditional model, trained for two steps."""
    model = compiled(make_ladder(condition=ClassLabel(classes=3), objective=ELBO(beta=0.5), groups=(1, 1)), 1e-2)
    x = np.random.default_rng(0).integers(0, 256, (24, 9, 11, 1), dtype="uint8")
    model.fit({"images": x, "condition": LABELS}, batch_size=12, verbose=0)
    return model


def test_loaded_model_equals_the_saved_one(conditional_model: HierarchicalVAE, images: Array, tmp_path: Path) -> None:
    conditional_model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert loaded.get_config() == conditional_model.get_config()
    np.testing.assert_array_equal(
        loaded.elbo(images, condition=LABELS), conditional_model.elbo(images, condition=LABELS)
    )
    np.testing.assert_array_equal(loaded.sample(3, condition=1), conditional_model.sample(3, condition=1))


def test_condition_changes_samples_and_codes(conditional_model: HierarchicalVAE, images: Array) -> None:
    assert not np.array_equal(
        conditional_model.sample(2, seed=1, condition=0), conditional_model.sample(2, seed=1, condition=2)
    )
    assert not np.array_equal(
        conditional_model.encode(images, condition=0).z_mean, conditional_model.encode(images, condition=2).z_mean
    )
    z = conditional_model.encode(images, condition=LABELS).z_mean
    reconstruction = conditional_model.reconstruct(images, condition=LABELS)
    np.testing.assert_allclose(reconstruction, conditional_model.decode(z, condition=LABELS), atol=1e-6)
    with pytest.raises(InputError, match="condition = None"):
        conditional_model.sample(2)


def test_samples_repeat_with_a_seed_and_differ_without(random_model: HierarchicalVAE, images: Array) -> None:
    np.testing.assert_array_equal(random_model.sample(3, seed=1), random_model.sample(3, seed=1))
    assert not np.array_equal(random_model.sample(3, seed=1), random_model.sample(3, seed=2))
    assert not np.array_equal(random_model.sample(3), random_model.sample(3))
    np.testing.assert_array_equal(random_model.elbo(images, seed=4), random_model.elbo(images, seed=4))
    np.testing.assert_allclose(random_model.elbo(images, batch_size=5), random_model.elbo(images), rtol=1e-4)


def test_sample_decodes_the_prior_transform_of_its_noise(random_model: HierarchicalVAE) -> None:
    """Scale and shift the noise by the moments of the priors, group by group."""
    noise = np.random.default_rng(1).standard_normal((2, LATENT_DIM), dtype="float32")
    features, z = random_model.initial_features(np.ones((2, 1), "float32")), []
    for group, group_noise in enumerate(np.split(noise, ENDS[:-1], axis=1)):
        mean, log_var = moments(random_model.priors[group](features))
        z.append((mean + np.exp(log_var / 2) * group_noise).astype("float32"))
        features = random_model.merges[group]([features, ops.convert_to_tensor(z[-1])])
    np.testing.assert_allclose(
        random_model.decode(np.concatenate(z, axis=1)), random_model.sample(2, seed=1), atol=1e-5
    )


def test_terms_are_float32_under_mixed_precision(images: Array) -> None:
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = compiled(make_ladder(groups=(0, 1)))
        history = model.fit(images, verbose=0).history
        terms = model.elbo_terms(images)
    finally:
        keras.config.set_dtype_policy(policy)
    assert math.isfinite(history["total_loss"][0])
    assert {keras.backend.standardize_dtype(term.dtype) for term in terms} == {"float32"}
    assert model.merges[0].compute_dtype == "bfloat16"


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (
            lambda: make_ladder(groups=(1,)),
            r"groups = \[1\]: needs one number from 0 to 1000 for each of the 2 widths \[4, 8\]",
        ),
        (lambda: make_ladder(groups=(1, 0)), r"groups = \[1, 0\]: the smallest size has no group"),
        (lambda: make_ladder(groups=(-1, 1)), r"groups = \[-1, 1\]"),
        (lambda: make_ladder(widths=()), r"widths = \[\]"),
        (lambda: make_ladder(latent_channels=0), "latent_channels = 0"),
        (lambda: make_ladder((9, 11)), r"image_shape = \(9, 11\)"),
        (lambda: make_ladder((9, 11, 3), likelihood=Bernoulli()), "bernoulli"),
        (lambda: make_ladder(objective=BetaTC(images=24)), "objective = 'elbo'"),
        (lambda: make_ladder(objective=DIPVAE()), "objective = 'elbo'"),
        (lambda: make_ladder(objective=IWAE(2, gradient="stl")), "gradient = 'plain'"),
        (lambda: make_ladder().sample(0), "n = 0"),
        (lambda: make_ladder().decode(np.zeros((3, 2))), r"this model decodes vectors; pass \(n, 96\)"),
        (lambda: make_ladder().elbo(np.zeros((2, 8, 8, 1), "uint8")), r"the model expects \(n, 9, 11, 1\)"),
    ],
)
def test_errors_name_the_argument_and_its_value(build: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        build()
