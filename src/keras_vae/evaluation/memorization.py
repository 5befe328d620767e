"""A test for memorization: whether samples are copies of training images."""

import math
from typing import Any, Literal

import numpy as np

from keras_vae.core.progress import Progress, silent
from keras_vae.core.typing import Array
from keras_vae.evaluation.neighbors import nearest_neighbors

MIN_HELD_OUT = 100
"""Number of held-out images below which copies cannot be distinguished from chance."""


def memorization(samples: Array, held_out: Array, train: Array, *, progress: Progress = silent) -> dict[str, Any]:
    r"""Test whether samples lie closer to training images than held-out images do.

    This is the three-sample test of Meehan et al., arXiv 2004.05675, with a single cell: a Mann–Whitney test compares
    the distances of samples and of held-out images to their nearest training images. Samples of a model that copies
    lie closer; those of a model that merely smooths do too, so read the numbers together with the precision and with
    pictures of the neighbors.

    Args:
        samples: Vectors of samples, (N, F).
        held_out: Vectors of held-out images, (M, F).
        train: Vectors of training images, (T, F).
        progress: Shows the progress of the searches.

    Returns:
        `mann_whitney_auc`, the probability that a sample lies closer to its nearest training image than a held-out
        image to its own, one half without copying; `three_sample_z`, the test statistic in standard deviations,
        negative if samples lie closer; the median distances and their ratio; `share_of_near_copies`, the share of
        samples that lie closer than the closest 1 % of the held-out images, 0.01 without copying; and
        `copying_suspected`, whether z is below −5 or the near copies are above 0.05. The last two are None for fewer
        than 100 held-out images.
    """
    ours = nearest_neighbors(samples, train, progress=progress, label="nearest training images of the samples")
    theirs = nearest_neighbors(held_out, train, progress=progress, label="nearest training images of held-out images")
    statistic, z = _mann_whitney(ours.distances, theirs.distances)
    n, m = len(samples), len(held_out)
    median, median_held_out = float(np.median(ours.distances)), float(np.median(theirs.distances))
    near_copies = float((ours.distances < np.quantile(theirs.distances, 0.01)).mean())
    is_testable = m >= MIN_HELD_OUT
    return {
        "samples": n,
        "held_out_images": m,
        "training_images": len(train),
        "mann_whitney_auc": 1 - statistic / (n * m),
        "three_sample_z": z,
        "median_distance": median,
        "median_distance_held_out": median_held_out,
        "median_distance_ratio": median / median_held_out if median_held_out > 0 else None,
        "share_of_near_copies": near_copies if is_testable else None,
        "copying_suspected": z < -5 or near_copies > 0.05 if is_testable else None,
    }


def _mann_whitney(first: Array, second: Array) -> tuple[float, float]:
    """Return the Mann–Whitney statistic U of the first sample, and its z-score, corrected for ties."""
    n, m = len(first), len(second)
    sides: tuple[Literal["left"], Literal["right"]] = ("left", "right")
    statistic = sum(int(np.searchsorted(np.sort(second), first, side).sum()) for side in sides) / 2
    ties = np.unique(np.concatenate([first, second]), return_counts=True)[1].astype(np.float64)
    tie_correction = float((ties**3 - ties).sum()) / ((n + m) * (n + m - 1))
    deviation = math.sqrt(max(0.0, n * m / 12 * (n + m + 1 - tie_correction)))
    return statistic, (statistic - n * m / 2) / deviation if deviation > 0 else 0.0
