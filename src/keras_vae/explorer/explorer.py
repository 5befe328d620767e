"""The content of the page about a trained model, as arrays."""

import contextlib
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.progress import Progress
from keras_vae.core.typing import Array, ImageShape
from keras_vae.data.labels import class_index
from keras_vae.explorer.analyzer import ImageAnalyzer
from keras_vae.explorer.engine import Engine
from keras_vae.explorer.latent_space import LatentSpace, grid_sizes
from keras_vae.explorer.run_report import RunReport
from keras_vae.explorer.sampler import PAGE_SIZE, Sampler, TrainingImages
from keras_vae.report.latent_grid import interpolate
from keras_vae.runs.image_sources import ImageSources, load_sources
from keras_vae.runs.loading import load_scoring_model
from keras_vae.runs.run import Run

NUM_INTERPOLATED = 11
"""Number of images of an interpolation, both ends included."""


class Explorer:
    """A run's model and images, and the content of each tab, computed from them.

    Args:
        run: The run.
        progress: Shows the progress of loading images.

    Attributes:
        sources: The available images of the run.
        engine: The compiled model.
        sampler: Draws samples from the priors.
        analyzer: Encodes, reconstructs and scores images.
        scores_original_prior: Whether scores use the original prior, because the fitted one has no direct log-density.
        report: The run's report with the doctor's findings.

    Raises:
        InputError: The run has no model yet, or its model is conditioned on something other than a label.

    Example:
        >>> explorer = Explorer(Run.open("mnist-2d"))
        >>> explorer.sampler.sample(4, seed=0).shape
        (4, 28, 28, 1)
    """

    def __init__(self, run: Run, progress: Progress | None = None) -> None:
        self.run = run
        model = run.load_model()
        if model.condition is not None and model.condition.num_classes is None:
            raise InputError(
                f"run = {run.path}: its model is conditioned on {model.condition}; the explorer supports labels only"
            )
        self.sources: ImageSources = load_sources(run, progress)
        height, width, channels = run.environment["data"]["image_shape"]
        self.image_shape: ImageShape = (height, width, channels)
        self.engine = Engine(model, sorted({1, PAGE_SIZE, *(size**2 for size in grid_sizes(self.image_shape))}))
        self.sampler = Sampler(run, self.engine, len(self.classes))
        self.scores_original_prior = run.has_fitted_prior and model.density != "direct"
        scoring = self.engine
        if self.scores_original_prior:
            scoring = Engine(load_scoring_model(run)[0], self.engine.batch_sizes)
        self.analyzer = ImageAnalyzer(scoring, self.sources.reference, has_code=self.has_lines)
        self.report = RunReport(run, self.engine, self.sources.splits)

    # ---- Capabilities of the model ----

    @property
    def has_vector(self) -> bool:
        """Whether a code is one vector, so that single dimensions can be varied."""
        return self.engine.model.has_latent_vector

    @property
    def has_plane(self) -> bool:
        """Whether the latent space has at least two dimensions to show as a plane."""
        return self.has_vector and self.engine.model.latent_dim > 1

    @property
    def has_lines(self) -> bool:
        """Whether codes are continuous, so that the model can interpolate between two codes."""
        return self.engine.model.has_continuous_codes

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels that the model is conditioned on; empty without a condition."""
        condition = self.engine.model.condition
        return () if condition is None else condition.class_names

    def label_index(self, name: str | int | None) -> int | None:
        """Return the class number of a label given by name or number; None without a condition.

        Args:
            name: The name or number, as in `data.labels.class_index`; None uses the first class.

        Raises:
            InputError: There is no such label.
        """
        if not self.classes:
            return None
        return 0 if name is None else class_index(self.classes, name)

    # ---- Content of the tabs ----

    @functools.cached_property
    def latent_space(self) -> LatentSpace:
        """The latent space of the model.

        Raises:
            InputError: The model's code is not one vector.
        """
        if not self.has_vector:
            kind = type(self.engine.model).__name__
            raise InputError(
                f"model = {kind}: its code is not one vector, so there is no latent map; use a VAE with a latent vector"
            )
        return LatentSpace(
            self.engine,
            self.sources.examples,
            self.run.evaluation,
            image_shape=self.image_shape,
            default_label=self.label_index(None),
        )

    @functools.cached_property
    def neighbors(self) -> TrainingImages | None:
        """The training images to search for nearest neighbors; None if they are not available."""
        splits = self.sources.splits
        return None if splits is None else TrainingImages(splits.train.images)

    def decode(self, code: Any, label: int | None = None) -> Array:
        """Return the mean image of one code, (H, W, C), in [0, 1].

        Raises:
            InputError: The code has the wrong length, or its numbers are not finite.
        """
        code, latent_dim = np.asarray(code, "float32"), self.engine.model.latent_dim
        if code.shape != (latent_dim,):
            raise InputError(f"code = array of shape {code.shape}: wrong length; pass {latent_dim} numbers")
        if not np.isfinite(code).all():
            raise InputError(f"code = {code.tolist()}: not finite; pass {latent_dim} finite numbers")
        return self.engine.decode(code[None], label)[0]

    def interpolate(
        self, first: NDArray[np.uint8], second: NDArray[np.uint8], *, spherical: bool = False, label: int | None = None
    ) -> Array:
        """Return images decoded from codes between those of two images, (NUM_INTERPOLATED, H, W, C), in [0, 1].

        Args:
            first: (H, W, C).
            second: (H, W, C).
            spherical: Interpolates along the great circle around the mean of the codes, instead of the straight line.
            label: The label to encode and decode with, if the model is conditional.

        Raises:
            InputError: The model's code is discrete.
        """
        start, end = self._codes(first, second, label=label)
        origin = self.latent_space.range.mean if self.has_vector else None
        codes = interpolate(start, end, NUM_INTERPOLATED, spherical=spherical, origin=origin)
        return self.engine.decode(codes, label)

    def arithmetic(
        self, a: NDArray[np.uint8], b: NDArray[np.uint8], c: NDArray[np.uint8], *, label: int | None = None
    ) -> Array:
        """Return images decoded from a + t (b − c) of the codes of three images, for t from 0 to 1.

        The last one is the image of a + b − c (Mikolov et al., arXiv 1301.3781; Radford et al., arXiv 1511.06434).

        Args:
            a: (H, W, C).
            b: (H, W, C).
            c: (H, W, C).
            label: The label to encode and decode with, if the model is conditional.

        Returns:
            (NUM_INTERPOLATED, H, W, C), in [0, 1].

        Raises:
            InputError: The model's code is discrete.
        """
        start, added, subtracted = self._codes(a, b, c, label=label)
        return self.engine.decode(interpolate(start, start + added - subtracted, NUM_INTERPOLATED), label)

    def _codes(self, *images: NDArray[np.uint8], label: int | None) -> list[Any]:
        """Return the code of each image.

        Raises:
            InputError: The model's code is discrete.
        """
        if not self.has_lines:
            kind = type(self.engine.model).__name__
            raise InputError(f"model = {kind}: its code is discrete; use a model with continuous codes")
        return [self.engine.encode(image[None], label)[0] for image in images]

    def choices(self, page: int = 0) -> tuple[Array, str]:
        """Return at most PAGE_SIZE random images to choose from, (N, H, W, C), and a description of them.

        These are held-out images if any are available, else training images, else samples.

        Args:
            page: Fixes the random choice.
        """
        examples = self.sources.examples
        if examples is None:
            return np.rint(self.sampler.sample(PAGE_SIZE, page) * 255).astype("uint8"), "samples from the prior"
        chosen = np.random.default_rng(page).permutation(len(examples))[:PAGE_SIZE]
        return examples.images[chosen], f"{examples.split} images"

    # ---- Preparation ----

    def warm_up(self) -> None:
        """Compile every function that an event calls, so that no event has to wait for it."""
        blank, label = np.zeros(self.image_shape, "uint8"), self.label_index(None)
        if self.has_lines:
            for size in self.engine.batch_sizes if self.has_vector else (1, PAGE_SIZE):
                self.engine.decode(np.zeros((size, self.engine.model.latent_dim), "float32"), label)
            self.interpolate(blank, blank, label=label)
        if self.has_vector:
            self.engine.sample_code(0, 1.0, label)
        self.analyzer.analyze(blank, label)
        for prior in self.sampler.priors:
            images = self.sampler.sample(PAGE_SIZE, 0, prior=prior)
            if self.neighbors is not None:
                self.neighbors.nearest(images)

    def prepare(self) -> None:
        """Score the reference images and write the report, which takes seconds."""
        self.analyzer.score_reference()
        # The tab Report shows the error when it is opened.
        with contextlib.suppress(InputError):
            _ = self.report.html
