"""Figures of sweeps: the history, the importances of settings, and parallel coordinates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.evaluation.descriptions import format_number
from keras_vae.report.figures.curves import upper_limit
from keras_vae.report.figures.style import FAINT, INK, TRAIN, VALIDATION, WIDTH, shorten, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_AXES = 8
"""Largest number of settings in a figure of parallel coordinates."""


class Axis(NamedTuple):
    """An axis of parallel coordinates.

    Args:
        label: Its label.
        positions: The position of each trial, in [0, 1].
        ticks: Texts by position.
    """

    label: str
    positions: Sequence[float]
    ticks: Mapping[float, str]


def history(complete: Mapping[int, float], pruned: Mapping[int, float], label: str) -> "Figure":
    """Return the metric of each trial, and the best one so far.

    Args:
        complete: The metric of complete trials by number.
        pruned: The last metric of pruned trials by number.
        label: Name and unit of the metric.
    """
    from matplotlib.ticker import MaxNLocator

    from keras_vae.report.figures.notebook import figure_with_axes

    with style():
        figure, axes = figure_with_axes(3.2, None)
        if pruned:
            axes.plot(list(pruned), list(pruned.values()), "x", color=FAINT, markersize=5, label="pruned, last epoch")
        axes.plot(list(complete), list(complete.values()), "o", color=TRAIN, markersize=4.5, label="complete")
        numbers = sorted(complete)
        best = np.minimum.accumulate([complete[number] for number in numbers])
        axes.step(numbers, best, where="post", color=VALIDATION, linewidth=1.6, label=f"best {format_number(best[-1])}")
        values = np.asarray([*complete.values(), *pruned.values()], np.float64)
        _cut(axes, values, upper_limit([np.sort(values)[::-1]]), [*complete, *pruned])
        axes.set(xlabel="trial", ylabel=label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(axis="y")
        figure.legend(loc="outside upper right", ncols=3, fontsize=9)
    return figure


def _cut(axes: "Axes", values: NDArray[np.float64], top: float | None, numbers: Sequence[int]) -> None:
    """Mark the trials above the upper limit of an axis, if any."""
    if top is None:
        return
    low = float(values.min())
    axes.set_ylim(low - 0.05 * (top - low), top)
    above = [number for number, value in zip(numbers, values, strict=True) if value > top]
    axes.plot(above, [top] * len(above), "^", color=FAINT, clip_on=False)
    note = f"\N{BLACK UP-POINTING TRIANGLE} up to {format_number(float(values.max()))}"
    axes.text(0.995, 0.96, note, transform=axes.transAxes, ha="right", va="top", fontsize=8.5)


def importances(shares: Mapping[str, float]) -> "Figure":
    """Return the shares of the variance of the metric that settings explain, as bars.

    Args:
        shares: Shares in [0, 1] by setting.
    """
    from keras_vae.report.figures.notebook import figure_with_axes

    names = sorted(shares, key=lambda name: shares[name])
    with style():
        figure, axes = figure_with_axes(0.9 + 0.3 * len(names), None)
        bars = axes.barh([shorten(name, 40) for name in names], [shares[name] for name in names], color=TRAIN, height=0.6)
        axes.bar_label(bars, [f"{shares[name]:.0%}" for name in names], padding=4, color=INK, fontsize=9)
        axes.set(xlim=(0, 1.08 * max(1e-9, *shares.values())), xlabel="share of the variance of the metric")
        axes.tick_params(axis="y", length=0)
    return figure


def parallel_coordinates(axes_: Sequence[Axis], ranks: Sequence[float]) -> "Figure":
    """Return one line per trial through its settings and its metric.

    Args:
        axes_: The axes from left to right; the last one is that of the metric.
        ranks: Rank of each trial in [0, 1]; 0 is the best one.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap

    from keras_vae.report.figures.notebook import figure_with_axes

    with style():
        figure, axes = figure_with_axes(0.62 * WIDTH, None)
        places = np.arange(len(axes_))
        lines = [np.stack([places, [axis.positions[trial] for axis in axes_]], -1) for trial in range(len(ranks))]
        # The best trials are drawn last.
        order = np.argsort(ranks)[::-1]
        colors = LinearSegmentedColormap.from_list("ranks", [VALIDATION, "#9b8fb0", TRAIN])
        drawn = LineCollection([lines[i] for i in order], cmap=colors, linewidths=1.3, alpha=0.85)
        drawn.set_array(np.asarray(ranks)[order])
        axes.add_collection(drawn)
        for place, axis in zip(places, axes_, strict=True):
            axes.axvline(place, color=FAINT, linewidth=0.8)
            for position, text in axis.ticks.items():
                axes.plot([place - 0.02, place], [position, position], color=FAINT, linewidth=0.8)
                last = place == places[-1]
                axes.text(
                    place + (0.04 if last else -0.04), position, shorten(text, 14), fontsize=8.5, va="center",
                    ha="left" if last else "right",
                )
        axes.set_xticks(places, [axis.label for axis in axes_], fontsize=8.5)
        axes.tick_params(axis="x", length=0, pad=8)
        axes.set(xlim=(-0.35, len(axes_) - 0.65), ylim=(-0.03, 1.03), yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def coordinate_axis(name: str, values: Sequence[Any], texts: Sequence[str], *, log: bool = False) -> Axis:
    """Return the axis of a setting or of the metric.

    Args:
        name: Its dotted name.
        values: The value of each trial.
        texts: The values as text.
        log: Whether to use a logarithmic scale.
    """
    label = shorten(name.rpartition(".")[2], 20)
    label = f"{shorten(name.rpartition('.')[0], 20)}\n{label}" if "." in name else label
    is_number = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if not is_number or len(set(values)) == 1:
        kinds = sorted(set(texts))
        steps = [0.5] if len(kinds) == 1 else np.linspace(0, 1, len(kinds)).tolist()
        place = dict(zip(kinds, steps, strict=True))
        return Axis(label, [place[text] for text in texts], {position: text for text, position in place.items()})
    numbers = np.asarray(values, np.float64)
    scaled = np.log(numbers) if log else numbers
    low, high = float(scaled.min()), float(scaled.max())
    middle = np.linspace(low, high, 5)
    shown = np.exp(middle) if log else middle
    if all(isinstance(value, int) for value in values):
        exact = sorted(set(values))
        shown = np.asarray(exact if len(exact) <= 5 else np.unique(np.rint(shown)), np.float64)
        middle = np.log(shown) if log else shown
    positions = (scaled - low) / (high - low)
    ticks = {float((at - low) / (high - low)): format_number(float(value)) for at, value in zip(middle, shown, strict=True)}
    return Axis(label, positions.tolist(), ticks)


