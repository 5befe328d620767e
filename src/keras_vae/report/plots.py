"""Plots of a run or a model, by name or by one function each.

All functions accept a run, the path of its folder, the name of a pretrained run, or a model:

    plots.samples("mnist-2d", n=16)
    plots.reconstructions(vae, splits=images)
"""

import functools
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vae.core.errors import InputError, alternatives, unknown
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.models.inputs import dataset_condition
from keras_vae.report import figures
from keras_vae.report.context import PlotContext
from keras_vae.report.figures import ImageStrips
from keras_vae.report.latent_grid import interpolate
from keras_vae.report.latent_range import HIGH, LOW, LatentRange, latent_grid_points, prior_samples
from keras_vae.report.reconstruction_rows import described, ranked_by_quality, reconstruction_rows, worst_images

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from keras_vae.models.base import BaseVAE
    from keras_vae.runs.run import Run


def plot(
    run: "PlotContext | Run | BaseVAE | str | Path",
    kind: str,
    *,
    splits: Splits | Dataset | Array | None = None,
    out: str | Path | None = None,
    **options: Any,
) -> "Figure":
    """Plot a run or a model.

    Args:
        run: A run, the path of a run folder, the name of a pretrained run, or a model.
        kind: Name of the plot, a key of `PLOTS`.
        splits: Images to use instead of the run's own: splits, a data set, or an array `(N, height, width, channels)`.
            A model has no images of its own.
        out: A `.png`, `.svg` or `.pdf` file to write, or a `.gif` for an animation of `traversals` or `interpolation`.
        **options: Options of the plot: the keyword arguments of its function in this module, such as `n`.

    Returns:
        A Matplotlib figure, which a notebook displays if it is the last expression of a cell.

    Raises:
        InputError: There is no such plot or option, a value is invalid, or images or epochs that the plot needs are
            missing.

    Example:
        >>> figure = plot("mnist-2d", "samples", n=4)
        >>> figure.axes[0].get_title(loc="left")
        'mnist-2d: samples from the prior'
    """
    check_options(kind, options)
    out = None if out is None else Path(out)
    accepted = (*figures.FORMATS, *([".gif"] if kind in ANIMATED else []))
    if out is not None and out.suffix not in accepted:
        raise InputError(f"out = {out}: cannot write a {kind} plot as {out.suffix!r}; use {alternatives(accepted)}")
    context = PlotContext.of(run, splits)
    if kind in LATENT_VECTOR_PLOTS and not context.model.has_latent_vector:
        raise InputError(
            f"kind = {kind}: a {type(context.model).__name__} has no latent vector; choose "
            f"{', '.join(available_plots(context))}"
        )
    drawn = PLOTS[kind](context, **options)
    if not isinstance(drawn, ImageStrips):
        if out is not None:
            figures.save(drawn, out)
        return drawn
    figure = figures.image_strips(drawn)
    if out is not None:
        if out.suffix == ".gif":
            figures.save_animation(drawn, out)
        else:
            figures.save(figure, out)
    return figure


def check_options(kind: str, options: Iterable[str]) -> None:
    """Reject a plot or an option that does not exist.

    Args:
        kind: Name of the plot.
        options: Names of its options.

    Raises:
        InputError: There is no such plot or option.
    """
    if kind not in PLOTS:
        raise unknown("kind", kind, PLOTS)
    accepted = list(inspect.signature(PLOTS[kind]).parameters)[1:]
    for option in options:
        if option not in accepted:
            raise unknown(f"{kind} plot: option", option, accepted)


def available_plots(context: PlotContext) -> tuple[str, ...]:
    """Return the names of the plots that a trained model supports."""
    excluded = set() if context.model.has_latent_vector else set(LATENT_VECTOR_PLOTS)
    if context.examples is not None and context.examples.has_missing:
        # These plots compare whole images.
        excluded |= {"neighbors", "image-quality"}
    if context.model.density != "direct":
        excluded.add("worst-reconstructions")
    if context.kl_per_dimension is None:
        excluded.add("kl-per-dimension")
    return tuple(name for name in PLOTS if name not in excluded)


PLOTS: dict[str, Callable[..., "Figure | ImageStrips"]] = {}
"""The functions that draw a context, by the names of the plots."""

_ARGUMENTS = """run: A run, the path of a run folder, the name of a pretrained run, or a model.
    splits: Images to use instead of the run's own: splits, a data set, or an array `(N, height, width, channels)`.
        A model has no images of its own.
    out: A `.png`, `.svg` or `.pdf` file to write, or a `.gif` for an animation of `traversals` or `interpolation`."""


def _named(draw: Callable[..., "Figure | ImageStrips"]) -> Callable[..., "Figure"]:
    """Add a function that draws a context to `PLOTS`, and return the same plot as a function of a run or a model."""
    kind = draw.__name__.replace("_", "-")
    PLOTS[kind] = draw

    def plot_kind(
        run: "PlotContext | Run | BaseVAE | str | Path",
        *,
        splits: Splits | Dataset | Array | None = None,
        out: str | Path | None = None,
        **options: Any,
    ) -> "Figure":
        return plot(run, kind, splits=splits, out=out, **options)

    signature = inspect.signature(plot_kind)
    *shared, _ = signature.parameters.values()
    _, *own = inspect.signature(draw).parameters.values()
    functools.update_wrapper(plot_kind, draw)
    plot_kind.__doc__ = (inspect.getdoc(draw) or "").replace("context: The run or model.", _ARGUMENTS)
    plot_kind.__signature__ = signature.replace(parameters=[*shared, *own])  # type: ignore[attr-defined]
    return plot_kind


@_named
def grid(
    context: PlotContext,
    *,
    n: int | None = None,
    bounds: tuple[float, float] | None = None,
    dims: tuple[int, int] | None = None,
    label: str | int | None = None,
) -> "Figure":
    """Plot the images decoded from an n×n grid over two latent dimensions.

    If the prior is a normal distribution or a flow, and the codes of images follow it, the grid covers the quantiles of
    the normal noise that the prior transforms into codes, so that all images represent an equal share of the prior.
    For a standard normal prior, the noise is the code. Otherwise, and if `dims` selects dimensions of the code under
    another prior, the grid covers the quantiles of the codes of images; without images, of samples from the prior.

    Args:
        context: The run or model.
        n: Images per side; None uses 30, or fewer if the figure would then exceed 2,000 pixels.
        bounds: Smallest and largest z of an evenly spaced grid; None uses quantiles.
        dims: The two dimensions; None uses the two most informative.
        label: Label to condition on; None uses the first.
    """
    model = context.model
    if n is None:
        n = max(2, min(30, 2000 // max(size or 1 for size in model.image_shape[:2])))
    label = context.label_or_first(label)
    points = latent_grid_points(context, n, bounds=bounds, dims=dims, label=label)
    images = model.decode(points.codes, condition=label)
    title = f"{context.name}: images decoded from a latent grid{points.note}"
    return figures.latent_grid(images, points.grid, names=points.names, title=title)


@_named
def samples(context: PlotContext, *, n: int | None = None, seed: int = 0, label: str | int | None = None) -> "Figure":
    """Plot the mean images of codes drawn from the prior.

    Args:
        context: The run or model.
        n: Number of images; None draws 64, or ten per label.
        seed: Seed of the draw.
        label: Label to condition on; None cycles through the labels.
    """
    classes = getattr(context.model.condition, "classes", None)
    n = n or (64 if classes is None else 10 * classes)
    images = context.model.sample(n, seed=seed, condition=context.labels_in_turn(n, label))
    return figures.image_grid(images, title=f"{context.name}: samples from the prior", columns=classes)


@_named
def neighbors(context: PlotContext, *, n: int = 20, seed: int = 0, label: str | int | None = None) -> "Figure":
    """Plot samples from the prior above their nearest training images.

    Args:
        context: The run or model.
        n: Number of samples.
        seed: Seed of the draw.
        label: Label to condition on; None cycles through the labels.
    """
    from keras_vae.evaluation.neighbors import nearest_neighbors

    images = context.model.sample(n, seed=seed, condition=context.labels_in_turn(n, label))
    train = context.splits.train.sample()
    found = train.images[nearest_neighbors(np.rint(images * 255).astype("uint8"), train.images).indices]
    rows = {"sample": images, described(train).removesuffix("s"): found.astype("float32") / 255}
    return figures.image_rows(rows, title=f"{context.name}: samples and their nearest {described(train)}")


@_named
def reconstructions(context: PlotContext, *, n: int = 20) -> "Figure":
    """Plot held-out images, or training images if none were held out, above their reconstructions.

    Args:
        context: The run or model.
        n: Number of images.
    """
    dataset = context.images(n)
    return _above_reconstructions(context, dataset, f"reconstructions of {described(dataset)}")


@_named
def worst_reconstructions(context: PlotContext, *, n: int = 20) -> "Figure":
    """Plot the images with the highest negative ELBO among 2,000 held-out images, above their reconstructions.

    Args:
        context: The run or model.
        n: Number of images.
    """
    worst, title = worst_images(context, n)
    return _above_reconstructions(context, worst, title)


def _above_reconstructions(context: PlotContext, dataset: Dataset, title: str) -> "Figure":
    return figures.image_rows(reconstruction_rows(context, dataset), title=f"{context.name}: {title}")


@_named
def image_quality(context: PlotContext, *, n: int = 10) -> "Figure":
    """Plot images above their reconstructions and the differences, from the lowest to the highest PSNR.

    Args:
        context: The run or model.
        n: Number of images, evenly spaced in the ranking of 2,000 held-out images.
    """
    ranked = ranked_by_quality(context, n)
    return figures.image_rows(ranked.rows, title=f"{context.name}: {ranked.title}", captions=ranked.captions)


@_named
def latents(context: PlotContext, *, n: int = 10_000, dims: tuple[int, int] | None = None) -> "Figure":
    """Plot the posterior means of held-out images, or of training images if none were held out, colored by label.

    Args:
        context: The run or model.
        n: Largest number of images.
        dims: The two dimensions; None uses the two most informative.
    """
    dataset = context.images(n)
    encoding = context.model.encode(dataset.images, condition=dataset_condition(context.model, dataset))
    title = f"{context.name}: posterior means of {len(dataset):,} {described(dataset)}"
    return figures.latents(
        encoding.flattened().z_mean,
        dataset.labels,
        dataset.classes or None,
        dims=dims or context.plane,
        prior=None if context.latent_range().prior_is_standard else prior_samples(context.model, dataset, 30_000),
        title=title,
    )


@_named
def traversals(context: PlotContext, *, n: int = 11, rows: int = 10, label: str | int | None = None) -> ImageStrips:
    """Plot the effect of each latent dimension on the decoded image, most informative dimension first.

    Each dimension varies from the 1 % to the 99 % quantile of the codes of images; without images, of samples from the
    prior. The others are held at the center of the prior, or of the codes if these do not follow the prior.

    Args:
        context: The run or model.
        n: Images per row.
        rows: Largest number of dimensions.
        label: Label to condition on; None uses the first.
    """
    if min(n, rows) < 1:
        raise InputError(f"n = {n}, rows = {rows}: nothing to show; pass 1 or more")
    label, dimensions = context.label_or_first(label), context.order[:rows]
    latent, places = context.latent_range(label), np.linspace(0, 1, n)
    ends = latent.quantiles((LOW, HIGH))
    codes = np.tile(latent.center, (len(dimensions), n, 1))
    for row, dimension in enumerate(dimensions):
        codes[row, :, dimension] = ends[0, dimension] + places * np.ptp(ends[:, dimension])
    names = [_traversal_name(context, latent, dimension, *ends[:, dimension].tolist()) for dimension in dimensions]
    images = context.decode_rows(codes, label)
    others = f"; the other dimensions are {latent.center_name}" if context.model.latent_dim > 1 else ""
    title = f"{context.name}: traversals of the latent dimensions{others}"
    return ImageStrips(
        images, names, places.tolist(), "position between the 1% and the 99% quantile of the codes", title
    )


def _traversal_name(context: PlotContext, latent: LatentRange, dimension: int, low: float, high: float) -> str:
    """Return the name of a dimension with its KL divergence, if known, and below it the range that it covers."""
    kl = None if context.examples is None else context.kl_per_dimension
    name = f"z[{dimension}]" if kl is None else f"z[{dimension}]  {kl[dimension]:.2f} nats"
    unused = "" if latent.is_used[dimension] else ", unused"
    return f"{name}\n{low:.1f} … {high:.1f}{unused}".replace("-", "\N{MINUS SIGN}")


@_named
def interpolation(
    context: PlotContext, *, n: int = 11, rows: int = 8, spherical: bool = False, label: str | int | None = None
) -> ImageStrips:
    """Plot interpolations between the posterior means of pairs of held-out images.

    Args:
        context: The run or model.
        n: Images per row.
        rows: Number of pairs.
        spherical: Interpolate along the great circle between the codes, around their mean, instead of the straight
            line.
        label: Label to condition on; None uses the first.
    """
    if rows < 1:
        raise InputError(f"rows = {rows}: nothing to show; pass 1 or more")
    dataset = context.images(2 * rows)
    encoding = context.model.encode(dataset.images, condition=dataset_condition(context.model, dataset))
    ends = encoding.flattened().z_mean
    half = len(ends) // 2
    if not half:
        raise InputError(f"splits = {len(ends)} image: too few to interpolate between; pass at least 2")
    origin = context.latent_range().mean
    pairs = zip(ends[:half], ends[half:], strict=False)
    paths = [interpolate(*pair, n, spherical=spherical, origin=origin) for pair in pairs]
    images = context.decode_rows(np.stack(paths), context.label_or_first(label))
    labels, classes = dataset.labels, dataset.classes
    names = [
        f"{index + 1}" if labels is None else f"{classes[labels[index]]} → {classes[labels[half + index]]}"
        for index in range(half)
    ]
    path = "spherical" if spherical else "linear"
    title = f"{context.name}: {path} interpolation between {described(dataset)}"
    return ImageStrips(images, names, np.linspace(0, 1, n).tolist(), "interpolation weight", title)


@_named
def kl_per_dimension(context: PlotContext) -> "Figure":
    """Plot the KL divergence of each latent dimension on held-out images.

    Args:
        context: The run or model.
    """
    if context.kl_per_dimension is None:
        raise InputError(
            f"kind = kl-per-dimension: the posterior and prior of {context.name} give only the sum over dimensions; "
            "see kl_loss"
        )
    title = f"{context.name}: KL divergence per latent dimension"
    return figures.kl_per_dimension(context.kl_per_dimension, context.active_units, title=title)


@_named
def curves(context: PlotContext) -> "Figure":
    """Plot the losses over the epochs.

    Args:
        context: The run or model.
    """
    return figures.curves(context.metrics, title=f"{context.name}: losses per epoch")


@_named
def rate_distortion(context: PlotContext) -> "Figure":
    """Plot the trajectory of training in the rate-distortion plane.

    Args:
        context: The run or model.
    """
    return figures.rate_distortion(context.metrics, title=f"{context.name}: rate and distortion per epoch")


LATENT_VECTOR_PLOTS = ("grid", "latents", "traversals", "interpolation", "kl-per-dimension")
"""Plots that need a model with one latent vector per image."""

METRICS_PLOTS = ("curves", "rate-distortion")
"""Plots that need no model."""

ANIMATED = ("traversals", "interpolation")
"""Plots that can be written as an animation."""
