"""What is known of a run, and how it is gathered from a model and its images."""

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
from keras_vae.runs.run import Metrics, Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

Numbers = NDArray[Any]

INACTIVE_RATE = 0.01
"""Nats below which a latent dimension, or a group of a hierarchy, says nothing; used ones say 0.2 to 2."""

COLLAPSED_RATE = 0.1
"""Nats a code below which it says nothing about its image: one of two equally likely kinds is 0.69 nats."""

LEAST_EPOCHS = 5
"""Before that many, a loss that rises or stands still may be chance."""

PLATEAU_GAIN = 0.01
"""Of the loss, below which the last epochs gained nothing."""

IMAGES = 1000
"""How many images of each split are looked at."""


@dataclass(frozen=True, eq=False)
class Evidence:
    """What is known of a run; the checks that need more find nothing.

    Args:
        experiment: What was asked for, resolved.
        metrics: The columns of `metrics.csv`.
        train: Training images, uint8, (N, H, W, C).
        held_out: Images that were not trained on, likewise.
        rates: KL(q(z|x) ‖ p(z)) in nats, (N, G): by latent dimension or by group of a hierarchy. None where the rate
            is no divergence.
        z: One draw of z an image, (N, D).
        z_mean: Means of q(z|x), (N, D).
        z_log_var: Logarithms of its variances, (N, D).
        pixel_scale: The learned σ of a normal or Laplace likelihood.
        beta_factor: The share of β that its schedule applies by now.
        has_fitted_prior: Whether a prior was fitted to the codes later.
    """

    experiment: Experiment = field(default_factory=Experiment)
    metrics: Metrics = field(default_factory=dict)
    train: Numbers | None = None
    held_out: Numbers | None = None
    rates: Numbers | None = None
    z: Numbers | None = None
    z_mean: Numbers | None = None
    z_log_var: Numbers | None = None
    pixel_scale: float | None = None
    beta_factor: float = 1.0
    has_fitted_prior: bool = False

    @property
    def beta(self) -> float:
        """The weight β of the rate; other objectives than the ELBO weigh other things by the name."""
        objective = self.experiment.model.objective
        return float(objective.get("beta", 1.0)) if objective.get("name", "elbo") == "elbo" else 1.0

    @property
    def rate(self) -> float | None:
        """The mean of KL(q(z|x) ‖ p(z)), in nats."""
        return None if self.rates is None else float(self.rates.sum(axis=1).mean())

    @property
    def unit(self) -> str:
        """What the code of an image is made of."""
        return "group" if self.experiment.model.architecture["name"] == "ladder" else "latent dimension"

    @property
    def unused(self) -> Numbers | None:
        """Which latent dimensions, or groups of a hierarchy, say nothing: booleans, (D,) or (G,)."""
        if self.rates is not None and (self.rates.shape[1] > 1 or self.z_mean is None):
            return np.asarray(self.rates.mean(axis=0) < INACTIVE_RATE)
        return None if self.z_mean is None else np.asarray(self.z_mean.var(axis=0) < ACTIVE_VARIANCE)

    @property
    def is_settled(self) -> bool:
        """Whether codes are as they will be: β at its full weight, and the training over, or its loss falling no more.

        On the way there, codes that say nothing for ten epochs are nothing unusual, nor codes that fly far off.
        """
        losses = self.column(self.loss)
        if self.beta_factor < 1 or not losses or len(losses) >= self.experiment.training.epochs:
            return self.beta_factor == 1
        return len(losses) > LEAST_EPOCHS and gain(losses, LEAST_EPOCHS) < PLATEAU_GAIN * abs(losses[-1])

    @property
    def has_collapsed(self) -> bool:
        """Whether the codes say nothing."""
        if not self.is_settled or self.unused is None:
            return False
        return bool(self.unused.all()) or (self.rate is not None and self.rate < COLLAPSED_RATE)

    @property
    def loss(self) -> str:
        """The column by which epochs compare: what is minimized, unless that changes with β from step to step."""
        schedule = self.experiment.model.objective.get("schedule", {"name": "constant"})
        return "total_loss" if schedule["name"] == "constant" else "negative_elbo"

    def column(self, name: str) -> list[float]:
        """Return one value an epoch, of validation images where there are any."""
        return self.metrics.get(f"val_{name}") or self.metrics.get(name, [])


def gather(
    run: Run, splits: Splits, model: "BaseVAE | None", *, images: int = IMAGES, progress: Progress = silent
) -> Evidence:
    """Return the evidence for every check.

    Args:
        run: The run.
        splits: Its images.
        model: Its model, or None to look at images and metrics alone.
        images: How many images of each split are looked at; codes are those of held-out images, where there are any.
        progress: Shown over the images.
    """
    others = splits.held_out
    evidence = Evidence(
        experiment=run.experiment,
        metrics=run.metrics,
        train=splits.train.subsample_evenly(images).images,
        held_out=None if others is None else others.subsample_evenly(images).images,
        has_fitted_prior=run.has_fitted_prior,
    )
    if model is None:
        return evidence
    looked_at = (others or splits.train).subsample_evenly(images)
    blocks = np.array_split(np.arange(len(looked_at)), -(-len(looked_at) // 256))
    codes = [
        _codes(model, looked_at.take(block, looked_at.split), seed)
        for seed, block in enumerate(progress(blocks, "looking at the codes"))
    ]
    joined: dict[str, Any] = {name: np.concatenate([block[name] for block in codes]) for name in codes[0]}
    return replace(evidence, **joined, pixel_scale=_pixel_scale(model), beta_factor=_beta_factor(model))


def _codes(model: "BaseVAE", images: Dataset, seed: int) -> dict[str, Numbers]:
    """Return rates, draws and moments of a block of images, of those that the model has."""
    told = dataset_condition(model, images)
    found: dict[str, Numbers] = {}
    if model.is_stochastic:
        found["rates"] = model.elbo_terms(images.images, seed=seed, condition=told).kl_per_group
    if model.has_latent_vector:
        moments = model.encode(images.images, condition=told, seed=seed)
        found |= {"z": model.sample_posterior(images.images, seed=seed, condition=told), "z_mean": moments.z_mean}
        if model.is_stochastic:
            found["z_log_var"] = moments.z_log_var
    return found


def _pixel_scale(model: "BaseVAE") -> float | None:
    log_scale = getattr(model.likelihood, "log_scale", None)
    if log_scale is None:
        return None
    return float(np.exp(ops.convert_to_numpy(bounded_log_scale(ops.convert_to_tensor(log_scale)))))


def _beta_factor(model: "BaseVAE") -> float:
    schedule = getattr(model.objective, "schedule", None)
    # At the step that was last made: a cycle may begin anew at the next.
    return 1.0 if schedule is None else float(schedule(max(int(model.step) - 1, 0)))


def gain(losses: Sequence[float], span: int) -> float:
    """Return by how much the best of the last `span` epochs is better than the one before them."""
    return losses[-span - 1] - min(losses[-span:])
