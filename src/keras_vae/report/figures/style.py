"""One style for every figure, on top of Matplotlib's own defaults rather than the user's settings."""

import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vae.core.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Petroff, "Accessible color sequences for data visualization" (2021): told apart under the common color deficiencies.
PALETTE = (
    "#3f90da",
    "#ffa90e",
    "#bd1f01",
    "#94a4a2",
    "#832db6",
    "#a96b59",
    "#e76300",
    "#b9ac70",
    "#717581",
    "#92dadd",
)


TRAIN, VALIDATION = "#3f90da", "#e76300"


INK, FAINT = "#24292f", "#8c959f"


STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    # A run or a class may have a dollar sign in its name.
    "text.parse_math": False,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": "#e4e7eb",
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.dpi": 160,
}


WIDTH = 6.4
"""Longest side of a page of images, and the width of every other figure, in inches."""


def save(figure: "Figure", path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; equal figures give equal bytes.

    Args:
        figure: What a function of this module returned.
        path: The file; one that exists is replaced.

    Returns:
        The path.
    """
    # Matplotlib's version, which it writes by default, would make equal figures differ.
    with style(), replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=figure.dpi, metadata={"Software": None})
    return path


@contextmanager
def style() -> Iterator[None]:
    """Hold the one style, on top of Matplotlib's own defaults rather than the user's settings."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        yield


def wrapped(title: str, inches: float) -> str:
    """Break a title of 11 points into lines that fit a width."""
    return textwrap.fill(title, max(20, int(inches * 11.5)))


def number(value: float) -> str:
    """Return a coordinate as an axis shows it."""
    return f"{round(value, 6) + 0.0:g}".replace("-", "\N{MINUS SIGN}")
