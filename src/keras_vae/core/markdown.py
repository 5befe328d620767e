"""Texts of users, such as names of folders, as parts of Markdown files."""

import json
import re

from keras_vae.core.files import printable


def one_line(text: str) -> str:
    r"""Return a text in one line, with control characters and invalid characters as `printable` escapes them.

    Args:
        text: Any text.

    Example:
        >>> one_line("a\nb\x07")
        'a b\\x07'
    """
    return printable(" ".join(text.split()))


def escape(text: str) -> str:
    r"""Return a text in one line that Markdown displays literally.

    Args:
        text: Any text.

    Example:
        >>> escape("my_run <b>")
        'my\\_run \\<b\\>'
    """
    escaped = re.sub(r"([\\`*_\[\]<>&|~$#])", r"\\\1", one_line(text))
    # At the start of a line, these would begin a list or underline a heading.
    return re.sub(r"^([-+=:]|\d+(?=[.)]))", lambda start: f"{start[0][:-1]}&#{ord(start[0][-1])};", escaped)


def code(text: str) -> str:
    """Return a text in one line as a code span.

    Args:
        text: Any text.

    Example:
        >>> code("mnist"), code("a`b")
        ('`mnist`', '`` a`b ``')
    """
    line = one_line(text)
    fence = _fence(line, 1)
    return f"{fence} {line} {fence}" if len(fence) > 1 else f"{fence}{line}{fence}"


def code_block(text: str) -> str:
    r"""Return the lines of a text as a code block.

    Args:
        text: Any text.

    Example:
        >>> code_block("two\nlines")
        '```\ntwo\nlines\n```'
    """
    fence = _fence(text, 3)
    return f"{fence}\n{text}\n{fence}"


def yaml_string(text: str) -> str:
    r"""Return a text in one line as a string of YAML; every string of JSON is one.

    Args:
        text: Any text.

    Example:
        >>> yaml_string('a: "b"')
        '"a: \\"b\\""'
    """
    return json.dumps(one_line(text), ensure_ascii=False)


def _fence(text: str, shortest: int) -> str:
    """Return backticks, more than the text has anywhere in a row."""
    longest = max(map(len, re.findall("`+", text)), default=0)
    return "`" * max(shortest, longest + 1)
