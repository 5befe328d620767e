"""The style that all figures share, and functions that write figures to files."""

import io
import math
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vae.core.files import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Petroff, "Accessible color sequences for data visualization" (2021), which suits the common color deficiencies.
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


INK, SOFT, FAINT, GRID, PAGE = "#24292f", "#59636e", "#8c959f", "#e4e7eb", "#ffffff"
"""Colors of text, of notes, of axes, of grid lines and of the background."""


STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": INK,
    # The name of a run or a class may contain a dollar sign.
    "text.parse_math": False,
    "figure.facecolor": PAGE,
    "axes.facecolor": PAGE,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.linewidth": 0.8,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "legend.frameon": False,
    "figure.dpi": 160,
    # The identifiers in an SVG file are random otherwise.
    "svg.hashsalt": "keras-vae",
}


WIDTH = 6.4
"""Longest side of a figure made of images, and width of every other figure, in inches."""


FORMATS: dict[str, dict[str, Any]] = {
    # By default Matplotlib writes its version and the time into the file, so equal figures would differ.
    ".png": {"metadata": {"Software": None}},
    ".svg": {"metadata": {"Creator": None, "Date": None}},
    ".pdf": {"metadata": {"Creator": None, "Producer": None, "CreationDate": None}},
}
"""The formats of figures by suffix, with the options of Matplotlib."""


def save(figure: "Figure", path: Path) -> Path:
    """Write a figure as a PNG, SVG or PDF file atomically; equal figures give equal bytes.

    Args:
        figure: A figure of this package.
        path: The file to write; an existing file is replaced.

    Returns:
        The path.
    """
    content = _render(figure, path.suffix)
    with replacing(path) as temporary:
        temporary.write_bytes(content)
    return path


def to_png(figure: "Figure") -> bytes:
    """Return a figure as a PNG; equal figures give equal bytes."""
    return _render(figure, ".png")


def _render(figure: "Figure", suffix: str) -> bytes:
    content = io.BytesIO()
    with style():
        figure.savefig(content, format=suffix[1:], dpi=figure.dpi, **FORMATS[suffix])
    return content.getvalue()


@contextmanager
def style() -> Iterator[None]:
    """Apply the style on top of Matplotlib's defaults, ignoring the user's settings."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        yield


def wrap_title(title: str, inches: float) -> str:
    """Break an 11-point title into lines that fit a width."""
    return textwrap.fill(title, max(20, int(inches * 11.5)))


def shorten(name: str, characters: int) -> str:
    """Return a name with its middle left out, if it is longer than a number of characters.

    Example:
        >>> shorten("camera-07/2024-05-01.png", 15)
        'camera…5-01.png'
    """
    if len(name) <= max(characters, 3):
        return name
    kept = max(characters, 3) - 1
    end = math.ceil(kept * 0.57)
    return f"{name[: kept - end]}…{name[len(name) - end :]}"


def format_number(value: float) -> str:
    """Return the text of a coordinate on an axis."""
    return f"{round(value, 6) + 0.0:g}".replace("-", "\N{MINUS SIGN}")
