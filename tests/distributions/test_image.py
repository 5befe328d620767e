"""Distributions over images against SciPy, closed forms, numerical integrals and sums over all levels."""

import numpy as np
import pytest
from keras import ops
from scipy import special, stats

from helpers import gradient, tensor, to_numpy
from keras_vae.distributions.image import (
    Bernoulli,
    Categorical,
    ContinuousBernoulli,
    DiscretizedLogistic,
    ImageDistribution,
    Laplace,
    Normal,
)

LEVELS = np.arange(256)
LOGITS = (-60.0, -8.0, -1.001, -0.999, -0.3, -1e-4, 0.0, 1e-7, 0.02, 0.5, 0.9999, 1.0001, 3.0, 90.0)


def log_probs(distribution: ImageDistribution, pixels: object) -> np.ndarray:
    """Return log p of images of one pixel, given as (…, C)."""
    return to_numpy(distribution.log_prob(tensor(np.asarray(pixels)[..., None, None, :]))).astype("float64")


def random_logistic(components: int, channels: int, seed: int = 5) -> tuple[DiscretizedLogistic, list[np.ndarray]]:
    """Return a mixture over one pixel and its parameters, (M,), (M, C), (M, C), (M, C(C − 1)/2)."""
    random = np.random.default_rng(seed)
    parameters = [
        random.normal(size=components),
        random.normal(size=(components, channels), scale=0.6),
        random.uniform(-4.0, -1.0, (components, channels)),
        random.uniform(-0.9, 0.9, (components, channels * (channels - 1) // 2)),
    ]
    return DiscretizedLogistic(*(tensor(values[None, None, None]) for values in parameters)), parameters


def test_bernoulli_probabilities_of_all_images_sum_to_one() -> None:
    logits = np.random.default_rng(3).normal(size=(1, 2, 3, 1)).astype("float32") * 3
    images = np.array([[int(bit) for bit in f"{number:06b}"] for number in range(64)], "float32").reshape(64, 2, 3, 1)
    probabilities = np.exp(to_numpy(Bernoulli(ops.convert_to_tensor(np.repeat(logits, 64, 0))).log_prob(images)))
    assert probabilities.sum() == pytest.approx(1.0, rel=1e-5)


def test_bernoulli_is_exact_even_if_the_sigmoid_saturates() -> None:
    logits = ops.convert_to_tensor(np.full((1, 1, 1, 1), -200.0, "float32"))
    assert to_numpy(Bernoulli(logits).log_prob(np.ones((1, 1, 1, 1), "float32")))[0] == pytest.approx(-200.0)


@pytest.mark.parametrize("shape", [(28, 28, 1), (9, 14, 2), (16, 16, 3), (1, 127, 1), (1, 1, 1)], ids=str)
@pytest.mark.parametrize("scale", [0.0, 1e-3, 3.0, 300.0])
def test_bernoulli_and_its_gradient_equal_the_sum_over_pixels(shape: tuple[int, ...], scale: float) -> None:
    random = np.random.default_rng(4)
    logits = (scale * random.normal(size=(3, 2, *shape))).astype("float32")
    x = np.where(random.random((3, 1, *shape)) < 0.5, random.random((3, 1, *shape)).round(), 0.3).astype("float32")
    exact = (x * logits - np.logaddexp(0.0, logits.astype("float64"))).sum((-3, -2, -1))
    np.testing.assert_allclose(to_numpy(Bernoulli(tensor(logits)).log_prob(tensor(x))), exact, rtol=2e-6, atol=1e-5)
    ours, _ = gradient(lambda values: ops.sum(Bernoulli(values).log_prob(tensor(x))), logits)
    np.testing.assert_allclose(ours, x - special.expit(logits.astype("float64")), atol=3e-7 * (1 + scale))


def test_samples_of_a_bernoulli_have_its_mean() -> None:
    pixels = Bernoulli(ops.convert_to_tensor(np.full((2000, 1, 2, 1), [[[[-1.0], [2.0]]]], "float32")))
    drawn = to_numpy(pixels.sample(seed=4))
    assert set(np.unique(drawn)) == {0.0, 1.0}
    np.testing.assert_allclose(drawn.mean(0)[0, :, 0], 1 / (1 + np.exp([1.0, -2.0])), atol=0.04)


def test_images_broadcast_to_a_leading_axis_of_samples() -> None:
    random = np.random.default_rng(3)
    logits = ops.convert_to_tensor(random.normal(size=(4, 3, 2, 2, 1)).astype("float32"))
    x = random.random((3, 2, 2, 1), "float32")
    together = to_numpy(Bernoulli(logits).log_prob(x))
    np.testing.assert_allclose(together[2], to_numpy(Bernoulli(logits[2]).log_prob(x)), rtol=1e-6)


@pytest.mark.parametrize("logit", LOGITS)
def test_continuous_bernoulli_integrates_to_one_and_has_the_mean_of_its_density(logit: float) -> None:
    x = (np.arange(40_000) + 0.5) / 40_000
    pixel = ContinuousBernoulli(tensor([[[[logit]]]]))
    density = np.exp(log_probs(pixel, x[:, None]))
    assert density.mean() == pytest.approx(1.0, abs=2e-5)
    assert to_numpy(pixel.mean()).item() == pytest.approx((x * density).mean(), abs=2e-5)


def test_continuous_bernoulli_equals_the_formula_of_the_paper() -> None:
    rate = np.array([0.01, 0.2, 0.35, 0.49, 0.501, 0.7, 0.98])
    x = np.random.default_rng(0).random(len(rate))
    normalizer = 2 * np.arctanh(1 - 2 * rate) / (1 - 2 * rate)
    expected = np.log(normalizer * rate**x * (1 - rate) ** (1 - x))
    pixels = ContinuousBernoulli(tensor(special.logit(rate)[:, None, None, None]))
    np.testing.assert_allclose(log_probs(pixels, x[:, None]), expected, atol=2e-6)


def test_continuous_bernoulli_samples_have_the_moments_of_its_density() -> None:
    x = (np.arange(10_000) + 0.5) / 10_000
    for logit in (-100.0, -2.0, 0.0, 1e-5, 0.7, 30.0, 100.0):
        density = np.exp(log_probs(ContinuousBernoulli(tensor([[[[logit]]]])), x[:, None]))
        drawn = to_numpy(ContinuousBernoulli(tensor(np.full((20_000, 1, 1, 1), logit))).sample(seed=1))
        mean, square = (x * density).mean(), (x**2 * density).mean()
        error = 4 * np.sqrt(max(square - mean**2, 0) / 20_000)
        assert drawn.mean() == pytest.approx(mean, abs=error + 1e-5)
        assert (drawn**2).mean() == pytest.approx(square, abs=2 * error + 1e-5)
        assert drawn.min() >= 0
        assert drawn.max() <= 1


@pytest.mark.parametrize(("family", "reference"), [(Normal, stats.norm), (Laplace, stats.laplace)])
def test_location_scale_family_has_the_density_of_scipy_and_samples_follow_it(family: type, reference: object) -> None:
    random = np.random.default_rng(1)
    location, log_scale, x = random.normal(size=(3, 6, 4, 5, 2))
    expected = reference.logpdf(x, location, np.exp(log_scale)).sum((1, 2, 3))
    got = to_numpy(family(tensor(location), tensor(log_scale)).log_prob(tensor(x)))
    np.testing.assert_allclose(got, expected, rtol=1e-5)

    many = family(tensor(np.full((20_000, 1, 1, 1), 0.4)), tensor(np.log(0.05)))
    drawn = to_numpy(many.sample(seed=2)).ravel()
    assert stats.kstest(drawn, reference(0.4, 0.05).cdf).pvalue > 1e-3


@pytest.mark.parametrize("log_scale", [-5.0, -1.0, 0.5])
@pytest.mark.parametrize(("family", "reference"), [(Normal, stats.norm), (Laplace, stats.laplace)])
def test_location_scale_family_has_one_distribution_and_only_its_mean_image_is_clipped(
    family: type, reference: object, log_scale: float
) -> None:
    location = np.array([-3.0, 0.0, 0.25, 0.99, 7.0])
    exact = reference(location, np.exp(log_scale))
    pixels = family(tensor(location[None, None, None]), tensor(log_scale))
    np.testing.assert_allclose(to_numpy(pixels.mean()).ravel(), exact.mean(), atol=1e-6)
    np.testing.assert_allclose(to_numpy(pixels.mean_image()).ravel(), [0, 0, 0.25, 0.99, 1], atol=1e-6)
    many = family(tensor(np.tile(location, (4000, 1, 1, 1))), tensor(log_scale))
    drawn = to_numpy(many.sample(seed=0))[:, 0, 0]
    assert (abs(drawn.mean(axis=0) - exact.mean()) < 4 * exact.std() / np.sqrt(4000)).all()
    np.testing.assert_allclose(drawn.std(axis=0), exact.std(), rtol=0.1)


@pytest.mark.parametrize("log_scale", [-7.0, -3.0, 0.0, 2.0])
@pytest.mark.parametrize("location", [-50.0, -1.0, 0.0031, 0.7, 50.0])
def test_logistic_probabilities_of_all_levels_sum_to_one(location: float, log_scale: float) -> None:
    parameters = tensor([[[[[location]]]]]), tensor([[[[[log_scale]]]]])
    pixel = DiscretizedLogistic(tensor([[[[0.0]]]]), *parameters)
    got = log_probs(pixel, LEVELS[:, None] / 255)
    assert np.isfinite(got).all()
    assert np.exp(got).sum() == pytest.approx(1.0, abs=1e-5)
    assert to_numpy(pixel.mean()).item() == pytest.approx((np.exp(got) * LEVELS / 255).sum(), abs=0.51 / 255)


def test_logistic_probability_of_a_level_is_the_mass_of_its_bin() -> None:
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 127.5 - 1, [np.inf]])
    pixel = DiscretizedLogistic(tensor([[[[0.0]]]]), tensor([[[[[0.3]]]]]), tensor([[[[[-1.5]]]]]))
    expected = np.log(np.diff(stats.logistic.cdf(edges, 0.3, np.exp(-1.5))))
    np.testing.assert_allclose(log_probs(pixel, LEVELS[:, None] / 255), expected, rtol=2e-6, atol=2e-6)


def test_logistic_log_probability_decays_linearly_far_from_its_location() -> None:
    pixel = DiscretizedLogistic(tensor([[[[0.0]]]]), tensor([[[[[0.9]]]]]), tensor([[[[[-7.0]]]]]))
    near, far = log_probs(pixel, [[10 / 255], [9 / 255]])
    assert near - far == pytest.approx(np.exp(7.0) / 127.5, rel=1e-3)
    assert far < -1000


def test_mixture_of_dependent_channels_sums_to_one_and_samples_follow_it() -> None:
    mixture, _ = random_logistic(components=3, channels=2)
    colors = np.stack(np.meshgrid(LEVELS, LEVELS, indexing="ij"), -1).reshape(-1, 2) / 255
    probabilities = np.exp(log_probs(mixture, colors))
    assert probabilities.sum() == pytest.approx(1.0, abs=1e-5)

    count = 40_000
    repeated = (mixture.logits, mixture.location, mixture.log_scale, mixture.coefficients)
    drawn = to_numpy(DiscretizedLogistic(*(ops.repeat(value, count, axis=0) for value in repeated)).sample(seed=3))
    drawn = drawn[:, 0, 0]
    np.testing.assert_allclose(drawn * 255, np.round(drawn * 255), atol=1e-4)
    for statistic in (lambda c: c, lambda c: c**2, lambda c: c[:, :1] * c[:, 1:]):
        exact = probabilities @ statistic(colors)
        error = statistic(drawn).std(0) / np.sqrt(count)
        assert (abs(statistic(drawn).mean(0) - exact) < 4 * error + 1e-5).all()

    np.testing.assert_allclose(to_numpy(mixture.mean()).ravel(), probabilities @ colors, atol=1 / 255)


def exact_color(location: np.ndarray, log_scale: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
    """Return the mean levels of one component, (3,), summed over all levels of red and green in float64."""
    edges = (np.arange(255) + 0.5) / 127.5 - 1
    signed = LEVELS / 127.5 - 1

    def at_least(mean: np.ndarray, channel: int) -> np.ndarray:
        """Return the probabilities of at least level 1, 2, …, (…, 255)."""
        return special.expit((np.asarray(mean)[..., None] - edges) / np.exp(log_scale[channel]))

    def masses(mean: np.ndarray, channel: int) -> np.ndarray:
        return -np.diff(at_least(mean, channel), prepend=1, append=0, axis=-1)

    red = masses(location[0], 0)
    green = masses(location[1] + coefficients[0] * signed, 1)
    blue_given_red_and_green = [
        at_least(location[2] + coefficients[1] * r + coefficients[2] * signed, 2).sum(axis=-1) for r in signed
    ]
    return np.array([red @ LEVELS, red @ (green @ LEVELS), (red[:, None] * green * blue_given_red_and_green).sum()])


@pytest.mark.parametrize(
    ("log_scales", "tolerance"), [((2, 2, 2), 1), ((0.5, 0, -2), 1), ((-0.5, -7, -7), 1), ((-7, -7, -7), 2)], ids=str
)
def test_mean_color_is_the_sum_over_all_levels(log_scales: tuple[float, ...], tolerance: float) -> None:
    random = np.random.default_rng(6)
    location, log_scale = random.uniform(-1.3, 1.3, (4, 3)), np.tile(np.array(log_scales, float), (4, 1))
    coefficients = np.array([[1, 1, 1], [-1, 1, -1], [0.9, -0.9, 0.9], [0.3, -0.6, 0.2]])
    # White on average; the mean of the clipped red is far inside.
    location[0] = [1.0, 0.0, 0.0]
    exact = [exact_color(*component) for component in zip(location, log_scale, coefficients, strict=True)]
    parameters = [tensor(values[:, None, None, None]) for values in (np.zeros(4), location, log_scale, coefficients)]
    single = 255 * to_numpy(DiscretizedLogistic(*parameters).mean())[:, 0, 0]
    np.testing.assert_allclose(single, exact, atol=tolerance)

    logits = np.array([0.3, -1.0, 1.2, 0.0])
    parameters = [tensor(values[None, None, None]) for values in (logits, location, log_scale, coefficients)]
    mixture = 255 * to_numpy(DiscretizedLogistic(*parameters).mean()).ravel()
    np.testing.assert_allclose(mixture, special.softmax(logits) @ exact, atol=tolerance)


def test_rgb_mixture_is_the_product_of_its_conditionals() -> None:
    mixture, (logits, location, log_scale, coefficients) = random_logistic(components=4, channels=3)
    edges = np.concatenate([[-np.inf], (np.arange(255) + 0.5) / 127.5 - 1, [np.inf]])
    levels = np.random.default_rng(2).integers(0, 256, (50, 3))
    levels[:4] = [[0, 0, 0], [255, 255, 255], [0, 255, 0], [255, 0, 128]]

    def bin_mass(level: int, location: float, log_scale: float) -> float:
        return np.diff(stats.logistic.cdf(edges[level : level + 2], location, np.exp(log_scale)))[0]

    expected = []
    for red, green, blue in levels:
        r, g = red / 127.5 - 1, green / 127.5 - 1
        total = 0.0
        for weight, m, s, k in zip(special.softmax(logits), location, log_scale, coefficients, strict=True):
            blues = bin_mass(blue, m[2] + k[1] * r + k[2] * g, s[2])
            total += weight * bin_mass(red, m[0], s[0]) * bin_mass(green, m[1] + k[0] * r, s[1]) * blues
        expected.append(np.log(total))
    np.testing.assert_allclose(log_probs(mixture, levels / 255), expected, rtol=1e-4, atol=1e-5)


def test_categorical_is_a_softmax_over_levels_and_samples_follow_it() -> None:
    logits = np.random.default_rng(4).normal(size=(1, 1, 1, 2, 256)) * 2
    probabilities = special.softmax(logits[0, 0, 0], axis=-1)
    pixel = Categorical(tensor(logits))
    got = log_probs(Categorical(tensor(np.repeat(logits, 256, 0))), np.stack([LEVELS, LEVELS[::-1]], -1) / 255)
    np.testing.assert_allclose(got, np.log(probabilities[0] * probabilities[1, ::-1]), atol=1e-5)
    np.testing.assert_allclose(to_numpy(pixel.mean()).ravel(), probabilities @ LEVELS / 255, atol=1e-6)

    count = 20_000
    drawn = to_numpy(Categorical(tensor(np.repeat(logits, count, 0))).sample(seed=5))[:, 0, 0] * 255
    for channel in range(2):
        frequencies = np.bincount(drawn[:, channel].round().astype(int), minlength=256) / count
        error = np.sqrt(probabilities[channel] / count)
        assert (abs(frequencies - probabilities[channel]) < 5 * error + 1e-4).all()
