"""The contract of every registered part, and the errors of naming one."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vae.models.registration  # noqa: F401
from keras_vae.core import registry
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.info import DatasetInfo
from keras_vae.models.base import BaseVAE
from keras_vae.runs.build import build_model, resolve
from keras_vae.runs.experiment import Experiment

FACTS = DatasetInfo(image_shape=(9, 11, 1), images=24, classes=3)
KINDS = (
    *("architecture", "network", "prior", "posterior", "likelihood"),
    *("objective", "condition", "schedule"),
)
# Tests of other modules register parts of their own.
EVERY = [
    (kind, name)
    for kind in KINDS
    for name, cls in registry.registered(kind).items()
    if cls.__module__.startswith("keras_vae.")
]

# What a part cannot do without; everything else of a model is as small as it can be.
NEEDS = {
    ("architecture", "vq"): ["model.architecture.num_codes=8", "model.architecture.code_dim=4"],
    ("architecture", "ladder"): ["model.architecture.widths=[4, 8]", "model.architecture.groups=[1, 1]"],
    ("network", "conv"): ["model.network.widths=[4, 6]", "model.network.dense_units=8"],
    ("network", "mlp"): ["model.network.widths=[16, 8]"],
    ("network", "resnet"): ["model.network.widths=[8, 8]", "model.network.dense_units=8"],
    ("prior", "conditional-normal"): ["model.condition=label"],
    ("condition", "vector"): ["model.condition.size=2"],
}
SMALL = ["model.network=conv", "model.network.widths=[4, 6]", "model.network.dense_units=8", "model.latent_dim=3"]


def experiment(kind: str, name: str) -> Experiment:
    """Return a small experiment with the part in its place."""
    settings = [] if kind in ("architecture", "network") else SMALL
    if kind == "schedule":
        chosen = ["model.objective=elbo", f"model.objective.schedule={name}", f"training.schedule={name}"]
        return Experiment().with_overrides([*settings, *chosen])
    return Experiment().with_overrides([*settings, f"model.{kind}={name}", *NEEDS.get((kind, name), [])])


def inputs(model: BaseVAE, images: Array) -> Array | dict[str, Array]:
    """Return the images with what the model is told about them."""
    if model.condition is None:
        return images
    shape, dtype = (len(images), *model.condition.value_shape), model.condition.dtype
    values = np.arange(np.prod(shape)).reshape(shape) % 3
    return {"images": images, "condition": values.astype(dtype)}


def weights(model: keras.Model) -> dict[str, Array]:
    return {weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in model.trainable_weights}


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_part_builds_from_its_name_and_survives_toml_keras_and_json(kind: str, name: str) -> None:
    part = registry.build(kind, {"name": name})
    spec = registry.spec(kind, part)
    assert registry.spec(kind, registry.build(kind, json.loads(json.dumps(spec)))) == spec
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(part)))
    assert config["registered_name"].startswith("keras_vae>")
    again = keras.saving.deserialize_keras_object(config)
    assert type(again) is type(part)
    assert registry.spec(kind, again) == spec
    if isinstance(part, registry.Component):
        assert again == part
        with pytest.raises(AttributeError):
            part.something = 1


def test_no_two_classes_are_saved_under_one_name() -> None:
    classes = [registry.registered(kind)[name] for kind, name in EVERY]
    assert len({keras.saving.get_registered_name(cls) for cls in classes}) == len(classes)


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_part_trains_and_survives_saving_in_a_model(kind: str, name: str, images: Array, tmp_path: Path) -> None:
    written = experiment(kind, name)
    resolved = resolve(written, FACTS)
    assert Experiment.from_toml(resolved.to_toml(), "text") == resolved
    keras.utils.set_random_seed(1)
    model = build_model(resolved, FACTS)
    assert [layer.name for layer in model._flatten_layers() if not layer.built] == [], "Keras would run batches twice"
    data = inputs(model, images)
    told = data["condition"] if isinstance(data, dict) else None
    model.initialize_prior(images, condition=told)
    before = weights(model)
    # A step so small that nothing saturates, so large that every weight with a gradient changes.
    model.compile(keras.optimizers.Adam(1e-3))
    history = model.fit(data, batch_size=12, epochs=2, verbose=0).history
    assert np.isfinite([value for values in history.values() for value in values]).all()
    still = [path for path, value in weights(model).items() if np.array_equal(value, before[path])]
    assert still == [], "weights without a gradient"

    output = model.predict(data, batch_size=7, verbose=0)
    assert output.reconstruction.shape == images.shape
    for value in keras.tree.flatten(output):
        assert value.dtype in (np.float32, np.int32)
        assert len(value) == len(images)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    bound = model.elbo(images, condition=told)
    np.testing.assert_allclose(loaded.elbo(images, condition=told), bound, rtol=1e-6)
    one = None if told is None else told[0]
    np.testing.assert_array_equal(loaded.sample(3, condition=one), model.sample(3, condition=one))
    assert np.isfinite(loaded.log_likelihood(images[:2], samples=3, condition=one)).all()


@pytest.mark.parametrize(
    ("kind", "name"), [pair for pair in EVERY if pair[0] not in ("schedule", "condition", "objective")]
)
def test_part_keeps_densities_float32_under_mixed_precision(kind: str, name: str, images: Array) -> None:
    mixed = experiment(kind, name).with_overrides(["training.precision=mixed_bfloat16"])
    model = build_model(mixed, FACTS)
    data = inputs(model, images)
    terms = model.elbo_terms(images, condition=data["condition"] if isinstance(data, dict) else None)
    for value in terms:
        assert value.dtype == np.float32
        assert np.isfinite(value).all()


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("prior", {"name": "standart-normal"}, "did you mean 'standard-normal'"),
        ("prior", {"name": "vamp", "num_components": 0}, "num_components = 0"),
        ("posterior", {"name": "iaf", "hidden": [0]}, "hidden = [0]"),
        ("objective", {"name": "elbo", "betta": 2}, "did you mean 'beta'"),
        ("objective", {"name": "elbo", "beta": "much"}, "beta = 'much'"),
        ("objective", {"name": "elbo", "beta": -1.0}, "beta = -1.0"),
        ("objective", {"name": "elbo", "beta": float("nan")}, "beta = nan"),
        ("objective", {"name": "elbo", "schedule": "worm-up"}, "did you mean 'warm-up'"),
        ("objective", {"name": "elbo", "schedule": {"name": "warm-up", "steps": 0}}, "steps = 0"),
        ("network", {"name": "conv", "widths": []}, "widths = []"),
        ("network", {"name": "conv", "widths": [32, 0]}, "widths = [32, 0]"),
        ("network", {"name": "conv", "dense_units": 0}, "dense_units = 0"),
    ],
)
def test_wrong_spec_is_refused_with_the_value_and_a_way_on(kind: str, spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        registry.build(kind, spec)
    assert message in str(error.value)


RGB = DatasetInfo(image_shape=(8, 8, 3), images=24, classes=0)


@pytest.mark.parametrize(
    ("settings", "facts", "messages"),
    [
        ([], RGB, ["bernoulli", "discretized-logistic"]),
        (["model.architecture=vq", "model.prior=vamp"], FACTS, ["model.prior = vamp", "architecture = vq"]),
        (["model.architecture=vq", "model.latent_dim=4"], FACTS, ["model.latent_dim = 4", "vq"]),
        (["model.architecture=vq", "model.objective=iwae"], FACTS, ["iwae", "elbo"]),
        (["model.architecture=vq", "model.objective=beta-tc"], FACTS, ["beta-tc", "elbo"]),
        (["model.architecture=vq", "model.network=mlp"], FACTS, ["mlp", "conv"]),
        (["model.architecture=ladder", "model.posterior=iaf"], FACTS, ["model.posterior = iaf", "ladder"]),
        (["model.architecture=ladder", "model.objective=info-vae"], FACTS, ["info-vae", "elbo"]),
        (["model.posterior=iaf", "model.objective=beta-tc"], FACTS, ["beta-tc", "posterior = 'normal'"]),
        (["model.posterior=deterministic", "model.objective=iwae"], FACTS, ["iwae", "deterministic"]),
        (["model.posterior=deterministic", "model.prior=vamp"], FACTS, ["vamp", "deterministic"]),
        (["model.prior=conditional-normal"], FACTS, ["conditional-normal", "condition = 'label'"]),
        (["model.condition=label"], RGB, ["no labels"]),
    ],
)
def test_parts_that_do_not_go_together_are_refused_with_a_way_on(
    settings: list[str], facts: DatasetInfo, messages: list[str]
) -> None:
    with pytest.raises(InputError) as error:
        build_model(Experiment().with_overrides(settings), facts)
    for message in messages:
        assert message.lower().replace("-", "") in str(error.value).lower().replace("-", "")
    assert "\n" not in str(error.value)
