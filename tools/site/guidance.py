"""Texts about components and presets in docs/components.md."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from tools.site.pages import ROOT, written

KINDS = {
    "architecture": "architectures",
    "network": "networks",
    "prior": "priors",
    "posterior": "posteriors",
    "likelihood": "likelihoods",
    "objective": "objectives",
    "image_loss": "image losses",
    "quantizer": "quantizers",
    "condition": "conditions",
    "schedule": "schedules",
}
"""Kinds of components in the order of the navigation, and their plurals."""

DOCUMENT = "docs/components.md"


@dataclass(frozen=True)
class Guidance:
    """Texts about a component in docs/components.md."""

    class_name: str
    use: str
    avoid: str
    reference: str


@cache
def guidance() -> dict[tuple[str, str], Guidance]:
    """Return the texts of docs/components.md by kind and short name, with links from pages in components/."""
    facts, choices = (list(_rows(heading)) for heading in ("# Components", "## Which component to use"))
    advice = dict(choices)
    return {
        key: Guidance(cells[0].strip("`"), *map(_linked, advice[key]), reference=cells[2])
        for key, cells in facts
        if key in advice
    }


def _rows(heading: str) -> Iterator[tuple[tuple[str, str], list[str]]]:
    """Iterate over the rows of a table of components; an empty first cell repeats the one above."""
    kind = ""
    for first, name, *cells in table_below(heading):
        kind = kind_of(first) or kind
        yield (kind, name.split("`")[1]), cells


def table_below(heading: str) -> list[list[str]]:
    """Return the cells of the first table below a heading of docs/components.md, without its head."""
    text = (ROOT / DOCUMENT).read_text("utf-8").replace(r"\|", "&#124;")
    section = text.partition(f"{heading}\n")[2].partition("\n## ")[0]
    table = re.search(r"(?:^\|.*\|\n)+", section, re.MULTILINE)
    if table is None:
        raise ValueError(f"{DOCUMENT}: no table below the heading {heading!r}")
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in table[0].strip().split("\n")[2:]]


def kind_of(cell: str) -> str:
    """Return the kind that a cell in the first column names, or an empty string."""
    return next((kind for kind in KINDS if cell.startswith(kind.replace("_", " "))), "")


def _linked(text: str) -> str:
    return written(DOCUMENT, "components/x.md", text)


def page_of(kind: str, name: str) -> str:
    """Return the name of the page of a component, without its folder and suffix."""
    return f"{kind.replace('_', '-')}-{name}"


@cache
def preset_guidance() -> dict[str, str]:
    """Return when not to use each preset, with links from pages in presets/."""
    return {
        name: written(DOCUMENT, "presets/x.md", avoid)
        for cell, _, avoid in table_below("## Presets")
        for name in re.findall(r"`([\w-]+)`", cell)
    }
