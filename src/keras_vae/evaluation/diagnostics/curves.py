"""Properties of loss curves: their recent improvement, their slope, and where they lead."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.evaluation.diagnostics.thresholds import CONVERGED_SHARE, MAX_LENGTHENING


class Trend(NamedTuple):
    r"""The end of a loss curve, extrapolated as the hyperbola \(L(t) = L_\infty + c / t\).

    Args:
        epochs: The number n of epochs so far.
        span: The number of last epochs that the trend was fitted to.
        slope: The decrease of the loss per epoch.
        slope_error: Its standard error, 0 if there are too few epochs to estimate it.
        loss: The last loss L(n).
        remaining: The extrapolated further decrease, c / n.
    """

    epochs: int
    span: int
    slope: float
    slope_error: float
    loss: float
    remaining: float

    @property
    def suggested_epochs(self) -> int:
        """The number of epochs after which the remaining decrease is small, rounded up to two digits."""
        converged = CONVERGED_SHARE * (abs(self.loss) or 1.0)
        epochs = self.epochs * min(max(self.remaining / converged, 2.0), MAX_LENGTHENING)
        unit = 10 ** max(0, math.floor(math.log10(epochs)) - 1)
        return math.ceil(round(epochs / unit, 6)) * unit


def fit_trend(losses: Sequence[float]) -> Trend | None:
    r"""Fit a line to the last fifth of a loss curve, at least three epochs if there are as many.

    A line through the hyperbola \(c / t\) at the epochs a and n has the slope \(c / (a n)\), which gives c. The noise
    is estimated from second differences, which contain little of the curve itself.

    Args:
        losses: One value per epoch.

    Returns:
        The trend; None for fewer than two epochs, or values that are not finite.

    Example:
        >>> trend = fit_trend([160.0, 130.0])  # 100 + 60 / t
        >>> round(trend.slope, 9), round(trend.remaining, 9)
        (30.0, 30.0)
    """
    values, count = np.asarray(losses, "float64"), len(losses)
    if count < 2 or not np.isfinite(values).all():
        return None
    span = min(count, max(3, math.ceil(count / 5)))
    slope = -float(np.polyfit(np.arange(span), values[-span:], 1)[0])
    bends = np.diff(values[-max(span, 5) :], n=2)
    # The second difference of independent noise has six times its variance.
    noise = math.sqrt(float(np.square(bends).mean()) / 6) if len(bends) else 0.0
    slope_error = noise / math.sqrt(span * (span**2 - 1) / 12)
    return Trend(count, span, slope, slope_error, float(values[-1]), slope * (count - span + 1))


def recent_improvement(losses: Sequence[float], span: int) -> float:
    """Return the improvement of the best of the last `span` epochs over the epoch before them."""
    return losses[-span - 1] - min(losses[-span:])


def moving_average(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the means of every three successive epochs."""
    return np.convolve(values, np.ones(3) / 3, mode="valid") if len(values) > 2 else np.empty(0)
