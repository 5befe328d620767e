"""What can be asked of a trained model, as arrays: each tab of the page is one of these questions."""

import contextlib
import functools
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError
from keras_vae.core.latent_grid import interpolate
from keras_vae.core.progress import Progress
from keras_vae.core.typing import Array, ImageShape
from keras_vae.data.dataset import Dataset
from keras_vae.evaluation.anomaly import Scorer, differences
from keras_vae.evaluation.diagnostics import INACTIVE_RATE, Evidence, Finding, diagnose, examine
from keras_vae.evaluation.samples import Neighbors
from keras_vae.explorer.engine import Engine
from keras_vae.explorer.material import Material, gather
from keras_vae.explorer.plane import Plane, View, around, coordinate_plane, principal_plane
from keras_vae.models.inputs import dataset_condition
from keras_vae.report import figures
from keras_vae.runs.run import Run

ON_MAP = 600
"""Images on the map at most."""

STEPS = 11
"""Images of a strip, both ends included."""

SAMPLES = 24
"""Samples of a page."""

_GRID_PIXELS, _GRID_SIDE = 640, 16
_THROUGH_SIDE = 7
_KNOWN_IMAGES = 500
_TURN = 0.01
"""Seconds in which the page is answered: who waits for a lock does not get it from one who takes it again at once."""

_DRAWS_FOR_REACH = 500
_TRAINING_VALUES = 60_000 * 28 * 28


class Placed(NamedTuple):
    """What a model makes of an image.

    Args:
        code: What stands for it; of a model whose code is not one vector, None.
        reconstruction: (H, W, C), in [0, 1].
        difference: |x − x̂|, the mean over channels, (H, W, 1).
        score: How it was judged: `"nll"`, `"negative_elbo"` or, of a model without a bound, `"reconstruction_loss"`.
        nats: That score.
        percentile: The share of known images that score at most as much, in percent; None where it is not known (yet).
    """

    code: Array | None
    reconstruction: Array
    difference: Array
    score: str
    nats: float
    percentile: float | None


class _Trained(NamedTuple):
    """Training images, ready to be searched.

    Args:
        images: All of them.
        chosen: Which are searched.
        rows: Those as rows in [0, 1].
        half_squares: Half the squared length of each row.
    """

    images: NDArray[np.uint8]
    chosen: NDArray[np.int64]
    rows: NDArray[np.float32]
    half_squares: NDArray[np.float32]


class Explorer:
    """A run, its model and its images, and the questions that the page puts to them.

    Args:
        run: The run.
        progress: Shown while images are loaded.

    Raises:
        InputError: The run holds no model yet, or its model is told something else than a label.

    Example:
        >>> from pathlib import Path
        >>> Explorer(Run.open(Path("runs/nowhere")))
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: no run at runs/nowhere: `vae train` makes one
    """

    def __init__(self, run: Run, progress: Progress | None = None) -> None:
        self.run = run
        model = run.load_model()
        if model.condition is not None and model.condition.num_classes is None:
            raise InputError(f"{run.path}: its model is told {model.condition}; the explorer knows labels alone")
        self.material: Material = gather(run, progress)
        height, width, channels = run.environment["data"]["image_shape"]
        self.image_shape: ImageShape = (height, width, channels)
        self.side = max(3, min(_GRID_SIDE, _GRID_PIXELS // max(height, width)))
        self._through_side = min(_THROUGH_SIDE, self.side)
        self.engine = Engine(model, sorted({1, SAMPLES, self._through_side**2, self.side**2}))
        self._measuring = threading.Lock()

    # ---- What there is ----

    @property
    def has_vector(self) -> bool:
        """Whether a code is one vector whose dimensions mean something by themselves."""
        return self.engine.model.has_latent_vector

    @property
    def has_plane(self) -> bool:
        """Whether there is a plane to look at."""
        return self.has_vector and self.engine.model.latent_dim > 1

    @property
    def has_lines(self) -> bool:
        """Whether there are codes between two codes."""
        return self.engine.model.has_continuous_codes

    @property
    def priors(self) -> tuple[str, ...]:
        """The priors to draw from."""
        return ("fitted", "original") if self.run.has_fitted_prior else ("original",)

    @functools.cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the labels that the model is told; none without a condition."""
        told = self.engine.model.condition
        if told is None:
            return ()
        names = self.run.environment["data"].get("class_names") or ()
        return tuple(names) if len(names) == told.width else tuple(map(str, range(told.width)))

    def label(self, name: str | int | None) -> int | None:
        """Return the number of a label by its name or number; None takes the first, where the model is told one.

        Raises:
            InputError: There is no such label.
        """
        if not self.classes:
            return None
        if name is None:
            return 0
        if str(name) in self.classes:
            return self.classes.index(str(name))
        if isinstance(name, int) and 0 <= name < len(self.classes):
            return name
        raise InputError(f"label = {name}: accepted are {', '.join(self.classes)}")

    @functools.cached_property
    def shown(self) -> Dataset | None:
        """The images on the map, evenly spaced over those at hand."""
        return None if self.material.shown is None else self.material.shown.subsample_evenly(ON_MAP)

    @functools.cached_property
    def codes(self) -> Array:
        """Posterior means of the images on the map, (N, latent_dim); none without images."""
        if self.shown is None or not self.has_vector:
            return np.zeros((0, self.engine.model.latent_dim), "float32")
        return self.engine.encode(self.shown.images, dataset_condition(self.engine.model, self.shown))

    @functools.cached_property
    def rates(self) -> NDArray[np.float64] | None:
        """The rate of each latent dimension in nats, as evaluated; None where it is not known by dimension."""
        measured = ((self.run.evaluation or {}).get("latents") or {}).get("rates")
        if not measured:
            return None
        rates = np.zeros(self.engine.model.latent_dim)
        for rate in measured:
            rates[rate["dimension"]] = rate["mean"]
        return rates

    @functools.cached_property
    def order(self) -> list[int]:
        """The latent dimensions, those that carry most first."""
        if self.rates is not None:
            return [int(dimension) for dimension in np.argsort(-self.rates, kind="stable")]
        spread = self.codes.var(axis=0) if len(self.codes) else np.zeros(self.engine.model.latent_dim)
        return [int(dimension) for dimension in np.argsort(-spread, kind="stable")]

    def is_active(self, dimension: int) -> bool:
        """Whether a latent dimension carries anything; where that is not known, it may."""
        return self.rates is None or bool(self.rates[dimension] >= INACTIVE_RATE)

    @functools.cached_property
    def middle(self) -> NDArray[np.float32]:
        """The code in the middle of the prior, (latent_dim,): of no noise; of a prior without such, of the images."""
        if self.engine.has_temperature:
            return np.asarray(self.engine.draw(0, 0.0, self.label(None)), "float32")
        latent_dim = self.engine.model.latent_dim
        return np.asarray(self.codes.mean(axis=0) if len(self.codes) else np.zeros(latent_dim), "float32")

    @functools.cached_property
    def reach(self) -> NDArray[np.float32]:
        """How far from zero each latent dimension goes, in the prior's draws and the images, and at least 4."""
        known = np.concatenate([self.engine.draws_of_prior(_DRAWS_FOR_REACH, self.label(None)), self.codes])
        return np.asarray(np.maximum(4, np.ceil(np.abs(known).max(axis=0))), "float32")

    # ---- The latent map ----

    @property
    def planes(self) -> tuple[str, ...]:
        """The kinds of planes to choose from."""
        return (
            ("dimensions", "components")
            if len(self.codes) > 2 and self.engine.model.latent_dim > 2
            else ("dimensions",)
        )

    def plane(self, kind: str = "dimensions", dims: tuple[int, int] | None = None) -> Plane:
        """Return a plane to look at.

        Args:
            kind: `"dimensions"`, or `"components"`: along which the codes vary most.
            dims: Two dimensions; None takes those that carry most.

        Raises:
            InputError: There is no such plane.
        """
        if not self.has_plane:
            raise InputError(f"a {type(self.engine.model).__name__} of this kind has no plane of codes to show")
        if kind not in self.planes:
            raise InputError(f"plane = {kind}: accepted are {', '.join(self.planes)}")
        if kind == "components":
            return principal_plane(self.codes)
        first, second = dims or sorted(self.order[:2])
        return coordinate_plane(self.middle, (first, second))

    def home(self, plane: Plane) -> View:
        """Return the view that shows the images on the map."""
        return around(plane.points(self.codes))

    def grid(self, plane: Plane, view: View, label: int | None = None) -> Array:
        """Return the images decoded from a grid over a view, row by row from the top left, (side², H, W, C)."""
        return self.engine.decode(plane.codes(view.lattice(self.side)), label)

    def through(self, code: Array, label: int | None = None) -> tuple[Plane, Array]:
        """Return the plane through a code of the two dimensions that carry most, and a grid of images decoded from it.

        Args:
            code: (latent_dim,).
            label: What they are decoded under.
        """
        first, second = sorted(self.order[:2])
        plane = coordinate_plane(code, (first, second))
        points = self.home(plane).lattice(self._through_side)
        return plane, self.engine.decode(plane.codes(points), label)

    # ---- The other questions ----

    def decode(self, code: Any, label: int | None = None) -> Array:
        """Return the mean image of one code, (H, W, C), in [0, 1].

        Raises:
            InputError: It has another length, or numbers that are not finite.
        """
        code = np.asarray(code, "float32")
        if code.shape != (self.engine.model.latent_dim,) or not np.isfinite(code).all():
            raise InputError(f"code of shape {code.shape}: pass {self.engine.model.latent_dim} finite numbers")
        return self.engine.decode(code[None], label)[0]

    def place(self, image: NDArray[np.uint8], label: int | None = None) -> Placed:
        """Return what the model makes of an image.

        Args:
            image: (H, W, C).
            label: What it is told.
        """
        images = image[None]
        code = self.engine.encode(images, label)[0] if self.has_lines else None
        if code is None:
            reconstruction = self.engine.reconstruct(images, label)[0]
        else:
            reconstruction = self.decode(code, label)
        scores = self.engine.score(images, label)
        has_bound = self.engine.model.has_bound
        name = "nll" if "nll" in scores else "negative_elbo" if has_bound else "reconstruction_loss"
        scorer = self._scorer
        return Placed(
            code,
            reconstruction,
            differences(images, reconstruction[None])[0],
            name,
            float(scores[name][0]),
            None if scorer is None else float(scorer.percentile(name, scores[name])[0]),
        )

    _scorer: Scorer | None = None

    def prepare(self) -> None:
        """Do what takes seconds, the first time that it is asked for: `learn_what_is_known`, and the report."""
        self.learn_what_is_known()
        # Who opens the report is told what is wrong with it.
        with contextlib.suppress(InputError):
            _ = self.report

    def learn_what_is_known(self) -> None:
        """Score known images, with which `place` then compares others; takes seconds, the first time."""
        known = self.material.known
        with self._measuring:
            if known is None or self._scorer is not None:
                return
            few = known.subsample_evenly(_KNOWN_IMAGES)
            told, draws = dataset_condition(self.engine.model, few), self.engine.draws
            blocks = np.array_split(np.arange(len(few)), -(-len(few) // 4))
            scores = []
            for block in blocks:
                scores.append(self.engine.score(few.images[block], None if told is None else told[block]))
                time.sleep(_TURN)
            joined = {name: np.concatenate([part[name] for part in scores]) for name in scores[0]}
            self._scorer = Scorer(self.engine.model, draws, 0, joined)

    def between(
        self, first: NDArray[np.uint8], second: NDArray[np.uint8], *, spherical: bool = False, label: int | None = None
    ) -> Array:
        """Return the images on the way from one image to another, (STEPS, H, W, C), in [0, 1].

        Args:
            first: (H, W, C).
            second: (H, W, C).
            spherical: On the great circle between the codes instead of the line.
            label: What they are encoded and decoded under.

        Raises:
            InputError: There is nothing between codes of this model.
        """
        if not self.has_lines:
            raise InputError(f"a {type(self.engine.model).__name__} has no codes between two codes")
        start, end = (self.engine.encode(image[None], label)[0] for image in (first, second))
        return self.engine.decode(interpolate(start, end, STEPS, spherical=spherical), label)

    def sample(self, count: int, seed: int, *, prior: str | None = None, label: int | None = None) -> Array:
        """Return mean images of draws from the prior, (count, H, W, C).

        Args:
            count: How many.
            seed: Fixes the draw.
            prior: `"original"` or `"fitted"`; None takes the fitted one, where there is one.
            label: What they are drawn under; None takes the labels in turn.

        Raises:
            InputError: There is no such prior.
        """
        if prior not in (None, *self.priors):
            raise InputError(f"prior = {prior}: accepted are {', '.join(self.priors)}")
        engine = self.engine
        if prior == "original" and self.run.has_fitted_prior:
            engine = self._original
        told = np.arange(count) % len(self.classes) if self.classes and label is None else label
        return engine.sample(count, seed, told)

    @functools.cached_property
    def _original(self) -> Engine:
        return Engine(self.run.load_model("original"), self.engine.sizes)

    @functools.cached_property
    def _trained(self) -> _Trained | None:
        """Training images to search; of very many, some evenly spaced; None where they are not at hand."""
        if self.material.splits is None:
            return None
        images = self.material.splits.train.images
        count = min(len(images), max(1, _TRAINING_VALUES // images[0].size))
        chosen = np.linspace(0, len(images) - 1, count).round().astype("int64")
        rows = images[chosen].reshape(count, -1).astype("float32") / 255
        return _Trained(images, chosen, rows, np.einsum("ij,ij->i", rows, rows) / 2)

    @property
    def training_images(self) -> tuple[int, int]:
        """How many training images samples are compared with, and how many there are."""
        return (0, 0) if self._trained is None else (len(self._trained.chosen), len(self._trained.images))

    def neighbors(self, images: Array) -> tuple[Array, Neighbors] | None:
        """Return the nearest training image of each image, and which and how far; None without training images.

        As `evaluation.samples.nearest` does, but with all that does not depend on the images computed once: a page of
        samples is not to wait.

        Args:
            images: (N, H, W, C), in [0, 1].
        """
        trained = self._trained
        if trained is None:
            return None
        rows = np.asarray(images, "float32").reshape(len(images), -1)
        # |a − b|² is least where a·b − |b|²/2 is greatest.
        found = (rows @ trained.rows.T - trained.half_squares).argmax(axis=1)
        distances = np.linalg.norm(rows - trained.rows[found], axis=1).astype("float64")
        indices = trained.chosen[found]
        return trained.images[indices], Neighbors(indices, distances)

    def picks(self, page: int = 0) -> tuple[Array, str]:
        """Return images to pick from, (SAMPLES, H, W, C), and what they are: held-out ones, else samples.

        Args:
            page: Another number is another choice.
        """
        images = self.material.shown
        if images is None:
            return np.rint(self.sample(SAMPLES, page) * 255).astype("uint8"), "samples from the prior"
        generator = np.random.default_rng(page)
        chosen = generator.permutation(len(images))[:SAMPLES]
        return images.images[chosen], f"{images.split} images"

    @functools.cached_property
    def findings(self) -> tuple[Finding, ...]:
        """What the doctor says; without images, of the training alone."""
        if self.material.splits is None:
            run = self.run
            evidence = Evidence(experiment=run.experiment, metrics=run.metrics, has_fitted_prior=run.has_fitted_prior)
            return examine(evidence)
        with Engine.lock:
            model = self.run.load_model("original") if self.run.has_fitted_prior else self.engine.model

        def in_turns(blocks: Iterable[Any], _: str) -> Iterator[Any]:
            for block in blocks:
                with Engine.lock:
                    yield block
                time.sleep(_TURN)

        return diagnose(self.run, self.material.splits, model, in_turns)

    @functools.cached_property
    def report(self) -> str:
        """The run's report with its curves, as one self-contained page."""
        from keras_vae.report import plots
        from keras_vae.report.html import render

        drawn = {}
        with contextlib.ExitStack() as stack:
            if self.run.metrics:
                folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                subject = plots.Subject(self.run, self.engine.model)
                drawn = {kind: plots.draw(subject, kind, folder / f"{kind}.png") for kind in plots.OF_METRICS}
            return render(
                title=self.run.name,
                summary=self.run.experiment.description,
                experiment_toml=self.run.experiment.to_toml(),
                environment=self.run.environment,
                metrics=self.run.metrics,
                evaluation=self.run.evaluation,
                figures=drawn,
                findings=self.findings,
            )

    def animate(self, images: Array) -> bytes:
        """Return a strip of images as a GIF that runs there and back."""
        strips = figures.Strips(images[None], [""], np.linspace(0, 1, len(images)).tolist(), "", "")
        with tempfile.TemporaryDirectory() as folder:
            return figures.save_animation(strips, Path(folder) / "between.gif").read_bytes()

    def warm_up(self) -> None:
        """Compile everything that an event calls, so that the first one waits for nothing."""
        blank = np.zeros(self.image_shape, "uint8")
        if self.has_lines:
            for size in self.engine.sizes if self.has_vector else (1, SAMPLES):
                self.engine.decode(np.zeros((size, self.engine.model.latent_dim), "float32"), self.label(None))
            self.between(blank, blank, label=self.label(None))
        if self.has_vector:
            self.engine.draw(0, 1.0, self.label(None))
        self.place(blank, self.label(None))
        for prior in self.priors:
            self.neighbors(self.sample(SAMPLES, 0, prior=prior))
