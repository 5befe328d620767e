"""Plots: a run in, its figures out."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vae.data.dataset import Dataset, Splits
from keras_vae.errors import InputError, unknown
from keras_vae.evaluation.latents import grid_points
from keras_vae.evaluation.likelihood import held_out
from keras_vae.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_vae.data.convert import Progress
    from keras_vae.models.vae import VAE


class Subject:
    """A run whose model and images are loaded when a plot first asks for them.

    Args:
        run: The run.
        model: Its model, where the caller has it already.
        splits: Its images, likewise.
        progress: Shown while the images are loaded.
    """

    def __init__(
        self,
        run: Run,
        model: "VAE | None" = None,
        splits: Splits | None = None,
        progress: "Progress | None" = None,
    ) -> None:
        self.run, self._model, self._splits, self._progress = run, model, splits, progress

    @functools.cached_property
    def model(self) -> "VAE":
        """The trained model."""
        return self._model or self.run.load_model()

    @property
    def splits(self) -> Splits:
        """The images it was trained on, and those held out."""
        if self._splits is None:
            self._splits, _ = self.run.experiment.load_splits(self._progress)
            self.run.check_images(self._splits)
        return self._splits


def grid(
    subject: Subject,
    *,
    n: int | None = None,
    bounds: tuple[float, float] = (-1.0, 1.0),
    quantiles: bool = False,
    dims: tuple[int, int] = (0, 1),
) -> "Figure":
    """Draw the images decoded from an n×n grid over two latent dimensions, in one batch.

    Args:
        subject: The run.
        n: Images a side; None takes 30, or as many as make a page of 2,000 pixels, where images are large.
        bounds: The least and the greatest z.
        quantiles: Space z by the normal's inverse cumulative distribution instead.
        dims: The two dimensions; the others are held at zero.
    """
    from keras_vae import figures

    model = subject.model
    if n is None:
        n = max(2, min(30, 2000 // max(size or 1 for size in model.image_shape[:2])))
    points = grid_points(n, bounds=bounds, quantiles=quantiles, latent_dim=model.latent_dim, dims=dims)
    images = model.decode(points.z)
    return figures.latent_grid(images, points, dims=dims, title=f"{subject.run.name}: latent space")


def samples(subject: Subject, *, n: int = 64, seed: int = 0) -> "Figure":
    """Draw the mean images of codes drawn from the prior.

    Args:
        subject: The run.
        n: How many.
        seed: Fixes the draw.
    """
    from keras_vae import figures

    return figures.sheet(subject.model.sample(n, seed=seed), title=f"{subject.run.name}: samples from the prior")


def reconstructions(subject: Subject, *, n: int = 20) -> "Figure":
    """Draw held-out images (training images, where none were held out) above their reconstructions.

    Args:
        subject: The run.
        n: How many.
    """
    from keras_vae import figures

    dataset = _few(subject.splits, n)
    images = dataset.images
    return figures.reconstructions(
        images,
        subject.model.reconstruct(images),
        title=f"{subject.run.name}: reconstructions of {dataset.split} images",
    )


def latents(subject: Subject, *, n: int = 10_000, dims: tuple[int, int] = (0, 1)) -> "Figure":
    """Draw the posterior means of held-out images (training images, where none were held out), by label.

    Args:
        subject: The run.
        n: How many at most.
        dims: The two dimensions.
    """
    from keras_vae import figures

    dataset = _few(subject.splits, n)
    z_mean = subject.model.encode(dataset.images).z_mean
    return figures.latents(z_mean, dataset.labels, dataset.classes or None, dims=dims)


def _few(splits: Splits, n: int) -> Dataset:
    """Return at most n images to show, evenly spaced: sources often come sorted by class."""
    if n < 1:
        raise InputError(f"n = {n}: show at least one image")
    dataset = held_out(splits) or splits.train
    indices = np.linspace(0, len(dataset) - 1, min(n, len(dataset))).round().astype(int)
    return dataset.take(indices, dataset.split)


def curves(subject: Subject) -> "Figure":
    """Draw the losses over the epochs.

    Args:
        subject: The run.
    """
    from keras_vae import figures

    if not subject.run.metrics:
        raise InputError(f"{subject.run.path} has no epochs to draw yet")
    return figures.curves(subject.run.metrics)


PLOTS: dict[str, Callable[..., "Figure"]] = {
    plot.__name__: plot for plot in (grid, samples, reconstructions, latents, curves)
}
"""The plots by name."""


def draw(subject: Subject, kind: str, out: Path, **options: Any) -> Path:  # noqa: ANN401
    """Draw a plot into a PNG file.

    Args:
        subject: The run.
        kind: The plot's name, a key of `PLOTS`.
        out: The file.
        **options: Arguments of the plot.

    Returns:
        `out`.

    Raises:
        InputError: There is no such plot, it takes no such option, or a value is refused.
    """
    from keras_vae import figures

    if kind not in PLOTS:
        raise unknown("plot", kind, PLOTS)
    accepted = [name for name in inspect.signature(PLOTS[kind]).parameters if name != "subject"]
    for option in options:
        if option not in accepted:
            raise unknown(f"option of the {kind} plot", option, accepted)
    return figures.save(PLOTS[kind](subject, **options), out)
