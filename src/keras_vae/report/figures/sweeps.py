"""Figures of sweeps: the history, the importances of settings, and parallel coordinates."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.evaluation.descriptions import format_number
from keras_vae.report.figures.curves import upper_limit
from keras_vae.report.figures.style import FAINT, INK, PAGE, TRAIN, VALIDATION, WIDTH, shorten, style

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
        bars = axes.barh(
            [shorten(name, 40) for name in names], [shares[name] for name in names], color=TRAIN, height=0.6
        )
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
    from matplotlib.patheffects import withStroke

    from keras_vae.report.figures.notebook import figure_with_axes

    with style():
        figure, axes = figure_with_axes(0.62 * WIDTH, None)
        places = [float(place) for place in range(len(axes_))]
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
                    place + (0.04 if last else -0.04),
                    position,
                    shorten(text, 14),
                    fontsize=8.5,
                    va="center",
                    ha="left" if last else "right",
                    path_effects=[withStroke(linewidth=3, foreground=PAGE)],
                )
        axes.set_xticks(places, [axis.label for axis in axes_], fontsize=8.5)
        axes.tick_params(axis="x", length=0, pad=8)
        axes.set(xlim=(-0.35, len(axes_) - 0.65), ylim=(-0.03, 1.03), yticks=[])
        axes.spines[:].set_visible(False)
    return figure


def category_axis(name: str, texts: Sequence[str], choices: Sequence[str]) -> Axis:
    """Return the axis of a setting with choices.

    Args:
        name: Dotted name of the setting.
        texts: The value of each trial.
        choices: All values, from bottom to top.
    """
    place = dict(zip(choices, np.linspace(0, 1, len(choices)).tolist(), strict=True))
    return Axis(_axis_label(name), [place[text] for text in texts], {place[text]: text for text in choices})


def number_axis(name: str, values: Sequence[float], low: float, high: float, *, log: bool = False) -> Axis:
    """Return the axis of a setting with a range.

    Args:
        name: Dotted name of the setting.
        values: The value of each trial.
        low: Lower limit of the range.
        high: Upper limit of the range.
        log: Whether to use a logarithmic scale.
    """
    scale = np.log if log else np.asarray
    bottom, top = float(scale(low)), float(scale(high))
    shown = np.exp(np.linspace(bottom, top, 5)) if log else np.linspace(low, high, 5)
    if isinstance(low, int) and isinstance(high, int):
        shown = np.unique(np.rint(shown))
    positions = (scale(np.asarray(values, np.float64)) - bottom) / (top - bottom)
    ticks = {float((scale(value) - bottom) / (top - bottom)): f"{value:.3g}" for value in shown}
    return Axis(_axis_label(name), positions.tolist(), ticks)


def rank_axis(name: str, values: Sequence[float]) -> Axis:
    """Return the axis of the metric, on which the trials are evenly spaced.

    Args:
        name: Name of the metric.
        values: The metric of each trial, in ascending order.
    """
    places = np.linspace(0, 1, len(values))
    ticks = {
        float(places[index]): format_number(values[index]) for index in np.linspace(0, len(values) - 1, 5).astype(int)
    }
    return Axis(_axis_label(name), places.tolist(), ticks)


def _axis_label(name: str) -> str:
    table, _, setting = name.rpartition(".")
    return "\n".join(shorten(part, 20) for part in (table, setting) if part)
