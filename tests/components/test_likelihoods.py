"""What every likelihood keeps, their binarizations, and their gradients where parameters are extreme."""

from collections.abc import Callable

import keras
import numpy as np
import pytest
from keras import ops

from keras_vae.components import likelihoods
from keras_vae.components.likelihoods import Bernoulli, Laplace, Likelihood, Normal
from keras_vae.core import registry
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array

VARIANTS = (
    {"name": "bernoulli", "from_logits": False},
    {"name": "normal", "scale": 0.1},
    {"name": "normal", "scale": "pixel"},
    {"name": "laplace", "scale": 0.1},
    {"name": "laplace", "scale": "pixel"},
    {"name": "discretized-logistic", "num_components": 3},
)
EVERY = [*({"name": name} for name in registry.registered("likelihood")), *VARIANTS]
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


def title(spec: dict[str, object]) -> str:
    return " ".join(str(value) for value in spec.values())


every = pytest.mark.parametrize("spec", EVERY, ids=title)


def to_numpy(tensor: object) -> np.ndarray:
    return ops.convert_to_numpy(tensor)


def build(spec: dict[str, object]) -> Likelihood:
    return registry.build("likelihood", spec)


def some_outputs(likelihood: Likelihood, *leading: int, channels: int = 3) -> np.ndarray:
    """Return decoder outputs for images of 4×5 pixels, between 0 and 1 so that they are probabilities as well."""
    size = likelihood.decoder_channels(channels)
    return np.random.default_rng(8).uniform(0.05, 0.95, (*leading, 4, 5, size)).astype("float32")


def gray(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape).astype("float32") / 255


def gradient(function: Callable[[object], object], at: Array) -> np.ndarray:
    """Return the gradient of a scalar function by the backend's own means."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        variable = tf.Variable(at)
        with tf.GradientTape() as tape:
            value = function(variable)
        return tape.gradient(value, variable).numpy()
    if keras.backend.backend() == "jax":
        import jax

        return np.asarray(jax.jit(jax.grad(function))(at))
    import torch

    variable = torch.tensor(at, requires_grad=True)
    function(variable).backward()
    return variable.grad.numpy()


@every
def test_decoder_channels(spec: dict[str, object]) -> None:
    expected = CHANNELS.get(title(spec), CHANNELS[spec["name"]])
    assert tuple(build(spec).decoder_channels(channels) for channels in (1, 3)) == expected


@every
def test_draws_are_images_and_follow_the_seed(spec: dict[str, object]) -> None:
    likelihood = build(spec)
    view = likelihood(ops.convert_to_tensor(some_outputs(likelihood, 6, 2)))
    first, again, other = (to_numpy(view.sample(seed)) for seed in (1, 1, 2))
    assert first.shape == (6, 2, 4, 5, 3)
    assert first.dtype == np.float32
    assert first.min() >= 0
    assert first.max() <= 1
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)


class Score(keras.Model):
    """What a likelihood says of images, compiled for a batch size that is not known."""

    def __init__(self, likelihood: Likelihood, draws: bool = False) -> None:
        super().__init__()
        self.likelihood = likelihood
        self.generator = keras.random.SeedGenerator(0) if draws else None

    def call(self, inputs: tuple[object, object]) -> tuple[object, object]:
        outputs, x = inputs
        view = self.likelihood(outputs)
        return view.log_prob(self.likelihood.preprocess(x)), view.sample(
            self.generator
        ) if self.generator else view.mean()


@every
def test_each_of_several_draws_is_scored_as_it_is_alone(spec: dict[str, object]) -> None:
    likelihood = build(spec)
    outputs, x = some_outputs(likelihood, 6, 2), gray(6, 4, 5, 3)
    log_prob, mean = Score(likelihood).predict((outputs, x[:, None]), batch_size=3, verbose=0)
    assert (log_prob.shape, mean.shape) == ((6, 2), (6, 2, 4, 5, 3))
    assert (log_prob.dtype, mean.dtype) == (np.float32, np.float32)
    assert mean.min() >= 0
    assert mean.max() <= 1
    alone, mean_alone = Score(likelihood).predict((outputs[:, 1], x), batch_size=3, verbose=0)
    np.testing.assert_allclose(log_prob[:, 1], alone, rtol=2e-5)
    np.testing.assert_allclose(mean[:, 1], mean_alone, rtol=1e-5, atol=1e-6)


def test_draws_of_a_compiled_model_are_new_for_every_batch() -> None:
    likelihood = build({"name": "discretized-logistic", "num_components": 3})
    outputs = np.repeat(some_outputs(likelihood, 1), 4, 0)
    _, drawn = Score(likelihood, draws=True).predict((outputs, gray(4, 4, 5, 3)), batch_size=2, verbose=0)
    assert drawn.shape == (4, 4, 5, 3)
    assert not np.array_equal(drawn[:2], drawn[2:])


@every
def test_gradients_are_finite_where_outputs_are_extreme(spec: dict[str, object]) -> None:
    likelihood = build(spec)
    extremes = np.array([-100, -50, -20, -1, 0, 1, 20, 50, 100], "float32")
    outputs = some_outputs(likelihood, len(extremes))
    outputs[..., ::2] = extremes[:, None, None, None]
    ramp = np.round(np.linspace(0, 255, 60)).reshape(1, 4, 5, 3).astype("float32") / 255
    x = ops.convert_to_tensor(np.repeat(ramp, len(extremes), 0))
    found = gradient(lambda tensor: ops.sum(likelihood(tensor).log_prob(x)), outputs)
    assert np.isfinite(found).all()
    assert (abs(found).max((1, 2, 3)) > 0).all()


@pytest.mark.parametrize("raw", [-20.0, 20.0])
@pytest.mark.parametrize("family", [Normal, Laplace])
def test_a_scale_beyond_its_range_is_bounded_and_comes_back(family: type[Likelihood], raw: float) -> None:
    outputs = np.array([[[[0.5, raw]]]], "float32")
    # Where the bound is at its lower end, a distant pixel asks for more; at its upper end, an exact one for less.
    x = ops.convert_to_tensor(np.full((1, 1, 1, 1), 0.0 if raw < 0 else 0.5, "float32"))
    view = family(scale="pixel")(ops.convert_to_tensor(outputs))
    low, high = likelihoods.SCALE_RANGE
    assert low < np.exp(to_numpy(view.log_scale).item()) < high
    slope = gradient(lambda tensor: ops.sum(family(scale="pixel")(tensor).log_prob(x)), outputs).ravel()[1]
    assert slope * -raw > 0.01


def test_a_scale_within_its_range_is_what_the_decoder_says() -> None:
    view = Normal(scale="pixel")(ops.convert_to_tensor(np.array([[[[0.5, -5.0]]]], "float32")))
    assert to_numpy(view.log_scale).item() == -5.0


@pytest.mark.parametrize(
    ("family", "spread"), [(Normal, lambda x: np.sqrt((x**2).mean())), (Laplace, lambda x: abs(x).mean())]
)
def test_learned_scale_finds_the_maximum_of_the_likelihood(
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
    view = model.likelihood(ops.zeros((1, 4, 5, 1)))
    assert np.exp(to_numpy(view.log_scale)) == pytest.approx(spread(x), rel=0.01)


def test_fixed_scale_is_no_weight() -> None:
    assert not Normal(scale=0.1).weights
    assert np.exp(to_numpy(Normal(scale=0.1)(ops.zeros((1, 1, 1, 1))).log_scale)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"name": "normal", "scale": 0}, "scale = 0"),
        ({"name": "normal", "scale": float("nan")}, "scale = nan"),
        ({"name": "laplace", "scale": -0.5}, "scale = -0.5"),
        ({"name": "laplace", "scale": "lerned"}, "'learned' or 'pixel'"),
        ({"name": "discretized-logistic", "num_components": 0}, "num_components = 0"),
        ({"name": "bernoulli", "binarize": "statik"}, "binarize = 'statik'"),
    ],
)
def test_wrong_settings_are_refused(spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        build(spec)
    assert message in str(error.value)


def test_wrong_settings_are_refused_in_python_too() -> None:
    with pytest.raises(InputError, match="none, threshold, static, dynamic"):
        Bernoulli(binarize="statik")
    with pytest.raises(InputError, match="scale = 'lerned'"):
        Normal(scale="lerned")


@pytest.mark.parametrize("spec", [{"name": "normal", "scale": 0.1}, {"name": "laplace"}], ids=title)
def test_layers_survive_their_table_and_keras(spec: dict[str, object]) -> None:
    likelihood = build(spec)
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(likelihood))
    wanted = {"scale": "learned", **spec}
    assert registry.spec("likelihood", again) == registry.spec("likelihood", likelihood) == wanted


def test_densities_and_probabilities_are_told_apart() -> None:
    densities = {"continuous-bernoulli", "normal", "laplace"}
    for name in registry.registered("likelihood"):
        assert build({"name": name}).is_density == (name in densities)


def test_only_a_bernoulli_on_gray_is_not_normalized() -> None:
    black_and_white, levels = np.array([0, 255], "uint8"), np.array([0, 7], "uint8")
    for name in registry.registered("likelihood"):
        assert build({"name": name}).is_normalized_on(black_and_white)
        assert build({"name": name}).is_normalized_on(levels) == (name != "bernoulli")
    assert Bernoulli(binarize="static").is_normalized_on(levels)


def test_only_a_bernoulli_on_colors_is_refused() -> None:
    for name in registry.registered("likelihood"):
        build({"name": name}).check_images((4, 5, 1))
        if name != "bernoulli":
            build({"name": name}).check_images((4, 5, 3))
    Bernoulli(binarize="threshold").check_images((4, 5, 3))
    with pytest.raises(InputError, match=r'3 channels.*bernoulli.*binarize = "dynamic".*discretized-logistic'):
        Bernoulli().check_images((4, 5, 3))


@every
def test_without_binarization_images_are_observed_as_they_are(spec: dict[str, object]) -> None:
    x = ops.convert_to_tensor(gray(2, 4, 5, 1))
    assert not build(spec).draws_pixels
    np.testing.assert_array_equal(to_numpy(build(spec).preprocess(x)), to_numpy(x))


def test_threshold_is_at_one_half() -> None:
    x = ops.convert_to_tensor(np.array([0, 0.49, 0.5, 1], "float32").reshape(1, 2, 2, 1))
    assert to_numpy(Bernoulli(binarize="threshold").preprocess(x)).ravel().tolist() == [0, 0, 1, 1]


def test_dynamic_binarization_takes_the_noise_it_is_given() -> None:
    likelihood = Bernoulli(binarize="dynamic")
    assert likelihood.draws_pixels
    x = ops.convert_to_tensor(np.array([0, 0.3, 0.3, 1], "float32").reshape(1, 2, 2, 1))
    uniform = ops.convert_to_tensor(np.array([0, 0.29, 0.31, 0.9999], "float32").reshape(1, 2, 2, 1))
    assert to_numpy(likelihood.preprocess(x, uniform)).ravel().tolist() == [0, 1, 0, 1]


def murmur(bits: np.ndarray) -> np.ndarray:
    """MurmurHash3's finalizer on uint32, as published."""
    bits = bits.astype("uint32")
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> np.uint32(shift))) * np.uint32(factor)
    return bits ^ (bits >> np.uint32(16))


def test_static_noise_is_the_same_on_every_backend() -> None:
    assert murmur(np.array([1])).item() == 0x514E28B7  # published value of fmix32(1)
    images, seed = np.random.default_rng(1).integers(0, 256, (3, 4, 5, 2)), 11
    places = murmur(murmur(np.arange(1, 41)) + np.uint32(seed))
    sums = (images.reshape(3, 40).astype("uint32") * (places | np.uint32(1))).sum(1, keepdims=True, dtype="uint32")
    expected = (murmur(murmur(sums) + murmur(places)) >> np.uint32(8)) / 2**24
    got = likelihoods._own_noise(ops.convert_to_tensor(images.astype("float32") / 255), seed)
    np.testing.assert_array_equal(to_numpy(got), expected.reshape(images.shape).astype("float32"))


def test_static_binarization_of_an_image_never_changes() -> None:
    likelihood, x = Bernoulli(binarize="static"), gray(16, 8, 8, 1)
    assert not likelihood.draws_pixels
    together = to_numpy(likelihood.preprocess(ops.convert_to_tensor(x)))
    alone = [to_numpy(likelihood.preprocess(ops.convert_to_tensor(image[None])))[0] for image in x[::-1]]
    np.testing.assert_array_equal(together, alone[::-1])
    other = to_numpy(Bernoulli(binarize="static", seed=1).preprocess(ops.convert_to_tensor(x)))
    assert 0.2 < (together != other).mean() < 0.47  # two independent draws differ with probability E[2x(1 − x)] = ⅓
    # Written down once: another binarization is another data set, whose numbers do not compare.
    ramp = np.arange(64, dtype="float32").reshape(1, 8, 8, 1) * 4 / 255
    bits = to_numpy(likelihood.preprocess(ops.convert_to_tensor(ramp))).astype(int).ravel()
    assert "".join(map(str, bits)) == "0001000001011100000100010101111110011110111100011111111101111111"


def test_static_noise_is_uniform_and_independent() -> None:
    count, x = 4000, gray(4000, 6, 6, 1)
    noise = to_numpy(likelihoods._own_noise(ops.convert_to_tensor(x), 0)).reshape(count, 36)
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


def test_static_noise_of_nearly_equal_images_is_independent() -> None:
    levels = np.random.default_rng(3).integers(1, 256, (2000, 6, 6, 1))
    one = levels.astype("float32") / 255
    levels[:, 2, 3] -= 1
    other = levels.astype("float32") / 255
    first, second = (to_numpy(likelihoods._own_noise(ops.convert_to_tensor(x), 0)).ravel() for x in (one, other))
    assert abs(np.corrcoef(first, second)[0, 1]) < 5 / np.sqrt(first.size)
    blank = to_numpy(likelihoods._own_noise(ops.zeros((1, 30, 30, 3)), 0)).ravel()
    assert len(np.unique(blank)) > 0.99 * blank.size
    assert abs(np.corrcoef(blank[1:], blank[:-1])[0, 1]) < 5 / np.sqrt(blank.size)
