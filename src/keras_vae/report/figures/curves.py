"""Numbers of a run, or of several, as lines and bars."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.report.figures.style import INK, PALETTE, TRAIN, VALIDATION, WIDTH, style, wrapped

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def rates(values: NDArray[np.float64], threshold: float, title: str | None = None) -> "Figure":
    """Return the rate of every latent dimension as bars, the largest first.

    Args:
        values: Nats, `(latent_dim,)`.
        threshold: The rate below which a dimension counts as unused.
        title: Line above the figure.
    """
    from matplotlib.figure import Figure

    order = np.argsort(values)[::-1]
    with style():
        figure = Figure(figsize=(WIDTH, 2.8), layout="constrained")
        axes = figure.add_subplot()
        axes.bar(np.arange(len(order)), values[order], color=TRAIN, width=0.8)
        axes.axhline(threshold, color=INK, alpha=0.6, linewidth=0.9, linestyle=(0, (4, 3)))
        if len(order) <= 20:
            axes.set_xticks(np.arange(len(order)), [f"z[{dimension}]" for dimension in order])
            axes.tick_params(axis="x", labelsize=8.5, rotation=0 if len(order) <= 10 else 90)
        used = int((values > threshold).sum())
        axes.set(xlabel=f"latent dimensions, {used} of {len(order)} in use", ylabel="nats")
        axes.grid(axis="y")
        if title is not None:
            axes.set_title(wrapped(title, WIDTH), fontsize=11, pad=10)
    return figure


def overlay(runs: Mapping[str, Mapping[str, Sequence[float]]], title: str | None = None) -> "Figure":
    """Return the negative ELBO of several runs over their epochs, validation where there is one, else training.

    Args:
        runs: Columns of each run's metrics by the run's name, `negative_elbo` or `val_negative_elbo` among them.
        title: Line above the figure.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(WIDTH, 0.65 * WIDTH), layout="constrained")
        axes = figure.add_subplot()
        lines = []
        for number, (name, metrics) in enumerate(runs.items()):
            column = next((key for key in ("val_negative_elbo", "negative_elbo") if metrics.get(key)), None)
            if column is None:
                continue
            values = np.asarray(metrics[column], np.float64)
            lines.append(values)
            label = name if column.startswith("val_") else f"{name} (training)"
            marker = "o" if len(values) <= 30 else None
            color = PALETTE[number % len(PALETTE)]
            epochs = np.arange(1, len(values) + 1)
            axes.plot(epochs, values, color=color, linewidth=1.6, marker=marker, markersize=3.5, label=label)
        if lines:
            longest = max(map(len, lines))
            padded = np.stack([np.pad(line, (0, longest - len(line)), constant_values=np.nan) for line in lines])
            top = _top(padded)
            if top is not None:
                axes.set_ylim(top=top)
        axes.set(xlabel="epoch", ylabel="negative ELBO, nats per image")
        axes.grid(axis="y")
        axes.legend(fontsize=9)
        if title is not None:
            axes.set_title(wrapped(title, WIDTH), fontsize=11, pad=10)
    return figure


def rate_distortion(metrics: Mapping[str, Sequence[float]], title: str | None = None) -> "Figure":
    """Return the path of a training in the plane of rate and distortion (Alemi et al., arXiv 1711.00464).

    Args:
        metrics: Columns of a run's metrics: `kl_loss` and `reconstruction_loss`, and those with `val_` before them.
        title: Line above the figure.
    """
    from matplotlib.figure import Figure

    with style():
        figure = Figure(figsize=(WIDTH, 0.75 * WIDTH), layout="constrained")
        axes = figure.add_subplot()
        for prefix, name, color in (("", "train", TRAIN), ("val_", "validation", VALIDATION)):
            if f"{prefix}kl_loss" not in metrics:
                continue
            rate, distortion = (np.asarray(metrics[f"{prefix}{loss}"]) for loss in ("kl_loss", "reconstruction_loss"))
            axes.plot(rate, distortion, color=color, linewidth=1.4, marker="o", markersize=2.5, label=name)
            axes.plot(rate[-1:], distortion[-1:], color=color, marker="o", markersize=8, linewidth=0)
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        left = max(0.0, left)
        for bound in np.linspace(left + low, right + high, 9)[1:-1]:
            axes.plot((left, right), (bound - left, bound - right), color=INK, alpha=0.35, linewidth=0.8, linestyle=":")
        axes.set(xlim=(left, right), ylim=(low, high), xlabel="rate (KL loss), nats", ylabel="distortion, nats")
        axes.legend(loc="upper right", fontsize=9)
        if title is not None:
            axes.set_title(wrapped(title, WIDTH), fontsize=11, pad=10)
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

    with style():
        figure = Figure(figsize=(WIDTH, 0.8 + 1.9 * len(panels)), layout="constrained")
        grid = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for axes, (name, label) in zip(grid, panels.items(), strict=True):
            _panel(axes, epochs, columns[name], columns.get(f"val_{name}"), label)
        grid[-1].set_xlabel("epoch")
        grid[-1].xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        figure.supylabel("nats per image", fontsize=10)
        if title is not None:
            figure.suptitle(wrapped(title, WIDTH), x=0.02, ha="left", fontsize=11)
    return figure


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
        # A point without neighbors has no line to be part of.
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
