"""Plots: a run in, its figures out."""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, unknown
from keras_vae.core.latent_grid import grid_points, interpolate
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.models.inputs import dataset_condition
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_vae.core.progress import Progress
    from keras_vae.models.base import BaseVAE
    from keras_vae.report.figures import Strips


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
        model: "BaseVAE | None" = None,
        splits: Splits | None = None,
        progress: "Progress | None" = None,
    ) -> None:
        self.run, self._model, self._splits, self._progress = run, model, splits, progress

    @functools.cached_property
    def model(self) -> "BaseVAE":
        """The trained model."""
        return self._model or self.run.load_model()

    @property
    def splits(self) -> Splits:
        """The images it was trained on, and those held out."""
        if self._splits is None:
            self.run.check_data()
            self._splits, _ = self.run.experiment.load_splits(self._progress)
            self.run.check_images(self._splits)
        return self._splits

    @functools.cached_property
    def rates(self) -> NDArray[np.float64] | None:
        """The rate of each latent dimension in nats, over 2,000 images; None where only their sum is known."""
        from keras import ops

        if not self.model.is_stochastic:
            return None
        dataset = _few(self.splits, 2000)
        terms = self.model.elbo_terms(dataset.images, seed=0, condition=dataset_condition(self.model, dataset))
        rates = ops.convert_to_numpy(terms.kl_per_group)
        return np.asarray(rates.mean(axis=0, dtype="float64")) if rates.shape[1] == self.model.latent_dim else None

    @functools.cached_property
    def order(self) -> NDArray[np.int64]:
        """The latent dimensions: those of the highest rate first or, where that is not known, of the widest spread."""
        carried = self.rates
        if carried is None:
            dataset = _few(self.splits, 2000)
            codes = self.model.encode(dataset.images, condition=dataset_condition(self.model, dataset)).z_mean
            carried = codes.var(axis=0)
        return np.argsort(-carried, kind="stable")

    @property
    def plane(self) -> tuple[int, int]:
        """The two latent dimensions that carry most, in their order; the first two where there are no others."""
        if self.model.latent_dim <= 2:
            return 0, 1
        first, second = sorted(self.order[:2].tolist())
        return first, second


def grid(
    subject: Subject,
    *,
    n: int | None = None,
    bounds: tuple[float, float] | None = None,
    dims: tuple[int, int] | None = None,
    label: int | None = None,
) -> "Figure":
    """Draw the images decoded from an n×n grid over two latent dimensions, in one batch.

    Args:
        subject: The run.
        n: Images a side; None takes 30, or as many as make a page of 2,000 pixels, where images are large.
        bounds: The least and the greatest z; None spaces z by the normal's inverse cumulative distribution.
        dims: The two dimensions, the others held at zero; None takes those that carry most.
        label: What they are decoded under, in a model with labels; None takes the first.
    """
    from keras_vae.report import figures

    model = subject.model
    if n is None:
        n = max(2, min(30, 2000 // max(size or 1 for size in model.image_shape[:2])))
    dims = dims or subject.plane
    points = grid_points(n, bounds=bounds, latent_dim=model.latent_dim, dims=dims)
    images = model.decode(points.z, condition=_label_or_first(model, label))
    return figures.latent_grid(images, points, dims=dims, title=f"{subject.run.name}: latent space")


def _label_or_first(model: "BaseVAE", label: int | None) -> int | None:
    return 0 if label is None and model.condition is not None else label


def _labels_in_turn(model: "BaseVAE", n: int, label: int | None) -> "Array | int | None":
    classes = getattr(model.condition, "classes", None)
    return np.arange(n) % classes if classes and label is None else label


def samples(subject: Subject, *, n: int | None = None, seed: int = 0, label: int | None = None) -> "Figure":
    """Draw the mean images of codes drawn from the prior.

    Args:
        subject: The run.
        n: How many; None takes 64, or under a condition ten of each label.
        seed: Fixes the draw.
        label: What they are drawn under, in a model with labels; None takes the labels in turn.
    """
    from keras_vae.report import figures

    classes = getattr(subject.model.condition, "classes", None)
    n = n or (64 if classes is None else 10 * classes)
    images = subject.model.sample(n, seed=seed, condition=_labels_in_turn(subject.model, n, label))
    return figures.sheet(images, title=f"{subject.run.name}: samples from the prior", columns=classes)


def reconstructions(subject: Subject, *, n: int = 20) -> "Figure":
    """Draw held-out images (training images, where none were held out) above their reconstructions.

    Args:
        subject: The run.
        n: How many.
    """
    from keras_vae.report import figures

    dataset = _few(subject.splits, n)
    images = dataset.images
    return figures.stacks(
        {
            "original": images,
            "reconstruction": subject.model.reconstruct(images, condition=dataset_condition(subject.model, dataset)),
        },
        title=f"{subject.run.name}: reconstructions of {dataset.split} images",
    )


def latents(subject: Subject, *, n: int = 10_000, dims: tuple[int, int] | None = None) -> "Figure":
    """Draw the posterior means of held-out images (training images, where none were held out), by label.

    Args:
        subject: The run.
        n: How many at most.
        dims: The two dimensions; None takes those that carry most.
    """
    from keras_vae.report import figures

    dataset = _few(subject.splits, n)
    z_mean = subject.model.encode(dataset.images, condition=dataset_condition(subject.model, dataset)).z_mean
    return figures.latents(z_mean, dataset.labels, dataset.classes or None, dims=dims or subject.plane)


def worst(subject: Subject, *, n: int = 20) -> "Figure":
    """Draw those of 2,000 held-out images that cost most to describe, above their reconstructions.

    Args:
        subject: The run.
        n: How many.
    """
    from keras import ops

    from keras_vae.report import figures

    if n < 1:
        raise InputError(f"n = {n}: show at least one image")
    dataset = _few(subject.splits, 2000)
    told = dataset_condition(subject.model, dataset)
    costs = ops.convert_to_numpy(subject.model.elbo_terms(dataset.images, condition=told).negative_elbo)
    chosen = dataset.take(np.argsort(costs)[::-1][:n], dataset.split)
    return figures.stacks(
        {
            "original": chosen.images,
            "reconstruction": subject.model.reconstruct(
                chosen.images, condition=dataset_condition(subject.model, chosen)
            ),
        },
        title=f"{subject.run.name}: the {len(chosen)} costliest of {len(dataset):,} {dataset.split} images",
    )


def neighbors(subject: Subject, *, n: int = 20, seed: int = 0, label: int | None = None) -> "Figure":
    """Draw samples from the prior above the training images that are nearest to them.

    Args:
        subject: The run.
        n: How many.
        seed: Fixes the draw.
        label: What they are drawn under, in a model with labels; None takes the labels in turn.
    """
    from keras_vae.evaluation.samples import nearest
    from keras_vae.report import figures

    images = subject.model.sample(n, seed=seed, condition=_labels_in_turn(subject.model, n, label))
    trained = subject.splits.train.images
    found = nearest(np.rint(images * 255).astype("uint8"), trained).indices
    return figures.stacks(
        {"sample": images, "training image": trained[found].astype("float32") / 255},
        title=f"{subject.run.name}: samples, and the nearest training images",
    )


def traversals(subject: Subject, *, n: int = 11, rows: int = 10, label: int | None = None) -> "Strips":
    """Draw what each latent dimension changes, those that carry most first, the others at zero.

    Args:
        subject: The run.
        n: Images a row, over z from −3 to 3.
        rows: Dimensions at most.
        label: What they are decoded under, in a model with labels; None takes the first.
    """
    from keras_vae.report.figures import Strips

    if min(n, rows) < 1:
        raise InputError(f"n = {n}, rows = {rows}: show at least one image")
    carried, chosen, values = subject.rates, subject.order[:rows], np.linspace(-3, 3, n, dtype="float32")
    codes = np.zeros((len(chosen), n, subject.model.latent_dim), "float32")
    for row, dimension in enumerate(chosen):
        codes[row, :, dimension] = values
    images = _decoded(subject.model, codes, _label_or_first(subject.model, label))
    names = [
        f"z[{dimension}]" if carried is None else f"z[{dimension}]  {carried[dimension]:.2f} nats"
        for dimension in chosen
    ]
    return Strips(images, names, values.tolist(), "z", f"{subject.run.name}: dimension by dimension")


def interpolation(
    subject: Subject, *, n: int = 11, rows: int = 8, spherical: bool = False, label: int | None = None
) -> "Strips":
    """Draw the way from one held-out image to another, between their posterior means.

    Args:
        subject: The run.
        n: Images a row.
        rows: Pairs of images.
        spherical: On the great circle between the codes instead of the line.
        label: What they are decoded under, in a model with labels; None takes the first.
    """
    from keras_vae.report.figures import Strips

    if rows < 1:
        raise InputError(f"rows = {rows}: show at least one pair of images")
    dataset = _few(subject.splits, 2 * rows)
    ends = subject.model.encode(dataset.images, condition=dataset_condition(subject.model, dataset)).z_mean
    half = len(ends) // 2
    if not half:
        raise InputError("an interpolation needs two images")
    ways = [interpolate(*way, n, spherical=spherical) for way in zip(ends[:half], ends[half:], strict=False)]
    images = _decoded(subject.model, np.stack(ways), _label_or_first(subject.model, label))
    labels = dataset.labels
    names = [f"{index + 1}" if labels is None else f"{labels[index]} → {labels[half + index]}" for index in range(half)]
    on = "on great circles" if spherical else "on straight lines"
    title = f"{subject.run.name}: between {dataset.split} images, {on}"
    return Strips(images, names, np.linspace(0, 1, n).tolist(), "share of the way", title)


def _decoded(model: "BaseVAE", codes: NDArray[np.float32], label: int | None) -> Array:
    """Return the mean images of codes of two leading axes."""
    images = model.decode(codes.reshape(-1, codes.shape[-1]), condition=label)
    return images.reshape(*codes.shape[:2], *images.shape[1:])


def rates(subject: Subject) -> "Figure":
    """Draw the rate of every latent dimension on held-out images.

    Args:
        subject: The run.
    """
    from keras_vae.evaluation.diagnostics import INACTIVE_RATE
    from keras_vae.report import figures

    if subject.rates is None:
        raise InputError("rates: of this posterior and prior only the sum over dimensions is known, kl_loss")
    return figures.rates(subject.rates, INACTIVE_RATE, title=f"{subject.run.name}: rate of each latent dimension")


def rate_distortion(subject: Subject) -> "Figure":
    """Draw the path of the training in the plane of rate and distortion.

    Args:
        subject: The run.
    """
    from keras_vae.report import figures

    _check_epochs(subject)
    return figures.rate_distortion(subject.run.metrics, title=f"{subject.run.name}: rate and distortion by epoch")


def _few(splits: Splits, n: int) -> Dataset:
    """Return at most n held-out images to show, of training images where none were held out."""
    if n < 1:
        raise InputError(f"n = {n}: show at least one image")
    return (splits.held_out or splits.train).subsample_evenly(n)


def curves(subject: Subject) -> "Figure":
    """Draw the losses over the epochs.

    Args:
        subject: The run.
    """
    from keras_vae.report import figures

    _check_epochs(subject)
    return figures.curves(subject.run.metrics)


def _check_epochs(subject: Subject) -> None:
    if not subject.run.metrics:
        raise InputError(f"{subject.run.path} has no epochs to draw yet")


PLOTS: dict[str, Callable[..., "Figure | Strips"]] = {
    plot.__name__: plot
    for plot in (
        *(grid, samples, neighbors, reconstructions, worst, latents, traversals, interpolation, rates),
        *(curves, rate_distortion),
    )
}
"""The plots by name."""


OF_A_VECTOR = ("grid", "latents", "traversals", "interpolation", "rates")
"""The plots that need a model whose code is one vector."""

OF_METRICS = ("curves", "rate_distortion")
"""The plots that need no model."""


def applicable(subject: Subject) -> tuple[str, ...]:
    """Return the names of the plots that a run can be shown in: some need one vector of codes, one its rates."""
    has_vector = _has_vector(subject.model)
    names = [name for name in PLOTS if has_vector or name not in OF_A_VECTOR]
    return tuple(name for name in names if name != "rates" or subject.rates is not None)


def _has_vector(model: "BaseVAE") -> bool:
    return model.has_latent_vector


def draw(subject: Subject, kind: str, out: Path, **options: Any) -> Path:
    """Draw a plot into a PNG file, or, if it moves, a GIF.

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
    from keras_vae.report import figures

    if kind not in PLOTS:
        raise unknown("plot", kind, PLOTS)
    if kind in OF_A_VECTOR and not _has_vector(subject.model):
        raise InputError(f"{kind}: a {type(subject.model).__name__} has no plane of codes to show; draw samples")
    accepted = [name for name in inspect.signature(PLOTS[kind]).parameters if name != "subject"]
    for option in options:
        if option not in accepted:
            raise unknown(f"option of the {kind} plot", option, accepted)
    drawn = PLOTS[kind](subject, **options)
    if isinstance(drawn, figures.Strips):
        return figures.save_animation(drawn, out) if out.suffix == ".gif" else figures.save(figures.strips(drawn), out)
    if out.suffix == ".gif":
        raise InputError(f"out = {out}: a {kind} plot does not move; write it as .png")
    return figures.save(drawn, out)
