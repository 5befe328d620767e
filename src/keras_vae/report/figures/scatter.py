"""Scatter plots and histograms of latent codes."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.report.figures.style import INK, PAGE, PALETTE, SOFT, WIDTH, style
from keras_vae.report.latent_grid import check_dims

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def latents(
    z_mean: Array,
    labels: Array | None = None,
    classes: Sequence[str] | None = None,
    dims: tuple[int, int] = (0, 1),
    prior: Array | None = None,
    title: str | None = None,
) -> "Figure":
    """Return posterior means as points colored by label, with contours of the prior.

    The contours of a standard normal prior are circles at 1 and 2 standard deviations, which contain 39 % and 86 % of
    it. Those of another prior contain the same shares of the density of its samples in the plane. A one-dimensional
    latent space gives one histogram per label, and the density of the prior.

    Args:
        z_mean: Means of q(z|x), `(N, latent_dim)`.
        labels: Class numbers, integers from 0, `(N,)`; None draws all points in one color.
        classes: Names of the classes 0, 1, …; None uses the class numbers that occur as names.
        dims: The two latent dimensions to show; ignored with one latent dimension.
        prior: Samples from the prior, `(M, latent_dim)`; None for a standard normal prior.
        title: Title of the figure.

    Returns:
        The figure; `save` writes it.

    Raises:
        InputError: There are no points, a point is not finite, or an argument does not fit the points.
    """
    points = np.asarray(z_mean).astype(np.float64)
    if points.ndim != 2 or not points.size:
        raise InputError(f"z_mean.shape = {points.shape}: not a batch of codes; pass (N, latent_dim), N at least 1")
    if not np.isfinite(points).all():
        bad = int((~np.isfinite(points).all(axis=1)).sum())
        raise InputError(
            f"z_mean: not finite for {bad} of {len(points)} images, so the encoder has diverged; train with a lower "
            "learning rate"
        )
    if points.shape[1] > 1:
        check_dims(dims, points.shape[1])
    groups = _classes(labels, classes, len(points))
    samples = None if prior is None else np.asarray(prior).astype(np.float64)

    from keras_vae.report.figures.notebook import figure_with_axes

    one_dimensional = points.shape[1] == 1
    with style():
        figure, axes = figure_with_axes(0.6 * WIDTH if one_dimensional else 0.88 * WIDTH, title)
        if one_dimensional:
            _histograms(axes, points[:, 0], groups, samples)
        else:
            _scatter(axes, points[:, list(dims)], groups)
            _draw_prior(axes, None if samples is None else samples[:, list(dims)])
            _hide_outliers(axes, points[:, list(dims)])
            axes.set(xlabel=f"z[{dims[0]}]", ylabel=f"z[{dims[1]}]")
        _add_legend(figure, axes, groups)
    return figure


SHARES = tuple(1 - math.exp(-(sigma**2) / 2) for sigma in (1, 2))
"""Shares of a two-dimensional normal distribution within 1 and 2 standard deviations: 39 % and 86 %."""

_DASHES = (0, (4, 3))
_PRIOR_LINE: dict[str, Any] = {"color": INK, "alpha": 0.6, "linewidth": 0.9, "linestyle": _DASHES}

_CELLS = 200
"""Cells of a density along each side."""


class PlaneDensity(NamedTuple):
    """Density of a distribution on a plane, estimated from samples.

    Args:
        x: Horizontal coordinates, (n,).
        y: Vertical coordinates, (n,).
        values: Densities, (n, n), one row per vertical coordinate.
    """

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    values: NDArray[np.float64]

    def level(self, share: float) -> float:
        """Return the density above which the most probable region contains a share of the distribution."""
        descending = np.sort(self.values, axis=None)[::-1]
        mass = np.cumsum(descending) * (self.x[1] - self.x[0]) * (self.y[1] - self.y[0])
        return float(descending[min(np.searchsorted(mass, share), mass.size - 1)])


def plane_density(samples: NDArray[np.float64]) -> PlaneDensity:
    """Return the density of samples, (M, 2): a histogram that a normal kernel smooths.

    Outliers, one sample in two hundred per side and dimension, may lie outside.

    Example:
        >>> density = plane_density(np.random.default_rng(0).normal(5.0, 1.0, (20_000, 2)))
        >>> bool(abs(density.values.max() - 1 / (2 * np.pi)) < 0.015)
        True
    """
    x, y = (_edges(values) for values in samples.T)
    counts, _, _ = np.histogram2d(samples[:, 0], samples[:, 1], bins=[x, y])
    area = (x[1] - x[0]) * (y[1] - y[0])
    kernel = _kernel(samples / [x[1] - x[0], y[1] - y[0]])
    return PlaneDensity((x[1:] + x[:-1]) / 2, (y[1:] + y[:-1]) / 2, kernel @ counts.T @ kernel / (len(samples) * area))


def _line_density(samples: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return points and the density of samples (M, 1) at them."""
    edges = _edges(samples[:, 0])
    width = edges[1] - edges[0]
    counts, _ = np.histogram(samples[:, 0], edges)
    return (edges[1:] + edges[:-1]) / 2, _kernel(samples / width) @ counts / (len(samples) * width)


def _edges(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the edges of equal cells that cover all values except outliers, with a margin for the kernel."""
    low, high = np.quantile(values, (0.005, 0.995))
    margin = 0.05 * (high - low) or 0.5
    return np.linspace(low - margin, high + margin, _CELLS + 1)


def _kernel(samples: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normal kernel between cells, (n, n), for samples (M, D) in units of cells.

    Its standard deviation is 0.6 times the median distance within which a sample has 2 % of the samples of a plane, or
    14 % of those on a line. It is small where components of a mixture are narrow, so that they are not blurred.
    """
    some = samples[:: max(1, len(samples) // 1000)]
    distances = np.sqrt(np.square(some[:, None] - some).sum(axis=-1))
    nearest = np.quantile(distances, 0.02 ** (samples.shape[1] / 2), axis=1)
    deviation = max(1.0, 0.6 * float(np.median(nearest)))
    offsets = np.arange(_CELLS)[:, None] - np.arange(_CELLS)
    return np.asarray(np.exp(-0.5 * np.square(offsets / deviation)) / (deviation * math.sqrt(2 * math.pi)))


class _Classes(NamedTuple):
    """Class of each point, as indices `(N,)` into the names."""

    numbers: NDArray[np.int64]
    names: list[str]

    @property
    def have_own_colors(self) -> bool:
        """Whether the palette has a color for each class."""
        return len(self.names) <= len(PALETTE)

    @property
    def present(self) -> list[int]:
        """Indices of the classes that occur, in order."""
        return [int(number) for number in np.unique(self.numbers)]


def _classes(labels: Array | None, names: Sequence[str] | None, count: int) -> _Classes | None:
    if labels is None:
        return None
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise InputError(
            f"labels = {labels.dtype} of shape {labels.shape}: not one class per image; pass {count} class numbers"
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0:
        raise InputError(f"labels = {low}, …: classes are counted from 0; pass class numbers of 0 or more")
    if names is None:
        # Labels may be dates or identifiers, so only those that occur get a name and a color.
        values, ranks = np.unique(labels, return_inverse=True)
        return _Classes(ranks.astype(np.int64), [str(value) for value in values.tolist()])
    if high >= len(names):
        raise InputError(f"classes = {len(names)} names: labels go up to {high}; pass {high + 1} names or more")
    return _Classes(labels.astype(np.int64), list(names))


def _colors(classes: _Classes) -> Any:
    """Return a color map with one entry per class."""
    from matplotlib import colormaps
    from matplotlib.colors import ListedColormap

    if classes.have_own_colors:
        return ListedColormap(PALETTE[: len(classes.names)])
    return colormaps["viridis"].resampled(len(classes.names))


def _scatter(axes: "Axes", points: NDArray[np.float64], classes: _Classes | None) -> None:
    size, alpha = float(np.clip(15000 / len(points), 5, 25)), 0.45 if len(points) > 2000 else 0.7
    if classes is None:
        axes.scatter(points[:, 0], points[:, 1], s=size, alpha=alpha, linewidths=0, color=PALETTE[0])
    else:
        # A random order, because in the order of the data the last class could cover the others.
        order = np.random.default_rng(0).permutation(len(points))
        colors = _colors(classes)
        axes.scatter(
            points[order, 0],
            points[order, 1],
            s=size,
            alpha=alpha,
            linewidths=0,
            c=classes.numbers[order],
            cmap=colors,
            vmin=-0.5,
            vmax=len(classes.names) - 0.5,
        )
        # Short labels are written onto their points, so that nobody has to tell ten colors apart.
        present = classes.present if classes.have_own_colors and max(map(len, classes.names)) <= 2 else []
        medians = np.array([np.median(points[classes.numbers == number], axis=0) for number in present]).reshape(-1, 2)
        places = _separate(medians, 0.045 * float(np.ptp(points, axis=0).max()))
        for number, (x, y) in zip(present, places.tolist(), strict=True):
            badge = {
                "boxstyle": "circle,pad=0.25",
                "facecolor": colors(number),
                "edgecolor": PAGE,
                "linewidth": 1.2,
            }
            ink = _readable_ink(colors(number))
            name = classes.names[number]
            axes.text(x, y, name, color=ink, ha="center", va="center", weight="bold", fontsize=9, bbox=badge, zorder=4)


def _draw_prior(axes: "Axes", samples: NDArray[np.float64] | None) -> None:
    """Draw the contours of a standard normal prior, or of the density of samples in the plane, (M, 2)."""
    from matplotlib.patches import Circle
    from matplotlib.patheffects import withStroke

    places: dict[str, tuple[float, float]] = {}
    if samples is None:
        for sigma in (1, 2):
            axes.add_patch(Circle((0, 0), sigma, fill=False, zorder=3, **_PRIOR_LINE))
            places[f"{sigma}\N{GREEK SMALL LETTER SIGMA}"] = (sigma * math.sqrt(0.5), sigma * math.sqrt(0.5))
    else:
        density = plane_density(samples)
        limits = axes.dataLim.frozen()
        for share in SHARES:
            lines = axes.contour(*density, [density.level(share)], colors=INK, alpha=0.6, linewidths=0.9, zorder=3)
            lines.set_linestyle(_DASHES)
            outline = np.concatenate([path.vertices for path in lines.get_paths()])
            x, y = outline[(outline / np.ptp(outline, axis=0)).sum(axis=1).argmax()].tolist()
            places[f"{share:.0%}"] = (x, y)
            # Each call of `contour` extends the axes to all cells.
            axes.dataLim.set(limits)
            axes.update_datalim(outline)
            limits = axes.dataLim.frozen()
    halo = [withStroke(linewidth=3, foreground=PAGE)]
    for label, (x, y) in places.items():
        axes.text(x, y, label, ha="center", va="center", fontsize=8.5, path_effects=halo, zorder=5)
    axes.set_aspect("equal", adjustable="datalim")
    axes.autoscale_view()


def _hide_outliers(axes: "Axes", points: NDArray[np.float64]) -> None:
    """Limit the axes if a few extreme points would shrink all others to a spot, and state the number of hidden points.

    The limits are one interquantile range (5 % to 95 %) beyond the quantiles, which hides nothing of a normal
    distribution, and at least the contours of the prior.
    """
    low, high = np.quantile(points, (0.05, 0.95), axis=0)
    low, high = low - (high - low), high + (high - low)
    hidden = int(((points < low) | (points > high)).any(axis=1).sum())
    if not hidden or hidden > 0.1 * len(points) or (low == high).any():
        return
    shown = points[((points >= low) & (points <= high)).all(axis=1)]
    axes.ignore_existing_data_limits = True
    axes.update_datalim(shown)
    for patch in axes.patches:
        axes.update_datalim(patch.get_extents().transformed(axes.transData.inverted()))
    for contour in axes.collections[1:]:
        axes.update_datalim(np.concatenate([path.vertices for path in contour.get_paths()]))
    axes.autoscale_view()
    note = f"{hidden:,} of {len(points):,} points lie outside"
    axes.text(0.99, 0.01, note, transform=axes.transAxes, ha="right", va="bottom", fontsize=8.5, color=SOFT)


def _separate(places: NDArray[np.float64], distance: float) -> NDArray[np.float64]:
    """Return points that are moved apart until they are about `distance` from each other; distant points stay."""
    places = places.copy()
    for _ in range(50):
        for first in range(len(places)):
            for second in range(first):
                offset = places[first] - places[second]
                length = float(np.hypot(*offset))
                if length < distance:
                    direction = offset / length if length else np.array([1.0, 0.0])
                    places[first] += 0.5 * (distance - length) * direction
                    places[second] -= 0.5 * (distance - length) * direction
    return places


def _readable_ink(color: tuple[float, float, float, float]) -> str:
    """Return black or white, whichever has the higher contrast to a color by the definition of WCAG 2.

    The contrast is (L₁ + 0.05) / (L₂ + 0.05), with the relative luminance L; the better of the two is at least 4.58.
    """
    red, green, blue = (value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in color[:3])
    luminance = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    return "black" if (luminance + 0.05) ** 2 > 1.05 * 0.05 else "white"


def _histograms(
    axes: "Axes", values: NDArray[np.float64], classes: _Classes | None, samples: NDArray[np.float64] | None
) -> None:
    """Draw one histogram per class, and the density of the prior: the standard normal, or that of samples (M, 1)."""
    ends = (-3.0, 3.0) if samples is None else np.quantile(samples, (0.001, 0.999)).tolist()
    low, high = min(float(values.min()), ends[0]), max(float(values.max()), ends[1])
    bins = np.linspace(low, high, 61).tolist()
    if classes is None:
        axes.hist(values, bins, density=True, histtype="stepfilled", color=PALETTE[0], alpha=0.7)
    else:
        colors = _colors(classes)
        for number in classes.present:
            selected, color = values[classes.numbers == number], colors(number)
            if classes.have_own_colors:
                axes.hist(selected, bins, density=True, histtype="stepfilled", color=color, alpha=0.18)
            axes.hist(selected, bins, density=True, histtype="step", color=color, linewidth=1.3)
    if samples is None:
        z = np.linspace(low, high, 200)
        prior = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    else:
        z, prior = _line_density(samples)
    axes.plot(z, prior, label="prior", **_PRIOR_LINE)
    axes.legend(loc="upper left", fontsize=9)
    axes.set(xlabel="z[0]", ylabel="density of each class" if classes else "density")


def _add_legend(figure: "Figure", axes: "Axes", classes: _Classes | None) -> None:
    """Add a legend of the classes, or a color bar if there are too many."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize
    from matplotlib.lines import Line2D

    if classes is None:
        return
    colors = _colors(classes)
    if classes.have_own_colors:
        handles = [
            Line2D([], [], linestyle="", marker="o", markersize=7, color=colors(number), label=classes.names[number])
            for number in classes.present
        ]
        figure.legend(handles=handles, loc="outside right upper", handletextpad=0.1, labelspacing=0.7)
    else:
        bar = figure.colorbar(ScalarMappable(Normalize(-0.5, len(classes.names) - 0.5), colors), ax=axes, pad=0.02)
        shown = range(0, len(classes.names), math.ceil(len(classes.names) / 30))
        bar.set_ticks(list(shown), labels=[classes.names[number] for number in shown])
        bar.ax.tick_params(length=0, labelsize=8.5)
