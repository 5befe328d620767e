"""Estimates of log p(x) by all proposals, against closed forms, quadrature and SciPy."""

import math

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import special, stats

from helpers import on_tensorflow
from keras_vae import VAE, HierarchicalVAE, load
from keras_vae.components import posteriors, priors
from keras_vae.components.conditions import ClassLabel
from keras_vae.components.likelihoods import Normal
from keras_vae.core import backend
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data import sources
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation.likelihood import measure_likelihood
from keras_vae.models import importance_sampling
from keras_vae.models.annealed_importance_sampling import AnnealedImportanceSampling
from keras_vae.models.importance_sampling import PosteriorProposal, Proposal
from keras_vae.models.mixture_proposal import MixtureProposal, NormalMixture
from keras_vae.models.pareto import pareto_shape, reliable_shape
from keras_vae.models.proposals import choose_proposal
from keras_vae.networks.mlp import MLP

SHAPE, PIXELS, SIGMA = (2, 3, 1), 6, 0.05
LABELS = np.array([0, 1, 1])


def vae_with(decoder: keras.Model, z_mean: Array, deviation: Array) -> VAE:
    """Build a VAE with a given decoder, and an encoder that maps all images to the same normal."""
    inputs = keras.Input(SHAPE)
    flat = layers.Flatten()(inputs)
    heads = [layers.Dense(2, name=name) for name in ("z_mean", "z_log_var")]
    encoder = keras.Model(inputs, [head(flat) for head in heads])
    heads[0].set_weights([np.zeros((PIXELS, 2)), z_mean])
    heads[1].set_weights([np.zeros((PIXELS, 2)), 2 * np.log(deviation)])
    return VAE(encoder, decoder, likelihood=Normal(scale=SIGMA), seed=0)


@pytest.fixture(scope="module")
def linear() -> tuple[VAE, Array, Array]:
    """A VAE with an affine decoder and an inaccurate encoder, images of its p(x), and their exact log p(x)."""
    rng = np.random.default_rng(1)
    loadings, mean = rng.normal(scale=0.06, size=(2, PIXELS)), rng.uniform(0.4, 0.6, PIXELS)
    z = keras.Input((2,))
    dense = layers.Dense(PIXELS)
    decoder = keras.Model(z, layers.Reshape(SHAPE)(dense(z)))
    dense.set_weights([loadings, mean])
    flat = mean + rng.normal(size=(100, 2)) @ loadings + SIGMA * rng.normal(size=(100, PIXELS))
    images = flat.reshape(-1, *SHAPE).astype("float32")
    exact = stats.multivariate_normal(mean, loadings.T @ loadings + SIGMA**2 * np.eye(PIXELS)).logpdf(flat)
    return vae_with(decoder, np.array([0.3, -0.2]), np.array([1.0, 0.8])), images, exact


@pytest.fixture(scope="module")
def bimodal() -> VAE:
    """A VAE for which p(z|x) has two modes. The encoder finds the lower one, with its exact deviation.

    The mean of all pixels is 0.1·max(z₁, 0) + 0.2·max(−z₁, 0), so z₁ = 2 and z₁ = −1 decode to the same image.
    """
    z = keras.Input((2,))
    hidden, output = layers.Dense(2, activation="relu"), layers.Dense(PIXELS)
    decoder = keras.Model(z, layers.Reshape(SHAPE)(output(hidden(z))))
    hidden.set_weights([np.array([[1.0, -1.0], [0.0, 0.0]]), np.zeros(2)])
    output.set_weights([np.repeat([[0.1], [0.2]], PIXELS, axis=1), np.zeros(PIXELS)])
    deviation = 1 / math.sqrt(1 + PIXELS * 0.1**2 / SIGMA**2)
    return vae_with(decoder, np.array([1.92, 0.0]), np.array([deviation, 1.0]))


def images_of_bimodal(count: int) -> Array:
    """Return images with a mean of 0.2, whose lower mode is the normal that the encoder of `bimodal` returns."""
    noise = np.random.default_rng(0).normal(0, SIGMA, (count, PIXELS)).clip(-0.2, 0.8)
    return (0.2 + noise - noise.mean(axis=1, keepdims=True)).reshape(-1, *SHAPE).clip(0, 1).astype("float32")


def quadrature_of_bimodal(images: Array) -> Array:
    """Return log p(x) of the model `bimodal`. Its pixels do not depend on z₂, so the integral has one dimension."""
    z = np.linspace(-8, 8, 40_001)
    means = 0.1 * np.maximum(z, 0) + 0.2 * np.maximum(-z, 0)
    flat = images.reshape(len(images), PIXELS)
    log_likelihood = stats.norm.logpdf(flat[:, :, None], means, SIGMA).sum(axis=1)
    return special.logsumexp(log_likelihood + stats.norm.logpdf(z), axis=1) + math.log(z[1] - z[0])


@pytest.mark.parametrize(
    ("proposal", "samples"),
    [
        (PosteriorProposal(), 50),
        (MixtureProposal(), 20),
        # With fewer than ten draws, the posterior and the prior yield none.
        (MixtureProposal(candidates=8, starts=2, steps=2, rounds=1), 3),
        (AnnealedImportanceSampling(temperatures=8, leapfrog_steps=2), 12),
    ],
    ids=["posterior", "mixture", "mixture-few-draws", "ais"],
)
def test_weights_average_to_the_likelihood(proposal: Proposal, samples: int, linear: tuple[VAE, Array, Array]) -> None:
    vae, images, exact = linear
    ratios = np.exp(vae.log_likelihood(images, samples=samples, seed=3, proposal=proposal) - exact)
    error = ratios.std(ddof=1) / math.sqrt(len(images))
    assert error < 0.1
    assert ratios.mean() == pytest.approx(1, abs=max(4 * error, 1e-3))


def test_mixture_fits_a_normal_posterior_exactly(linear: tuple[VAE, Array, Array]) -> None:
    """Most draws come from the exact p(z|x) and from a wider normal, so the weights are bounded and nearly equal."""
    vae, images, exact = linear
    sampling = vae.importance_sampling(images, samples=200, seed=0)
    assert sampling.proposal.name == "mixture"
    estimates = [np.concatenate(parts) for parts in zip(*sampling.over(sampling.blocks), strict=True)]
    np.testing.assert_allclose(estimates[0], exact, atol=0.2)
    assert abs((estimates[0] - exact).mean()) < 0.01
    assert estimates[1].min() > 80
    plain = vae.importance_sampling(images, samples=200, seed=0, proposal="posterior")
    assert np.median(plain(plain.blocks[0]).effective_sample_size) < 0.5 * np.median(estimates[1])


def test_mixture_and_annealing_find_a_mode_that_the_encoder_misses(bimodal: VAE) -> None:
    images = images_of_bimodal(8)
    exact = quadrature_of_bimodal(images)
    plain = bimodal.importance_sampling(images, samples=400, proposal="posterior")
    estimate = plain(plain.blocks[0])
    assert (exact - estimate.log_likelihood).min() > 0.8
    # Neither the effective sample size nor the Pareto shape reveals the error.
    assert estimate.effective_sample_size.min() > 100
    assert estimate.pareto_shape.max() < 0.5
    np.testing.assert_allclose(bimodal.log_likelihood(images, samples=1000), exact, atol=0.15)
    assert bimodal.log_likelihood(images, samples=1000).mean() == pytest.approx(exact.mean(), abs=0.05)
    annealed = bimodal.log_likelihood(
        images, samples=30, proposal=AnnealedImportanceSampling(temperatures=40, leapfrog_steps=3)
    )
    assert annealed.mean() == pytest.approx(exact.mean(), abs=0.2)


def test_evaluation_marks_an_estimate_that_misses_modes(bimodal: VAE) -> None:
    dataset = Dataset.from_arrays(images_of_bimodal(20), name="bimodal")
    splits = Splits(dataset, None, dataset)
    missed = measure_likelihood(bimodal, splits, seed=0, samples=400, proposal="posterior").section
    assert missed["proposal"] == "posterior"
    assert missed["effective_sample_size"]["percentile_5"] > 100
    assert missed["missed_by_posterior"]["mean"] > 0.8
    assert not missed["trusted"]
    found = measure_likelihood(bimodal, splits, seed=0, samples=400).section
    assert found["proposal"] == "mixture"
    assert found["missed_by_posterior"] is None
    assert found["trusted"]
    assert missed["nll"]["mean"] - found["nll"]["mean"] > 0.8


def test_estimates_do_not_depend_on_the_blocks(
    linear: tuple[VAE, Array, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    vae, images, _ = linear
    whole = vae.importance_sampling(images[:9], samples=60, seed=2)
    assert len(whole.blocks) == 1
    monkeypatch.setattr(importance_sampling, "_PIXELS_AT_ONCE", 80 * math.prod(SHAPE))
    blocks = vae.importance_sampling(images[:9], samples=60, seed=2)
    assert len(blocks.blocks) > 3
    expected = whole(whole.blocks[0]).log_likelihood
    found = np.concatenate([estimate.log_likelihood for estimate in blocks.over(blocks.blocks)])
    np.testing.assert_allclose(found, expected, atol=1e-3)


def test_density_of_the_mixture_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    scales = np.tril(rng.normal(size=(2, 3, 4, 4)))
    scales[..., range(4), range(4)] = np.exp(scales[..., range(4), range(4)])
    weights, means = rng.dirichlet(np.ones(3), size=2), rng.normal(size=(2, 3, 4))
    codes = rng.normal(scale=2, size=(2, 5, 4))
    expected = [
        special.logsumexp(
            [
                np.log(weights[image, part])
                + stats.multivariate_normal(means[image, part], scales[image, part] @ scales[image, part].T).logpdf(
                    codes[image]
                )
                for part in range(3)
            ],
            axis=0,
        )
        for image in range(2)
    ]
    np.testing.assert_allclose(NormalMixture(weights, means, scales).log_prob(codes), expected, rtol=1e-9)


def test_every_component_yields_its_share_of_the_codes() -> None:
    means = np.arange(3.0)[None, :, None] * 100
    mixture = NormalMixture(np.array([[0.5, 0.2, 0.3]]), means, np.full((1, 3, 1, 1), 0.1))
    rng = np.random.default_rng(0)
    counts = []
    for offset in rng.random(200):
        codes = mixture.sample(rng.normal(size=(1, 7, 1)), np.array([offset]))
        counts.append(np.bincount(np.round(codes / 100).astype(int).ravel(), minlength=3))
    assert (np.abs(np.array(counts) - [3.5, 1.4, 2.1]) < 1).all()
    np.testing.assert_allclose(np.mean(counts, axis=0), [3.5, 1.4, 2.1], atol=0.15)


PARTS = {
    "mixture": {"prior": priors.MixtureOfNormals(num_components=3)},
    "vamp": {"prior": priors.VampPrior(num_components=4)},
    "realnvp": {"prior": priors.RealNVP(num_couplings=2, hidden=(8,))},
    "full-normal": {"posterior": posteriors.FullCovarianceNormal()},
    "iaf": {"posterior": posteriors.InverseAutoregressiveFlow(steps=1, hidden=(8,), context_dim=4)},
    "conditional-normal": {"prior": priors.ConditionalNormal(hidden=4), "condition": ClassLabel(classes=2)},
}


@pytest.mark.parametrize("name", PARTS)
def test_mixture_agrees_with_the_posterior_for_every_prior_and_posterior(name: str) -> None:
    """The images and the codes have few dimensions, and many draws from the posterior give the exact value."""
    keras.utils.set_random_seed(0)
    parts, network = PARTS[name], MLP(widths=(8,))
    posterior, num_classes = parts.get("posterior", posteriors.DiagonalNormal()), 2 * ("condition" in parts)
    vae = VAE(
        network.encoder((*SHAPE[:2], 1 + num_classes), 2, posterior.param_sizes(2)),
        network.decoder(2 + num_classes, SHAPE),
        seed=0,
        **parts,
    )
    images = np.random.default_rng(0).integers(0, 256, (3, *SHAPE), dtype="uint8")
    condition = LABELS if num_classes else None
    found = vae.log_likelihood(images, samples=400, condition=condition, proposal="mixture")
    plain = vae.importance_sampling(images, samples=10_000, condition=condition, proposal="posterior")
    exact = plain(plain.blocks[0])
    error = np.sqrt(1 / exact.effective_sample_size + 1 / 200)
    reliable = error < 0.15
    assert reliable.any()
    assert (np.abs(found - exact.log_likelihood) < 4 * error)[reliable].all()


def test_terms_of_given_codes_are_those_of_the_same_samples(linear: tuple[VAE, Array, Array]) -> None:
    vae, images, _ = linear
    noise = np.random.default_rng(0).standard_normal((4, 1, 2), dtype="float32")
    drawn = vae.predict_on_batch({"images": images[:4], "noise": noise})
    given = vae.predict_on_batch({"images": images[:4], "codes": ops.convert_to_numpy(drawn.z)[:, None]})
    for name in ("log_likelihood", "log_prior", "log_posterior"):
        np.testing.assert_allclose(getattr(given.terms, name), getattr(drawn.terms, name), rtol=1e-4, atol=1e-4)


def test_gradient_is_that_of_the_linear_model_and_follows_the_weights(linear: tuple[VAE, Array, Array]) -> None:
    vae, images, _ = linear
    codes = np.random.default_rng(0).standard_normal((2, 3, 2), dtype="float32")
    dense = vae.decoder.layers[1]
    kernel, bias = dense.get_weights()
    try:
        for factor in (1.0, 0.5):
            dense.set_weights([factor * kernel, bias])
            residual = images[:2].reshape(2, 1, PIXELS) - codes @ (factor * kernel) - bias
            expected = residual @ (factor * kernel).T / SIGMA**2 - codes
            _, gradient = vae.log_joint_and_gradient(codes, {"images": images[:2]})
            np.testing.assert_allclose(ops.convert_to_numpy(gradient), expected, rtol=1e-3, atol=1e-2)
    finally:
        dense.set_weights([kernel, bias])


def test_value_and_gradient_is_compiled_once_for_a_shape() -> None:
    if backend.name() == "torch":
        pytest.skip("PyTorch computes eagerly")
    traces = []

    def cube(x: object, inputs: dict[str, object]) -> object:
        traces.append(1)
        return inputs["factor"] * x**3

    compute = backend.value_and_gradient(cube, [])
    for value in (1.0, 2.0, 3.0):
        values, gradient = compute(np.full(2, value, "float32"), {"factor": np.float32(2.0)})
        np.testing.assert_allclose(ops.convert_to_numpy(values), 2 * value**3)
        np.testing.assert_allclose(ops.convert_to_numpy(gradient), 6 * value**2)
    assert len(traces) == 1


@pytest.mark.parametrize("shape", [0.2, 0.7, 1.2])
def test_pareto_shape_of_pareto_weights(shape: float) -> None:
    uniform = np.random.default_rng(0).random((20, 20_000))
    weights = (uniform**-shape - 1) / shape  # quantiles of the generalized Pareto distribution
    assert pareto_shape(np.log(weights)).mean() == pytest.approx(shape, abs=0.06)


def test_pareto_shape_of_equal_and_of_few_weights() -> None:
    np.testing.assert_array_equal(pareto_shape(np.full((2, 100), 3.0)), -1)
    assert np.isnan(pareto_shape(np.zeros((1, 20)))).all()
    assert (reliable_shape(100), reliable_shape(10**6)) == (0.5, 0.7)
    assert reliable_shape(1) == -math.inf


def test_default_proposal_suits_the_model() -> None:
    network = MLP(widths=(4,))
    deterministic = VAE(
        network.encoder(SHAPE, 2, {"z_mean": 2}),
        network.decoder(2, SHAPE),
        posterior=posteriors.Deterministic(),
    )
    hierarchical = HierarchicalVAE((4, 4, 1), widths=(4,), groups=(1,), latent_channels=1)
    for model in (deterministic, hierarchical):
        assert choose_proposal(model, None).name == "posterior"
        for name in ("mixture", "ais"):
            with pytest.raises(InputError, match=f"proposal = {name}: searches vectors .+ use proposal = 'posterior'"):
                choose_proposal(model, name)
    with pytest.raises(InputError, match="codes: the code of a HierarchicalVAE is not a single vector"):
        hierarchical({"images": np.zeros((1, 4, 4, 1), "uint8"), "codes": np.zeros((1, 1, 4), "float32")})
    with pytest.raises(InputError, match="proposal = 'modes': unknown"):
        choose_proposal(deterministic, "modes")


@pytest.mark.slow
@on_tensorflow("a slow check of a pretrained model, which test_backends.py compares")
def test_nll_of_mnist_2d_is_that_of_quadrature(real_mnist: object) -> None:
    images = sources.load("mnist").test.images[::500]
    model, step = load("mnist-2d"), 0.04
    axis = np.arange(-5.5, 5.5, step, dtype="float32")
    grid = np.stack(np.meshgrid(axis, axis), axis=-1).reshape(-1, 2)
    pixels = images.reshape(len(images), -1) / 255.0
    parts = []
    for start in range(0, len(grid), 2000):
        codes = grid[start : start + 2000]
        logits = ops.convert_to_numpy(model.decoder.predict_on_batch(codes)).reshape(len(codes), -1)
        log_prior = stats.norm.logpdf(codes).sum(axis=1) - np.logaddexp(0, logits).sum(axis=1)
        parts.append(special.logsumexp(logits @ pixels.T + log_prior[:, None], axis=0))
    exact = special.logsumexp(parts, axis=0) + 2 * math.log(step)
    gaps = exact - model.log_likelihood(images, samples=1000)
    assert abs(gaps.mean()) < 0.05
    assert np.abs(gaps).max() < 1
    assert (exact - model.log_likelihood(images, samples=1000, proposal="posterior")).mean() > 1


@pytest.mark.parametrize(("proposal", "numbers_per_draw"), [("posterior", 1), ("mixture", 3)])
def test_only_log_weights_leave_the_device(
    proposal: str, numbers_per_draw: int, linear: tuple[VAE, Array, Array], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each further draw, the log-weight, or its three terms, are copied to the host, but no image."""
    vae, images, _ = linear
    copied, convert = list[int](), ops.convert_to_numpy

    def convert_and_count(tensor: object) -> Array:
        array: Array = convert(tensor)
        copied.append(array.size)
        return array

    monkeypatch.setattr(ops, "convert_to_numpy", convert_and_count)

    # Keras's methods copy all outputs of a model to the host.
    def refuse(*args: object) -> None:
        raise AssertionError("predict_on_batch copies images and codes to the host")

    vae.encoder.predict_on_batch(images[:4])
    monkeypatch.setattr(VAE, "predict_on_batch", refuse)
    totals = []
    for samples in (200, 400):
        copied.clear()
        vae.log_likelihood(images[:4], samples=samples, proposal=proposal)
        totals.append(sum(copied))
    # A fifth of the draws of the mixture are codes of the posterior and the prior, which the host needs.
    codes = 0 if proposal == "posterior" else 2 * vae.latent_dim / 10
    assert totals[1] - totals[0] == 4 * 200 * (numbers_per_draw + codes)


def test_loss_terms_are_those_of_a_prediction_and_follow_the_weights(linear: tuple[VAE, Array, Array]) -> None:
    vae, images, _ = linear
    inputs = {"images": images[:4], "noise": np.random.default_rng(0).standard_normal((4, 3, 2), dtype="float32")}
    dense = vae.decoder.layers[1]
    weights = dense.get_weights()
    try:
        for factor in (1.0, 0.5):
            dense.set_weights([factor * part for part in weights])
            predicted = vae.predict_on_batch(inputs).terms
            for one, other in zip(vae.loss_terms(inputs), predicted, strict=True):
                np.testing.assert_allclose(ops.convert_to_numpy(one), other, rtol=1e-6)
    finally:
        dense.set_weights(weights)
