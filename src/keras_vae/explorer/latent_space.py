"""The latent space of a model: its dimensions, the codes of images, and planes through it."""

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, unknown
from keras_vae.core.typing import Array, ImageShape
from keras_vae.data.dataset import Dataset
from keras_vae.evaluation.latents import active_units, dimensions_by_kl, evaluated_kl_per_dimension
from keras_vae.explorer.engine import Engine
from keras_vae.explorer.plane import MIN_SIDE, Plane, View, coordinate_plane, fit_view, principal_plane
from keras_vae.models.inputs import dataset_condition
from keras_vae.report.latent_range import LatentRange

MAX_POINTS = 600
"""Maximum number of images on the map."""

_MAX_GRID_PIXELS, _MAX_GRID_SIZE = 640, 16
_SMALL_GRID_SIZE = 7


def grid_sizes(image_shape: ImageShape) -> tuple[int, int]:
    """Return the number of images along each side of the map's grid and of the small grid under the sliders."""
    size = max(3, min(_MAX_GRID_SIZE, _MAX_GRID_PIXELS // max(image_shape[:2])))
    return size, min(_SMALL_GRID_SIZE, size)


class LatentSpace:
    """The latent space of a model whose code is one vector.

    Args:
        engine: The model.
        dataset: Images whose codes are shown on the map; None if no images are available.
        evaluation: The run's evaluation; None if the run has none.
        image_shape: (H, W, C).
        default_label: The label to condition on by default, if the model is conditional.
    """

    def __init__(
        self,
        engine: Engine,
        dataset: Dataset | None,
        evaluation: Mapping[str, Any] | None,
        *,
        image_shape: ImageShape,
        default_label: int | None,
    ) -> None:
        self.engine, self._evaluation, self._default_label = engine, evaluation, default_label
        self.latent_dim: int = engine.model.latent_dim
        self.dataset = None if dataset is None else dataset.subsample_evenly(MAX_POINTS)
        self.grid_size, self._small_grid_size = grid_sizes(image_shape)

    # ---- Codes and dimensions ----

    @functools.cached_property
    def range(self) -> LatentRange:
        """Where the codes of the images lie; without images, those that the prior draws."""
        with self.engine.lock:
            return LatentRange.measure(self.engine.model, self.dataset, self._default_label)

    @functools.cached_property
    def codes(self) -> Array:
        """Posterior means of the images on the map, (N, latent_dim); empty without images."""
        if self.dataset is None or self.range.from_images:
            return self.range.z_mean
        return self.engine.encode(self.dataset.images, dataset_condition(self.engine.model, self.dataset))

    @functools.cached_property
    def kl_per_dimension(self) -> NDArray[np.float64] | None:
        """The evaluated KL divergence of each latent dimension, in nats per image; None if not evaluated."""
        return evaluated_kl_per_dimension(self._evaluation)

    @functools.cached_property
    def order(self) -> list[int]:
        """The latent dimensions, active ones first, by descending KL or, if not evaluated, variance of codes."""
        # Without images, all variances are 0.
        z_mean = self.codes if len(self.codes) else np.zeros((1, self.latent_dim))
        dimensions = dimensions_by_kl(self.kl_per_dimension, lambda: z_mean).tolist()
        return sorted(dimensions, key=lambda dimension: not self.is_active(dimension))

    @property
    def top_dims(self) -> tuple[int, int]:
        """The two dimensions of highest KL divergence, in ascending order."""
        first, second = sorted(self.order[:2])
        return first, second

    def is_active(self, dimension: int) -> bool:
        """Whether the posterior mean of a dimension varies over images; True if not known."""
        return self._active_units is None or dimension in self._active_units

    @functools.cached_property
    def _active_units(self) -> list[int] | None:
        """The active dimensions by the evaluation or, without one, by the codes of the images."""
        evaluated = ((self._evaluation or {}).get("latents") or {}).get("active_units")
        if evaluated is None and len(self.codes) < 2:
            return None
        dimensions: list[int] = (evaluated or active_units(self.codes))["dimensions"]
        return dimensions

    @property
    def center(self) -> NDArray[np.float32]:
        """A code in the middle of the latent space, (latent_dim,): see `LatentRange.center`."""
        return self.range.center

    @functools.cached_property
    def limits(self) -> NDArray[np.float64]:
        """The smallest and the largest value of each dimension among codes of images and samples from the prior.

        Both are whole multiples of `steps`, (2, latent_dim).
        """
        low, high = self._extremes
        return np.stack([np.floor(low / self.steps), np.ceil(high / self.steps)]) * self.steps

    @functools.cached_property
    def steps(self) -> NDArray[np.float64]:
        """A small change of each dimension, a power of ten, (latent_dim,)."""
        width = np.maximum(np.ptp(self._extremes, axis=0), 1e-6)
        return np.asarray(10.0 ** (np.floor(np.log10(width)) - 2))

    @functools.cached_property
    def _extremes(self) -> NDArray[np.float64]:
        codes = np.concatenate([self.range.codes, self.range.prior_samples, self.codes]).astype("float64")
        return np.stack([codes.min(axis=0), codes.max(axis=0)])

    # ---- Planes ----

    @property
    def plane_kinds(self) -> tuple[str, ...]:
        """The kinds of planes to choose from."""
        return ("dimensions", "components") if len(self.codes) > 2 and self.latent_dim > 2 else ("dimensions",)

    def plane(self, kind: str = "dimensions", dims: tuple[int, int] | None = None) -> Plane:
        """Return a plane through the latent space.

        Args:
            kind: `"dimensions"`, or `"components"` for the first two principal components of the codes.
            dims: Two dimensions; None uses those of highest KL divergence.

        Raises:
            InputError: There is no such plane, or the latent space has one dimension.
        """
        if self.latent_dim < 2:
            raise InputError("latent_dim = 1: a plane needs two dimensions; decode single codes instead")
        if kind not in self.plane_kinds:
            raise unknown("kind", kind, self.plane_kinds)
        if kind == "components":
            return principal_plane(self.codes)
        return coordinate_plane(self.center, dims or self.top_dims)

    def default_view(self, plane: Plane) -> View:
        """Return the view of a plane that shows the codes of the images and, if it covers them, the prior."""
        codes, prior = (plane.points(codes) for codes in (self.range.codes, self.range.prior_samples))
        view = fit_view(np.concatenate([codes, prior]) if self.range.prior_fits else codes)
        return view if view.half > MIN_SIDE else fit_view(prior)

    def decode_grid(self, plane: Plane, view: View, label: int | None = None) -> Array:
        """Return images decoded from a grid over a view, row by row from the top left, (grid_size², H, W, C)."""
        return self.engine.decode(plane.codes(view.cell_centers(self.grid_size)), label)

    def plane_through(self, code: Array, label: int | None = None) -> tuple[Plane, Array]:
        """Return the plane of the two top dimensions through a code, and a small grid of images decoded from it.

        Args:
            code: (latent_dim,).
            label: The label to condition on, if the model is conditional.
        """
        plane = coordinate_plane(code, self.top_dims)
        points = self.default_view(plane).cell_centers(self._small_grid_size)
        return plane, self.engine.decode(plane.codes(points), label)
