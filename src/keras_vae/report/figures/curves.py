"""Line and bar charts of the losses of one or several runs."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.evaluation.descriptions import format_number
from keras_vae.report.figures.style import INK, PALETTE, TRAIN, VALIDATION, WIDTH, style, wrap_title

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D


def kl_per_dimension(values: NDArray[np.float64], active: Sequence[int], title: str | None = None) -> "Figure":
    """Return the KL divergence of each latent dimension as bars in descending order; those of unused ones are pale.

    Args:
        values: KL divergences in nats per image, `(latent_dim,)`.
        active: The active dimensions, whose posterior means vary over images.
        title: Title of the figure.
    """
    from keras_vae.report.figures.notebook import figure_with_axes

    order = np.argsort(values)[::-1]
    count = len(order)
    with style():
        figure, axes = figure_with_axes(2.8, title)
        is_active = np.isin(order, active)
        for chosen, alpha, label in ((is_active, 1.0, "active"), (~is_active, 0.35, "unused: constant mean")):
            if chosen.any():
                places = np.flatnonzero(chosen)
                axes.bar(
                    places, values[order][places], color=TRAIN, alpha=alpha, width=min(0.8, 0.1 * count), label=label
                )
        if count <= 20:
            axes.set_xticks(np.arange(count), [f"z[{dimension}]" for dimension in order])
            axes.tick_params(axis="x", labelsize=8.5, rotation=0 if count <= 10 else 90)
        axes.set(
            xlim=(-0.5, count - 0.5),
            xlabel=f"latent dimensions ({is_active.sum()} of {count} active)",
            ylabel="nats per image",
        )
        axes.grid(axis="y")
        axes.legend(loc="lower right", bbox_to_anchor=(1.01, 0.99), fontsize=9)
    return figure


def overlay(runs: Mapping[str, Mapping[str, Sequence[float]]], title: str | None = None) -> "Figure":
    """Return the negative ELBO of several runs over their epochs, on validation images if available, else on training.

    Args:
        runs: Columns of each run's metrics by the run's name, including `negative_elbo` or `val_negative_elbo`.
        title: Title of the figure.
    """
    from matplotlib.lines import Line2D

    from keras_vae.report.figures.notebook import figure_with_axes

    with style():
        figure, axes = figure_with_axes(0.65 * WIDTH, title)
        lines = list[Line2D]()
        for position, (name, metrics) in enumerate(runs.items()):
            column = next((key for key in ("val_negative_elbo", "negative_elbo") if metrics.get(key)), None)
            if column is None:
                continue
            values = np.asarray(metrics[column], np.float64)
            label = name if column.startswith("val_") else f"{name} (training)"
            if not np.isfinite(values).any():
                label += ", not finite"
            marker = "o" if len(values) <= 30 else None
            color = PALETTE[position % len(PALETTE)]
            epochs = np.arange(1, len(values) + 1)
            lines += axes.plot(epochs, values, color=color, linewidth=1.6, marker=marker, markersize=3.5, label=label)
        top = upper_limit([np.asarray(line.get_ydata(), np.float64) for line in lines])
        if top is not None:
            low = min(float(np.nanmin(line.get_ydata())) for line in lines if np.isfinite(line.get_ydata()).any())
            axes.set_ylim(low - 0.05 * (top - low), top)
            for line in lines:
                _mark_above(axes, line, top)
        axes.set(xlabel="epoch", ylabel="negative ELBO, nats per image")
        axes.grid(axis="y")
        axes.legend(fontsize=9)
    return figure


def _mark_above(axes: "Axes", line: "Line2D", top: float) -> None:
    """Mark the points of a line that lie above the axis, and name their largest value in its label."""
    epochs, values = np.asarray(line.get_xdata()), np.asarray(line.get_ydata(), np.float64)
    above = (values > top) & np.isfinite(values)
    if above.any():
        places = np.full(int(above.sum()), top)
        axes.plot(epochs[above], places, color=line.get_color(), marker="^", linestyle="", clip_on=False)
        peak = format_number(float(values[above].max()), zeros=True)
        line.set_label(f"{line.get_label()}, \N{BLACK UP-POINTING TRIANGLE} up to {peak}")


def rate_distortion(metrics: Mapping[str, Sequence[float]], title: str | None = None) -> "Figure":
    """Return the trajectory of training in the rate-distortion plane (Alemi et al., arXiv 1711.00464).

    Args:
        metrics: Columns of a run's metrics: `kl_loss` and `reconstruction_loss`, and the same with the prefix `val_`.
        title: Title of the figure.
    """
    from keras_vae.report.figures.notebook import figure_with_axes

    with style():
        figure, axes = figure_with_axes(0.75 * WIDTH, title)
        for prefix, name, color in (("", "training", TRAIN), ("val_", "validation", VALIDATION)):
            if f"{prefix}kl_loss" not in metrics:
                continue
            rate, distortion = (np.asarray(metrics[f"{prefix}{loss}"]) for loss in ("kl_loss", "reconstruction_loss"))
            axes.plot(rate, distortion, color=color, linewidth=1.4, marker="o", markersize=2.5, label=name)
            axes.plot(rate[-1:], distortion[-1:], color=color, marker="o", markersize=8, linewidth=0)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        left = max(0.0, left)
        for index, bound in enumerate(np.linspace(left + low, right + high, 9)[1:-1]):
            axes.plot(
                (left, right),
                (bound - left, bound - right),
                color=INK,
                alpha=0.35,
                linewidth=0.8,
                linestyle=":",
                label="_" if index else "equal negative ELBO",
            )
        axes.set(
            xlim=(left, right),
            ylim=(low, high),
            xlabel="rate (KL loss), nats per image",
            ylabel="distortion (reconstruction loss), nats per image",
        )
        axes.legend(loc="upper right", fontsize=9, frameon=True, framealpha=1, edgecolor="none")
    return figure


PANELS = {
    "total_loss": "total loss",
    "negative_elbo": "negative ELBO",
    "reconstruction_loss": "reconstruction loss",
    "kl_loss": "KL loss",
}


def curves(metrics: Mapping[str, Sequence[float]], title: str | None = None) -> "Figure":
    """Return the training and validation losses over the epochs, one panel per loss.

    If the first epochs would flatten the rest of a curve, the panel cuts them off and names them. If the total loss is
    the negative ELBO, one panel shows both.

    Args:
        metrics: Columns of a run's metrics, all of one length: `total_loss`, `negative_elbo`, `reconstruction_loss`
            and `kl_loss`, in nats per image, the same with the prefix `val_`, and `epoch`, which defaults to 1, 2, ….
            Other columns are ignored.
        title: Title of the figure.

    Returns:
        The figure; `save` writes it.

    Raises:
        InputError: There is no loss, no epoch, or the columns differ in length.
    """
    panels = {name: label for name, label in PANELS.items() if name in metrics}
    if not panels:
        raise InputError(f"metrics = columns {sorted(metrics)}: no loss; pass at least one of {', '.join(PANELS)}")
    drawn = {"epoch", *panels, *(f"val_{name}" for name in panels)}
    columns = {name: np.asarray(values, np.float64) for name, values in metrics.items() if name in drawn}
    epochs = columns.get("epoch", np.arange(1, len(columns[next(iter(panels))]) + 1, dtype=np.float64))
    for name, values in columns.items():
        if values.shape != epochs.shape:
            raise InputError(
                f"metrics['{name}'] = {values.size} epochs: the other columns have {epochs.size}; pass equal lengths"
            )
    if not epochs.size:
        raise InputError("metrics = 0 epochs: nothing to draw; complete at least one epoch")
    if _same(columns, "total_loss", "negative_elbo"):
        del panels["total_loss"]
        panels["negative_elbo"] = "total loss = negative ELBO"

    from matplotlib.ticker import MaxNLocator

    from keras_vae.report.figures.notebook import NotebookFigure

    with style():
        figure = NotebookFigure(figsize=(WIDTH, 0.8 + 1.9 * len(panels)), layout="constrained")
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, label) in zip(grid, panels.items(), strict=True):
            _panel(axes, epochs, columns[name], columns.get(f"val_{name}"), label)
        grid[-1].set_xlabel("epoch")
        grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.supylabel("nats per image", fontsize=10)
        if title is not None:
            figure.suptitle(wrap_title(title, WIDTH), x=0.02, ha="left", fontsize=11)
    return figure


def _same(columns: Mapping[str, NDArray[np.float64]], one: str, other: str) -> bool:
    """Return whether two losses have the same columns, with and without `val_`, and equal values up to rounding."""
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
    series = {"training": train} if validation is None else {"training": train, "validation": validation}
    values = np.stack(list(series.values()))
    finite = np.isfinite(values)
    for (name, line), shown in zip(series.items(), finite, strict=True):
        # A point between two gaps belongs to no line and would be invisible without a marker.
        isolated = shown & ~np.append(shown[1:], False) & ~np.append(False, shown[:-1])
        axes.plot(
            epochs,
            np.where(shown, line, np.nan),
            color=TRAIN if name == "training" else VALIDATION,
            linewidth=1.6,
            marker="o",
            markersize=3.5,
            markevery=np.flatnonzero(shown if len(epochs) <= 30 else isolated).tolist(),
            label=f"{name} {format_number(line[-1], zeros=True)}",
        )
    notes = []
    top = upper_limit(list(values))
    if top is not None:
        axes.set_ylim(values[finite].min() - 0.05 * (top - values[finite].min()), top)
        above = epochs[((values > top) & finite).any(axis=0)]
        peak = values[finite].max()
        notes.append(
            f"\N{BLACK UP-POINTING TRIANGLE} not shown: {_epoch_ranges(above)}, up to {format_number(peak, zeros=True)}"
        )
    if not finite.all():
        notes.append(f"not finite: {_epoch_ranges(epochs[~finite.all(axis=0)])}")
        # Leave space for the note above the lines.
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


def upper_limit(lines: Sequence[NDArray[np.float64]]) -> float | None:
    """Return an axis limit that keeps the second half of every line readable, or None to show everything."""
    halves = [line[len(line) // 2 :] for line in lines]
    later = [line[np.isfinite(line)] for line in halves]
    # Fewer than three points are read one by one, and are too few to estimate a span.
    later = [line for line in later if line.size >= 3]
    if not later:
        return None
    highest = max(float(line.max()) for line in later)
    span = max(0.02 * abs(highest), *(float(np.ptp(line)) for line in later))
    top = highest + 4 * span
    finite = np.concatenate([line[np.isfinite(line)] for line in lines])
    low, high = float(finite.min()), float(finite.max())
    return top if high - low > 4 * (top - low) else None


def _epoch_ranges(epochs: NDArray[np.float64]) -> str:
    """Return epochs as at most three ranges, such as `epochs 1–3, 7`."""
    ranges: list[list[int]] = []
    for epoch in epochs.astype(int).tolist():
        if ranges and epoch == ranges[-1][1] + 1:
            ranges[-1][1] = epoch
        else:
            ranges.append([epoch, epoch])
    words = [f"{first}" if first == last else f"{first}\N{EN DASH}{last}" for first, last in ranges]
    listed = ", ".join(words[:3]) + (", \N{HORIZONTAL ELLIPSIS}" if len(words) > 3 else "")
    return f"{'epoch' if len(epochs) == 1 else 'epochs'} {listed}"
