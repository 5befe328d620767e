"""Settings that change between steps, weights of images, and training on several devices: obeyed or refused."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from keras_vae import ELBO, VAE, HierarchicalVAE, InputError, objectives, posteriors, priors
from keras_vae.core.typing import Array
from keras_vae.models.vq import VQVAE
from keras_vae.networks import Conv

MakeVAE = Callable[..., VAE]


@pytest.fixture
def vae(make_vae: MakeVAE) -> VAE:
    vae = make_vae()
    vae.compile(keras.optimizers.SGD(0.0))
    return vae


def beta_of(metrics: dict[str, Any]) -> float:
    return float((metrics["total_loss"] - metrics["reconstruction_loss"]) / metrics["kl_loss"])


class ChangeObjective(keras.callbacks.Callback):
    """Replace the objective after the first batch, and record the mean losses after each batch."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[dict[str, float]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(dict(logs))
        if batch == 0:
            self.model.objective = ELBO(beta=1000.0)


def test_new_objective_takes_effect_with_the_next_step_and_in_validation(vae: VAE, images: Array) -> None:
    assert vae.evaluate(images, verbose=0, return_dict=True)["kl_loss"] > 0
    change = ChangeObjective()
    history = vae.fit(images, validation_data=images, batch_size=12, callbacks=[change], verbose=0).history
    first, both = change.seen
    assert beta_of(first) == pytest.approx(1, rel=0.05)
    # The logs are means over the epoch so far, so the second batch is twice the last mean minus the first one.
    second = {name: 2 * both[name] - first[name] for name in both}
    assert beta_of(second) == pytest.approx(1000, rel=0.05)
    assert beta_of({name: history[f"val_{name}"][0] for name in both}) == pytest.approx(1000, rel=0.05)
    assert beta_of(vae.train_on_batch(images, return_dict=True)) == pytest.approx(1000, rel=0.05)
    assert vae.get_config()["objective"]["config"]["beta"] == 1000


def test_new_objective_is_checked(vae: VAE) -> None:
    with pytest.raises(InputError, match=r"^objective = 4: not an instance of Objective; "):
        vae.objective = 4
    deterministic = VAE(posterior=posteriors.Deterministic())
    with pytest.raises(InputError, match=r"^objective = .*posterior"):
        deterministic.objective = objectives.IWAE()
    ladder = HierarchicalVAE((8, 8, 1), widths=(4,), groups=(1,), latent_channels=2)
    with pytest.raises(InputError, match=r"compares latent vectors"):
        ladder.objective = objectives.BetaTC()
    codebook = VQVAE.from_network(Conv(widths=(4,), dense_units=4), (8, 8, 1), code_dim=4)
    with pytest.raises(InputError, match=r"use ELBO\(\)"):
        codebook.objective = objectives.IWAE()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("prior", priors.MixtureOfNormals()),
        ("posterior", posteriors.Deterministic()),
        ("likelihood", None),
        ("condition", None),
        ("encoder", None),
        ("decoder", None),
        ("seed", 3),
        ("latent_dim", 4),
        ("image_shape", (4, 4, 1)),
    ],
)
def test_settings_of_a_built_model_are_fixed(name: str, value: Any, vae: VAE, images: Array) -> None:
    before = getattr(vae, name)
    with pytest.raises(InputError, match=rf"^{name} = .*: fixed when the model was built; .*{name}=…") as error:
        setattr(vae, name, value)
    assert "\n" not in str(error.value)
    assert getattr(vae, name) is before
    assert np.isfinite(vae.fit(images, verbose=0).history["total_loss"])


@pytest.mark.parametrize("name", ["beta", "schedule", "free_bits", "capacity"])
def test_settings_of_the_objective_are_not_set_on_the_model(name: str, vae: VAE) -> None:
    with pytest.raises(InputError, match=rf"^{name} = 4\.0: a setting of the objective; .*objective = ELBO\({name}=…"):
        setattr(vae, name, 4.0)


def test_settings_of_components_with_weights_are_fixed_once_built() -> None:
    codebook = VQVAE.from_network(Conv(widths=(4,), dense_units=4), (8, 8, 1), code_dim=4).quantizer
    with pytest.raises(InputError, match=r"^decay = 0\.5: fixed when VectorQuantizerEMA was built; "):
        codebook.decay = 0.5
    assert codebook.get_config()["decay"] != 0.5


WEIGHTS = "^sample_weight: not supported, all images have the same weight; leave it out$"


def test_weights_of_images_are_refused(vae: VAE, images: Array) -> None:
    weights = np.linspace(0, 1, len(images))
    for call in (vae.fit, vae.evaluate):
        with pytest.raises(InputError, match=WEIGHTS):
            call(images, sample_weight=weights, verbose=0)
    for call in (vae.train_on_batch, vae.test_on_batch):
        with pytest.raises(InputError, match=WEIGHTS):
            call(images, sample_weight=weights)
    with pytest.raises(InputError, match=WEIGHTS):
        vae.fit(images, validation_data=(images, None, weights), verbose=0)
    for call in (vae.fit, vae.evaluate):
        with pytest.raises(InputError, match=WEIGHTS):
            call(((images[i : i + 8], None, weights[i : i + 8]) for i in (0, 8)), verbose=0)
    for call in (vae.fit, vae.train_on_batch):
        with pytest.raises(InputError, match=r"^class_weight: not supported, all images have the same weight"):
            call(images, class_weight={0: 2.0})


MIRRORED = """
import numpy as np, tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
from keras_vae import VAE, InputError
from keras_vae.networks import Conv
images = np.zeros((8, 8, 8, 1), "uint8")
make = lambda: VAE(Conv((4,), 4).encoder((8, 8, 1), 2), Conv((4,), 4).decoder(2, (8, 8, 1)), seed=0)

def attempt(call):
    try:
        print(f"no error: {call()}")
    except InputError as error:
        print(error)

two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
outside = make()
outside.compile("sgd")
with two.scope():
    attempt(make)
    attempt(lambda: outside.fit(images, verbose=0))
    attempt(lambda: outside.evaluate(images, verbose=0))
    attempt(lambda: outside.predict(images, verbose=0))
with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
    one = make()
    one.compile("sgd")
print(sorted(one.fit(images, verbose=0).history))
"""

IGNORED = """
import keras, numpy as np
from keras_vae import VAE, InputError
mesh = keras.distribution.DeviceMesh((2,), ["batch"], ["cpu:0", "cpu:1"])
keras.distribution.set_distribution(keras.distribution.DataParallel(mesh))
try:
    VAE()
except InputError as error:
    print(error)
"""

SHARDED = """
import keras, numpy as np
from keras_vae import VAE
from keras_vae.networks import Conv
images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 1), dtype="uint8")

def weights():
    keras.utils.set_random_seed(0)
    vae = VAE(Conv((4,), 4).encoder((8, 8, 1), 2), Conv((4,), 4).decoder(2, (8, 8, 1)), seed=0)
    vae.compile(keras.optimizers.SGD(1e-3))
    vae.fit(images, batch_size=4, shuffle=False, verbose=0)
    return np.concatenate([np.ravel(array) for array in vae.encoder.get_weights()])

alone = weights()
keras.distribution.set_distribution(keras.distribution.DataParallel(devices=["cpu:0", "cpu:1"]))
print(np.abs(alone - weights()).max() < 1e-5)
"""


def run(code: str, name: str) -> list[str]:
    environment = {**os.environ, "KERAS_BACKEND": name, "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    source = Path(__file__).parents[2] / "src"
    environment["PYTHONPATH"] = f"{source}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout.splitlines()


def test_several_replicas_are_refused_and_one_trains() -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("tf.distribute works with TensorFlow alone")
    *refused, history = run(MIRRORED, "tensorflow")
    expected = (
        "strategy = MirroredStrategy: a VAE trains on one replica, not on 2; leave the scope of the strategy, or use "
        "keras.distribution with KERAS_BACKEND=jax"
    )
    assert refused == [expected] * 4
    assert history == "['kl_loss', 'negative_elbo', 'reconstruction_loss', 'total_loss']"


def test_keras_distribution_is_used_by_jax_and_refused_elsewhere() -> None:
    name = keras.backend.backend()
    if name == "jax":
        assert run(SHARDED, name) == ["True"]
    else:
        assert run(IGNORED, name) == [
            f"distribution = DataParallel: ignored by Keras on {name}; use KERAS_BACKEND=jax, or call "
            "keras.distribution.set_distribution(None)"
        ]
