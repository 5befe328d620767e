"""Figures on a light and on a dark page: the same drawing in other colors."""

import io
import pickle
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from keras_vae.report.figures.style import FAINT, GRID, INK, PAGE, PALETTE, SOFT, to_png

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DARK_PAGE = "#191f26"
"""Background of a figure on a dark page."""

# Lighter tones of the same hues, with a contrast of at least 3 to the page; the text has one above 4.5.
DARK: Mapping[str, str] = {
    PAGE: DARK_PAGE,
    INK: "#e6e9ed",
    SOFT: "#9aa5b1",
    FAINT: "#6e7984",
    GRID: "#2e3742",
    **dict(
        zip(
            PALETTE,
            (
                "#5aa5ea",
                "#ffb733",
                "#ff6f5e",
                "#a9b7b5",
                "#b98ae0",
                "#c98f80",
                "#ff8a3d",
                "#cabd84",
                "#9aa0a8",
                "#92dadd",
            ),
            strict=True,
        )
    ),
}
"""Colors on a dark page by those on a light page."""

_COLORS = ("color", "facecolor", "edgecolor", "markerfacecolor", "markeredgecolor")


class ThemedImage(NamedTuple):
    """A figure as two lossless WebP images of one size, which are half as large as PNGs.

    Args:
        light: The figure on a light page.
        dark: The figure on a dark page.
        size: Width and height in pixels.
    """

    light: bytes
    dark: bytes
    size: tuple[int, int]


def themed_image(figure: "Figure") -> ThemedImage:
    """Return a figure on a light and on a dark page; the figure is unchanged.

    Args:
        figure: A figure of this package.
    """
    light, size = _to_webp(figure)
    dark, _ = _to_webp(on_dark_page(figure))
    return ThemedImage(light, dark, size)


def _to_webp(figure: "Figure") -> tuple[bytes, tuple[int, int]]:
    """Return a figure as a lossless WebP, and its width and height in pixels."""
    from PIL import Image

    content = io.BytesIO()
    with Image.open(io.BytesIO(to_png(figure))) as png:
        png.convert("RGB").save(content, format="WEBP", lossless=True)
        return content.getvalue(), png.size


def on_dark_page(figure: "Figure") -> "Figure":
    """Return a copy of a figure in the colors of a dark page.

    Args:
        figure: A figure of this package.
    """
    copy: Figure = pickle.loads(pickle.dumps(figure))
    for artist in copy.findobj():
        _recolor(artist)
    return copy


def _recolor(artist: Any) -> None:
    """Replace the colors of an artist by those of a dark page."""
    from matplotlib.axis import Axis
    from matplotlib.colors import ListedColormap
    from matplotlib.patheffects import withStroke

    if isinstance(artist, Axis):
        # Ticks are created when the figure is drawn.
        artist.set_tick_params(color=DARK[FAINT], labelcolor=DARK[INK], grid_color=DARK[GRID])
    if getattr(artist, "get_bbox_patch", lambda: None)() is not None:
        # The text was chosen for the color of its badge.
        return
    if artist.get_path_effects():
        artist.set_path_effects([withStroke(linewidth=3, foreground=DARK_PAGE)])
    if getattr(artist, "get_array", lambda: None)() is not None:
        colormap = artist.get_cmap()
        if isinstance(colormap, ListedColormap):
            colors: Any = colormap.colors
            artist.set_cmap(ListedColormap([_dark(color) or color for color in colors]))
        return
    for name in _COLORS:
        read, write = (getattr(artist, f"{verb}_{name}", None) for verb in ("get", "set"))
        if read is None or write is None:
            continue
        colors = read()
        is_list = not isinstance(colors, str) and len(colors) and not isinstance(colors[0], float | int)
        listed = list(colors) if is_list else [colors]
        replaced = [_dark(color) for color in listed]
        # Writing an equal color could still change its opacity.
        if any(color is not None for color in replaced):
            written = [new or old for new, old in zip(replaced, listed, strict=True)]
            write(written if is_list else written[0])


def _dark(color: Any) -> tuple[float, ...] | None:
    """Return the color on a dark page, with the same opacity, or None if it stays the same."""
    from matplotlib.colors import to_hex, to_rgba

    replaced = DARK.get(to_hex(color))
    return None if replaced is None else (*to_rgba(replaced)[:3], to_rgba(color)[3])
