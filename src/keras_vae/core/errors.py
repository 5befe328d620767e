"""The two exceptions that this package raises, and the format of their messages.

A message has one line: `name = value: problem; remedy`. Values that are too long to print, such as arrays, are left
out: `name: problem; remedy`. A message about a file starts with its path.
"""

import difflib
import numbers
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

MAX_SIZE = 2**16
"""Largest number of units, codes or components of a layer: larger layers do not fit in memory."""


class InputError(ValueError):
    """Invalid input: an argument, a setting, a file or an image."""


class RunError(RuntimeError):
    """A failure despite valid input, such as a full disk, a missing network or a diverged training."""


def unknown(name: str, value: Any, accepted: Iterable[str]) -> InputError:
    """Return the error for a value that is not accepted, which suggests the closest accepted value.

    Args:
        name: Name of the argument or setting, such as `"preset"`.
        value: The value received.
        accepted: The accepted values.

    Returns:
        The error, for the caller to raise.

    Example:
        >>> str(unknown("preset", "clasic", ["classic", "tutorial"]))
        "preset = 'clasic': unknown; did you mean 'classic'? accepted: classic, tutorial"
    """
    values = sorted(accepted)
    return InputError(f"{name} = {value!r}: unknown; {suggestion(value, values)}accepted: {', '.join(values)}")


def require_list(name: str, value: Any) -> None:
    """Raise an error for one value where several are expected; the characters of a string are not meant.

    Args:
        name: Name of the argument.
        value: The value received.

    Raises:
        InputError: The value is a string, or cannot be iterated over.

    Example:
        >>> require_list("stages", ["likelihood"])
    """
    if isinstance(value, str):
        raise InputError(f"{name} = {value!r}: a string; pass a list, such as [{value!r}]")
    if not isinstance(value, Iterable):
        raise InputError(f"{name} = {value!r}: not a list; pass a list")


def shown(value: Any) -> str:
    """Return a value as messages show it: its representation if it is short, otherwise the name of its class.

    Args:
        value: Any object.

    Example:
        >>> shown(1.5), shown("x" * 100)
        ('1.5', 'str')
    """
    is_plain = value is None or isinstance(value, str | bytes | numbers.Number | list | tuple | dict | PurePath)
    text = repr(value) if is_plain else ""
    return text if 0 < len(text) <= 60 and "\n" not in text else type(value).__name__


def check_count(name: str, value: Any, *, maximum: int | None = None) -> None:
    """Reject a value that is not a whole number of at least one.

    Args:
        name: Name of the argument.
        value: Its value.
        maximum: Largest accepted value; None for no bound.

    Raises:
        InputError: The value is not an integer, is below one, or exceeds the maximum.
    """
    if not is_integer(value) or value < 1:
        raise InputError(f"{name} = {shown(value)}: not a positive integer; pass an integer ≥ 1")
    if maximum is not None and value > maximum:
        raise InputError(f"{name} = {value}: too large; pass an integer from 1 to {maximum}")


def is_integer(value: Any) -> bool:
    """Return whether a value is a whole number of Python or NumPy; True and False are not."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def alternatives(values: Sequence[str]) -> str:
    """Return values as a list in words, such as `".npz, .csv or .parquet"`.

    Args:
        values: At least one value.
    """
    *others, last = values
    return f"{', '.join(others)} or {last}" if others else last


def suggestion(value: Any, accepted: Iterable[str]) -> str:
    """Return `"did you mean 'x'? "` with the accepted value closest to `value`, or an empty string if none is close.

    Args:
        value: The value received.
        accepted: The accepted values.
    """
    close = difflib.get_close_matches(str(value), list(accepted), n=1)
    return f"did you mean '{close[0]}'? " if close else ""


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none.

    Args:
        error: Any exception.

    Example:
        >>> first_line(KeyError()), first_line(OSError("no space left; see the log"))
        ('KeyError', 'no space left; see the log')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]
