r"""Conversion of docstrings, whose markup is Markdown with \(…\) for formulas, to reStructuredText."""

import re
from collections.abc import Callable

INLINE = re.compile(r"(?P<code>`[^`]+`)|\\\((?P<math>.+?)\\\)|(?P<indent>[ ]*)\\\[(?P<display>.+?)\\\]\.?", re.DOTALL)
DOCTEST = re.compile(r"^[ ]*>>>.*\n(?:[ ]*\S.*\n?)*", re.MULTILINE)
BULLET = re.compile(r"(?m)(?<=^)([ ]*)\\\*(?=[ ])")


def to_rst(text: str, link: Callable[[str], str | None] = lambda name: None) -> str:
    """Return a docstring as reStructuredText.

    Args:
        text: The docstring.
        link: Full name of the public object that a name in backticks denotes, or None.
    """
    parts, end = [], 0
    for example in DOCTEST.finditer(text):
        parts += [_inline(text[end : example.start()], link), example[0]]
        end = example.end()
    return "".join([*parts, _inline(text[end:], link)])


def summary(docstring: str) -> str:
    """Return the first sentence of a docstring, in its own markup."""
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    sentence = re.match(r".+?[.:](?= [A-Z`\\]|$)", paragraph)
    return (sentence[0] if sentence else paragraph).rstrip(":")


def _inline(text: str, link: Callable[[str], str | None]) -> str:
    parts, end = [], 0
    for match in INLINE.finditer(text):
        parts += [_escape(text[end : match.start()]), _role(match, link)]
        end = match.end()
        # reStructuredText needs a boundary after inline markup; `\ ` is an invisible one.
        if end < len(text) and re.match(r"[^\s.,:;!?)\]}’”/-]", text[end]):
            parts.append("\\ ")
    return "".join([*parts, _escape(text[end:])])


def _role(match: re.Match[str], link: Callable[[str], str | None]) -> str:
    if match["code"]:
        name = match["code"].strip("`")
        target = link(name)
        return f":py:obj:`{name} <{target}>`" if target else f"``{name}``"
    if match["math"]:
        return f":math:`{match['math']}`"
    formula = " ".join(match["display"].split())
    return f"{match['indent']}.. math::\n\n{match['indent']}   {formula}\n\n"


def _escape(text: str) -> str:
    escaped = re.sub(r"([\\*|])|(?<=\w)(_)(?!\w)", lambda match: "\\" + match[0], text)
    return BULLET.sub(r"\1*", escaped)
