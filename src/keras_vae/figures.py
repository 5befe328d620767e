"""Arrays to figures: plain functions, no global state, one style.

Images come as floats in [0, 1] or as uint8, `(N, height, width, channels)` with 1 or 3 channels. Every image pixel is
drawn as a whole number of figure pixels, so nothing is blurred or resampled.
"""

import math
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.errors import InputError
from keras_vae.evaluation.latents import Grid, check_dims
from keras_vae.files import replacing
from keras_vae.types import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Petroff, "Accessible color sequences for data visualization" (2021): told apart under the common colour deficiencies.
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


def contact_sheet(images: Array, *, columns: int | None = None, pad: int = 1, fill: int = 255) -> NDArray[np.uint8]:
    """Return images tiled row by row into one picture.

    Args:
        images: Floats in [0, 1] or uint8, `(N, height, width, channels)`, 1 or 3 channels.
        columns: Images in a row; by default as many as make the picture about square.
        pad: Pixels between neighbours; there are none around the outside.
        fill: Level, 0 to 255, of the gaps and of the places after the last image.

    Returns:
        Grey `(rows * (height + pad) - pad, columns * (width + pad) - pad)`, or the same with a last axis of 3; this
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
    with _style():
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
    with _style():
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


def reconstructions(
    originals: Array, reconstructed: Array, title: str | None = None, columns: int | None = None
) -> "Figure":
    """Return images above their reconstructions, pair by pair.

    Args:
        originals: Floats in [0, 1] or uint8, `(N, height, width, channels)`, 1 or 3 channels.
        reconstructed: What the model makes of them, the same shape.
        title: Line above the page.
        columns: Pairs side by side; by default at most 10, in rows of equal length.

    Returns:
        The figure, to be passed to `save`.

    Raises:
        InputError: If the shapes differ, or the images are not as described.
    """
    above, below = _levels("originals", originals), _levels("reconstructed", reconstructed)
    if above.shape != below.shape:
        raise InputError(f"reconstructed has shape {below.shape}: pass {above.shape}, the shape of originals")
    count, height, width, channels = above.shape
    if columns is None:
        columns = math.ceil(count / math.ceil(count / 10))
    # Pairs stand further apart than the two of a pair, so that it is plain which belong together.
    gap = max(1, round(height / 14))
    space = 4 * gap
    pairs = np.full((count, 2 * height + gap + space, width, channels), 255, np.uint8)
    pairs[:, :height], pairs[:, height + gap : -space] = above, below
    page = contact_sheet(pairs, columns=columns, pad=gap)[:-space]
    with _style():
        figure, axes = _page(page, title, left=1.1)
        tops = np.arange(0, len(page), pairs.shape[1] + gap)
        axes.set_yticks(
            np.stack([tops + height / 2, tops + height * 1.5 + gap], axis=1).ravel(),
            ["original", "reconstruction"] * len(tops),
        )
        axes.tick_params(axis="y", length=0)
    return figure


PANELS = {
    "total_loss": "total loss",
    "negative_elbo": "negative ELBO",
    "reconstruction_loss": "reconstruction loss",
    "kl_loss": "KL loss",
}


def curves(metrics: Mapping[str, Sequence[float]], title: str | None = None) -> "Figure":
    """Return the losses over the epochs, training against validation, one panel each.

    A panel whose first epochs would flatten all the others leaves them outside, and says so. Where the total loss is
    the negative ELBO, one panel shows both.

    Args:
        metrics: Columns of a run's metrics, all of one length: `total_loss`, `negative_elbo`, `reconstruction_loss`,
            `kl_loss`, in nats per image, and with `val_` before them; `epoch` numbers them, from 1 where it is absent.
            Other columns are not drawn.
        title: Line above the panels.

    Returns:
        The figure, to be passed to `save`.

    Raises:
        InputError: If there is no such column, no epoch, or columns differ in length.
    """
    panels = {name: label for name, label in PANELS.items() if name in metrics}
    if not panels:
        raise InputError(f"metrics has the columns {sorted(metrics)}: pass one at least of {', '.join(PANELS)}")
    drawn = {"epoch", *panels, *(f"val_{name}" for name in panels)}
    columns = {name: np.asarray(values, np.float64) for name, values in metrics.items() if name in drawn}
    epochs = columns.get("epoch", np.arange(1, len(columns[next(iter(panels))]) + 1, dtype=np.float64))
    for name, values in columns.items():
        if values.shape != epochs.shape:
            raise InputError(f"metrics['{name}'] has {values.size} epochs: the others have {epochs.size}")
    if not epochs.size:
        raise InputError("metrics has no epochs: there is nothing to draw before the first one ends")
    if _same(columns, "total_loss", "negative_elbo"):
        del panels["total_loss"]
        panels["negative_elbo"] = "total loss = negative ELBO"

    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with _style():
        figure = Figure(figsize=(WIDTH, 0.8 + 1.9 * len(panels)), layout="constrained")
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, label) in zip(grid, panels.items(), strict=True):
            _panel(axes, epochs, columns[name], columns.get(f"val_{name}"), label)
        grid[-1].set_xlabel("epoch")
        grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.supylabel("nats per image", fontsize=10)
        if title is not None:
            figure.suptitle(_wrapped(title, WIDTH), x=0.02, ha="left", fontsize=11)
    return figure


def latents(
    z_mean: Array,
    labels: Array | None = None,
    classes: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
    title: str | None = None,
) -> "Figure":
    """Return where the encoder puts images: posterior means coloured by label, over the prior's circles.

    A one-dimensional latent space gives a histogram for each label.

    Args:
        z_mean: Means of q(z|x), `(N, latent_dim)`.
        labels: Class numbers, integers from 0, `(N,)`; without them all points have one colour.
        classes: Names of the classes 0, 1, …; by default every number that occurs is a class, named by itself.
        dims: The two latent dimensions to show; left alone with one latent dimension.
        title: Line above the figure.

    Returns:
        The figure, to be passed to `save`.

    Raises:
        InputError: If there are no points, one is not finite, or an argument does not fit them.
    """
    points = np.asarray(z_mean).astype(np.float64)
    if points.ndim != 2 or not points.size:
        raise InputError(f"z_mean has shape {points.shape}: pass (N, latent_dim), at least one image")
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points).all(axis=1)).sum())
        raise InputError(f"z_mean is not finite for {bad} of {len(points)} images: the encoder has diverged")
    if points.shape[1] > 1:
        check_dims(dims, points.shape[1])
    groups = _classes(labels, classes, len(points))

    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(WIDTH, 0.6 * WIDTH if points.shape[1] == 1 else 0.88 * WIDTH), layout="constrained")
        axes = figure.add_subplot()
        if points.shape[1] == 1:
            _histograms(axes, points[:, 0], groups)
        else:
            _scatter(axes, points[:, list(dims)], groups)
            axes.set(xlabel=f"z[{dims[0]}]", ylabel=f"z[{dims[1]}]")
        _key(figure, axes, groups)
        if title is not None:
            axes.set_title(_wrapped(title, WIDTH), fontsize=11, pad=10)
    return figure


def save(figure: "Figure", path: Path) -> Path:
    """Write a figure as PNG, whole or not at all; equal figures give equal bytes.

    Args:
        figure: What a function of this module returned.
        path: The file; one that exists is replaced.

    Returns:
        The path.
    """
    # Matplotlib's version, which it writes by default, would make equal figures differ.
    with _style(), replacing(path) as temporary:
        figure.savefig(temporary, format="png", dpi=figure.dpi, metadata={"Software": None})
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


@contextmanager
def _style() -> Iterator[None]:
    """Hold the one style, on top of Matplotlib's own defaults rather than the user's settings."""
    from matplotlib import style

    with style.context(["default", STYLE]):
        yield


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
        page: Grey `(height, width)` or RGB `(height, width, 3)`.
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
        title = _wrapped(title, room)
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


def _wrapped(title: str, inches: float) -> str:
    """Break a title of 11 points into lines that fit a width."""
    return textwrap.fill(title, max(20, int(inches * 11.5)))


def _ticks(coordinates: NDArray[np.float32], size: int) -> tuple[NDArray[np.floating], list[str]]:
    """Return where round values of a coordinate lie among tiles of `size` pixels, and their labels."""
    from matplotlib.ticker import MaxNLocator

    places = (np.arange(len(coordinates)) + 0.5) * size
    order = np.argsort(coordinates)
    low, high = float(coordinates.min()), float(coordinates.max())
    if low == high:
        return places, [_number(low)]
    values = np.array(MaxNLocator(6, steps=[1, 2, 5, 10]).tick_values(low, high))
    slack = 1e-6 * (high - low)
    values = values[(values >= low - slack) & (values <= high + slack)]
    return np.interp(values, coordinates[order], places[order]), [_number(value) for value in values.tolist()]


def _number(value: float) -> str:
    return f"{round(value, 6) + 0.0:g}".replace("-", "\N{MINUS SIGN}")


def _same(columns: Mapping[str, NDArray[np.float64]], one: str, other: str) -> bool:
    """Return whether two columns and their validation twins are all there twice and equal to rounding."""
    if one not in columns or other not in columns or (f"val_{one}" in columns) != (f"val_{other}" in columns):
        return False
    pairs = [(columns[prefix + one], columns[prefix + other]) for prefix in ("", "val_") if prefix + one in columns]
    return all(np.allclose(a, b, rtol=1e-5, equal_nan=True) for a, b in pairs)


def _panel(
    axes: "Axes",
    epochs: NDArray[np.float64],
    train: NDArray[np.float64],
    validation: NDArray[np.float64] | None,
    label: str,
) -> None:
    series = {"train": train} if validation is None else {"train": train, "validation": validation}
    values = np.stack(list(series.values()))
    finite = np.isfinite(values)
    for (name, line), known in zip(series.items(), finite, strict=True):
        # A point without neighbours has no line to be part of.
        alone = known & ~np.append(known[1:], False) & ~np.append(False, known[:-1])
        axes.plot(
            epochs,
            np.where(known, line, np.nan),
            color=TRAIN if name == "train" else VALIDATION,
            linewidth=1.6,
            marker="o",
            markersize=3.5,
            markevery=np.flatnonzero(known if len(epochs) <= 30 else alone).tolist(),
            label=f"{name} {_rounded(line[-1])}",
        )
    notes = []
    top = _top(values)
    if top is not None:
        axes.set_ylim(values[finite].min() - 0.05 * (top - values[finite].min()), top)
        above = epochs[((values > top) & finite).any(axis=0)]
        peak = values[finite].max()
        notes.append(f"\N{BLACK UP-POINTING TRIANGLE} off the scale: epoch {_listed(above)}, up to {_rounded(peak)}")
    if not finite.all():
        notes.append(f"not finite: epoch {_listed(epochs[~finite.all(axis=0)])}")
        # Room for the note above the lines.
        low, high = axes.get_ylim()
        axes.set_ylim(low, high + 0.15 * (high - low))
    if not finite.any():
        axes.set_yticks([])
    edge = max(0.5, 0.02 * float(np.ptp(epochs)))
    axes.set_xlim(epochs.min() - edge, epochs.max() + edge)
    axes.set_title(label, pad=6)
    axes.grid(axis="y")
    axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.97), ncols=2, fontsize=9, borderpad=0, handlelength=1.6)
    axes.text(0.995, 0.96, "\n".join(notes), transform=axes.transAxes, ha="right", va="top", fontsize=8.5)


def _top(values: NDArray[np.float64]) -> float | None:
    """Return where to cut the axis so that the later half of training can be read, or None to show everything."""
    count = values.shape[1]
    finite = np.isfinite(values)
    later = [line[count // 2 :][known[count // 2 :]] for line, known in zip(values, finite, strict=True)]
    # A few points are read one by one, and do not tell how far they vary.
    later = [line for line in later if line.size >= 3]
    if not later:
        return None
    highest = max(float(line.max()) for line in later)
    span = max(0.02 * abs(highest), *(float(np.ptp(line)) for line in later))
    top = highest + 4 * span
    low, high = float(values[finite].min()), float(values[finite].max())
    return top if high - low > 4 * (top - low) else None


def _rounded(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e9 else f"{value:#.4g}".rstrip(".")


def _listed(epochs: NDArray[np.float64]) -> str:
    """Return epochs as ranges, such as `1–3, 7`, the first few of them."""
    ranges: list[list[int]] = []
    for epoch in epochs.astype(int).tolist():
        if ranges and epoch == ranges[-1][1] + 1:
            ranges[-1][1] = epoch
        else:
            ranges.append([epoch, epoch])
    words = [f"{first}" if first == last else f"{first}\N{EN DASH}{last}" for first, last in ranges]
    return ", ".join(words[:3]) + (", \N{HORIZONTAL ELLIPSIS}" if len(words) > 3 else "")


class _Classes(NamedTuple):
    """Which class each point belongs to: places `(N,)` among the names."""

    numbers: NDArray[np.int64]
    names: list[str]

    @property
    def few(self) -> bool:
        """Whether there is a colour for each."""
        return len(self.names) <= len(PALETTE)

    @property
    def present(self) -> list[int]:
        """The numbers that occur, in order."""
        return [int(number) for number in np.unique(self.numbers)]


def _classes(labels: Array | None, names: Sequence[str] | None, count: int) -> _Classes | None:
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(f"labels are {labels.dtype} of shape {labels.shape}: pass {count} class numbers, one an image")
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise InputError(f"labels have {low} among them: classes are counted from 0")
    if names is None:
        # Labels may be dates or identifiers: only those that occur get a name and a colour.
        values, ranks = np.unique(labels, return_inverse=True)
        return _Classes(ranks.astype(np.int64), [str(value) for value in values.tolist()])
    if high >= len(names):
        raise InputError(f"classes has {len(names)} names: labels go up to {high}, pass {high + 1} or more")
    return _Classes(labels.astype(np.int64), list(names))


def _colours(classes: _Classes) -> Any:  # noqa: ANN401
    """Return a colour map with one entry a class."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    if classes.few:
        return ListedColormap(PALETTE[: len(classes.names)])
    return colormaps["viridis"].resampled(len(classes.names))


def _scatter(axes: "Axes", points: NDArray[np.float64], classes: _Classes | None) -> None:
    from matplotlib.patches import Circle
    from matplotlib.patheffects import withStroke

    size, alpha = float(np.clip(15000 / len(points), 5, 25)), 0.45 if len(points) > 2000 else 0.7
    if classes is None:
        axes.scatter(points[:, 0], points[:, 1], s=size, alpha=alpha, linewidths=0, color=PALETTE[0])
    else:
        # In the order of the data, the class that comes last would cover the others.
        order = np.random.default_rng(0).permutation(len(points))
        colours = _colours(classes)
        axes.scatter(
            points[order, 0],
            points[order, 1],
            s=size,
            alpha=alpha,
            linewidths=0,
            c=classes.numbers[order],
            cmap=colours,
            vmin=-0.5,
            vmax=len(classes.names) - 0.5,
        )
        # Digits and letters are put on their classes, so that nobody need tell ten colours apart.
        for number in classes.present if classes.few and max(map(len, classes.names)) <= 2 else []:
            x, y = np.median(points[classes.numbers == number], axis=0)
            badge = {
                "boxstyle": "circle,pad=0.25",
                "facecolor": colours(number),
                "edgecolor": "white",
                "linewidth": 1.2,
            }
            ink = "white" if _dark(colours(number)) else INK
            name = classes.names[number]
            axes.text(x, y, name, color=ink, ha="center", va="center", weight="bold", fontsize=9, bbox=badge, zorder=4)
    halo = [withStroke(linewidth=3, foreground="white")]
    for sigma in (1, 2):
        circle = Circle((0, 0), sigma, fill=False, color=INK, alpha=0.6, linewidth=0.9, linestyle=(0, (4, 3)), zorder=3)
        axes.add_patch(circle)
        x = y = sigma * math.sqrt(0.5)
        label = f"{sigma}\N{GREEK SMALL LETTER SIGMA}"
        axes.text(x, y, label, ha="center", va="center", fontsize=8.5, path_effects=halo, zorder=5)
    axes.set_aspect("equal", adjustable="datalim")
    axes.autoscale_view()


def _dark(colour: tuple[float, float, float, float]) -> bool:
    red, green, blue, _ = colour
    return 0.3 * red + 0.59 * green + 0.11 * blue < 0.6


def _histograms(axes: "Axes", values: NDArray[np.float64], classes: _Classes | None) -> None:
    low, high = min(float(values.min()), -3.0), max(float(values.max()), 3.0)
    bins = np.linspace(low, high, 61).tolist()
    if classes is None:
        axes.hist(values, bins, density=True, histtype="stepfilled", color=PALETTE[0], alpha=0.7)
    else:
        colours = _colours(classes)
        for number in classes.present:
            chosen, colour = values[classes.numbers == number], colours(number)
            if classes.few:
                axes.hist(chosen, bins, density=True, histtype="stepfilled", color=colour, alpha=0.18)
            axes.hist(chosen, bins, density=True, histtype="step", color=colour, linewidth=1.3)
    z = np.linspace(low, high, 200)
    prior = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    axes.plot(z, prior, color=INK, alpha=0.6, linewidth=0.9, linestyle=(0, (4, 3)), label="prior")
    axes.legend(loc="upper left", fontsize=9)
    axes.set(xlabel="z[0]", ylabel="density, each class by itself" if classes else "density")


def _key(figure: "Figure", axes: "Axes", classes: _Classes | None) -> None:
    """Say which colour is which class: a legend for a few, a colour bar for many."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.lines import Line2D

    if classes is None:
        return
    colours = _colours(classes)
    if classes.few:
        handles = [
            Line2D([], [], linestyle="", marker="o", markersize=7, color=colours(number), label=classes.names[number])
            for number in classes.present
        ]
        figure.legend(handles=handles, loc="outside right upper", handletextpad=0.1, labelspacing=0.7)
    else:
        bar = figure.colorbar(ScalarMappable(Normalize(-0.5, len(classes.names) - 0.5), colours), ax=axes, pad=0.02)
        shown = range(0, len(classes.names), math.ceil(len(classes.names) / 30))
        bar.set_ticks(list(shown), labels=[classes.names[number] for number in shown])
        bar.ax.tick_params(length=0, labelsize=8.5)
