"""Base class of configuration tables, with one-line error messages."""

from collections.abc import Mapping
from typing import Any, Self

import pydantic
from pydantic_core import ErrorDetails

from keras_vae.core.errors import InputError, unknown


class ConfigModel(pydantic.BaseModel):
    """A table of an experiment file: immutable, strictly typed, and without unknown keys.

    Raises:
        InputError: A key is unknown, or a value is invalid.
    """

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except pydantic.ValidationError as error:
            raise _first_error(type(self), error) from None

    # pydantic then calls the constructor only for direct calls, so that nested tables report their whole path.
    __init__.__pydantic_base_init__ = True  # type: ignore[attr-defined]

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], where: str = "") -> Self:
        """Return the configuration described by nested tables, such as those of a TOML file.

        Args:
            tables: Values by key.
            where: The origin of the values, for error messages; empty if they are arguments.

        Raises:
            InputError: A key is unknown, or a value is invalid.
        """
        try:
            return cls.model_validate(tables)
        except pydantic.ValidationError as error:
            message = _first_error(cls, error)
            raise (InputError(f"{where}: {message}") if where else message) from None


def problem(error: ErrorDetails) -> str:
    """Return the problem of an invalid value and its remedy, `problem; remedy`.

    Args:
        error: An error of pydantic.
    """
    limits = error.get("ctx", {})
    match error["type"]:
        case "int_type" | "int_parsing" | "int_from_float":
            return "not an integer; pass an integer"
        case "float_type" | "float_parsing":
            return "not a number; pass a number"
        case "finite_number":
            return "not finite; pass a finite number"
        case "bool_type" | "bool_parsing":
            return "not a Boolean; pass true or false"
        case "string_type":
            return "not a string; pass a string"
        case "dict_type" | "model_type" | "model_attributes_type":
            return "not a table; pass a table"
        case "literal_error":
            return f"unknown; choose {limits['expected']}"
        case "greater_than_equal" | "greater_than":
            return f"too small; choose {_at_least(limits)}"
        case "less_than_equal" | "less_than":
            return f"too large; choose {_at_most(limits)}"
        case "value_error":
            return str(limits["error"])
    return error["msg"].lower()


def _at_least(limits: Mapping[str, Any]) -> str:
    return f"at least {limits['ge']:g}" if "ge" in limits else f"more than {limits['gt']:g}"


def _at_most(limits: Mapping[str, Any]) -> str:
    return f"at most {limits['le']:g}" if "le" in limits else f"less than {limits['lt']:g}"


def _first_error(cls: type[pydantic.BaseModel], error: pydantic.ValidationError) -> InputError:
    first = error.errors()[0]
    keys = [key for key in first["loc"] if isinstance(key, str)]
    if first["type"] == "missing":
        return InputError(f"{'.'.join(keys)}: missing; add it")
    if first["type"] != "extra_forbidden":
        # pydantic adds the alternatives of a union to the location.
        fields = [key for key in keys if "[" not in key and key not in ("int", "float", "keep")]
        return InputError(f"{'.'.join(fields)} = {first['input']!r}: {problem(first)}")
    *outer, key = keys
    table: Any = cls
    for name in outer:
        table = table.model_fields[name].annotation
    place = f"key of [{'.'.join(outer)}]" if outer else "key"
    return unknown(place, key, table.model_fields)
