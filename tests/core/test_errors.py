"""The format of error messages."""

import pytest

from keras_vae.core.errors import alternatives, first_line, unknown


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("clasic", "preset = 'clasic': unknown; did you mean 'classic'? accepted: classic, tutorial"),
        (None, "preset = None: unknown; accepted: classic, tutorial"),
        ("zzz", "preset = 'zzz': unknown; accepted: classic, tutorial"),
    ],
)
def test_unknown_value_is_reported_with_the_closest_and_all_accepted_values(value: str | None, message: str) -> None:
    assert str(unknown("preset", value, ["tutorial", "classic"])) == message


def test_first_line_falls_back_to_the_name_of_the_class() -> None:
    assert first_line(ValueError("\n first\nsecond")) == "first"
    assert first_line(TimeoutError()) == "TimeoutError"


def test_alternatives_are_listed_in_words() -> None:
    assert alternatives([".png"]) == ".png"
    assert alternatives([".npz", ".csv", ".parquet"]) == ".npz, .csv or .parquet"
