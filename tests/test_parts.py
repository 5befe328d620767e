"""The contract of every registered part, and the errors of naming one."""

import json

import keras
import pytest

import keras_vae.models.vae  # noqa: F401  registers the parts
from keras_vae import parts
from keras_vae.errors import InputError

KINDS = ("prior", "likelihood", "objective", "network")
EVERY = [(kind, name) for kind in KINDS for name in parts.registered(kind)]


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_part_builds_from_its_name_and_survives_keras_and_json(kind: str, name: str) -> None:
    part = parts.build(kind, {"name": name})
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(part)))
    assert config["registered_name"].startswith("keras_vae>")
    assert keras.saving.deserialize_keras_object(config) == part
    assert parts.build(kind, json.loads(json.dumps(parts.spec(kind, part)))) == part


@pytest.mark.parametrize(("kind", "name"), EVERY)
def test_part_is_immutable(kind: str, name: str) -> None:
    part = parts.build(kind, {"name": name})
    with pytest.raises(AttributeError):
        part.something = 1


@pytest.mark.parametrize(
    ("kind", "spec", "message"),
    [
        ("prior", {"name": "standart-normal"}, "did you mean 'standard-normal'"),
        ("objective", {"name": "elbo", "betta": 2}, "did you mean 'beta'"),
        ("objective", {"name": "elbo", "beta": "much"}, "beta = 'much'"),
        ("objective", {"name": "elbo", "beta": -1.0}, "beta = -1.0"),
        ("objective", {"name": "elbo", "beta": float("nan")}, "beta = nan"),
        ("network", {"name": "conv", "widths": []}, "widths = []"),
        ("network", {"name": "conv", "widths": [32, 0]}, "widths = [32, 0]"),
        ("network", {"name": "conv", "dense": 0}, "dense = 0"),
    ],
)
def test_wrong_spec_is_refused_with_the_value_and_a_way_on(kind: str, spec: dict[str, object], message: str) -> None:
    with pytest.raises(InputError) as error:
        parts.build(kind, spec)
    assert message in str(error.value)
