"""HTML of images. Images keep their size, and the browser shows each pixel as a square."""

import base64
import math
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
from keras_vae.report.pages import png_uri

_MAP_WIDTH = 1000
"""The width of the map in SVG units."""

_MAX_LEGEND_ENTRIES = 30

_MAX_THUMBNAIL = 48
"""Maximum side of a thumbnail, in pixels. There are hundreds of them in the page."""


def tile(image: Array, caption: str = "", *, alt: str | None = None) -> str:
    """Return one image with a caption below it.

    Args:
        image: As in `png_uri`.
        caption: The caption, if any.
        alt: A description for readers who do not see the image; by default the caption.
    """
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return f'<figure class="tile">{_img(image, caption if alt is None else alt)}{below}</figure>'


def _img(image: Array, alt: str) -> str:
    height, width = image.shape[:2]
    return f'<img src="{png_uri(image)}" width="{width}" height="{height}" alt="{escape(alt)}">'


def row(images: Sequence[Array] | Array, captions: Sequence[str]) -> str:
    """Return a few images next to each other."""
    return f'<div class="row">{"".join(tile(*pair) for pair in zip(images, captions, strict=True))}</div>'


def strip(images: Array, title: str, columns: int | None = None) -> str:
    """Return images in one picture with a title above it, in one row unless a number of columns is given."""
    picture = tile_images(images, columns=columns or len(images), pad=max(1, images.shape[2] // 28))
    return f'<figure class="strip"><figcaption>{escape(title)}</figcaption>{_img(picture, title)}</figure>'


def animation(images: Array, title: str) -> str:
    """Return images as a GIF that runs forward and back, with a link to save it."""
    strips = figures.ImageStrips(images[None], [""], np.linspace(0, 1, len(images)).tolist(), "", "")
    with tempfile.TemporaryDirectory() as folder:
        gif = figures.save_animation(strips, Path(folder) / "interpolation.gif").read_bytes()
    content = f"data:image/gif;base64,{base64.b64encode(gif).decode('ascii')}"
    link = f'<a href="{content}" download="interpolation.gif">Save GIF</a>'
    shown = f'<figure class="tile"><img src="{content}" alt="{escape(title)}"><figcaption>{link}</figcaption></figure>'
    return f'<div class="row">{shown}</div>'


def sample_grid(samples: Array, nearest: Array | None, captions: Sequence[str]) -> str:
    """Return samples, each above its nearest training image with a caption, if given."""
    cells = []
    for index, sample in enumerate(samples):
        name = f"sample {index + 1}"
        below = (
            "" if nearest is None else tile(nearest[index], captions[index], alt=f"training image nearest to {name}")
        )
        cells.append(f'<div class="pair">{tile(sample, alt=name)}{below}</div>')
    return f'<div class="grid">{"".join(cells)}</div>'


def choice_grid(images: Array) -> str:
    """Return images to choose from."""
    buttons = (
        f'<button type="button" data-index="{index}">{_img(image, f"image {index + 1}")}</button>'
        for index, image in enumerate(images)
    )
    return f'<div class="grid choices">{"".join(buttons)}</div>'


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


def label_name(label: int, names: Sequence[str]) -> str:
    """Return the name of a label; its number if it has none."""
    return names[label] if label < len(names) else str(label)


def legend(labels: NDArray[np.int64] | None, names: Sequence[str]) -> str:
    """Return the legend of label colors, whose entries can be pressed."""
    entries = []
    for label, color in list(label_colors(labels).items())[:_MAX_LEGEND_ENTRIES]:
        name = escape(label_name(label, names))
        pressable = f'type="button" aria-pressed="false" data-name="{name}"'
        entries.append(f'<button {pressable}><i style="background:{color}"></i>{name}</button>')
    return f'<div class="legend" role="group" aria-label="classes">{"".join(entries)}</div>' if entries else ""


def thumbnail_sheet(images: NDArray[np.uint8]) -> str:
    """Return a hidden box for one of many small images and its label, which a script shows.

    Args:
        images: (N, H, W, C), N ≥ 1.
    """
    step = -(-max(images.shape[1:3]) // _MAX_THUMBNAIL)
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    picture = tile_images(images[:, ::step, ::step], columns=columns, pad=0)
    style = f"background-image:url({png_uri(picture)});background-size:{columns * 100}% {rows * 100}%"
    ratio = f"aspect-ratio:{images.shape[2]}/{images.shape[1]}"
    box = f'<i role="img" aria-label="image at this point" style="{style};{ratio}"></i><span></span>'
    return f'<div class="tip" data-columns="{columns}" data-rows="{rows}" hidden="">{box}</div>'


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
    names: Sequence[str] = (),
    mark: tuple[float, float] | None = None,
    description: str = "map of the latent space",
    focusable: bool = False,
) -> str:
    """Return an SVG of a grid of images over a view of a plane, with points on top and axes along two sides.

    Args:
        images: Row by row from the top left, (side², H, W, C), in [0, 1].
        plane: The plane.
        view: The part of the plane that the images cover.
        points: Coordinates of codes in the plane, (N, 2).
        labels: Their labels, (N,).
        names: The names of the labels.
        mark: A point to mark with a ring.
        description: A description for readers who do not see the map.
        focusable: Whether the map takes keys.
    """
    picture = tile_images(images, columns=round(len(images) ** 0.5), pad=0)
    height = _MAP_WIDTH * picture.shape[0] / picture.shape[1]
    frame = _Frame(view, height)
    x, y = (-100.0, -100.0) if mark is None else frame.position(*mark)
    role = 'role="application" tabindex="0"' if focusable else 'role="img"'
    place = f'data-view="{view.u!r} {view.v!r} {view.half!r}" data-plane="{escape(" ".join(plane.names))}"'
    canvas = f'<image class="canvas" href="{png_uri(picture)}" width="{_MAP_WIDTH}" height="{height:.0f}"'
    return (
        f'<svg class="map" viewBox="-112 -8 1128 {height + 100:.0f}" {role} aria-label="{escape(description)}" {place}>'
        f'{canvas} preserveAspectRatio="none"/>'
        f'<g class="points">{"" if points is None else _circles(frame, points, labels, names)}</g>'
        f'<svg class="overlay" width="{_MAP_WIDTH}" height="{height:.0f}">'
        f'<g class="mark" transform="translate({x:.1f} {y:.1f})"><circle r="20"/><circle r="20"/></g>'
        '<rect class="selection" width="0" height="0"/></svg>'
        f'<g class="axes" aria-hidden="true">{_axes(frame, plane)}</g></svg>'
    )


def _circles(frame: _Frame, points: Array, labels: NDArray[np.int64] | None, names: Sequence[str]) -> str:
    colors, circles = label_colors(labels), []
    for index, (u, v) in enumerate(points.tolist()):
        x, y = frame.position(u, v)
        if 0 <= x <= _MAP_WIDTH and 0 <= y <= frame.height:
            label = None if labels is None else int(labels[index])
            color, name = (PALETTE[0], "") if label is None else (colors[label], escape(label_name(label, names)))
            of_image = f'data-index="{index}" data-name="{name}"'
            circles.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="7" fill="{color}" {of_image}/>')
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
