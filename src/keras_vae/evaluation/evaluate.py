"""The evaluation of a run in stages, each a section of `evaluation.json`."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from keras_vae.core.blocks import BlockFolder
from keras_vae.core.errors import InputError, require_list, unknown
from keras_vae.core.parts import Part
from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation.per_image import CHECKSUM, StageResult, load_per_image, stored, values_checksum
from keras_vae.runs.evaluation_file import SCHEMA, Evaluation
from keras_vae.runs.files import evaluation_name
from keras_vae.runs.loading import given_or_own_splits
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

SAMPLES = 1000
"""K, the number of draws of z per image for the importance-weighted estimate of −log p(x)."""

NUM_GENERATED = 10_000
"""Number of generated images that are compared with real ones."""


@dataclass(frozen=True)
class EvaluationConfig:
    """Settings of an evaluation.

    Args:
        samples: K, the number of draws of z per image for the importance-weighted estimate of −log p(x); 0 measures
            only the terms of the ELBO.
        proposal: The distribution of these draws: `"mixture"`, `"posterior"` or `"ais"`; see
            `BaseVAE.log_likelihood`. None uses the default of the model.
        num_generated: Number of generated images that are compared with real ones.
        images: Compare mean images (`"means"`), or draws of pixels from the likelihood (`"draws"`).
        features: The features by which images are compared: `"classifier"`, `"random"` or `"inception"`. None uses the
            classifier if there are labels, otherwise random features.
        seed: Fixes the draws; None uses the seed of the run.

    Raises:
        InputError: A number is too small.

    Example:
        >>> EvaluationConfig(samples=100).num_generated
        10000
    """

    samples: int = SAMPLES
    proposal: Literal["mixture", "posterior", "ais"] | None = None
    num_generated: int = NUM_GENERATED
    images: Literal["means", "draws"] = "means"
    features: Literal["classifier", "random", "inception"] | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Reject numbers that are too small."""
        if self.samples < 0:
            raise InputError(f"samples = {self.samples}: negative; use at least 1, or 0 to measure only the ELBO")
        if self.num_generated < 2:
            raise InputError(f"num_generated = {self.num_generated}: too few images to compare; use at least 2")


@dataclass(frozen=True)
class EvaluationContext:
    """The inputs of a stage.

    Args:
        model: The model.
        splits: The images that it was trained on, and those held out.
        config: The settings.
        seed: Fixes the draws.
        progress: Shows the progress of long work.
        folder: A folder for intermediate estimates of −log p(x).
        force: Whether to discard parts that were measured with other settings.
    """

    model: "BaseVAE"
    splits: Splits
    config: EvaluationConfig
    seed: int
    progress: Progress
    folder: BlockFolder
    force: bool


def _likelihood(context: EvaluationContext) -> StageResult:
    from keras_vae.evaluation.likelihood import measure_likelihood

    return measure_likelihood(
        context.model,
        context.splits,
        seed=context.seed,
        samples=context.config.samples,
        proposal=context.config.proposal,
        progress=context.progress,
        folder=context.folder,
        force=context.force,
    )


def _latents(context: EvaluationContext) -> StageResult:
    from keras_vae.evaluation.latents import measure_latents

    return measure_latents(context.model, context.splits, seed=context.seed, progress=context.progress)


def _samples(context: EvaluationContext) -> StageResult:
    from keras_vae.evaluation.samples import measure_samples

    config = context.config
    section = measure_samples(
        context.model,
        context.splits,
        n=config.num_generated,
        features=config.features,
        scored=config.images,
        seed=context.seed,
        progress=context.progress,
    )
    return StageResult(section)


def _image_quality(context: EvaluationContext) -> StageResult:
    from keras_vae.evaluation.image_quality import measure_image_quality

    return measure_image_quality(
        context.model,
        context.splits,
        seed=context.seed,
        features=context.config.features,
        progress=context.progress,
    )


def _disentanglement(context: EvaluationContext) -> StageResult:
    from keras_vae.evaluation.disentanglement import measure_disentanglement

    return StageResult(
        measure_disentanglement(context.model, context.splits, seed=context.seed, progress=context.progress)
    )


STAGES: dict[str, Callable[[EvaluationContext], StageResult]] = {
    "likelihood": _likelihood,
    "latents": _latents,
    "samples": _samples,
    "image-quality": _image_quality,
    "disentanglement": _disentanglement,
}
"""The stages by name, in order."""


def available_stages(model: "BaseVAE", splits: Splits) -> tuple[str, ...]:
    """Return the stages that a model and its images allow: the default of `evaluate`."""
    has_vector, has_factors = model.has_latent_vector, splits.train.factors is not None
    has_density = has_log_prior(model)
    allowed = {
        "likelihood": has_density,
        "latents": has_vector and has_density,
        "samples": splits.are_complete,
        "image-quality": splits.are_complete,
        "disentanglement": has_vector and has_factors,
    }
    return tuple(stage for stage in STAGES if allowed.get(stage, True))


def section_name(stage: str) -> str:
    """Return the name of the section of `evaluation.json` that a stage writes.

    Example:
        >>> section_name("image-quality")
        'image_quality'
    """
    return stage.replace("-", "_")


def has_log_prior(model: "BaseVAE") -> bool:
    """Return whether log p(z) is known, on which the stages `likelihood` and `latents` depend."""
    return model.density != "none"


def evaluate(
    run: Run | str | Path,
    splits: Splits | None = None,
    config: EvaluationConfig | None = None,
    *,
    stages: Sequence[str] = (),
    prior: str | None = None,
    model: "BaseVAE | None" = None,
    on: str | None = None,
    part: Part | tuple[int, int] | str | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate a run stage by stage, and write `evaluation.json` after each stage.

    An interrupted evaluation with the same settings resumes. Independent processes, also on several machines, can
    divide the estimate of −log p(x) among them: each passes a `part`. The call without a part, with the same settings,
    then merges these estimates, which are bit for bit those of one process, and measures everything else.

    Args:
        run: A complete run, its folder, or the name of a pretrained run, which is copied before writing.
        splits: Its images, or other images in place of the test images; None loads those of the run.
        config: The settings.
        stages: The stages to measure; by default all available ones. Other stages keep the numbers measured with
            the same weights.
        prior: `"original"` or `"fitted"`; None prefers the fitted prior.
        model: The run's model, if already loaded.
        on: A name for images that are not the run's own; their numbers are written to `evaluation-NAME.json`.
        part: `(3, 8)` or `"3/8"` for the third of eight parts of the images; None for everything.
        force: Whether to discard parts that were measured with other settings.
        progress: Shows the progress of long work.

    Returns:
        The content of the file, a dictionary; it is empty for a part.

    Raises:
        InputError: The run is unfinished, a stage is unknown or not available for this model or these images, there is
            no such part, or existing parts have other settings.
        RunError: Parts are missing, or another process measures this part or writes to the run.

    Example:
        >>> evaluate("runs/digits", config=EvaluationConfig(samples=100), stages=["likelihood"])  # doctest: +SKIP
    """
    _check_stages(stages)
    run = Run.open(run)
    run.require_complete()
    chosen = _check_part(part, stages)
    splits = given_or_own_splits(run, splits, progress)
    run, config = run.writable_copy(), config or EvaluationConfig()
    # The processes that measure parts write to the run at the same time, but each to files of its own.
    with run.lock() if chosen is None else contextlib.nullcontext():
        seed = run.experiment.seed if config.seed is None else config.seed
        model = model or run.load_model(prior)
        folder = likelihood_folder(run, splits, config, prior=prior, model=model, on=on)
        context = EvaluationContext(model, splits, config, seed, progress, folder, force)
        if chosen is None:
            return _evaluate(run, context, stages or available_stages(model, splits), prior, on)
        _measure_part(context, chosen)
    return Evaluation()


def _evaluate(
    run: Run, context: EvaluationContext, stages: Sequence[str], prior: str | None, on: str | None
) -> Evaluation:
    """Evaluate a run that is locked, and return the content of `evaluation.json`."""
    measures_parts = "likelihood" in stages and context.config.samples > 0
    if measures_parts:
        context.folder.check(force=context.force)
    fingerprint, checksum = run.model_fingerprint(prior), _measured(context.splits).checksum
    key = {"schema": SCHEMA, "model": fingerprint, **({} if on is None else {"checksum": checksum})}
    evaluation = _continued_evaluation(run, on, key, context.config)
    per_image = load_per_image(run, evaluation, on)
    for stage in stages:
        result, section = STAGES[stage](context), section_name(stage)
        evaluation[section], per_image[section] = result.section, stored(result.per_image)
        if result.per_image:
            evaluation[section][CHECKSUM] = values_checksum(fingerprint, result.section, per_image[section])
        run.write_evaluation(evaluation, on, per_image)
    # If the likelihood was not measured now, an interrupted measurement can still resume later.
    if measures_parts:
        context.folder.remove()
    return evaluation


def _measure_part(context: EvaluationContext, part: Part) -> None:
    """Measure the likelihood of a part of the images."""
    from keras_vae.evaluation.likelihood import measure_likelihood_part

    measure_likelihood_part(
        context.model,
        context.splits,
        part,
        context.folder,
        seed=context.seed,
        samples=context.config.samples,
        proposal=context.config.proposal,
        progress=context.progress,
        force=context.force,
    )


def likelihood_folder(
    run: Run,
    splits: Splits,
    config: EvaluationConfig,
    *,
    prior: str | None,
    model: "BaseVAE",
    on: str | None,
) -> BlockFolder:
    """Return the folder for intermediate estimates of −log p(x); arguments as for `evaluate`."""
    from keras_vae.core import backend
    from keras_vae.evaluation.likelihood import estimates_nll
    from keras_vae.models.proposals import choose_proposal

    is_weighted = estimates_nll(model, config.samples)
    key = {
        "model": run.model_fingerprint(prior),
        "images": _measured(splits).checksum,
        "proposal": choose_proposal(model, config.proposal).name if is_weighted else config.proposal,
        "samples": config.samples,
        "seed": run.experiment.seed if config.seed is None else config.seed,
        "backend": backend.name(),
    }
    return BlockFolder(run.path / evaluation_name(on), key, argument="run")


def _measured(splits: Splits) -> Dataset:
    return splits.held_out or splits.train


def _check_part(part: Part | tuple[int, int] | str | None, stages: Sequence[str]) -> Part | None:
    """Return a part, and reject stages that need all images at once."""
    chosen = Part.of(part)
    others = [stage for stage in stages if stage != "likelihood"]
    if chosen is not None and others:
        raise InputError(
            f"part = {chosen}: the stage {others[0]} needs all images at once; leave it out, and measure it without a "
            "part after all parts"
        )
    return chosen


def _check_stages(stages: Sequence[str]) -> None:
    """Reject unknown stages."""
    require_list("stages", stages)
    for stage in stages:
        if stage not in STAGES:
            raise unknown("stage", stage, STAGES)


def _continued_evaluation(run: Run, on: str | None, key: dict[str, Any], config: EvaluationConfig) -> Evaluation:
    """Return the existing evaluation of the same weights and images, if any, and record the current software."""
    from keras_vae.core import backend

    evaluation = run.read_evaluation(on) or Evaluation()
    if any(evaluation.get(name) != value for name, value in key.items()):
        evaluation = Evaluation()
    software = backend.describe_software()
    # environment.json already records the software of the quick evaluation that follows training.
    is_recorded = config.samples == 0 and software.items() <= run.environment.items()
    if "measured_with" in evaluation or not is_recorded:
        return Evaluation({**evaluation, **key, "measured_with": software})
    return Evaluation({**evaluation, **key})
