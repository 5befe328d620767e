"""The two errors a user meets, and the words they share.

Every message names the argument, shows the value received and says what is accepted.
"""

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something the caller passed is wrong: an argument, a file, an image, a key."""


class RunError(RuntimeError):
    """The call was right and the work failed: a full disk, no network, a diverged training."""


def unknown(what: str, name: str, accepted: Iterable[str]) -> InputError:
    """Return the error for a name that is not among the accepted ones, nearest name first.

    Args:
        what: What the name stands for, such as `"preset"` or `"key in [training]"`.
        name: The name received.
        accepted: The names that would have been accepted.

    Returns:
        The error, to be raised by the caller.

    Example:
        >>> str(unknown("preset", "clasic", ["classic", "tutorial"]))
        "unknown preset 'clasic': did you mean 'classic'? Accepted: classic, tutorial"
    """
    names = sorted(accepted)
    near = difflib.get_close_matches(name, names, n=1)
    hint = f" did you mean '{near[0]}'?" if near else ""
    return InputError(f"unknown {what} '{name}':{hint} Accepted: {', '.join(names)}")


def first_line(error: Exception) -> str:
    r"""Return the first line of an error's message, or the name of its class if it has none.

    Args:
        error: Any exception.

    Example:
        >>> first_line(OSError("no space left\non the device")), first_line(KeyError())
        ('no space left', 'KeyError')
    """
    return (str(error).strip() or type(error).__name__).splitlines()[0]
