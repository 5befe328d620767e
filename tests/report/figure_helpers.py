"""Helpers of the tests of figures: images, metrics, and the pixels and axes of a figure."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from keras_vae.report import figures


def random_images(count: int, height: int, width: int, channels: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, height, width, channels), dtype=np.uint8)


def metrics(epochs: int, **changes: Sequence[float]) -> dict[str, Any]:
    kl = [5 + 0.01 * i for i in range(epochs)]
    reconstruction = [150.0 - i for i in range(epochs)]
    total = [a + b for a, b in zip(kl, reconstruction, strict=True)]
    columns = {"total_loss": total, "negative_elbo": total, "reconstruction_loss": reconstruction, "kl_loss": kl}
    columns |= {f"val_{name}": [value + 1 for value in values] for name, values in columns.items()}
    return {"epoch": list(range(1, epochs + 1)), **columns, "seconds": [3.0] * epochs} | changes


def axes_of(figure: Figure) -> list[Any]:
    """Return the axes, whose getters have types in Matplotlib that are too wide for these tests."""
    return list(figure.axes)


def pixels_of(figure: Figure, path: Path) -> tuple[np.ndarray, int]:
    """Return the pixels inside the first axes of a saved figure, and their number per image pixel."""
    picture = np.asarray(Image.open(figures.save(figure, path)).convert("RGB"))
    axes = axes_of(figure)[0]
    box = axes.get_window_extent()
    left, top = round(box.x0), round(picture.shape[0] - box.y1)
    wide, high = round(box.width), round(box.height)
    assert box.width == pytest.approx(wide, abs=0.02)
    scale, rest = divmod(wide, round(axes.get_xlim()[1]))
    assert rest == 0
    return picture[top : top + high, left : left + wide], scale
