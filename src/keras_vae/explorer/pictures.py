"""HTML of images. Images keep their size, and the browser shows each pixel as a square."""

import base64
import io
import tempfile
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.typing import Array
from keras_vae.explorer.plane import Plane, View
from keras_vae.report import figures
from keras_vae.report.figures import PALETTE, tile_images
from keras_vae.report.figures.style import format_number

_MAP_WIDTH = 1000
"""The width of the map in SVG units."""

_MAX_LEGEND_ENTRIES = 30


def data_uri(image: Array) -> str:
    """Return an image as a data URI of a PNG file.

    Args:
        image: Floats in [0, 1] or uint8, (H, W, C) or (H, W).
    """
    from PIL import Image

    levels = (
        image if image.dtype == np.uint8 else np.rint(np.clip(np.asarray(image, "float32"), 0, 1) * 255).astype("uint8")
    )
    levels = levels[..., 0] if levels.ndim == 3 and levels.shape[-1] == 1 else levels
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def tile(image: Array, caption: str = "", *, index: int | None = None) -> str:
    """Return one image with a caption below it; an image with an index can be clicked."""
    height, width = image.shape[:2]
    choosable = "" if index is None else f' data-index="{index}" tabindex="0" role="button"'
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    alt = escape(caption) or ("image" if index is None else f"image {index + 1}")
    shown = f'<img src="{data_uri(image)}" width="{width}" height="{height}" alt="{alt}">'
    return f'<figure class="tile"{choosable}>{shown}{below}</figure>'


def row(images: Sequence[Array] | Array, captions: Sequence[str] = ()) -> str:
    """Return a few images next to each other."""
    texts = captions or [""] * len(images)
    return f'<div class="row">{"".join(tile(*pair) for pair in zip(images, texts, strict=True))}</div>'


def strip(images: Array, title: str, columns: int | None = None) -> str:
    """Return images in one picture with a title above it, in one row unless a number of columns is given."""
    picture = tile_images(images, columns=columns or len(images), pad=max(1, images.shape[2] // 28))
    height, width = picture.shape[:2]
    image = f'<img src="{data_uri(picture)}" width="{width}" height="{height}" alt="{escape(title)}">'
    return f'<figure class="strip"><figcaption>{escape(title)}</figcaption>{image}</figure>'


def animation(images: Array) -> str:
    """Return images as a GIF that runs forward and back, with a link to save it."""
    strips = figures.ImageStrips(images[None], [""], np.linspace(0, 1, len(images)).tolist(), "", "")
    with tempfile.TemporaryDirectory() as folder:
        gif = figures.save_animation(strips, Path(folder) / "interpolation.gif").read_bytes()
    content = f"data:image/gif;base64,{base64.b64encode(gif).decode('ascii')}"
    link = f'<a href="{content}" download="interpolation.gif">Save GIF</a>'
    shown = f'<figure class="tile"><img src="{content}" alt="animation"><figcaption>{link}</figcaption></figure>'
    return f'<div class="row">{shown}</div>'


def sample_grid(samples: Array, nearest: Array | None, captions: Sequence[str]) -> str:
    """Return samples, each above its nearest training image with a caption, if given."""
    cells = []
    for index, sample in enumerate(samples):
        below = "" if nearest is None else tile(nearest[index], captions[index])
        cells.append(f'<div class="pair">{tile(sample)}{below}</div>')
    return f'<div class="grid">{"".join(cells)}</div>'


def choice_grid(images: Array) -> str:
    """Return images to choose from."""
    tiles = (tile(image, index=index) for index, image in enumerate(images))
    return f'<div class="grid choices">{"".join(tiles)}</div>'


def heatmap(error_map: Array) -> NDArray[np.uint8]:
    """Return a map of values in [0, 1], (H, W, 1), as colors, (H, W, 3)."""
    from matplotlib import colormaps

    return np.rint(colormaps["inferno"](np.asarray(error_map)[..., 0])[..., :3] * 255).astype("uint8")


def label_colors(labels: NDArray[np.int64] | None) -> dict[int, str]:
    """Return the color of each label that occurs: from the palette, or from a color scale if there are many."""
    if labels is None:
        return {}
    present = np.unique(labels).tolist()
    if len(present) <= len(PALETTE) and max(present) < len(PALETTE):
        return {label: PALETTE[label] for label in present}
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    scale = colormaps["viridis"]
    return {label: to_hex(scale(rank / max(1, len(present) - 1))) for rank, label in enumerate(present)}


def legend(labels: NDArray[np.int64] | None, names: Sequence[str]) -> str:
    """Return the legend of label colors."""
    entries = "".join(
        f'<span><i style="background:{color}"></i>{escape(names[label] if label < len(names) else str(label))}</span>'
        for label, color in list(label_colors(labels).items())[:_MAX_LEGEND_ENTRIES]
    )
    return f'<div class="legend">{entries}</div>' if entries else ""


class _Frame(NamedTuple):
    """The coordinate system of a map: a view of a plane in SVG units."""

    view: View
    height: float

    def position(self, u: float, v: float) -> tuple[float, float]:
        """Return the SVG coordinates of a point of the plane."""
        view = self.view
        return _MAP_WIDTH * (0.5 + (u - view.u) / (2 * view.half)), self.height * (0.5 - (v - view.v) / (2 * view.half))


def latent_map(
    images: Array,
    plane: Plane,
    view: View,
    *,
    points: Array | None = None,
    labels: NDArray[np.int64] | None = None,
    mark: tuple[float, float] | None = None,
) -> str:
    """Return an SVG of a grid of images over a view of a plane, with points on top and axes along two sides.

    Args:
        images: Row by row from the top left, (side², H, W, C), in [0, 1].
        plane: The plane.
        view: The part of the plane that the images cover.
        points: Coordinates of codes in the plane, (N, 2).
        labels: Their labels, (N,).
        mark: A point to mark with a ring.
    """
    picture = tile_images(images, columns=round(len(images) ** 0.5), pad=0)
    height = _MAP_WIDTH * picture.shape[0] / picture.shape[1]
    frame = _Frame(view, height)
    x, y = (-100.0, -100.0) if mark is None else frame.position(*mark)
    canvas = f'<image class="canvas" href="{data_uri(picture)}" width="{_MAP_WIDTH}" height="{height:.0f}"'
    return (
        f'<svg class="map" viewBox="-112 -8 1128 {height + 100:.0f}" role="img" aria-label="map of the latent space">'
        f'{canvas} preserveAspectRatio="none"/>'
        f'<g class="points">{"" if points is None else _circles(frame, points, labels)}</g>'
        f'<svg class="overlay" width="{_MAP_WIDTH}" height="{height:.0f}">'
        f'<g class="mark" transform="translate({x:.1f} {y:.1f})"><circle r="20"/><circle r="20"/></g>'
        '<rect class="selection" width="0" height="0"/></svg>'
        f'<g class="axes">{_axes(frame, plane)}</g></svg>'
    )


def _circles(frame: _Frame, points: Array, labels: NDArray[np.int64] | None) -> str:
    colors, circles = label_colors(labels), []
    for index, (u, v) in enumerate(points.tolist()):
        x, y = frame.position(u, v)
        if 0 <= x <= _MAP_WIDTH and 0 <= y <= frame.height:
            color = PALETTE[0] if labels is None else colors[int(labels[index])]
            circles.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="7" fill="{color}"/>')
    return "".join(circles)


def _axes(frame: _Frame, plane: Plane) -> str:
    view, height = frame.view, frame.height
    texts = []
    for value in _ticks(view.u, view.half):
        x, _ = frame.position(value, 0)
        texts.append(f'<text x="{x:.0f}" y="{height + 36:.0f}" text-anchor="middle">{format_number(value)}</text>')
    for value in _ticks(view.v, view.half):
        _, y = frame.position(0, value)
        texts.append(f'<text x="-12" y="{y + 10:.0f}" text-anchor="end">{format_number(value)}</text>')
    horizontal, vertical = (escape(name) for name in plane.names)
    turn = f"rotate(-90 -84 {height / 2:.0f})"
    texts.append(f'<text x="{_MAP_WIDTH / 2}" y="{height + 76:.0f}" text-anchor="middle">{horizontal}</text>')
    texts.append(f'<text x="-84" y="{height / 2:.0f}" text-anchor="middle" transform="{turn}">{vertical}</text>')
    return "".join(texts)


def _ticks(center: float, half: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(center - half, center + half)
    return [float(value) for value in values if abs(value - center) <= half * 1.0001]
