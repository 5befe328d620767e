"""The evaluation of a run: stage by stage, each a section of `evaluation.json`."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keras_vae.core.errors import InputError, unknown
from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Splits
from keras_vae.evaluation.likelihood import measure_likelihood
from keras_vae.runs.run import SCHEMA, Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

SAMPLES = 1000
"""K, the draws of an image by which −log p(x) is estimated."""

GENERATED = 10_000
"""How many images are generated to be compared with real ones."""


@dataclass(frozen=True)
class Request:
    """What is asked of an evaluation.

    Args:
        samples: K, the draws of an image by which −log p(x) is estimated.
        generated: How many images are generated to be compared with real ones.
        scored: Whether those are mean images, or draws of pixels from the likelihood.
        features: What images are compared by, `"classifier"`, `"random"` or `"inception"`; None takes the classifier
            where there are labels.
        seed: Fixes every draw.

    Raises:
        InputError: A number is too small.
    """

    samples: int = SAMPLES
    generated: int = GENERATED
    scored: Literal["means", "draws"] = "means"
    features: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse numbers from which nothing can be measured."""
        if self.samples < 1:
            raise InputError(f"samples = {self.samples}: −log p(x) is estimated from at least one draw an image")
        if self.generated < 2:
            raise InputError(f"generated = {self.generated}: compare at least two images")


@dataclass(frozen=True)
class Subject:
    """What a stage measures.

    Args:
        model: The model.
        splits: The images it was trained on, and those held out.
        request: How it is measured.
        progress: Shown over long work.
        partial: A file for what is measured so far.
    """

    model: "BaseVAE"
    splits: Splits
    request: Request
    progress: Progress
    partial: Path | None


def _likelihood(subject: Subject) -> dict[str, Any]:
    request = subject.request
    return measure_likelihood(
        subject.model,
        subject.splits,
        seed=request.seed,
        samples=request.samples,
        progress=subject.progress,
        partial=subject.partial,
    )


def _latents(subject: Subject) -> dict[str, Any]:
    from keras_vae.evaluation.latents import measure_latents

    return measure_latents(subject.model, subject.splits, seed=subject.request.seed, progress=subject.progress)


def _samples(subject: Subject) -> dict[str, Any]:
    from keras_vae.evaluation.samples import measure_samples

    request = subject.request
    return measure_samples(
        subject.model,
        subject.splits,
        n=request.generated,
        features=request.features,
        scored=request.scored,
        seed=request.seed,
        progress=subject.progress,
    )


def _disentanglement(subject: Subject) -> dict[str, Any]:
    from keras_vae.evaluation.disentanglement import measure_disentanglement

    return measure_disentanglement(subject.model, subject.splits, seed=subject.request.seed, progress=subject.progress)


STAGES: dict[str, Callable[[Subject], dict[str, Any]]] = {
    "likelihood": _likelihood,
    "latents": _latents,
    "samples": _samples,
    "disentanglement": _disentanglement,
}
"""The stages by name, in the order in which they are measured."""


def applicable(model: "BaseVAE", splits: Splits) -> tuple[str, ...]:
    """Return the stages that make sense for a model and its images, those that are measured unless others are named."""
    has_vector, has_factors = model.has_latent_vector, splits.train.factors is not None
    wanted = {"likelihood": True, "latents": has_vector, "samples": True, "disentanglement": has_vector and has_factors}
    return tuple(stage for stage in STAGES if wanted[stage])


def evaluate(
    run: Run,
    splits: Splits,
    *,
    only: Sequence[str] = (),
    request: Request | None = None,
    prior: str | None = None,
    model: "BaseVAE | None" = None,
    on: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Measure a run stage by stage and write what was found into `evaluation.json` after each of them.

    An evaluation that is interrupted goes on where it was when the same is asked for again.

    Args:
        run: A complete run; of one that comes with the package, its copy is written into.
        splits: Its images; or other ones in the place of the test images.
        only: The stages to measure, keys of `STAGES`; all that apply where none is named. Others keep their numbers,
            as long as those are of the same weights.
        request: How to measure.
        prior: `"original"` or `"fitted"`; None takes the fitted prior where there is one.
        model: The run's model, where the caller has it already.
        on: The name of other images than the run's own; their numbers go to a file of their own.
        progress: Shown over long work.

    Returns:
        The content of the file.

    Raises:
        InputError: The run is unfinished, a stage is unknown, or it cannot be measured on this model or these images.
    """
    for stage in only:
        if stage not in STAGES:
            raise unknown("stage", stage, STAGES)
    run.check_complete()
    run = run.writable_copy()
    request = request or Request(seed=run.experiment.seed)
    model = model or run.load_model(prior)
    measured = run.model_fingerprint(prior)
    checksum = (splits.held_out or splits.train).checksum
    key = {"schema": SCHEMA, "model": measured, **({} if on is None else {"checksum": checksum})}
    evaluation = run.read_evaluation(on) or {}
    if any(evaluation.get(name) != value for name, value in key.items()):
        evaluation = {}
    from keras_vae.core import backend

    evaluation |= {**key, "measured_with": backend.describe_software()}
    asked = f"{measured['checksum']} {checksum} {request.samples} {request.seed}"
    partial = run.path / f".likelihood.{hashlib.sha256(asked.encode()).hexdigest()[:16]}.npy"
    subject = Subject(model, splits, request, progress, partial)
    stages = tuple(only) or applicable(model, splits)
    for stage in stages:
        evaluation[stage] = STAGES[stage](subject)
        run.write_evaluation(evaluation, on)
    # What other stages ask for leaves an interrupted likelihood to go on later.
    if "likelihood" in stages:
        partial.unlink(missing_ok=True)
    return evaluation
