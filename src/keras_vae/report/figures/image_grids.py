"""Figures made of images, in which every image pixel covers a whole number of figure pixels."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import replacing
from keras_vae.core.typing import Array
from keras_vae.report.figures.style import WIDTH, format_number, shorten, style, wrap_title
from keras_vae.report.latent_grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL import Image

SHEET_SIDE = 640
"""Longest side up to which sheets of images are enlarged, in pixels."""

MAX_SCALE = 12
"""Largest factor by which sheets of images are enlarged."""

_CAPTIONED_WIDTH = 11.0
"""Longest side of a figure whose images have captions, in inches."""

_CAPTION_HEIGHT = 0.36
"""Height of a caption of two lines, with the space below it, in inches."""

_CHARACTER_WIDTH = 0.06
"""Average width of a character of a caption, in inches."""


def tile_images(
    images: Array, *, columns: int | None = None, pad: int = 1, fill: int | None = 255
) -> NDArray[np.uint8]:
    """Return images tiled row by row into one picture.

    Args:
        images: Floats in [0, 1] or uint8, `(N, height, width, channels)`, 1 or 3 channels.
        columns: Images per row; None makes the picture about square.
        pad: Pixels between neighbors; there is no margin around the outside.
        fill: Level from 0 to 255 of the gaps and of the places after the last image; None makes them transparent.

    Returns:
        Gray `(rows * (height + pad) - pad, columns * (width + pad) - pad)`, or the same with a last axis of 3 for RGB
        or, with transparent gaps, of 4 for RGBA, as Pillow's `Image.fromarray` expects.

    Raises:
        InputError: The images have the wrong shape, dtype or range, or a number is out of range.

    Example:
        >>> tile_images(np.zeros((4, 28, 28, 1)), pad=2).shape
        (58, 58)
    """
    tiles = to_uint8("images", images)
    count, height, width, channels = tiles.shape
    if columns is None:
        columns = min(count, max(1, round(math.sqrt(count * height / width))))
    if columns < 1:
        raise InputError(f"columns = {columns}: a row holds at least 1 image; pass 1 or more")
    if pad < 0:
        raise InputError(f"pad = {pad}: a gap cannot be negative; pass 0 or more pixels")
    if fill is None:
        return _tile(_with_opacity(tiles), columns, pad, 0)
    if not 0 <= fill <= 255:
        raise InputError(f"fill = {fill}: not a gray level; pass 0 to 255")
    picture = _tile(tiles, columns, pad, fill)
    return picture[..., 0] if channels == 1 else picture


def _with_opacity(tiles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return images as opaque RGBA levels, (N, height, width, 4)."""
    rgb = np.broadcast_to(tiles, (*tiles.shape[:3], 3))
    return np.concatenate([rgb, np.full_like(tiles[..., :1], 255)], axis=-1)


def _tile(tiles: NDArray[np.uint8], columns: int, pad: int, fill: int) -> NDArray[np.uint8]:
    """Return images (N, height, width, channels) as one picture (…, …, channels), with gaps of `pad` pixels."""
    count, height, width, channels = tiles.shape
    rows = math.ceil(count / columns)
    picture = np.full((rows, height + pad, columns, width + pad, channels), fill, np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        picture[row, :height, column, :width] = tile
    picture = picture.reshape(rows * (height + pad), columns * (width + pad), channels)
    return picture[: picture.shape[0] - pad, : picture.shape[1] - pad]


def image_grid(images: Array, title: str | None = None, columns: int | None = None) -> "Figure":
    """Return images in rows and columns, such as samples from the prior.

    Args:
        images: Floats in [0, 1] or uint8, `(N, height, width, channels)`, 1 or 3 channels.
        title: Title of the figure.
        columns: Images per row; None makes the grid about square.

    Returns:
        The figure; `save` writes it.

    Raises:
        InputError: As for `tile_images`.
    """
    with style():
        figure, _ = _figure_around(tile_images(images, columns=columns, fill=None), title)
    return figure


def latent_grid(
    images: Array, grid: Grid, names: tuple[str, str] = ("z[0]", "z[1]"), title: str | None = None
) -> "Figure":
    """Return decoded images as one seamless picture with the latent coordinates along its sides.

    Args:
        images: Mean images decoded from `grid.z`, in that order: floats in [0, 1] or uint8,
            `(N, height, width, channels)`.
        grid: The points, as `grid_points` returns them.
        names: Names of the horizontal and the vertical coordinate.
        title: Title of the figure.

    Returns:
        The figure; `save` writes it.

    Raises:
        InputError: The number of images is not the number of points, or the images have the wrong shape, dtype or
            range.
    """
    tiles = to_uint8("images", images)
    if len(tiles) != len(grid.z):
        raise InputError(f"images = {len(tiles)} images: the grid has {len(grid.z)} points; pass one image per point")
    _, height, width, _ = tiles.shape
    picture = tile_images(tiles, columns=len(grid.x), pad=0, fill=None)
    with style():
        if not len(grid.y):
            figure, axes = _figure_around(picture, title, bottom=0.5)
            axes.set_xlabel(names[0])
        else:
            places, values = _ticks(grid.y, height)
            figure, axes = _figure_around(picture, title, left=0.4 + 0.09 * max(map(len, values)), bottom=0.5)
            axes.set_xlabel(names[0])
            axes.set_yticks(places, values)
            axes.set_ylabel(names[1])
        axes.set_xticks(*_ticks(grid.x, width))
    return figure


def image_rows(
    rows: Mapping[str, Array],
    title: str | None = None,
    columns: int | None = None,
    captions: Sequence[tuple[str, str]] | None = None,
) -> "Figure":
    """Return named rows of images, one above another, such as originals and their reconstructions.

    Args:
        rows: The images of each row by the row's name, from the top: floats in [0, 1] or uint8,
            `(N, height, width, channels)`, 1 or 3 channels, the same shape in every row.
        title: Title of the figure.
        columns: Images per row; None uses at most 10; longer rows continue below in blocks of equal length.
        captions: Two lines below each column; the first is shortened to the width of the column.

    Returns:
        The figure; `save` writes it.

    Raises:
        InputError: The shapes differ, or the images have the wrong shape, dtype or range.
    """
    layers = {name: to_uint8(name, images) for name, images in rows.items()}
    first = next(iter(layers.values()))
    for name, images in layers.items():
        if images.shape != first.shape:
            raise InputError(
                f"{name}.shape = {images.shape}: {next(iter(layers))} has {first.shape}; pass the same shape"
            )
    count, height, width, _ = first.shape
    if columns is None:
        columns = math.ceil(count / math.ceil(count / 10))
    # The gap between blocks is larger than the gap within a block, so that it is clear which images belong together.
    gap = max(1, round(height / 14))
    step, space = height + gap, 4 * gap
    longest = WIDTH
    if captions is not None:
        longest = _CAPTIONED_WIDTH
        blocks = math.ceil(count / columns)
        for _ in range(2):
            inches = _inches_per_pixel(blocks * (len(layers) * step + space), columns * (width + gap), longest)
            space = math.ceil(_CAPTION_HEIGHT / inches)
    tiles = np.zeros((count, len(layers) * step - gap + space, width, 4), np.uint8)
    for index, images in enumerate(layers.values()):
        tiles[:, index * step : index * step + height] = _with_opacity(images)
    picture = _tile(tiles, columns, gap, 0)
    picture = picture if captions is not None else picture[:-space]
    with style():
        figure, axes = _figure_around(picture, title, left=0.3 + 0.06 * max(map(len, layers)), longest=longest)
        tops = np.arange(0, len(picture), tiles.shape[1] + gap)
        middles = tops[:, None] + np.arange(len(layers)) * step + height / 2
        axes.set_yticks(middles.ravel(), list(layers) * len(tops))
        axes.tick_params(axis="y", length=0)
        characters = int(
            _inches_per_pixel(picture.shape[0], picture.shape[1], longest) * (width + gap) / _CHARACTER_WIDTH
        )
        for index, (name, text) in enumerate(captions or ()):
            row, column = divmod(index, columns)
            place = column * (width + gap) + width / 2, tops[row] + len(layers) * step
            lines = f"{shorten(name, characters)}\n{text}"
            axes.text(*place, lines, ha="center", va="top", fontsize=6.5, linespacing=1.3)
    return figure


class ImageStrips(NamedTuple):
    """Rows of images; along each row one quantity varies and everything else is held fixed.

    Args:
        images: `(rows, columns, height, width, channels)`, floats in [0, 1] or uint8.
        names: Name of each row, in one or more lines.
        values: Value of the varying quantity in each column.
        axis: Name of the varying quantity.
        title: Title of the figure.
    """

    images: Array
    names: Sequence[str]
    values: Sequence[float]
    axis: str
    title: str


def image_strips(strips: ImageStrips) -> "Figure":
    """Return strips as a figure with one row per strip.

    Args:
        strips: The images.

    Returns:
        The figure; `save` writes it.

    Raises:
        InputError: The images have the wrong shape, dtype or range.
    """
    images, names, values, axis, title = strips
    tiles = to_uint8("images", images.reshape(-1, *images.shape[2:]))
    _, height, width, _ = tiles.shape
    with style():
        left = 0.25 + 0.08 * max(len(line) for name in names for line in name.splitlines())
        picture = tile_images(tiles, columns=len(values), fill=None)
        figure, axes = _figure_around(picture, title, left=left, bottom=0.5)
        axes.set_yticks((np.arange(len(names)) + 0.5) * (height + 1), list(names))
        axes.set_xticks((np.arange(len(values)) + 0.5) * (width + 1), [format_number(float(value)) for value in values])
        axes.tick_params(length=0)
        axes.set_xlabel(axis)
    return figure


def save_animation(strips: ImageStrips, path: Path, *, milliseconds: int = 80) -> Path:
    """Write strips as an endless GIF that shows one column at a time, forward and back.

    Args:
        strips: The images.
        path: The file to write; an existing file is replaced.
        milliseconds: Duration of each column.

    Returns:
        The path.
    """
    from PIL import Image

    scale = max(1, 280 // max(strips.images.shape[2:4]) // max(1, round(math.sqrt(len(strips.images)))))
    forward = [Image.fromarray(tile_images(frame)) for frame in np.moveaxis(strips.images, 1, 0)]
    forward = [frame.resize((scale * frame.width, scale * frame.height), Image.Resampling.NEAREST) for frame in forward]
    first, *others = [*forward, *forward[-2:0:-1]]
    with replacing(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return path


def save_images(images: Array, path: Path) -> None:
    """Write images tiled into one PNG, in which each pixel of an image covers a whole number of pixels.

    Args:
        images: (N, H, W, C), floats in [0, 1] or uint8.
        path: The file to write; an existing file is replaced.
    """
    sheet = image_sheet(images)
    with replacing(path) as temporary:
        sheet.save(temporary, format="PNG")


def image_sheet(images: Array, *, columns: int | None = None) -> "Image.Image":
    """Return images tiled into one picture, enlarged by a whole number if they are small.

    Args:
        images: (N, H, W, C), floats in [0, 1] or uint8.
        columns: Images per row; None makes the picture about square.
    """
    from PIL import Image

    picture = Image.fromarray(tile_images(images, columns=columns))
    scale = min(max(1, SHEET_SIDE // max(picture.size)), MAX_SCALE)
    return picture.resize((scale * picture.width, scale * picture.height), Image.Resampling.NEAREST)


def to_uint8(name: str, images: Array) -> NDArray[np.uint8]:
    """Return images as uint8 levels, or raise an error about the argument called `name`."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise InputError(
            f"{name}.shape = {images.shape}: not a batch of images; pass (N, height, width, channels) with 1 or 3 "
            "channels"
        )
    if images.dtype == np.uint8:
        return images.astype(np.uint8, copy=False)
    # NumPy does not count bfloat16, which mixed precision returns, among its floats.
    if images.dtype.kind != "f" and images.dtype.name != "bfloat16":
        raise InputError(f"{name}.dtype = {images.dtype}: not a pixel type; pass uint8, or floats in [0, 1]")
    values = images.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 1:
        raise InputError(f"{name} = values from {low:g} to {high:g}: out of range; pass floats in [0, 1], or uint8")
    return np.rint(values * 255).astype(np.uint8)


def _scale_and_dpi(height: int, width: int, longest: float) -> tuple[int, float]:
    """Return the figure pixels per picture pixel and the figure pixels per inch."""
    side = max(height, width)
    # Small pictures are enlarged for dense screens, but a single tiny image does not fill the whole width.
    scale = min(math.ceil(1200 / side), 12)
    return scale, max(160.0, scale * side / longest)


def _inches_per_pixel(height: int, width: int, longest: float) -> float:
    scale, dpi = _scale_and_dpi(height, width, longest)
    return scale / dpi


def _figure_around(
    picture: NDArray[np.uint8],
    title: str | None,
    *,
    left: float = 0.12,
    bottom: float = 0.12,
    longest: float = WIDTH,
) -> tuple["Figure", "Axes"]:
    """Return a figure of a picture in which each of its pixels covers the same whole number of figure pixels.

    Args:
        picture: RGBA, `(height, width, 4)`.
        title: Title of the figure.
        left: Space for labels on the left, in inches.
        bottom: Space for labels below, in inches.
        longest: Longest side of the picture, in inches.

    Returns:
        The figure, and its axes in pixels of the picture from the top left.
    """
    from keras_vae.report.figures.notebook import NotebookFigure

    height, width = picture.shape[:2]
    scale, dpi = _scale_and_dpi(height, width, longest)
    right = top = 0.12
    # A figure narrower than its title would cut it off.
    inner_width = max(scale * width / dpi, 3.2)
    if title is not None:
        title = wrap_title(title, inner_width)
        top += 0.12 + 0.19 * (1 + title.count("\n"))
    x, y = round(left * dpi), round(bottom * dpi)
    total_width = round((left + inner_width + right) * dpi)
    total_height = y + scale * height + round(top * dpi)
    # The canvas truncates inches × dpi to pixels: a hundredth of a pixel keeps rounding errors from losing one.
    wide, high = total_width + 0.01, total_height + 0.01
    figure = NotebookFigure(figsize=(wide / dpi, high / dpi), dpi=dpi)
    axes = figure.add_axes((x / wide, y / high, scale * width / wide, scale * height / high), frameon=False)
    axes.imshow(picture, interpolation="nearest", aspect="auto", extent=(0, width, height, 0))
    axes.set_xticks([])
    axes.set_yticks([])
    if title is not None:
        axes.set_title(title, fontsize=11, pad=8)
    return figure, axes


def _ticks(coordinates: NDArray[np.float32], size: int) -> tuple[NDArray[np.floating], list[str]]:
    """Return the positions of round coordinate values among tiles of `size` pixels, and their labels."""
    from matplotlib.ticker import MaxNLocator

    places = (np.arange(len(coordinates)) + 0.5) * size
    order = np.argsort(coordinates)
    low, high = float(coordinates.min()), float(coordinates.max())
    if low == high:
        return places, [format_number(low)]
    values = np.array(MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high))
    slack = 1e-6 * (high - low)
    values = values[(values >= low - slack) & (values <= high + slack)]
    return np.interp(values, coordinates[order], places[order]), [format_number(value) for value in values.tolist()]
