"""Draws of images that share the value of a factor."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.integer[Any]]

_GATHERED_AT_ONCE = 1 << 22


class FactorSampler:
    """Draws points that share the value of one factor."""

    def __init__(self, values: Values) -> None:
        _, self._group, self._counts = np.unique(values, return_inverse=True, return_counts=True)
        self._order = np.argsort(self._group, kind="stable")
        self._starts = np.cumsum(self._counts) - self._counts
        self._rank = np.empty_like(self._order)
        self._rank[self._order] = np.arange(len(values)) - self._starts[self._group[self._order]]

    def draw_others(self, points: Values, rng: np.random.Generator) -> Values:
        """Return a different point with the same value for each point, or the point itself if there is none."""
        group = self._group[points]
        count = self._counts[group]
        step = 1 + (rng.random(points.shape) * (count - 1)).astype(np.int64)
        return self._order[self._starts[group] + (self._rank[points] + step) % count]

    def draw_any(self, points: Values, rng: np.random.Generator) -> Values:
        """Return a point with the same value for each point, possibly the point itself."""
        group = self._group[points]
        return self._order[self._starts[group] + (rng.random(points.shape) * self._counts[group]).astype(np.int64)]

    def draw_shared(self, count: int, rng: np.random.Generator) -> Values:
        """Return points that share their value with other points: a single point has no variance."""
        return rng.choice(np.flatnonzero(self._counts[self._group] > 1), count)


def draws_by_factor(drawn: Values, factors: Values, size: int) -> Iterator[tuple[Values, FactorSampler]]:
    """Yield blocks of draws of the same factor, small enough for little memory, with the sampler of that factor."""
    for k, values in enumerate(factors.T):
        sampler, chosen = FactorSampler(values), np.flatnonzero(drawn == k)
        at_once = max(1, _GATHERED_AT_ONCE // size)
        for start in range(0, len(chosen), at_once):
            yield chosen[start : start + at_once], sampler
