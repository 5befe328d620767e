"""Invalid settings: every setting of every table is reported with its full key, its value and what is accepted."""

import re
from collections.abc import Iterator
from typing import Any, Literal, get_origin

import pytest

from keras_vae.core.config import MAX_DEPTH, ConfigModel
from keras_vae.core.errors import InputError
from keras_vae.runs.experiment import Experiment


def settings(table: type[ConfigModel] = Experiment, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted name and the type of every setting that is not itself a table."""
    for name, field in table.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, ConfigModel):
            yield from settings(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field.annotation


LISTS = {"model.image_losses", "training.freeze"}
"""Settings that may be an empty list."""


def nested(key: str, value: Any) -> dict[str, Any]:
    """Return the tables that contain a value at a dotted key."""
    for name in reversed(key.split(".")):
        value = {name: value}
    return value


def message(**tables: Any) -> str:
    with pytest.raises(InputError) as error:
        Experiment.from_tables(tables)
    text = str(error.value)
    assert "\n" not in text
    assert "input should" not in text, "a message of pydantic"
    return text


@pytest.mark.parametrize(
    ("key", "value"),
    [(key, value) for key, _ in settings() for value in (-0.5, [], {"wrong": 1}) if value != [] or key not in LISTS],
)
def test_wrong_value_of_every_setting_is_reported_with_its_full_key(key: str, value: Any) -> None:
    text = message(**nested(key, value))
    assert text.startswith(f"{key} = {value!r}: ")
    assert re.search(r"; (pass|choose|did you mean|accepted) ?", text), "the message must name a remedy"


@pytest.mark.parametrize("key", [key for key, kind in settings() if get_origin(kind) is Literal])
def test_unknown_choice_lists_the_accepted_values(key: str) -> None:
    assert re.match(rf"{re.escape(key)} = 'worst': unknown; .*accepted: \w+", message(**nested(key, "worst")))


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("sede", "did you mean 'seed'?"),
        ("trainng", "did you mean 'training'?"),
        ("training.epoch", "did you mean 'epochs'?"),
        ("training.platau", "did you mean 'plateau'?"),
        ("training.plateau.patince", "did you mean 'patience'?"),
        ("data.colour", "did you mean 'color'?"),
        ("model.latentdim", "did you mean 'latent_dim'?"),
        # The right name in the wrong table.
        ("epochs", "did you mean 'training.epochs'?"),
        ("training.latent_dim", "did you mean 'model.latent_dim'?"),
        ("patience", "did you mean 'training.plateau.patience'?"),
    ],
)
def test_unknown_setting_is_reported_with_the_closest_name(key: str, hint: str) -> None:
    assert message(**nested(key, 1)).startswith(f"{key} = 1: no such setting; {hint} accepted")


def test_wrong_choice_names_the_setting_and_not_its_table() -> None:
    assert message(training={"keep": "worst"}) == "training.keep = 'worst': unknown; accepted: best, last"


@pytest.mark.parametrize("value", [5, [28], [28, 0], [28.0, 28.0], [True, 28], "28x28", [1, 2, 3]])
def test_image_size_is_two_positive_integers_or_keep(value: Any) -> None:
    assert message(data={"image_size": value}).endswith('not two sizes; pass [height, width] in pixels, or "keep"')


@pytest.mark.parametrize(
    ("tables", "expected"),
    [
        ({"format": -5}, "format = -5: too small; choose at least 1"),
        ({"format": 7}, "format = 7: too large; choose at most 1"),
        ({"model": {"latent_dim": 1_000_000_000}}, "model.latent_dim = 1000000000: too large; choose at most 65536"),
        ({"data": {"validation": "x"}}, "data.validation = 'x': not a number; pass a number"),
    ],
)
def test_value_out_of_bounds_is_rejected(tables: dict[str, Any], expected: str) -> None:
    assert message(**tables) == expected


def test_long_value_is_shortened() -> None:
    assert len(message(seed="9" * 10_000)) < 200


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 100, 100_000])
def test_deep_tables_are_rejected_before_anything_recurses(depth: int) -> None:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    assert "within more than" in message(model={"prior": {"name": "vamp", "a": value}})
