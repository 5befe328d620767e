"""Contract of all likelihoods, binarization, and gradients at extreme parameters."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import ops

from helpers import gradient, to_numpy
from keras_vae.components import likelihoods
from keras_vae.components.likelihoods import Bernoulli, Laplace, Likelihood, Normal
from keras_vae.components.likelihoods.bernoulli import hash_noise
from keras_vae.core import registry
from keras_vae.core.errors import InputError

VARIANTS = (
    {"name": "bernoulli", "from_logits": False},
    {"name": "normal", "scale": 0.1},
    {"name": "normal", "scale": "pixel"},
    {"name": "laplace", "scale": 0.1},
    {"name": "laplace", "scale": "pixel"},
    {"name": "discretized-logistic", "num_components": 3},
)
ALL = [*({"name": name} for name in registry.registered("likelihood")), *VARIANTS]
CHANNELS = {
    "bernoulli": (1, 3),
    "continuous-bernoulli": (1, 3),
    "normal": (1, 3),
    "laplace": (1, 3),
    "normal pixel": (2, 6),
    "laplace pixel": (2, 6),
    "discretized-logistic": (2, 6),
    "discretized-logistic 3": (9, 30),
    "categorical": (256, 768),
}


def spec_id(spec: dict[str, object]) -> str:
    return " ".join(str(value) for value in spec.values())


all_likelihoods = pytest.mark.parametrize("spec", ALL, ids=spec_id)


def build(spec: dict[str, object]) -> Likelihood:
    return registry.build("likelihood", spec)


def make_outputs(likelihood: Likelihood, *leading: int, channels: int = 3) -> np.ndarray:
    """Return decoder outputs for images of 4×5 pixels, in [0, 1], so that they are valid probabilities too."""
    size = likelihood.decoder_channels(channels)
    return np.random.default_rng(8).uniform(0.05, 0.95, (*leading, 4, 5, size)).astype("float32")


def gray(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype("float32") / 255


@all_likelihoods
def test_decoder_channels_depend_on_the_image_channels(spec: dict[str, object]) -> None:
    expected = CHANNELS.get(spec_id(spec), CHANNELS[spec["name"]])
    assert tuple(build(spec).decoder_channels(channels) for channels in (1, 3)) == expected


@all_likelihoods
def test_samples_are_images_and_follow_the_seed(spec: dict[str, object]) -> None:
    likelihood = build(spec)
    distribution = likelihood(ops.convert_to_tensor(make_outputs(likelihood, 6, 2)))
    first, again, other = (to_numpy(distribution.sample(seed)) for seed in (1, 1, 2))
    assert first.shape == (6, 2, 4, 5, 3)
    assert first.dtype == np.float32
    # Normal and Laplace densities extend beyond the range of images.
    assert isinstance(likelihood, Normal | Laplace) == bool(first.min() < 0 or first.max() > 1)
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


class Score(keras.Model):
    """Log-likelihood and mean or sample of a batch, compiled for an unknown batch size."""

    def __init__(self, likelihood: Likelihood, draws: bool = False) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.generator = keras.random.SeedGenerator(0) if draws else None

    def call(self, inputs: tuple[object, object]) -> tuple[object, object]:
        outputs, x = inputs
        distribution = self.likelihood(outputs)
        return distribution.log_prob(self.likelihood.preprocess(x)), distribution.sample(
            self.generator
        ) if self.generator else distribution.mean_image()


@all_likelihoods
def test_log_prob_of_several_samples_equals_that_of_each_alone(spec: dict[str, object]) -> None:
    likelihood = build(spec)
    outputs, x = make_outputs(likelihood, 6, 2), gray(6, 4, 5, 3)
    log_prob, mean = Score(likelihood).predict((outputs, x[:, None]), batch_size=3, verbose=0)
    assert (log_prob.shape, mean.shape) == ((6, 2), (6, 2, 4, 5, 3))
    assert (log_prob.dtype, mean.dtype) == (np.float32, np.float32)
    assert mean.min() >= 0
    assert mean.max() <= 1
    alone, mean_alone = Score(likelihood).predict((outputs[:, 1], x), batch_size=3, verbose=0)
    np.testing.assert_allclose(log_prob[:, 1], alone, rtol=2e-5)
    np.testing.assert_allclose(mean[:, 1], mean_alone, rtol=1e-5, atol=1e-6)


@all_likelihoods
@pytest.mark.parametrize("spread", [0.5, 4.0])
def test_mean_is_the_average_of_samples(spec: dict[str, object], spread: float) -> None:
    likelihood, count = build(spec), 1000 if spec["name"] == "categorical" else 4000
    random = np.random.default_rng(11)
    outputs = random.normal(scale=spread, size=(1, 4, 5, likelihood.decoder_channels(3)))
    if spec.get("from_logits") is False:
        outputs = random.beta(0.5, 0.5, outputs.shape)
    outputs = outputs.astype("float32")
    mean = to_numpy(likelihood(ops.convert_to_tensor(outputs)).mean())[0].astype("float64")
    drawn = to_numpy(likelihood(ops.convert_to_tensor(np.repeat(outputs, count, 0))).sample(seed=3)).astype("float64")
    # Rare values may not be among the samples, and the mean of a discretized logistic is exact to one level.
    error = 5 * np.sqrt(drawn.var(axis=0) / count) + 20 / count
    tolerance = error + (1 / 255 if spec["name"] == "discretized-logistic" else 0)
    assert (abs(drawn.mean(axis=0) - mean) < tolerance).all()


def test_compiled_model_draws_new_samples_per_batch() -> None:
    likelihood = build({"name": "discretized-logistic", "num_components": 3})
    outputs = np.repeat(make_outputs(likelihood, 1), 4, 0)
    _, drawn = Score(likelihood, draws=True).predict((outputs, gray(4, 4, 5, 3)), batch_size=2, verbose=0)
    assert drawn.shape == (4, 4, 5, 3)
    assert not np.array_equal(drawn[:2], drawn[2:])


@all_likelihoods
def test_gradients_are_finite_at_extreme_outputs(spec: dict[str, object]) -> None:
    likelihood = build(spec)
    extremes = np.array([-100, -50, -20, -1, 0, 1, 20, 50, 100], "float32")
    outputs = make_outputs(likelihood, len(extremes))
    outputs[..., ::2] = extremes[:, None, None, None]
    ramp = np.round(np.linspace(0, 255, 60)).reshape(1, 4, 5, 3).astype("float32") / 255
    x = ops.convert_to_tensor(np.repeat(ramp, len(extremes), 0))
    found, _ = gradient(lambda tensor: ops.sum(likelihood(tensor).log_prob(x)), outputs)
    assert np.isfinite(found).all()
    assert (abs(found).max((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("raw", [-20.0, 20.0])
@pytest.mark.parametrize("family", [Normal, Laplace])
def test_scale_is_bounded_but_keeps_its_gradient(family: type[Likelihood], raw: float) -> None:
    outputs = np.array([[[[0.5, raw]]]], "float32")
    # A distant pixel needs a scale above the lower bound, and an exactly predicted one a scale below the upper bound.
    x = ops.convert_to_tensor(np.full((1, 1, 1, 1), 0.0 if raw < 0 else 0.5, "float32"))
    distribution = family(scale="pixel")(ops.convert_to_tensor(outputs))
    low, high = likelihoods.SCALE_RANGE
    assert low < np.exp(to_numpy(distribution.log_scale).item()) < high
    slopes, _ = gradient(lambda tensor: ops.sum(family(scale="pixel")(tensor).log_prob(x)), outputs)
    assert slopes.ravel()[1] * -raw > 0.01


def test_scale_within_its_range_is_the_output_of_the_decoder() -> None:
    distribution = Normal(scale="pixel")(ops.convert_to_tensor(np.array([[[[0.5, -5.0]]]], "float32")))
    assert to_numpy(distribution.log_scale).item() == -5.0


@pytest.mark.parametrize(
    ("family", "spread"), [(Normal, lambda x: np.sqrt((x**2).mean())), (Laplace, lambda x: abs(x).mean())]
)
def test_learned_scale_converges_to_maximum_likelihood(
    family: type[Likelihood], spread: Callable[[np.ndarray], float]
) -> None:
    class Fit(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.likelihood = family()

        def call(self, x: object) -> object:
            self.add_loss(-ops.mean(self.likelihood(ops.zeros_like(x)).log_prob(x)) / 20)
            return x

    x = np.random.default_rng(0).random((64, 4, 5, 1), "float32") ** 2
    model = Fit()
    model.compile(optimizer=keras.optimizers.Adam(0.1))
    model.fit(np.tile(x, (60, 1, 1, 1)), batch_size=64, shuffle=False, verbose=0)
    assert len(model.trainable_weights) == 1
    distribution = model.likelihood(ops.zeros((1, 4, 5, 1)))
    assert np.exp(to_numpy(distribution.log_scale)) == pytest.approx(spread(x), rel=0.01)


def test_fixed_scale_is_not_a_weight() -> None:
    assert not Normal(scale=0.1).weights
    assert np.exp(to_numpy(Normal(scale=0.1)(ops.zeros((1, 1, 1, 1))).log_scale)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "normal", "scale": 0}, "scale = 0"),
        ({"name": "normal", "scale": float("nan")}, "scale = nan"),
        ({"name": "laplace", "scale": -0.5}, "scale = -0.5"),
        ({"name": "laplace", "scale": "lerned"}, "did you mean 'learned'? accepted: learned, pixel"),
        ({"name": "discretized-logistic", "num_components": 0}, "num_components = 0"),
        ({"name": "bernoulli", "binarize": "statik"}, "binarize = 'statik'"),
    ],
)
def test_invalid_setting_is_rejected_in_a_spec(spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        build(spec)
    assert message in str(error.value)


def test_invalid_setting_is_rejected_in_python() -> None:
    with pytest.raises(InputError, match="accepted: dynamic, none, static, threshold"):
        Bernoulli(binarize="statik")
    with pytest.raises(InputError, match="scale = 'lerned'"):
        Normal(scale="lerned")


@pytest.mark.parametrize("spec", [{"name": "normal", "scale": 0.1}, {"name": "laplace"}], ids=spec_id)
def test_layers_survive_serialization(spec: dict[str, object]) -> None:
    likelihood = build(spec)
    loaded = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(likelihood))
    expected = {"scale": "learned", **spec}
    assert registry.spec("likelihood", loaded) == registry.spec("likelihood", likelihood) == expected


def test_only_densities_are_marked_as_densities() -> None:
    densities = {"continuous-bernoulli", "normal", "laplace"}
    for name in registry.registered("likelihood"):
        assert build({"name": name}).is_density == (name in densities)


def test_only_a_bernoulli_likelihood_of_gray_images_is_not_normalized() -> None:
    black_and_white, levels = np.array([0, 255], "uint8"), np.array([0, 7], "uint8")
    for name in registry.registered("likelihood"):
        assert build({"name": name}).is_normalized_on(black_and_white)
        assert build({"name": name}).is_normalized_on(levels) == (name != "bernoulli")
    assert Bernoulli(binarize="static").is_normalized_on(levels)


def test_only_a_bernoulli_likelihood_rejects_color_images() -> None:
    for name in registry.registered("likelihood"):
        build({"name": name}).check_images((4, 5, 1))
        if name != "bernoulli":
            build({"name": name}).check_images((4, 5, 3))
    Bernoulli(binarize="threshold").check_images((4, 5, 3))
    with pytest.raises(InputError, match=r'bernoulli.*3 channels; set binarize = "dynamic".*"discretized-logistic"'):
        Bernoulli().check_images((4, 5, 3))


@all_likelihoods
def test_preprocess_without_binarization_returns_the_images(spec: dict[str, object]) -> None:
    x = ops.convert_to_tensor(gray(2, 4, 5, 1))
    assert not build(spec).requires_noise
    np.testing.assert_array_equal(to_numpy(build(spec).preprocess(x)), to_numpy(x))


def test_threshold_binarization_is_at_one_half() -> None:
    x = ops.convert_to_tensor(np.array([0, 0.49, 0.5, 1], "float32").reshape(1, 2, 2, 1))
    assert to_numpy(Bernoulli(binarize="threshold").preprocess(x)).ravel().tolist() == [0, 0, 1, 1]


def test_dynamic_binarization_uses_the_given_noise() -> None:
    likelihood = Bernoulli(binarize="dynamic")
    assert likelihood.requires_noise
    x = ops.convert_to_tensor(np.array([0, 0.3, 0.3, 1], "float32").reshape(1, 2, 2, 1))
    uniform = ops.convert_to_tensor(np.array([0, 0.29, 0.31, 0.9999], "float32").reshape(1, 2, 2, 1))
    assert to_numpy(likelihood.preprocess(x, uniform)).ravel().tolist() == [0, 1, 0, 1]


def murmur(bits: np.ndarray) -> np.ndarray:
    """Return the published finalizer of MurmurHash3 on uint32."""
    bits = bits.astype("uint32")
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor)
    return bits ^ (bits >> np.uint32(16))


def test_hash_noise_is_the_same_on_all_backends() -> None:
    assert murmur(np.array([1])).item() == 0x514E28B7  # published value of fmix32(1)
    images, seed = np.random.default_rng(1).integers(0, 256, (3, 4, 5, 2)), 11
    positions = murmur(murmur(np.arange(1, 41)) + np.uint32(seed))
    sums = (images.reshape(3, 40).astype("uint32") * (positions | np.uint32(1))).sum(1, keepdims=True, dtype="uint32")
    expected = (murmur(murmur(sums) + murmur(positions)) >> np.uint32(8)) / 2**24
    got = hash_noise(ops.convert_to_tensor(images.astype("float32") / 255), seed)
    np.testing.assert_array_equal(to_numpy(got), expected.reshape(images.shape).astype("float32"))


def test_static_binarization_of_an_image_never_changes() -> None:
    likelihood, x = Bernoulli(binarize="static"), gray(16, 8, 8, 1)
    assert not likelihood.requires_noise
    together = to_numpy(likelihood.preprocess(ops.convert_to_tensor(x)))
    alone = [to_numpy(likelihood.preprocess(ops.convert_to_tensor(image[None])))[0] for image in x[::-1]]
    np.testing.assert_array_equal(together, alone[::-1])
    other = to_numpy(Bernoulli(binarize="static", seed=1).preprocess(ops.convert_to_tensor(x)))
    assert 0.2 < (together != other).mean() < 0.47  # two independent draws differ with probability E[2x(1 − x)] = ⅓
    # A fixed reference: a changed binarization would be another data set, and results would not be comparable.
    ramp = np.arange(64, dtype="float32").reshape(1, 8, 8, 1) * 4 / 255
    bits = to_numpy(likelihood.preprocess(ops.convert_to_tensor(ramp))).astype(int).ravel()
    assert "".join(map(str, bits)) == "0001000001011100000100010101111110011110111100011111111101111111"


def test_hash_noise_is_uniform_and_independent() -> None:
    count, x = 4000, gray(4000, 6, 6, 1)
    noise = to_numpy(hash_noise(ops.convert_to_tensor(x), 0)).reshape(count, 36)
    assert noise.min() >= 0
    assert noise.max() < 1
    np.testing.assert_allclose(noise.mean(0), 1 / 2, atol=4.5 * np.sqrt(1 / 12 / count))
    np.testing.assert_allclose((noise**2).mean(0), 1 / 3, atol=4.5 * np.sqrt(4 / 45 / count))
    histogram = np.histogram(noise, 64, (0, 1))[0] / noise.size * 64
    np.testing.assert_allclose(histogram, 1, atol=4.5 * np.sqrt(64 / noise.size))
    correlation = np.corrcoef(noise.T) - np.eye(36)
    assert abs(correlation).max() < 5 / np.sqrt(count)
    levels = np.corrcoef(noise.T, x.reshape(count, 36).T)[:36, 36:]
    assert abs(levels).max() < 5 / np.sqrt(count)


def test_hash_noise_of_similar_images_is_independent() -> None:
    levels = np.random.default_rng(3).integers(1, 256, (2000, 6, 6, 1))
    one = levels.astype("float32") / 255
    levels[:, 2, 3] -= 1
    other = levels.astype("float32") / 255
    first, second = (to_numpy(hash_noise(ops.convert_to_tensor(x), 0)).ravel() for x in (one, other))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)
    blank = to_numpy(hash_noise(ops.zeros((1, 30, 30, 3)), 0)).ravel()
    assert len(np.unique(blank)) > 0.99 * blank.size
    assert abs(np.corrcoef(blank[1:], blank[:-1])[0, 1]) < 5 / np.sqrt(blank.size)
