"""The contract of all registered components, and errors of registration and construction."""

import dataclasses
import json
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vae.models.registration  # noqa: F401
from keras_vae.components.priors import Prior, PriorInputs
from keras_vae.core import registry
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.info import DatasetInfo
from keras_vae.distributions import DiagonalNormal, LatentDistribution
from keras_vae.models.base import BaseVAE
from keras_vae.runs.build import build_model, resolve
from keras_vae.runs.experiment import Experiment

DATASET = DatasetInfo(image_shape=(9, 11, 1), images=24, classes=3)
KINDS = (
    *("architecture", "network", "prior", "posterior", "likelihood"),
    *("objective", "condition", "schedule", "image_loss", "quantizer"),
)
# Other tests register components that need not meet the contract. `my_parts` is the example of CONTRIBUTING.md.
COMPONENTS = [
    (kind, name)
    for kind in KINDS
    for name, cls in registry.registered(kind).items()
    if cls.__module__.startswith(("keras_vae.", "my_parts"))
]

# Compiling a model takes most of the time of a test, so that one model contains several components.
GROUPS: list[dict[str, str]] = [
    {
        **{"architecture": "vae", "network": "conv", "prior": "standard-normal", "posterior": "normal"},
        **{"likelihood": "bernoulli", "objective": "elbo", "schedule": "constant"},
    },
    {
        **{"network": "mlp", "prior": "mixture", "posterior": "full-normal", "likelihood": "continuous-bernoulli"},
        **{"objective": "info-vae"},
    },
    {"prior": "vamp", "likelihood": "discretized-logistic", "objective": "beta-tc"},
    {"prior": "realnvp", "posterior": "iaf", "likelihood": "categorical", "objective": "iwae", "condition": "vector"},
    {
        **{"network": "resnet", "prior": "conditional-normal", "likelihood": "normal", "objective": "dip-vae"},
        **{"condition": "label"},
    },
    {"posterior": "deterministic", "likelihood": "laplace", "schedule": "cyclical"},
    {"network": "autoencoder", "image_loss": "equivariance"},
    {"architecture": "ladder", "schedule": "warm-up"},
    {"architecture": "vq", "quantizer": "ema", "schedule": "exponential"},
    {"schedule": "cosine", "image_loss": "adversarial"},
    {"prior": "flow-matching", "image_loss": "perceptual"},
]
MODELS = [
    *GROUPS,
    *({kind: name} for kind, name in COMPONENTS if not any(group.get(kind) == name for group in GROUPS)),
]
IDS = ["+".join(model.values()) for model in MODELS]

# Settings that a component requires, and settings that make its model small.
SETTINGS = {
    ("architecture", "ladder"): ["model.architecture.widths=[4, 8]", "model.architecture.groups=[1, 1]"],
    ("network", "conv"): ["model.network.widths=[4, 6]", "model.network.dense_units=8"],
    ("network", "autoencoder"): [
        "model.network.widths=[4]",
        "model.network.blocks=1",
        "model.network.groups=2",
        "model.network.attention=false",
    ],
    ("network", "mlp"): ["model.network.widths=[16, 8]"],
    ("network", "resnet"): ["model.network.widths=[8, 8]", "model.network.dense_units=8"],
    ("prior", "conditional-normal"): ["model.condition=label"],
    ("prior", "flow-matching"): ["model.prior.width=8", "model.prior.num_blocks=1", "model.prior.steps=2"],
    ("condition", "vector"): ["model.condition.size=2"],
    ("quantizer", "ema"): ["num_codes = 8"],
    ("quantizer", "fsq"): ["levels = [3, 4]"],
    ("quantizer", "simvq"): ["num_codes = 8"],
    ("quantizer", "residual"): ['num_quantizers = 2, quantizer = { name = "ema", num_codes = 8 }'],
}
IMAGE_LOSSES = {
    "equivariance": '{name="equivariance", factors=[3]}',
    "adversarial": '{name="adversarial", start=0, widths=[4, 8]}',
    "perceptual": '{name="perceptual", features="random"}',
}


def experiment(components: dict[str, str]) -> Experiment:
    """Return a small experiment that uses the components, by kind."""
    architecture = "vq" if "quantizer" in components else components.get("architecture", "vae")
    # The network `autoencoder` derives the number of latent dimensions from the size of the images.
    has_vector = architecture == "vae" and components.get("network") != "autoencoder"
    settings = ["model.latent_dim=3"] if has_vector else []
    network = {} if architecture == "ladder" else {"network": "conv"}
    for kind, name in (network | components).items():
        if kind == "architecture" and architecture == "vq":
            continue
        if kind == "schedule":
            settings += [f"model.objective.schedule={name}", f"training.schedule={name}"]
        elif kind == "image_loss":
            settings += [f"model.image_losses=[{IMAGE_LOSSES[name]}]"]
        elif kind == "quantizer":
            table = f'{{ name = "{name}", {SETTINGS[kind, name][0]} }}'
            sizes = "prior_width = 8, prior_blocks = 1"
            settings += [f'model.architecture={{ name = "vq", quantizer = {table}, {sizes} }}']
        else:
            settings += [f"model.{kind}={name}", *SETTINGS.get((kind, name), [])]
    return Experiment().with_overrides(settings)


def sized(components: dict[str, str], images: Array) -> tuple[DatasetInfo, Array]:
    """Return images of a size for which the components are defined, and their description."""
    # The equivariance loss rotates squares.
    images = images[:, :, :9] if components.get("image_loss") == "equivariance" else images
    return DATASET._replace(image_shape=images.shape[1:]), images


def inputs(model: BaseVAE, images: Array) -> Array | dict[str, Array]:
    """Return the images, with a condition if the model has one."""
    if model.condition is None:
        return images
    shape, dtype = (len(images), *model.condition.value_shape), model.condition.dtype
    values = np.arange(np.prod(shape)).reshape(shape) % 3
    return {"images": images, "condition": values.astype(dtype)}


def weights(model: keras.Model) -> dict[str, Array]:
    return {weight.path: np.array(keras.ops.convert_to_numpy(weight)) for weight in model.trainable_weights}


@pytest.mark.parametrize(("kind", "name"), COMPONENTS)
def test_component_builds_from_its_name_and_survives_serialization(kind: str, name: str) -> None:
    component = registry.build(kind, {"name": name})
    spec = registry.spec(kind, component)
    assert registry.spec(kind, registry.build(kind, json.loads(json.dumps(spec)))) == spec
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(component)))
    assert config["registered_name"].startswith("keras_vae>")
    loaded = keras.saving.deserialize_keras_object(config)
    assert type(loaded) is type(component)
    assert registry.spec(kind, loaded) == spec
    if isinstance(component, registry.Component):
        assert loaded == component
        with pytest.raises(AttributeError):
            component.something = 1


def test_no_two_components_are_saved_under_the_same_name() -> None:
    classes = [registry.registered(kind)[name] for kind, name in COMPONENTS]
    assert len({keras.saving.get_registered_name(cls) for cls in classes}) == len(classes)


@pytest.mark.parametrize("components", MODELS, ids=IDS)
def test_components_train_and_survive_saving_in_a_model(
    components: dict[str, str], images: Array, tmp_path: Path
) -> None:
    written, (dataset, images) = experiment(components), sized(components, images)
    resolved = resolve(written, dataset).experiment
    assert Experiment.from_toml(resolved.to_toml(), "text") == resolved
    keras.utils.set_random_seed(1)
    model = build_model(resolved, dataset)
    assert [layer.name for layer in model._flatten_layers() if not layer.built] == [], (
        "Keras would run each batch twice"
    )
    data = inputs(model, images)
    condition = data["condition"] if isinstance(data, dict) else None
    model.initialize_prior(images, condition=condition)
    before = weights(model)
    # Small enough that nothing saturates, large enough that every weight with a gradient changes.
    model.compile(keras.optimizers.Adam(1e-3))
    history = model.fit(data, batch_size=12, epochs=2, verbose=0).history
    assert np.isfinite([value for values in history.values() for value in values]).all()
    unchanged = [path for path, value in weights(model).items() if np.array_equal(value, before[path])]
    assert unchanged == [], "weights without a gradient"

    output = model.predict(data, batch_size=7, verbose=0)
    assert output.reconstruction.shape == images.shape
    for value in keras.tree.flatten(output):
        assert value.dtype in (np.float32, np.int32)
        assert len(value) == len(images)

    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    bound = model.elbo(images, condition=condition)
    np.testing.assert_allclose(loaded.elbo(images, condition=condition), bound, rtol=1e-6)
    first = None if condition is None else condition[0]
    np.testing.assert_array_equal(loaded.sample(3, condition=first), model.sample(3, condition=first))
    assert np.isfinite(loaded.log_likelihood(images[:2], samples=3, condition=first)).all()


@pytest.mark.parametrize("components", MODELS, ids=IDS)
def test_components_keep_densities_float32_under_mixed_precision(components: dict[str, str], images: Array) -> None:
    mixed = experiment(components).with_overrides(["training.precision=mixed_bfloat16"])
    dataset, images = sized(components, images)
    model = build_model(mixed, dataset)
    data = inputs(model, images)
    terms = model.elbo_terms(images, condition=data["condition"] if isinstance(data, dict) else None)
    for value in terms:
        assert value.dtype == np.float32
        assert np.isfinite(value).all()


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("prior", {"name": "standart-normal"}, "did you mean 'standard-normal'"),
        ("prior", {"name": "vamp", "num_components": 0}, "prior.num_components = 0: not a positive integer"),
        ("posterior", {"name": "iaf", "hidden": [0]}, "hidden = [0]"),
        ("objective", {"name": "elbo", "betta": 2}, "did you mean 'beta'"),
        ("objective", {"name": "elbo", "beta": "much"}, "beta = 'much'"),
        ("objective", {"name": "elbo", "beta": -1.0}, "beta = -1.0"),
        ("objective", {"name": "elbo", "beta": float("nan")}, "beta = nan"),
        ("objective", {"name": "elbo", "schedule": "worm-up"}, "did you mean 'warm-up'"),
        ("objective", {"name": "elbo", "schedule": {"name": "warm-up", "steps": 0}}, "steps = 0"),
        ("network", {"name": "conv", "widths": 3}, "widths = 3: not a list; pass a list, such as [32, 64]"),
        ("network", {"name": "conv", "widths": []}, "widths = []"),
        ("network", {"name": "conv", "widths": [32, 0]}, "widths = [32, 0]"),
        ("network", {"name": "conv", "dense_units": 0}, "dense_units = 0"),
    ],
)
def test_invalid_spec_is_rejected_with_its_value_and_a_remedy(kind: str, spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        registry.build(kind, spec)
    assert message in str(error.value)


RGB = DatasetInfo(image_shape=(8, 8, 3), images=24, classes=0)


@pytest.mark.parametrize(
    ("settings", "dataset", "messages"),
    [
        ([], RGB, ["bernoulli", "discretized-logistic"]),
        (["model.architecture=vq", "model.prior=vamp"], DATASET, ["model.prior = vamp", "architecture = vq"]),
        (["model.architecture=vq", "model.latent_dim=4"], DATASET, ["model.latent_dim = 4", "vq"]),
        (["model.architecture=vq", "model.objective=iwae"], DATASET, ["iwae", "elbo"]),
        (["model.architecture=vq", "model.objective=beta-tc"], DATASET, ["beta-tc", "elbo"]),
        (["model.architecture=vq", "model.network=mlp"], DATASET, ["mlp", "conv"]),
        (["model.architecture=ladder", "model.posterior=iaf"], DATASET, ["model.posterior = iaf", "ladder"]),
        (["model.architecture=ladder", "model.objective=info-vae"], DATASET, ["info-vae", "elbo"]),
        (["model.posterior=iaf", "model.objective=beta-tc"], DATASET, ["beta-tc", "posterior = 'normal'"]),
        (["model.posterior=deterministic", "model.objective=iwae"], DATASET, ["iwae", "deterministic"]),
        (["model.posterior=deterministic", "model.prior=vamp"], DATASET, ["vamp", "deterministic"]),
        (["model.prior=conditional-normal"], DATASET, ["conditional-normal", "condition = 'label'"]),
        (["model.condition=label"], RGB, ["no labels"]),
    ],
)
def test_incompatible_components_are_rejected_with_a_remedy(
    settings: list[str], dataset: DatasetInfo, messages: list[str]
) -> None:
    with pytest.raises(InputError) as error:
        build_model(Experiment().with_overrides(settings), dataset)
    for message in messages:
        assert message.lower().replace("-", "") in str(error.value).lower().replace("-", "")
    assert "\n" not in str(error.value)


class _Uniform(Prior):
    """A prior that is not registered."""

    def __call__(self, inputs: PriorInputs) -> LatentDistribution:
        return DiagonalNormal(*keras.ops.zeros((2, inputs.latent_dim)))


class _NoKind(registry.Component):
    pass


class _NoDataclass(registry.Component, _Uniform):
    width: float = 1.0


def make_class(class_name: str) -> type:
    """Return a valid prior with a class name."""
    bases = (registry.Component, _Uniform)
    return dataclasses.dataclass(frozen=True)(type(class_name, bases, {"__module__": __name__}))


@pytest.mark.parametrize(
    ("name", "cls", "message"),
    [
        ("new", _Uniform, "name = 'new': _Uniform is not a component; inherit from Component, or from ComponentLayer"),
        ("new", _NoKind, r"name = 'new': _NoKind has no kind; inherit from .* keras_vae\.priors\.Prior"),
        ("new", _NoDataclass, r"_NoDataclass is not a dataclass; put @dataclass\(frozen=True\) between @register and"),
        ("vamp", make_class("New"), r"name = 'vamp': the prior 'vamp' exists already, .*\.VampPrior; choose another"),
        ("new", make_class("ELBO"), r"a class 'keras_vae>ELBO' exists already, .*\.ELBO; choose another name"),
    ],
)
def test_invalid_class_is_not_registered(name: str, cls: type, message: str) -> None:
    with pytest.raises(InputError, match=message):
        registry.register(name)(cls)
    assert cls not in registry.registered("prior").values()


def test_user_defined_component_is_built_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(registry._CLASSES, "prior", registry.registered("prior"))
    first, second = make_class("Redefined"), make_class("Redefined")
    assert registry.register("redefined")(first) is first
    assert type(registry.build("prior", {"name": "redefined"})) is first
    # A notebook may run the cell of a class again.
    registry.register("redefined")(second)
    assert type(registry.build("prior", {"name": "redefined"})) is second
