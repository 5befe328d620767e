"""Arrays → HTML: images stay as small as they are, and the browser shows their pixels as squares."""

import base64
import io
from collections.abc import Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.typing import Array
from keras_vae.explorer.plane import Plane, View
from keras_vae.report.figures import PALETTE, tile_images

_MAP = 1000
"""The side of the map in units of its drawing."""


def uri(image: Array) -> str:
    """Return an image (H, W, C) in [0, 1] or uint8, or a gray or RGB picture of levels, as a data URI of a PNG."""
    from PIL import Image

    levels = (
        image if image.dtype == np.uint8 else np.rint(np.clip(np.asarray(image, "float32"), 0, 1) * 255).astype("uint8")
    )
    levels = levels[..., 0] if levels.ndim == 3 and levels.shape[-1] == 1 else levels
    content = io.BytesIO()
    Image.fromarray(levels).save(content, "PNG", compress_level=3)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def tile(image: Array, caption: str = "", *, index: int | None = None) -> str:
    """Return one image with a line below it; with an index, one that can be picked."""
    height, width = image.shape[:2]
    picked = "" if index is None else f' data-index="{index}" tabindex="0" role="button"'
    below = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    alt = escape(caption) or "image"
    shown = f'<img src="{uri(image)}" width="{width}" height="{height}" alt="{alt}">'
    return f'<figure class="tile"{picked}>{shown}{below}</figure>'


def row(images: Sequence[Array] | Array, captions: Sequence[str] = ()) -> str:
    """Return a few images side by side."""
    texts = captions or [""] * len(images)
    return f'<div class="row">{"".join(tile(*pair) for pair in zip(images, texts, strict=True))}</div>'


def strip(images: Array, name: str, columns: int | None = None) -> str:
    """Return images side by side, in rows of so many where a number is given, with their name above."""
    picture = tile_images(images, columns=columns or len(images), pad=max(1, images.shape[2] // 28))
    height, width = picture.shape[:2]
    image = f'<img src="{uri(picture)}" width="{width}" height="{height}" alt="{escape(name)}">'
    return f'<figure class="strip"><figcaption>{escape(name)}</figcaption>{image}</figure>'


def animation(gif: bytes) -> str:
    """Return a GIF that moves, with a link that saves it."""
    content = f"data:image/gif;base64,{base64.b64encode(gif).decode('ascii')}"
    link = f'<a href="{content}" download="between.gif">Save the GIF</a>'
    shown = f'<figure class="tile"><img src="{content}" alt="animation"><figcaption>{link}</figcaption></figure>'
    return f'<div class="row">{shown}</div>'


def pairs(samples: Array, nearest: Array | None, captions: Sequence[str]) -> str:
    """Return a page of samples, each above the training image that is nearest to it, if that is known."""
    cells = []
    for index, sample in enumerate(samples):
        below = "" if nearest is None else tile(nearest[index], captions[index])
        cells.append(f'<div class="pair">{tile(sample)}{below}</div>')
    return f'<div class="sheet">{"".join(cells)}</div>'


def picks(images: Array) -> str:
    """Return images to pick from."""
    return f'<div class="sheet picks">{"".join(tile(image, index=index) for index, image in enumerate(images))}</div>'


def heat(difference: Array) -> NDArray[np.uint8]:
    """Return a map (H, W, 1) in [0, 1] in colors of heat, (H, W, 3)."""
    from matplotlib import colormaps

    return np.rint(colormaps["inferno"](np.asarray(difference)[..., 0])[..., :3] * 255).astype("uint8")


def colors(labels: NDArray[np.int64] | None, names: Sequence[str]) -> dict[int, str]:
    """Return a color for each label that occurs; of more than ten, in their order along one scale."""
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
    """Return which color is which label."""
    keys = "".join(
        f'<span><i style="background:{color}"></i>{escape(_name(label, names))}</span>'
        for label, color in list(colors(labels, names).items())[:30]
    )
    return f'<div class="legend">{keys}</div>' if keys else ""


def latent_map(
    images: Array,
    plane: Plane,
    view: View,
    *,
    points: Array | None = None,
    labels: NDArray[np.int64] | None = None,
    names: Sequence[str] = (),
    mark: Sequence[float] | None = None,
) -> str:
    """Return the images of a grid over a view as one picture, points in it, coordinates along its sides.

    Args:
        images: Row by row from the top left, (side², H, W, C), in [0, 1].
        plane: Where they lie.
        view: Which part of it.
        points: Codes in the plane, (N, 2).
        labels: Their labels.
        names: Of the labels.
        mark: A point to be marked.
    """
    side = round(len(images) ** 0.5)
    picture = tile_images(images, columns=side, pad=0)
    high = _MAP * picture.shape[0] / picture.shape[1]

    def place(u: float, v: float) -> tuple[float, float]:
        return _MAP * (0.5 + (u - view.u) / (2 * view.half)), high * (0.5 - (v - view.v) / (2 * view.half))

    drawn = []
    chosen = colors(labels, names)
    for index, (u, v) in enumerate(() if points is None else points.tolist()):
        x, y = place(u, v)
        if 0 <= x <= _MAP and 0 <= y <= high:
            color = PALETTE[0] if labels is None else chosen[int(labels[index])]
            drawn.append(f'<circle cx="{x:.0f}" cy="{y:.0f}" r="7" fill="{color}"/>')
    ticks = []
    for value in _ticks(view.u, view.half):
        x, _ = place(value, 0)
        ticks.append(f'<text x="{x:.0f}" y="{high + 36:.0f}" text-anchor="middle">{_number(value)}</text>')
    for value in _ticks(view.v, view.half):
        _, y = place(0, value)
        ticks.append(f'<text x="-12" y="{y + 10:.0f}" text-anchor="end">{_number(value)}</text>')
    across, up = (escape(name) for name in plane.names)
    ticks.append(f'<text x="{_MAP / 2}" y="{high + 76:.0f}" text-anchor="middle">{across}</text>')
    ticks.append(
        f'<text x="-84" y="{high / 2:.0f}" text-anchor="middle" transform="rotate(-90 -84 {high / 2:.0f})">{up}</text>'
    )
    x, y = (-100.0, -100.0) if mark is None else place(mark[0], mark[1])
    return (
        f'<svg class="map" viewBox="-112 -8 1128 {high + 100:.0f}" role="img" aria-label="map of the latent space">'
        f'<image class="canvas" href="{uri(picture)}" width="{_MAP}" height="{high:.0f}" preserveAspectRatio="none"/>'
        f'<g class="points">{"".join(drawn)}</g>'
        f'<svg class="over" width="{_MAP}" height="{high:.0f}"><g class="mark" transform="translate({x:.1f} {y:.1f})">'
        '<circle r="17"/><circle r="17"/></g><rect class="box" width="0" height="0"/></svg>'
        f'<g class="ticks">{"".join(ticks)}</g></svg>'
    )


def _name(label: int, names: Sequence[str]) -> str:
    return names[label] if label < len(names) else str(label)


def _ticks(middle: float, half: float) -> list[float]:
    from matplotlib.ticker import MaxNLocator

    values = MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(middle - half, middle + half)
    return [float(value) for value in values if abs(value - middle) <= half * 1.0001]


def _number(value: float) -> str:
    return f"{round(value, 6) + 0.0:g}".replace("-", "\N{MINUS SIGN}")
