"""Where the codes of a model lie: the ranges over which figures and the explorer vary them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from keras_vae.components.priors import StandardNormal
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset
from keras_vae.models.inputs import dataset_condition
from keras_vae.models.latent_maps import flat_codes
from keras_vae.report.latent_grid import Grid, grid_over, grid_points

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE
    from keras_vae.report.context import PlotContext

MIN_IMAGES = 10
"""Number of images below which the spread of their codes is unknown."""

NUM_SAMPLES = 2000
"""Number of samples from the prior, and least number of draws from the posteriors."""

LOW, HIGH = 0.01, 0.99
"""Quantiles of the codes at both ends of a range."""

_UNUSED_SHARE = 0.01


@dataclass(frozen=True, eq=False)
class LatentRange:
    """Distribution of the codes of a model, over which figures vary them.

    Args:
        codes: Draws from the posteriors of images, equally many from each, (M, D); without images, samples from the
            prior.
        z_mean: Posterior means of the images, (N, D), N = 0 without images.
        prior_samples: Samples from the prior, (NUM_SAMPLES, D).
        prior_center: The code that the prior computes from zero noise, (D,); None if it does not transform noise.
        prior_is_standard: Whether the prior is N(0, I).
    """

    codes: NDArray[np.float32]
    z_mean: NDArray[np.float32]
    prior_samples: NDArray[np.float32]
    prior_center: NDArray[np.float32] | None
    prior_is_standard: bool

    @classmethod
    def measure(cls, model: "BaseVAE", dataset: Dataset | None, label: str | int | None = None) -> Self:
        """Measure the codes of images; without images, those that the prior draws.

        Args:
            model: A model whose codes are vectors.
            dataset: The images; None uses samples from the prior.
            label: For a conditional model, the label of `prior_center`.

        Raises:
            InputError: The codes are not finite.
        """
        codes: Any
        z_mean: Any
        samples: Any = prior_samples(model, dataset, NUM_SAMPLES, label)
        if dataset is None:
            codes, z_mean = samples, samples[:0]
        else:
            encoding = model.encode(dataset.images, condition=dataset_condition(model, dataset)).flattened()
            codes = z_mean = encoding.z_mean
            if encoding.z_log_var is not None:
                draws = -(-NUM_SAMPLES // len(z_mean))
                noise = np.random.default_rng(0).standard_normal((draws, *z_mean.shape), dtype="float32")
                codes = (z_mean + np.exp(0.5 * encoding.z_log_var) * noise).reshape(-1, z_mean.shape[1])
        if not np.isfinite(codes).all():
            raise InputError("codes: not finite, so the model has diverged; train with a lower learning rate")
        prior: Any = getattr(model, "prior", None)
        return cls(codes, z_mean, samples, _zero_noise_code(model, label), isinstance(prior, StandardNormal))

    @property
    def from_images(self) -> bool:
        """Whether the codes are those of images; otherwise they are samples from the prior."""
        return len(self.z_mean) > 0

    @cached_property
    def is_used(self) -> NDArray[np.bool_]:
        """Whether each dimension depends on the image, (D,): at least 1 % of its variance is that of posterior means.

        With fewer than `MIN_IMAGES` images, all dimensions count as used.
        """
        if len(self.z_mean) < MIN_IMAGES:
            return np.ones(self.codes.shape[1], bool)
        return np.asarray(self.z_mean.var(axis=0) > _UNUSED_SHARE * self.codes.var(axis=0))

    @cached_property
    def prior_fits(self) -> bool:
        """Whether the prior covers the codes.

        In each dimension, the means differ by at most one standard deviation of the prior, and the standard deviations
        by at most a factor of two. With fewer than `MIN_IMAGES` images, the means differ by at most two.
        """
        mean, std = self.prior_samples.mean(axis=0), self.prior_samples.std(axis=0)
        shift, ratio = np.abs(self.codes.mean(axis=0) - mean) / std, self.codes.std(axis=0) / std
        if 0 < len(self.z_mean) < MIN_IMAGES:
            return bool((shift <= 2).all())
        return bool(((shift <= 1) & (ratio >= 0.5) & (ratio <= 2)).all())

    @property
    def follows_prior(self) -> bool:
        """Whether the prior transforms normal noise into codes, and covers the codes of images."""
        return self.prior_center is not None and self.prior_fits

    def quantiles(self, levels: Sequence[float] | NDArray[np.float64]) -> NDArray[np.float64]:
        """Return quantiles of the codes in each dimension, of the prior where no image uses the dimension.

        Args:
            levels: Probabilities, (n,).

        Returns:
            (n, D).
        """
        codes, prior = (np.quantile(z.astype("float64"), levels, axis=0) for z in (self.codes, self.prior_samples))
        return np.asarray(np.where(self.is_used, codes, prior))

    @cached_property
    def center(self) -> NDArray[np.float32]:
        """A code in the middle of the distribution, (D,), for the dimensions that a figure does not vary.

        This is the code that the prior computes from zero noise, if the codes follow the prior. Otherwise it is the
        code of an actual image, the one nearest to the mean, because the mean may lie between the codes of all images.
        """
        if self.follows_prior:
            return np.asarray(self.prior_center, "float32")
        candidates = self.z_mean if self.from_images else self.codes
        scale = np.maximum(self.codes.std(axis=0), np.finfo("float32").tiny)
        distances = np.square((candidates - self.codes.mean(axis=0)) / scale).sum(axis=1)
        return np.asarray(candidates[distances.argmin()], "float32")

    @property
    def center_name(self) -> str:
        """Description of `center`, for titles."""
        if self.follows_prior:
            return "0" if self.prior_is_standard else "at the center of the prior"
        source = "image" if self.from_images else "sample from the prior"
        return f"those of the {source} nearest to the mean"

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean of the codes, (D,): exactly zero if they follow a standard normal prior."""
        if self.follows_prior and self.prior_is_standard:
            return np.zeros(self.codes.shape[1], "float32")
        return np.asarray(self.codes.mean(axis=0), "float32")


class LatentGridPoints(NamedTuple):
    """Points of the latent grid of a model.

    Args:
        grid: Their coordinates.
        codes: The codes to decode, (N, latent_dim): `grid.z`, or its transform if the coordinates are noise.
        names: Names of the horizontal and the vertical coordinate.
        note: Kind of coordinates and values of the other dimensions, for a title; empty for the dimensions of a plane.
    """

    grid: Grid
    codes: NDArray[np.float32]
    names: tuple[str, str]
    note: str


def latent_grid_points(
    context: "PlotContext",
    n: int,
    *,
    bounds: tuple[float, float] | None = None,
    dims: tuple[int, int] | None = None,
    label: str | int | None = None,
) -> LatentGridPoints:
    """Return the points of the plot `grid`, which describes them.

    Args:
        context: The run or model.
        n: Number of points along each side.
        bounds: Smallest and largest coordinate; None uses quantiles.
        dims: The two dimensions; None uses the two most informative.
        label: The label of a conditional model.

    Raises:
        InputError: An argument is out of range.
    """
    latent_dim, latent = context.model.latent_dim, context.latent_range(label)
    is_normal = latent.follows_prior and latent.prior_is_standard
    if latent.follows_prior and not is_normal and bounds is None and dims is None:
        return _noise_grid(context, n, label)
    dims = dims or context.plane
    points = grid_points(n, bounds=bounds, latent_dim=latent_dim, dims=dims, center=latent.center.tolist())
    if bounds is None and not is_normal:
        coordinates = latent.quantiles((np.arange(n) + 0.5) / n)[:, [dims[0], dims[1] % latent_dim]]
        points = grid_over(*coordinates.T, dims=dims, center=latent.center)
    note = f"; the other dimensions are {latent.center_name}" if latent_dim > 2 else ""
    horizontal, vertical = (
        f"z[{dim}]" + ("" if latent.is_used[dim % latent_dim] else " (unused by images)") for dim in dims
    )
    return LatentGridPoints(points, points.z, (horizontal, vertical), note)


def _noise_grid(context: "PlotContext", n: int, label: str | int | None) -> LatentGridPoints:
    """Return the grid over the two dimensions of the prior's noise that change the decoded image the most."""
    model = context.model
    steps = 2 * np.eye(model.latent_dim, dtype="float32")
    codes = transform_noise(model, np.concatenate([-steps, steps]), label)
    low, high = np.split(np.asarray(model.decode(codes, condition=label), "float32"), 2)
    changes = np.square(high - low).reshape(model.latent_dim, -1).sum(axis=1)
    first, second = sorted(np.argsort(-changes, kind="stable")[:2].tolist()) if model.latent_dim > 2 else (0, 1)
    points = grid_points(n, latent_dim=model.latent_dim, dims=(first, second))
    others = "; its other dimensions are 0" if model.latent_dim > 2 else ""
    return LatentGridPoints(
        points,
        transform_noise(model, points.z, label),
        (f"noise[{first}]", f"noise[{second}]"),
        f" over the noise that the prior transforms into codes{others}",
    )


def prior_samples(model: "BaseVAE", dataset: Dataset | None, count: int, label: str | int | None = None) -> Array:
    """Return samples from the prior with a fixed seed, (count, latent_dim).

    Args:
        model: A model whose codes are vectors.
        dataset: The images whose conditions a conditional model uses in turn, if any.
        count: Number of samples.
        label: The label to condition on without images; None uses all labels in turn.
    """
    condition: Any = None if dataset is None else dataset_condition(model, dataset)
    if condition is not None:
        condition = np.resize(condition, count)
    elif model.condition is not None:
        classes = model.condition.num_classes
        condition = np.arange(count) % classes if label is None and classes else class_numbers(model, label, count)
    return flat_codes(model.sample_prior(count, seed=0, condition=condition))


def transform_noise(model: "BaseVAE", noise: NDArray[np.float32], label: str | int | None) -> NDArray[np.float32]:
    """Return the codes that the prior computes from noise, both (N, latent_dim).

    Args:
        model: A model whose codes are vectors.
        noise: Standard normal noise.
        label: The label of a conditional model; None uses the first.

    Raises:
        InputError: The prior does not transform noise; a mixture, for example.
    """
    from keras import ops

    vae: Any = model
    encoded = None if vae.condition is None else vae.condition.encode(class_numbers(model, label, len(noise)))
    return np.asarray(ops.convert_to_numpy(vae.prior_transform(ops.convert_to_tensor(noise), encoded)), "float32")


def class_numbers(model: "BaseVAE", label: str | int | None, count: int) -> NDArray[np.int32]:
    """Return the class number of a label of a conditional model, `count` times.

    Args:
        model: A conditional model.
        label: The name of a class, or its number; None is the first class.
        count: The length of the result.
    """
    if isinstance(label, str):
        assert model.condition is not None
        return np.full(count, model.condition.check_one(np.asarray(label)))
    return np.full(count, label or 0, np.int32)


def _zero_noise_code(model: "BaseVAE", label: str | int | None) -> NDArray[np.float32] | None:
    """Return the code that the prior computes from zero noise; None if it does not transform noise."""
    try:
        return transform_noise(model, np.zeros((1, model.latent_dim), "float32"), label)[0]
    except InputError:
        return None
