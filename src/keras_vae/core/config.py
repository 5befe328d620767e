"""Base class of configuration tables, with one-line error messages."""

from collections.abc import Mapping
from typing import Any, Self

import pydantic

from keras_vae.core.errors import InputError, unknown


class ConfigModel(pydantic.BaseModel):
    """A table of an experiment file: immutable, strictly typed, and without unknown keys."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any], where: str) -> Self:
        """Return the configuration described by nested tables, such as those of a TOML file.

        Args:
            tables: Values by key.
            where: The origin of the values, for error messages.

        Raises:
            InputError: A key is unknown, or a value is invalid.
        """
        try:
            return cls.model_validate(tables)
        except pydantic.ValidationError as error:
            raise _first_error(cls, error, where) from None


def _first_error(cls: type[pydantic.BaseModel], error: pydantic.ValidationError, where: str) -> InputError:
    first = error.errors()[0]
    keys = [key for key in first["loc"] if isinstance(key, str)]
    if first["type"] != "extra_forbidden":
        # pydantic adds the alternatives of a union to the location.
        fields = [key for key in keys if "[" not in key and key not in ("int", "float", "keep")]
        return InputError(f"{where}: {'.'.join(fields)} = {first['input']!r}: {first['msg'].lower()}")
    *outer, key = keys
    table: Any = cls
    for name in outer:
        table = table.model_fields[name].annotation
    place = f"key of [{'.'.join(outer)}]" if outer else "key"
    return InputError(f"{where}: {unknown(place, key, table.model_fields)}")
