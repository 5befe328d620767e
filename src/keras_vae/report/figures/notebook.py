"""Figures that notebooks display. This module imports Matplotlib, so it is imported only when a figure is drawn."""

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from keras_vae.report.figures.style import WIDTH, to_png, wrap_title


class NotebookFigure(Figure):
    """A Matplotlib figure that a notebook displays as the last expression of a cell.

    These figures are not made by `pyplot`, which would keep them in memory until they are closed and display them a
    second time at the end of the cell. But IPython registers its formatter for Matplotlib figures only when `pyplot`
    opens its first one, so this class has its own `_repr_png_`, which IPython calls for any object. Once registered,
    IPython's formatter takes precedence, so the figure is displayed exactly once in both cases.
    """

    def _repr_png_(self) -> bytes:
        return to_png(self)


def figure_with_axes(height: float, title: str | None) -> tuple[NotebookFigure, Axes]:
    """Return a figure of the common width with one pair of axes.

    Args:
        height: Height of the figure, in inches.
        title: Title of the figure.
    """
    figure = NotebookFigure(figsize=(WIDTH, height), layout="constrained")
    axes = figure.add_subplot()
    if title is not None:
        axes.set_title(wrap_title(title, WIDTH), fontsize=11, pad=10)
    return figure, axes
