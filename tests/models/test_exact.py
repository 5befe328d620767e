"""A linear-Gaussian VAE is probabilistic PCA, whose solution has a closed form (Tipping and Bishop 1999)."""

import math
import time
from typing import NamedTuple

import keras
import numpy as np
import pytest
from keras import layers, ops
from scipy import special, stats

from helpers import on_tensorflow
from keras_vae import VAE
from keras_vae.components.likelihoods import Normal
from keras_vae.components.objectives import ELBO, IWAE, Objective
from keras_vae.components.posteriors import DiagonalNormal, FullCovarianceNormal, Posterior
from keras_vae.components.schedules import Cosine, ScheduledRate
from keras_vae.core import backend
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.models import batching, importance_sampling

SHAPE, PIXELS, LATENT = (2, 3, 1), 6, 2


class Exact(NamedTuple):
    """The maximum-likelihood solution p(x) = N(mean, WWᵀ + σ²I) for a set of images."""

    images: Array
    mean: Array
    loadings: Array
    sigma: float

    @property
    def flat(self) -> Array:
        return self.images.reshape(-1, PIXELS).astype("float64")

    @property
    def covariance(self) -> Array:
        return self.loadings @ self.loadings.T + self.sigma**2 * np.eye(PIXELS)

    @property
    def log_prob(self) -> Array:
        return stats.multivariate_normal(self.mean, self.covariance).logpdf(self.flat)

    @property
    def posterior(self) -> tuple[Array, Array]:
        """The matrix that maps x − mean to the mean of the posterior, and the posterior's covariance."""
        precision = self.loadings.T @ self.loadings + self.sigma**2 * np.eye(LATENT)
        inverse = np.linalg.inv(precision)
        return inverse @ self.loadings.T, self.sigma**2 * inverse


@pytest.fixture(scope="module")
def solutions() -> dict[bool, Exact]:
    """The solution along the principal axes, whose posterior is diagonal, and a rotated solution."""
    rng = np.random.default_rng(2)
    loadings = rng.normal(size=(PIXELS, LATENT)) * [0.07, 0.04]
    flat = 0.5 + rng.normal(size=(256, LATENT)) @ loadings.T + 0.03 * rng.normal(size=(256, PIXELS))
    assert 0 < flat.min() < flat.max() < 1
    images = flat.reshape(-1, *SHAPE).astype("float32")
    eigenvalues, vectors = np.linalg.eigh(np.cov(flat.T, bias=True))
    variance = eigenvalues[:-LATENT].mean()
    axes = vectors[:, -LATENT:] * np.sqrt(eigenvalues[-LATENT:] - variance)
    turn = np.array([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]])
    return {
        turned: Exact(images, flat.mean(0), axes @ turn if turned else axes, math.sqrt(variance))
        for turned in (False, True)
    }


def linear_vae(posterior: Posterior, objective: Objective | None = None) -> VAE:
    """Build a VAE with one dense layer per network. The images are centered by a constant, which is affine too."""
    inputs = keras.Input(SHAPE)
    features = layers.Rescaling(10.0, offset=-5.0)(layers.Flatten()(inputs))
    param_sizes = posterior.param_sizes(LATENT).items()
    small = keras.initializers.RandomNormal(stddev=0.1, seed=3)
    encoder = keras.Model(
        inputs, [layers.Dense(size, kernel_initializer=small, name=name)(features) for name, size in param_sizes]
    )
    z = keras.Input((LATENT,))
    decoded = layers.Dense(PIXELS, kernel_initializer=small, name="loadings")(z)
    decoder = keras.Model(z, layers.Reshape(SHAPE)(decoded))
    return VAE(encoder, decoder, likelihood=Normal(scale="learned"), posterior=posterior, objective=objective, seed=4)


def expected_elbo(vae: VAE, images: Array) -> Array:
    """Return the ELBO of each image without sampling noise, (N,).

    In a linear model, log p(x|z) is quadratic in the noise, and the mean over the points ±√2·e is exact for quadratics.
    """
    points = math.sqrt(2) * np.concatenate([np.eye(LATENT), -np.eye(LATENT)]).astype("float32")
    terms = vae({"images": images, "noise": np.tile(points, (len(images), 1, 1))}).terms
    return -ops.convert_to_numpy(terms.negative_elbo).astype("float64")


def exact_vae(exact: Exact, posterior: Posterior) -> VAE:
    """Build the model of the closed-form solution, with its exact posterior."""
    vae = linear_vae(posterior)
    matrix, covariance = exact.posterior
    lower = np.linalg.cholesky(covariance)
    vae.decoder.get_layer("loadings").set_weights([exact.loadings.T, exact.mean])
    vae.encoder.get_layer("z_mean").set_weights([matrix.T / 10.0, matrix @ (0.5 - exact.mean)])
    constants = {"z_log_var": 2 * np.log(np.diagonal(lower))}
    if isinstance(posterior, FullCovarianceNormal):
        constants["z_lower"] = lower[1, :1]
    else:
        assert abs(lower[1, 0]) < 1e-9
    for name, bias in constants.items():
        vae.encoder.get_layer(name).set_weights([np.zeros((PIXELS, len(bias))), bias])
    vae.likelihood.log_scale.assign(math.log(exact.sigma))
    return vae


CASES = [(False, DiagonalNormal()), (True, FullCovarianceNormal())]


def test_closed_form_is_the_maximum_of_the_likelihood(solutions: dict[bool, Exact]) -> None:
    """Check the reference itself: it equals Tipping and Bishop's formula, and nearby points are worse."""
    exact = solutions[False]
    eigenvalues = np.linalg.eigvalsh(np.cov(exact.flat.T, bias=True))
    formula = -0.5 * (
        PIXELS * (math.log(2 * math.pi) + 1)
        + np.log(eigenvalues[-LATENT:]).sum()
        + (PIXELS - LATENT) * math.log(eigenvalues[:-LATENT].mean())
    )
    assert exact.log_prob.mean() == pytest.approx(formula, rel=1e-5)
    np.testing.assert_allclose(solutions[True].log_prob, exact.log_prob, rtol=1e-9)
    for worse in (
        exact._replace(sigma=1.1 * exact.sigma),
        exact._replace(loadings=1.1 * exact.loadings),
        exact._replace(mean=exact.mean + 0.01),
    ):
        assert worse.log_prob.mean() < formula


@pytest.mark.parametrize(("turned", "posterior"), CASES)
def test_elbo_under_the_exact_posterior_equals_the_log_likelihood(
    turned: bool, posterior: Posterior, solutions: dict[bool, Exact]
) -> None:
    exact = solutions[turned]
    vae = exact_vae(exact, posterior)
    np.testing.assert_allclose(expected_elbo(vae, exact.images), exact.log_prob, rtol=3e-4, atol=3e-3)
    terms = vae.elbo_terms(exact.images, draws=1000)
    # The standard deviation of a single draw is that of half a χ² variable with two degrees of freedom.
    error = terms.log_likelihood.std(1).mean() / math.sqrt(terms.log_likelihood.size)
    assert 4 * error < 1e-3 * exact.log_prob.mean()
    assert -ops.convert_to_numpy(terms.negative_elbo).mean() == pytest.approx(exact.log_prob.mean(), rel=1e-3)
    single = vae.elbo(exact.images, seed=1)
    assert single.mean() == pytest.approx(exact.log_prob.mean(), abs=4 / math.sqrt(256))
    assert single.std() > 0.5


@pytest.mark.parametrize(("turned", "posterior"), CASES)
def test_every_importance_weight_under_the_exact_posterior_is_the_likelihood(
    turned: bool, posterior: Posterior, solutions: dict[bool, Exact]
) -> None:
    """For every image and z, log p(x|z) + log p(z) − log p(z|x) = log p(x)."""
    exact = solutions[turned]
    vae = exact_vae(exact, posterior)
    for samples in (1, 7, 107):
        found = vae.log_likelihood(exact.images[:10], samples=samples, proposal="posterior")
        np.testing.assert_allclose(found, exact.log_prob[:10], rtol=2e-4, atol=2e-3)


def test_moments_and_samples_equal_those_of_the_exact_posterior(solutions: dict[bool, Exact]) -> None:
    exact = solutions[True]
    vae = exact_vae(exact, FullCovarianceNormal())
    matrix, covariance = exact.posterior
    means = (exact.flat - exact.mean) @ matrix.T
    found = vae.encode(exact.images)
    np.testing.assert_allclose(found.z_mean, means, rtol=1e-3, atol=1e-3)
    np.testing.assert_allclose(np.exp(found.z_log_var), np.tile(np.diagonal(covariance), (256, 1)), rtol=1e-3)
    drawn = np.stack([vae.sample_posterior(exact.images, seed=seed) - means for seed in range(20)]).reshape(-1, LATENT)
    np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.06 * covariance.max())
    np.testing.assert_array_equal(
        vae.sample_posterior(exact.images, seed=3), vae.sample_posterior(exact.images, seed=3)
    )
    assert not np.allclose(vae.sample_posterior(exact.images, seed=3), vae.sample_posterior(exact.images, seed=4))


def test_importance_sampling_approaches_the_log_likelihood_with_a_wrong_encoder(solutions: dict[bool, Exact]) -> None:
    exact = solutions[False]
    vae = exact_vae(exact, DiagonalNormal())
    kernel, bias = vae.encoder.get_layer("z_mean").get_weights()
    vae.encoder.get_layer("z_mean").set_weights([0.9 * kernel, 0.9 * bias + 0.1])
    log_var = vae.encoder.get_layer("z_log_var")
    log_var.set_weights([log_var.get_weights()[0], log_var.get_weights()[1] + 1.0])
    assert (expected_elbo(vae, exact.images) < exact.log_prob).all()
    plain = (vae.log_likelihood(exact.images, samples=k, proposal="posterior") for k in (2, 10, 1000))
    bounds = [expected_elbo(vae, exact.images), *plain]
    gaps = [(exact.log_prob - bound).mean() for bound in bounds]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[0] > 0.5
    assert abs(gaps[-1]) < 0.01


def test_log_likelihood_is_the_log_mean_of_the_importance_weights(
    solutions: dict[bool, Exact], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result does not depend on the numbers of draws and images per chunk."""
    vae, images = linear_vae(DiagonalNormal()), solutions[False].images[:10]
    noise = np.stack(
        [np.random.default_rng([5, 2, image]).standard_normal((130, LATENT), dtype="float32") for image in range(10)]
    )
    weights = ops.convert_to_numpy(vae({"images": images, "noise": noise}).terms.log_weight)
    expected = special.logsumexp(weights, axis=1) - math.log(130)
    np.testing.assert_allclose(
        vae.log_likelihood(images, samples=130, seed=5, proposal="posterior"), expected, rtol=1e-5
    )
    monkeypatch.setattr(importance_sampling, "_PIXELS_AT_ONCE", 150 * 28 * 28)
    np.testing.assert_allclose(
        vae.log_likelihood(images, samples=130, seed=5, proposal="posterior"), expected, rtol=1e-5
    )
    monkeypatch.setattr(importance_sampling.PosteriorProposal, "draws_at_once", 40)
    np.testing.assert_allclose(
        vae.log_likelihood(images, samples=130, seed=5, proposal="posterior"), expected, rtol=1e-5
    )
    weights = vae.elbo_terms(images, seed=5, draws=60).log_weight
    np.testing.assert_allclose(
        vae.elbo_terms(images, seed=5, draws=60, batch_size=4).log_weight, weights, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("num_threads", [1, 3])
def test_parallel_blocks_equal_blocks_computed_one_by_one(
    solutions: dict[bool, Exact], num_threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results come in order. If the consumer stops, pending blocks are not computed."""
    if num_threads > backend.num_inference_threads():
        pytest.skip("this backend computes one block at a time")
    monkeypatch.setattr(backend, "num_inference_threads", lambda: num_threads)
    monkeypatch.setattr(importance_sampling, "_PIXELS_AT_ONCE", 100 * math.prod(SHAPE))
    sampling = linear_vae(DiagonalNormal()).importance_sampling(
        solutions[False].images[:40], samples=50, seed=5, proposal="posterior"
    )
    assert len(sampling.blocks) == 20
    parallel = [estimate.log_likelihood for estimate in sampling.over(sampling.blocks)]
    np.testing.assert_allclose(parallel, [sampling(block).log_likelihood for block in sampling.blocks], rtol=1e-6)
    computed = []

    def compute(self: importance_sampling.ImportanceSampling, block: slice) -> slice:
        time.sleep(0.02)
        computed.append(block)
        return block

    monkeypatch.setattr(importance_sampling.ImportanceSampling, "__call__", compute)
    estimates = sampling.over(sampling.blocks)
    assert [next(estimates), next(estimates)] == sampling.blocks[:2]
    estimates.close()
    assert len(computed) < 20


def test_given_noise_replaces_the_random_noise(solutions: dict[bool, Exact]) -> None:
    exact = solutions[True]
    vae, noise = exact_vae(exact, FullCovarianceNormal()), np.random.default_rng(3).normal(size=(256, 1, LATENT))
    matrix, covariance = exact.posterior
    expected = (exact.flat - exact.mean) @ matrix.T + noise[:, 0] @ np.linalg.cholesky(covariance).T
    inputs = {"images": exact.images, "noise": noise.astype("float32")}
    np.testing.assert_allclose(vae.predict(inputs, verbose=0).z, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(("height", "draws"), [(28, 1), (28, 100), (28, 5000), (512, 100)])
def test_default_batch_size_bounds_memory_and_is_at_least_one(height: int, draws: int) -> None:
    batch_size = batching.fitting_batch_size((height, height, 3), draws)
    assert batch_size >= 1
    assert batch_size == 1 or batch_size * draws * height**2 <= 1024 * 28**2


def test_numbers_below_one_are_rejected() -> None:
    vae, images = linear_vae(DiagonalNormal()), np.zeros((2, *SHAPE), "uint8")
    with pytest.raises(InputError, match="draws = 0: not a positive integer; pass an integer ≥ 1"):
        vae.elbo_terms(images, draws=0)
    with pytest.raises(InputError, match="samples = 0: not a positive integer; pass an integer ≥ 1"):
        vae.log_likelihood(images, samples=0)
    with pytest.raises(InputError, match="batch_size = 0: not a positive integer; pass an integer ≥ 1"):
        vae.elbo(images, batch_size=0)


@pytest.mark.slow
@on_tensorflow("the gradients of every component are tested on each backend, and TensorFlow trains fast")
@pytest.mark.parametrize(
    ("posterior", "objective"),
    [
        (DiagonalNormal(), ELBO()),
        (FullCovarianceNormal(), ELBO()),
        (FullCovarianceNormal(), IWAE(samples=4, gradient="dreg")),
    ],
    ids=["normal", "full-normal", "iwae"],
)
def test_training_from_scratch_reaches_the_closed_form_optimum(
    posterior: Posterior, objective: Objective, solutions: dict[bool, Exact]
) -> None:
    exact, vae, steps = solutions[False], linear_vae(posterior, objective), 3000
    vae.compile(optimizer=keras.optimizers.Adam(ScheduledRate(0.02, Cosine(steps=steps, warm_up=0.02))))
    # Each batch is the whole data set. Copies of it make epochs longer, which is faster than many short epochs.
    copies = np.tile(exact.images, (100, 1, 1, 1))
    vae.fit(copies, batch_size=len(exact.images), shuffle=False, epochs=steps // 100, verbose=0)
    reached = expected_elbo(vae, exact.images).mean()
    optimum = exact.log_prob.mean()
    # The tolerance is relative to the gain over the same normal distribution for all pixels.
    baseline = stats.norm(exact.flat.mean(0), (exact.flat - exact.flat.mean(0)).std()).logpdf(exact.flat).sum(1).mean()
    tolerance = 1e-3 * min(optimum - baseline, abs(optimum))
    assert reached == pytest.approx(optimum, abs=tolerance)
    assert float(ops.exp(vae.likelihood.log_scale)) == pytest.approx(exact.sigma, rel=0.02)
    found = vae.decoder.get_layer("loadings").get_weights()[0]
    np.testing.assert_allclose(found.T @ found, exact.loadings @ exact.loadings.T, atol=0.02 * exact.covariance.max())
