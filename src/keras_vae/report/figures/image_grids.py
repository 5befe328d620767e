"""Pages of images, whose every pixel is drawn as a whole number of figure pixels."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.files import replacing
from keras_vae.core.typing import Array
from keras_vae.report.figures.style import WIDTH, number, style, wrapped
from keras_vae.report.latent_grid import Grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def contact_sheet(images: Array, *, columns: int | None = None, pad: int = 1, fill: int = 255) -> NDArray[np.uint8]:
    """Return images tiled row by row into one picture.

    Args:
        images: Floats in [0, 1] or uint8, `(N, height, width, channels)`, 1 or 3 channels.
        columns: Images in a row; by default as many as make the picture about square.
        pad: Pixels between neighbors; there are none around the outside.
        fill: Level, 0 to 255, of the gaps and of the places after the last image.

    Returns:
        Gray `(rows * (height + pad) - pad, columns * (width + pad) - pad)`, or the same with a last axis of 3; this
        is what Pillow's `Image.fromarray` takes.

    Raises:
        InputError: If there are no images, they are not as described, or a number is out of range.

    Example:
        >>> contact_sheet(np.zeros((4, 28, 28, 1)), pad=2).shape
        (58, 58)
    """
    tiles = _levels("images", images)
    count, height, width, channels = tiles.shape
    if columns is None:
        columns = min(count, max(1, round(math.sqrt(count * height / width))))
    if columns < 1:
        raise InputError(f"columns is {columns}: a row holds at least 1 image")
    if pad < 0:
        raise InputError(f"pad is {pad}: pass 0 or more pixels")
    if not 0 <= fill <= 255:
        raise InputError(f"fill is {fill}: pass a level from 0 to 255")
    rows = math.ceil(count / columns)
    page = np.full((rows, height + pad, columns, width + pad, channels), fill, np.uint8)
    for index, tile in enumerate(tiles):
        row, column = divmod(index, columns)
        page[row, :height, column, :width] = tile
    page = page.reshape(rows * (height + pad), columns * (width + pad), channels)
    page = page[: page.shape[0] - pad, : page.shape[1] - pad]
    return page[..., 0] if channels == 1 else page


def sheet(images: Array, title: str | None = None, columns: int | None = None) -> "Figure":
    """Return a page of images, such as samples from the prior.

    Args:
        images: Floats in [0, 1] or uint8, `(N, height, width, channels)`, 1 or 3 channels.
        title: Line above the page.
        columns: Images in a row; by default as many as make the page about square.

    Returns:
        The figure, to be passed to `save`.

    Raises:
        InputError: As `contact_sheet` does.
    """
    with style():
        figure, _ = _page(contact_sheet(images, columns=columns), title)
    return figure


def latent_grid(images: Array, grid: Grid, dims: tuple[int, int] = (0, 1), title: str | None = None) -> "Figure":
    """Return decoded images as one seamless page with the latent coordinates along its sides.

    Args:
        images: The decoder's mean images of `grid.z`, in that order: floats in [0, 1] or uint8,
            `(N, height, width, channels)`.
        grid: What `grid_points` returned.
        dims: The two latent dimensions that were asked of `grid_points`; they name the axes.
        title: Line above the page.

    Returns:
        The figure, to be passed to `save`.

    Raises:
        InputError: If there is not one image for each point, or the images are not as described.
    """
    tiles = _levels("images", images)
    if len(tiles) != len(grid.z):
        raise InputError(f"images has {len(tiles)} images: the grid has {len(grid.z)} points, pass one for each")
    _, height, width, _ = tiles.shape
    page = contact_sheet(tiles, columns=len(grid.x), pad=0)
    with style():
        if not len(grid.y):
            figure, axes = _page(page, title, bottom=0.5)
            axes.set_xlabel("z[0]")
        else:
            places, values = _ticks(grid.y, height)
            figure, axes = _page(page, title, left=0.4 + 0.09 * max(map(len, values)), bottom=0.5)
            axes.set_xlabel(f"z[{dims[0]}]")
            axes.set_yticks(places, values)
            axes.set_ylabel(f"z[{dims[1]}]")
        axes.set_xticks(*_ticks(grid.x, width))
    return figure


def stacks(images: Mapping[str, Array], title: str | None = None, columns: int | None = None) -> "Figure":
    """Return images one above another that belong together, such as originals and their reconstructions.

    Args:
        images: What each row is called, from the top, and its images: floats in [0, 1] or uint8,
            `(N, height, width, channels)`, 1 or 3 channels, the same shape in every row.
        title: Line above the page.
        columns: Stacks side by side; by default at most 10, in rows of equal length.

    Returns:
        The figure, to be passed to `save`.

    Raises:
        InputError: If the shapes differ, or the images are not as described.
    """
    layers = {name: _levels(name, rows) for name, rows in images.items()}
    first = next(iter(layers.values()))
    for name, rows in layers.items():
        if rows.shape != first.shape:
            raise InputError(f"{name} has shape {rows.shape}: pass {first.shape}, the shape of {next(iter(layers))}")
    count, height, width, channels = first.shape
    if columns is None:
        columns = math.ceil(count / math.ceil(count / 10))
    # Stacks stand further apart than the images of a stack, so that it is plain which belong together.
    gap = max(1, round(height / 14))
    step, space = height + gap, 4 * gap
    tiles = np.full((count, len(layers) * step - gap + space, width, channels), 255, np.uint8)
    for index, rows in enumerate(layers.values()):
        tiles[:, index * step : index * step + height] = rows
    page = contact_sheet(tiles, columns=columns, pad=gap)[:-space]
    with style():
        figure, axes = _page(page, title, left=0.3 + 0.06 * max(map(len, layers)))
        tops = np.arange(0, len(page), tiles.shape[1] + gap)
        middles = tops[:, None] + np.arange(len(layers)) * step + height / 2
        axes.set_yticks(middles.ravel(), list(layers) * len(tops))
        axes.tick_params(axis="y", length=0)
    return figure


def heat_maps(images: Array, reconstructions: Array, differences: Array, title: str | None = None) -> "Figure":
    """Return images above their reconstructions, and below them where the two differ, in colors of heat.

    Args:
        images: Floats in [0, 1] or uint8, `(N, height, width, channels)`, 1 or 3 channels.
        reconstructions: The same shape.
        differences: Floats in [0, 1], `(N, height, width, 1)`.
        title: Line above the page.

    Returns:
        The figure, to be passed to `save`.

    Raises:
        InputError: As `stacks` does.
    """
    from matplotlib import colormaps

    heat = colormaps["inferno"](_levels("differences", differences)[..., 0])[..., :3]
    colored = [np.broadcast_to(array, (*array.shape[:3], 3)) for array in (images, reconstructions)]
    return stacks({"image": colored[0], "reconstruction": colored[1], "difference": heat}, title)


class Strips(NamedTuple):
    """Rows of images, along each of which one thing runs while the others stand still.

    Args:
        images: `(rows, columns, height, width, channels)`, floats in [0, 1] or uint8.
        names: What each row is called.
        values: What runs, column by column.
        axis: What that is called.
        title: Line above the page.
    """

    images: Array
    names: Sequence[str]
    values: Sequence[float]
    axis: str
    title: str


def strips(strips: Strips) -> "Figure":
    """Return strips as one page, a row each.

    Args:
        strips: The images.

    Returns:
        The figure, to be passed to `save`.

    Raises:
        InputError: If the images are not as described.
    """
    images, names, values, axis, title = strips
    tiles = _levels("images", images.reshape(-1, *images.shape[2:]))
    _, height, width, _ = tiles.shape
    with style():
        left = 0.3 + 0.065 * max(map(len, names))
        figure, axes = _page(contact_sheet(tiles, columns=len(values)), title, left=left, bottom=0.5)
        axes.set_yticks((np.arange(len(names)) + 0.5) * (height + 1), list(names))
        axes.set_xticks((np.arange(len(values)) + 0.5) * (width + 1), [number(float(value)) for value in values])
        axes.tick_params(length=0)
        axes.set_xlabel(axis)
    return figure


def save_animation(strips: Strips, path: Path, *, milliseconds: int = 80) -> Path:
    """Write strips as a GIF: one picture of all rows, running to the last column and back, for ever.

    Args:
        strips: The images.
        path: The file; one that exists is replaced.
        milliseconds: How long each column is shown.

    Returns:
        The path.
    """
    from PIL import Image

    scale = max(1, 280 // max(strips.images.shape[2:4]) // max(1, round(math.sqrt(len(strips.images)))))
    there = [Image.fromarray(contact_sheet(frame)) for frame in np.moveaxis(strips.images, 1, 0)]
    there = [frame.resize((scale * frame.width, scale * frame.height), Image.Resampling.NEAREST) for frame in there]
    first, *others = [*there, *there[-2:0:-1]]
    with replacing(path) as temporary:
        first.save(temporary, format="GIF", save_all=True, append_images=others, duration=milliseconds, loop=0)
    return path


def save_images(images: Array, path: Path) -> None:
    """Write images as one PNG sheet, pixel for pixel.

    Args:
        images: (N, H, W, C), floats in [0, 1] or uint8.
        path: The file; one that exists is replaced.
    """
    from PIL import Image

    with replacing(path) as temporary:
        Image.fromarray(contact_sheet(images)).save(temporary)


def _levels(name: str, images: Array) -> NDArray[np.uint8]:
    """Return images as uint8 levels, or say what is wrong with the argument called `name`."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[3] not in (1, 3) or 0 in images.shape:
        raise InputError(f"{name} has shape {images.shape}: pass (N, height, width, channels) with 1 or 3 channels")
    if images.dtype == np.uint8:
        return images.astype(np.uint8, copy=False)
    # NumPy does not count bfloat16, which mixed precision returns, among its floats.
    if images.dtype.kind != "f" and images.dtype.name != "bfloat16":
        raise InputError(f"{name} has dtype {images.dtype}: pass uint8, or floats in [0, 1]")
    values = images.astype(np.float32)
    low, high = float(values.min()), float(values.max())
    if not 0 <= low <= high <= 1:
        raise InputError(f"{name} has values from {low:g} to {high:g}: pass floats in [0, 1], or uint8")
    return np.rint(values * 255).astype(np.uint8)


def _page(
    page: NDArray[np.uint8], title: str | None, *, left: float = 0.12, bottom: float = 0.12
) -> tuple["Figure", "Axes"]:
    """Return a figure around a picture, each of whose pixels covers the same whole number of figure pixels.

    Args:
        page: Gray `(height, width)` or RGB `(height, width, 3)`.
        title: Line above.
        left: Room for labels on the left, in inches.
        bottom: Room for labels below, in inches.

    Returns:
        The figure, and its axes, in pixels of the page from the top left.
    """
    from matplotlib.figure import Figure

    height, width = page.shape[:2]
    side = max(height, width)
    # Small pages are enlarged for dense screens, but single tiny images not to the whole width.
    scale = min(math.ceil(1200 / side), 12)
    dpi = max(160.0, scale * side / WIDTH)
    right = top = 0.12
    # A page narrower than its title would cut it.
    room = max(scale * width / dpi, 3.2)
    if title is not None:
        title = wrapped(title, room)
        top += 0.12 + 0.19 * (1 + title.count("\n"))
    x, y = round(left * dpi), round(bottom * dpi)
    wide, high = round((left + room + right) * dpi), y + scale * height + round(top * dpi)
    # The canvas truncates inches × dpi to pixels: a hundredth of a pixel keeps rounding errors from losing one.
    figure = Figure(figsize=((wide + 0.01) / dpi, (high + 0.01) / dpi), dpi=dpi)
    box = (x / (wide + 0.01), y / (high + 0.01), scale * width / (wide + 0.01), scale * height / (high + 0.01))
    axes = figure.add_axes(box, frameon=False)
    rgb = page if page.ndim == 3 else np.repeat(page[..., np.newaxis], 3, axis=2)
    axes.imshow(rgb, interpolation="nearest", aspect="auto", extent=(0, width, height, 0))
    axes.set_xticks([])
    axes.set_yticks([])
    if title is not None:
        axes.set_title(title, fontsize=11, pad=8)
    return figure, axes


def _ticks(coordinates: NDArray[np.float32], size: int) -> tuple[NDArray[np.floating], list[str]]:
    """Return where round values of a coordinate lie among tiles of `size` pixels, and their labels."""
    from matplotlib.ticker import MaxNLocator

    places = (np.arange(len(coordinates)) + 0.5) * size
    order = np.argsort(coordinates)
    low, high = float(coordinates.min()), float(coordinates.max())
    if low == high:
        return places, [number(low)]
    values = np.array(MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high))
    slack = 1e-6 * (high - low)
    values = values[(values >= low - slack) & (values <= high + slack)]
    return np.interp(values, coordinates[order], places[order]), [number(value) for value in values.tolist()]
