"""The two exceptions that this package raises, and the format of their messages.

A message has one line: `name = value: problem; remedy`. Values that are too long to print, such as arrays, are left
out: `name: problem; remedy`. A message about a file starts with its path.
"""

import difflib
import importlib.util
import numbers
import re
from collections.abc import Iterable, Sequence
from pathlib import PurePath
from typing import Any

MAX_SIZE = 2**16
"""Largest number of units, codes or components of a layer: larger layers do not fit in memory."""

_MAX_LISTED = 20
_MAX_SHOWN = 100


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
    return InputError(f"{name} = {shown(value)}: {unknown_problem(value, accepted)}")


def unknown_problem(value: Any, accepted: Iterable[str]) -> str:
    """Return the part of an error after `name = value: `, for a value that is not accepted.

    Args:
        value: The value received.
        accepted: The accepted values.
    """
    values = sorted(accepted, key=_in_natural_order)
    return f"unknown; {suggestion(value, values)}accepted: {listed(values)}"


def listed(values: Sequence[str]) -> str:
    """Return values separated by commas; if there are very many, the first ones and their number.

    Args:
        values: Any number of values.

    Example:
        >>> listed(["cat", "dog"])
        'cat, dog'
    """
    shown = [*values[:_MAX_LISTED], *([f"… ({len(values)} in all)"] if len(values) > _MAX_LISTED else [])]
    return ", ".join(shown)


def _in_natural_order(value: str) -> tuple[bool, int, str]:
    """Return the key that sorts numbers by their value, before all other texts."""
    is_number = value.isdecimal()
    return not is_number, len(value) if is_number else 0, value


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
    """Return a value as messages show it: its `repr`, shortened if it is long, or the name of its class.

    Args:
        value: Any object. Only the `repr` of plain values, such as text and numbers, is short enough for a message.

    Example:
        >>> shown(1.5), shown(object())
        ('1.5', 'object')
    """
    if not (value is None or isinstance(value, str | bytes | numbers.Number | list | tuple | dict | PurePath)):
        return type(value).__name__
    text = " ".join(repr(value).split("\n"))
    return text if len(text) <= _MAX_SHOWN else f"{text[:_MAX_SHOWN]}…"


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

    Upper and lower case do not matter, nor do underscores, hyphens and spaces.

    Args:
        value: The value received; only text can be close to another text.
        accepted: The accepted values.

    Example:
        >>> suggestion("RATE_DISTORTION", ["grid", "rate-distortion"])
        "did you mean 'rate-distortion'? "
    """
    close = closest(value, accepted)
    return f"did you mean '{close}'? " if close else ""


def closest(value: Any, accepted: Iterable[str]) -> str | None:
    """Return the accepted value closest to `value`, by the rule of `suggestion`; None if none is close."""
    names = {_plain(name): name for name in accepted}
    close = difflib.get_close_matches(_plain(value[:_MAX_SHOWN]), names, n=1) if isinstance(value, str) else []
    return names[close[0]] if close else None


def _plain(text: str) -> str:
    return re.sub(r"[_\-\s]", "", text.casefold())


def require_packages(name: str, packages: Sequence[str], extra: str) -> None:
    """Check that optional packages are installed, without importing them.

    Args:
        name: The argument, or `argument = value`, that needs the packages, for messages.
        packages: Names of the packages.
        extra: The extra of keras-vae that installs them.

    Raises:
        InputError: A package is missing.

    Example:
        >>> require_packages("out = z.parquet", ["numpy", "pyarrows"], "parquet")
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: out = z.parquet: pyarrows is not installed; pip install 'keras-vae[parquet]'
    """
    missing = [package for package in packages if importlib.util.find_spec(package.replace("-", "_")) is None]
    if missing:
        are = "are" if len(missing) > 1 else "is"
        raise InputError(f"{name}: {' and '.join(missing)} {are} not installed; pip install 'keras-vae[{extra}]'")


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if it has none.

    Args:
        error: Any exception.

    Example:
        >>> first_line(KeyError()), first_line(OSError("no space left; see the log"))
        ('KeyError', 'no space left; see the log')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def hide_passwords(text: str) -> str:
    """Return a text with the passwords of the URLs in it replaced by `***`.

    Args:
        text: Any text, such as a command or a message.

    Example:
        >>> hide_passwords("--storage postgresql://me:secret@host/db")
        '--storage postgresql://me:***@host/db'
    """
    text = re.sub(r"(://[^\s:/@]*):[^\s/]*@", r"\1:***@", text)
    return re.sub(r"([?&]password=)[^&\s'\"]*", r"\1***", text)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error of Python, NumPy or a backend says that memory is exhausted.

    Args:
        error: Any exception.

    Example:
        >>> is_out_of_memory(MemoryError()), is_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: Out of memory"))
        (True, True)
    """
    # The names of the classes, because no backend may be imported here.
    names = {cls.__name__ for cls in type(error).__mro__}
    texts = ("RESOURCE_EXHAUSTED", "can't allocate memory", "OOM when allocating")
    return bool(names & {"MemoryError", "ResourceExhaustedError", "OutOfMemoryError"}) or any(
        text in str(error) for text in texts
    )
