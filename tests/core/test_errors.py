"""The format of error messages."""

import pytest

from keras_vae.core.errors import alternatives, first_line, is_out_of_memory, listed, unknown


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


def test_many_accepted_values_are_listed_in_numerical_order_and_shortened() -> None:
    message = str(unknown("label", "x", [str(number) for number in reversed(range(1000))]))
    assert message.startswith("label = 'x': unknown; accepted: 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, ")
    assert message.endswith(", 19, … (1000 in all)")
    assert listed(["a", "b"]) == "a, b"


@pytest.mark.parametrize("value", ["MNIST", "rate_distortion", "Rate Distortion"])
def test_case_and_underscores_do_not_prevent_a_suggestion(value: str) -> None:
    assert "did you mean" in str(unknown("name", value, ["mnist", "rate-distortion", "digits"]))


def test_a_number_is_not_close_to_a_text() -> None:
    assert "did you mean" not in str(unknown("label", 11, ["1", "10", "12"]))


def test_memory_errors_of_the_backends_are_recognized() -> None:
    class ResourceExhaustedError(Exception):
        pass

    assert is_out_of_memory(ResourceExhaustedError("OOM when allocating tensor with shape[1000000000]"))
    assert is_out_of_memory(RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"))
    assert not is_out_of_memory(RuntimeError("shapes differ"))
