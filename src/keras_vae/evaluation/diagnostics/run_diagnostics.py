"""The facts that the checks read, collected from a run, its images and its model."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.components.likelihoods import bounded_log_scale
from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation.latents import ACTIVE_VARIANCE
from keras_vae.models.inputs import dataset_condition
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.files import Metrics
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

Numbers = NDArray[Any]

INACTIVE_KL = 0.01
"""KL in nats below which a latent dimension, or a group of a hierarchy, is unused; used ones have 0.2 to 2."""

COLLAPSED_KL = 0.1
"""KL in nats per image below which a code carries no information; a choice
between two equally likely kinds of images takes 0.69 nats."""

MIN_EPOCHS = 5
"""Number of epochs after which a rise or a plateau of the loss is no longer due to chance."""

PLATEAU_IMPROVEMENT = 0.01
"""Relative improvement of the loss below which it has reached a plateau."""

IMAGES = 1000
"""Default number of images of each split to check."""


@dataclass(frozen=True, eq=False)
class RunDiagnostics:
    """Facts about a run. A check that needs a missing fact finds nothing.

    Args:
        experiment: The resolved experiment.
        metrics: The columns of `metrics.csv`.
        train_images: Training images, uint8, (N, H, W, C).
        held_out_images: Images that were not trained on, uint8, (N, H, W, C).
        kl_per_group: KL(q(z|x) ‖ p(z)) in nats, (N, G), per latent dimension or per group of a hierarchy. None if the
            posterior has no density.
        z: One posterior draw per image, (N, D).
        z_mean: Means of q(z|x), (N, D).
        z_log_var: Log-variances of q(z|x), (N, D).
        pixel_scale: The learned σ of a normal or Laplace likelihood.
        beta_factor: The factor that the schedule currently applies to β.
        has_fitted_prior: Whether a prior was fitted to the codes after training.
    """

    experiment: Experiment = field(default_factory=Experiment)
    metrics: Metrics = field(default_factory=dict)
    train_images: Numbers | None = None
    held_out_images: Numbers | None = None
    kl_per_group: Numbers | None = None
    z: Numbers | None = None
    z_mean: Numbers | None = None
    z_log_var: Numbers | None = None
    pixel_scale: float | None = None
    beta_factor: float = 1.0
    has_fitted_prior: bool = False

    @property
    def beta(self) -> float:
        """The weight β of the KL; 1 for objectives other than the ELBO, whose `beta` weights another term."""
        objective = self.experiment.model.objective
        return float(objective.get("beta", 1.0)) if objective.get("name", "elbo") == "elbo" else 1.0

    @property
    def kl(self) -> float | None:
        """The mean of KL(q(z|x) ‖ p(z)), in nats per image."""
        return None if self.kl_per_group is None else float(self.kl_per_group.sum(axis=1).mean())

    @property
    def unit(self) -> str:
        """The name of the units that a code consists of."""
        return "group" if self.experiment.model.architecture["name"] == "ladder" else "latent dimension"

    @property
    def unused(self) -> Numbers | None:
        """Whether each latent dimension, or each group of a hierarchy, is unused, (D,) or (G,)."""
        if self.kl_per_group is not None and (self.kl_per_group.shape[1] > 1 or self.z_mean is None):
            return np.asarray(self.kl_per_group.mean(axis=0) < INACTIVE_KL)
        return None if self.z_mean is None else np.asarray(self.z_mean.var(axis=0) < ACTIVE_VARIANCE)

    @property
    def is_settled(self) -> bool:
        """Whether the latents can be judged: β is at its full value, and the training is over or on a plateau.

        Before that, latents that stay unused for ten epochs, or lie far from the prior, are normal.
        """
        losses = self.history(self.loss_name)
        if self.beta_factor < 1 or not losses or len(losses) >= self.experiment.training.epochs:
            return self.beta_factor == 1
        if len(losses) <= MIN_EPOCHS:
            return False
        return recent_improvement(losses, MIN_EPOCHS) < PLATEAU_IMPROVEMENT * abs(losses[-1])

    @property
    def has_collapsed(self) -> bool:
        """Whether the codes carry no information."""
        if not self.is_settled or self.unused is None:
            return False
        return bool(self.unused.all()) or (self.kl is not None and self.kl < COLLAPSED_KL)

    @property
    def loss_name(self) -> str:
        """The metric that compares epochs: the minimized loss, unless a schedule changes its β from step to step."""
        schedule = self.experiment.model.objective.get("schedule", {"name": "constant"})
        return "total_loss" if schedule["name"] == "constant" else "negative_elbo"

    def history(self, name: str) -> list[float]:
        """Return a metric per epoch: on validation images if any, else on training images."""
        return self.metrics.get(f"val_{name}") or self.metrics.get(name, [])


def collect_diagnostics(
    run: Run, splits: Splits, model: "BaseVAE | None", *, images: int = IMAGES, progress: Progress = silent
) -> RunDiagnostics:
    """Return the facts about a run that the checks read.

    Args:
        run: The run.
        splits: The images of the run.
        model: The model of the run, or None to check only images and metrics.
        images: Number of images of each split to check. Codes are those of held-out images, if any.
        progress: Shows the progress over the images.
    """
    held_out = splits.held_out
    diagnostics = RunDiagnostics(
        experiment=run.experiment,
        metrics=run.metrics,
        train_images=splits.train.subsample_evenly(images).images,
        held_out_images=None if held_out is None else held_out.subsample_evenly(images).images,
        has_fitted_prior=run.has_fitted_prior,
    )
    if model is None:
        return diagnostics
    encoded = (held_out or splits.train).subsample_evenly(images)
    blocks = np.array_split(np.arange(len(encoded)), -(-len(encoded) // 256))
    latents = [
        _latents(model, encoded.subset(block, encoded.split), seed)
        for seed, block in enumerate(progress(blocks, "encoding images"))
    ]
    joined: dict[str, Any] = {name: np.concatenate([block[name] for block in latents]) for name in latents[0]}
    return replace(diagnostics, **joined, pixel_scale=_pixel_scale(model), beta_factor=_beta_factor(model))


def recent_improvement(losses: Sequence[float], span: int) -> float:
    """Return the improvement of the best of the last `span` epochs over the epoch before them."""
    return losses[-span - 1] - min(losses[-span:])


def _latents(model: "BaseVAE", images: Dataset, seed: int) -> dict[str, Numbers]:
    """Return the KL, posterior draws and posterior moments of a block of images, as far as the model has them."""
    condition = dataset_condition(model, images)
    latents: dict[str, Numbers] = {}
    if model.is_stochastic:
        latents["kl_per_group"] = model.elbo_terms(images.images, seed=seed, condition=condition).kl_per_group
    if model.has_latent_vector:
        moments = model.encode(images.images, condition=condition, seed=seed)
        latents["z"] = model.sample_posterior(images.images, seed=seed, condition=condition)
        latents["z_mean"] = moments.z_mean
        if model.is_stochastic:
            latents["z_log_var"] = moments.z_log_var
    return latents


def _pixel_scale(model: "BaseVAE") -> float | None:
    log_scale = getattr(model.likelihood, "log_scale", None)
    if log_scale is None:
        return None
    return float(np.exp(ops.convert_to_numpy(bounded_log_scale(ops.convert_to_tensor(log_scale)))))


def _beta_factor(model: "BaseVAE") -> float:
    schedule = getattr(model.objective, "schedule", None)
    # At the last completed step: a cyclical schedule may restart at the next one.
    return 1.0 if schedule is None else float(schedule(max(int(model.step) - 1, 0)))
