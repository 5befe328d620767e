"""Base class of configuration tables, with one-line error messages."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import pydantic
from pydantic_core import ErrorDetails

from keras_vae.core.errors import InputError, listed, shown, suggestion, unknown_problem

MAX_DEPTH = 16
"""Number of tables and lists that may be nested in each other."""


def flattened(tables: Mapping[str, Any], separator: str = ".", prefix: str = "") -> dict[str, Any]:
    """Return the values of nested tables by their joined keys.

    Args:
        tables: Tables of values.
        separator: Joins the keys.
        prefix: Begins every key.

    Example:
        >>> flattened({"model": {"prior": {"name": "realnvp"}}, "seed": 3})
        {'model.prior.name': 'realnvp', 'seed': 3}
    """
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        if isinstance(value, Mapping):
            flat |= flattened(value, separator, f"{prefix}{key}{separator}")
        else:
            flat[prefix + key] = value
    return flat


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
        check_depth(tables, where or "settings")
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
        case "list_type" | "tuple_type":
            if isinstance(error["input"], Mapping):
                return "a table, not a list of tables; pass it in brackets, as [{ … }]"
            return "not a list; pass a list, such as [32, 64]"
        case "literal_error":
            return unknown_problem(error["input"], re.findall("'([^']*)'", limits["expected"]))
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


def unknown_setting(table: type[ConfigModel], keys: Sequence[str], value: Any) -> InputError:
    """Return the error for a setting that does not exist, with a similar name or its place in another table.

    Args:
        table: The outermost table.
        keys: The path of the setting; the error is about its first key that does not exist.
        value: The value received.
    """
    inner, outer = table, list[str]()
    for key in keys:
        nested = _nested(inner, key)
        if nested is None:
            break
        inner, outer = nested, [*outer, key]
    if "[" in key:
        name = _dotted([*outer, key.partition("[")[0]])
        return InputError(f"{_dotted(keys)} = {shown(value)}: a list is set as a whole; pass {name} = [ … ]")
    accepted = inner.model_fields
    elsewhere = [name for name in dotted_names(table) if name.rpartition(".")[2] == keys[-1]]
    hint = suggestion(key, accepted) or (f"did you mean '{elsewhere[0]}'? " if elsewhere else "")
    within = f" in [{_dotted(outer)}]" if outer else ""
    return InputError(
        f"{_dotted(keys)} = {shown(value)}: no such setting; {hint}accepted{within}: {listed([*accepted])}"
    )


def _dotted(keys: Sequence[str]) -> str:
    """Return the full name of a setting; keys that would break the line are quoted."""
    return ".".join(key if key.isprintable() else repr(key) for key in keys)


def dotted_names(table: type[ConfigModel], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of the settings of a table and of the tables in it.

    Args:
        table: The table.
        prefix: A prefix of all names, such as `"training."`.
    """
    for key in table.model_fields:
        yield prefix + key
        if nested := _nested(table, key):
            yield from dotted_names(nested, f"{prefix}{key}.")


def check_depth(tables: Any, where: str) -> None:
    """Reject tables and lists that are nested too deeply to be settings, before recursive functions process them.

    Args:
        tables: The values.
        where: Their origin, for the message.

    Raises:
        InputError: There are more than `MAX_DEPTH` levels.
    """
    level = [tables]
    for _ in range(MAX_DEPTH):
        level = [
            inner
            for outer in level
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(inner, Mapping | list)
        ]
        if not level:
            return
    raise InputError(f"{where}: tables or lists within more than {MAX_DEPTH} others; no setting is nested so deeply")


def _first_error(cls: type[ConfigModel], error: pydantic.ValidationError) -> InputError:
    errors = error.errors()
    keys = _setting(cls, errors[0]["loc"])
    if errors[0]["type"] == "extra_forbidden":
        return unknown_setting(cls, keys, errors[0]["input"])
    if errors[0]["type"] == "missing":
        return InputError(f"{_dotted(keys)}: missing; add it")
    # pydantic reports every alternative of a union. Its last problem other than a wrong type is the most specific one.
    alternatives = [other for other in errors if _setting(cls, other["loc"]) == keys]
    first = max(reversed(alternatives), key=lambda other: "type" not in other["type"])
    return InputError(f"{_dotted(keys)} = {shown(first['input'])}: {problem(first)}")


def _setting(cls: Any, loc: Sequence[int | str]) -> list[str]:
    """Return the keys of a setting, without what pydantic adds: alternatives of a union and positions in a list."""
    keys, table = list[str](), cls
    for key in loc:
        if table is None:
            break
        keys.append(str(key))
        table = _nested(table, str(key))
    return keys


def _nested(table: type[ConfigModel], key: str) -> type[ConfigModel] | None:
    """Return the table at a key of another table, or None if a value or nothing is there."""
    annotation = table.model_fields[key].annotation if key in table.model_fields else None
    return annotation if isinstance(annotation, type) and issubclass(annotation, ConfigModel) else None
