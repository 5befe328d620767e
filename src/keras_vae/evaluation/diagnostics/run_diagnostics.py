"""The facts that the checks read, collected from a run, its images and its model."""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops
from numpy.typing import NDArray

from keras_vae.components.likelihoods import bounded_log_scale
from keras_vae.components.schedules import is_fraction
from keras_vae.core.progress import Progress, silent
from keras_vae.data.dataset import Dataset, Splits
from keras_vae.evaluation.diagnostics.curves import Trend, fit_trend, recent_improvement
from keras_vae.evaluation.diagnostics.thresholds import (
    COLLAPSED_KL,
    CONSTANT_KL,
    IDENTICAL_SHARE,
    INACTIVE_KL,
    MIN_EPOCHS,
    MIN_EXCHANGED,
    PLATEAU_IMPROVEMENT,
    REMAINING_LOSS,
    REMAINING_NOISE,
    REMAINING_SHARE,
)
from keras_vae.evaluation.latents import ACTIVE_VARIANCE
from keras_vae.models.inputs import dataset_condition
from keras_vae.models.latent_maps import flat_codes
from keras_vae.runs.experiment import Experiment
from keras_vae.runs.files import Metrics
from keras_vae.runs.run import Run

if TYPE_CHECKING:
    from keras_vae.models.base import BaseVAE

Numbers = NDArray[Any]

IMAGES = 1000
"""Default number of images of each split to check."""

DECODED_IMAGES = 256
"""Number of images to reconstruct: enough for a variance, and quick for large images."""


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
        reconstruction_share: Variance over images of the reconstructions, summed over pixels, divided by that of the
            images. All codes of a conditional model are decoded under the same condition.
        condition_share: Squared change of the reconstructions when images exchange their conditions, divided by twice
            the variance of the images. None for an unconditional model.
        outputs_are_finite: Whether all codes and reconstructions are finite.
        pixel_scale: The learned σ of a normal or Laplace likelihood.
        beta_factor: The factor that the schedule currently applies to β.
        has_fitted_prior: Whether a prior was fitted to the codes after training.
        code_counts: How often blocks of images, training and held out, use each code of a VQ-VAE, (blocks, num_codes).
        discriminator_epochs: Number of epochs since the start of an adversarial loss.
        evaluation: The content of `evaluation.json` for these weights, if any. It was measured on more images.
    """

    experiment: Experiment = field(default_factory=Experiment)
    metrics: Metrics = field(default_factory=dict)
    train_images: Numbers | None = None
    held_out_images: Numbers | None = None
    kl_per_group: Numbers | None = None
    z: Numbers | None = None
    z_mean: Numbers | None = None
    z_log_var: Numbers | None = None
    reconstruction_share: float | None = None
    condition_share: float | None = None
    outputs_are_finite: bool = True
    pixel_scale: float | None = None
    beta_factor: float = 1.0
    has_fitted_prior: bool = False
    code_counts: Numbers | None = None
    discriminator_epochs: int = 0
    evaluation: Mapping[str, Any] = field(default_factory=dict)

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

    @functools.cached_property
    def unused(self) -> Numbers | None:
        """Whether each latent dimension, or each group of a hierarchy, is unused, (D,) or (G,).

        A dimension is unused if its posterior mean does not vary over images, whatever its KL; see `active_units`. The
        means of a group also vary with the groups above it, so a group is unused if its KL is 0 or does not vary.
        """
        measured = (self.evaluation.get("latents") or {}).get("active_units")
        if measured is not None:
            latent_dim = self.evaluation["latents"]["latent_dim"]
            return ~np.isin(np.arange(latent_dim), measured["dimensions"])
        if self.z_mean is not None:
            return np.asarray(self.z_mean.var(axis=0, dtype="float64") <= ACTIVE_VARIANCE)
        if self.kl_per_group is None:
            return None
        mean, deviation = self.kl_per_group.mean(axis=0), self.kl_per_group.std(axis=0)
        return np.asarray((mean < INACTIVE_KL) | (deviation < CONSTANT_KL * mean))

    @property
    def unused_kl(self) -> float:
        """The KL of the unused dimensions or groups in nats per image: the cost of an offset from the prior."""
        if self.unused is None or self.kl_per_group is None or self.kl_per_group.shape[1] != len(self.unused):
            return 0.0
        return float(self.kl_per_group[:, self.unused].sum(axis=1).mean())

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
        """Whether the codes carry no information.

        Codes whose variance is small, but whose reconstructions differ, are only expressed in a small unit.
        """
        if not self.is_settled or self.unused is None:
            return False
        is_small_scale = self.reconstruction_share is not None and self.reconstruction_share >= IDENTICAL_SHARE
        return bool(self.unused.all() and not is_small_scale) or (self.kl is not None and self.kl < COLLAPSED_KL)

    @property
    def unfinished_trend(self) -> Trend | None:
        """The trend of the loss if the training ended while the loss was still falling; else None."""
        losses = self.history(self.loss_name)
        trend = fit_trend(losses)
        if trend is None or len(losses) < self.experiment.training.epochs:
            return None
        smallest = max(REMAINING_SHARE * (losses[0] - losses[-1]), REMAINING_LOSS * abs(losses[-1]))
        is_falling = trend.slope > REMAINING_NOISE * trend.slope_error
        return trend if is_falling and trend.remaining >= smallest else None

    @property
    def loss_name(self) -> str:
        """The metric that compares epochs: the minimized loss, unless it changes while the model stays the same.

        A schedule changes its β, and a discriminator changes itself.
        """
        schedule = self.experiment.model.objective.get("schedule", {"name": "constant"})
        return "total_loss" if schedule["name"] == "constant" and not self.is_adversarial else "negative_elbo"

    @property
    def is_adversarial(self) -> bool:
        """Whether the model has an adversarial loss, which raises the negative ELBO on purpose."""
        return any(loss["name"] == "adversarial" for loss in self.experiment.model.image_losses)

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
        discriminator_epochs=_discriminator_epochs(run, len(splits.train)),
        evaluation=current_evaluation(run),
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
    decoded = _reconstructions(model, encoded.subsample_evenly(DECODED_IMAGES))
    is_finite = all(np.isfinite(values).all() for values in joined.values()) and decoded.pop("is_finite")
    return replace(
        diagnostics,
        **joined,
        **decoded,
        outputs_are_finite=is_finite,
        pixel_scale=_pixel_scale(model),
        beta_factor=_beta_factor(model),
        code_counts=_code_counts(model, splits, images),
    )


def current_evaluation(run: Run) -> Mapping[str, Any]:
    """Return the evaluation of a complete run; empty if there is none, or if it belongs to other weights."""
    evaluation = run.evaluation if run.is_complete else None
    if evaluation is None:
        return {}
    # The codes are the same under the original and under a fitted prior.
    current = [run.model_fingerprint(prior) for prior in (None, "original")]
    return evaluation if evaluation.get("model") in current else {}


def _discriminator_epochs(run: Run, train_images: int) -> int:
    """Return the number of complete epochs since the start of an adversarial loss; 0 without one."""
    training, completed = run.experiment.training, len(run.metrics.get("epoch", []))
    for loss in run.experiment.model.image_losses:
        if loss["name"] == "adversarial":
            start = loss["start"]
            steps_per_epoch = math.ceil(train_images / training.batch_size)
            epochs_before = start * training.epochs if is_fraction(start) else start / steps_per_epoch
            return max(0, completed - math.ceil(epochs_before))
    return 0


def _latents(model: "BaseVAE", images: Dataset, seed: int) -> dict[str, Numbers]:
    """Return the KL, posterior draws and posterior moments of a block of images, as far as the model has them."""
    condition = dataset_condition(model, images)
    latents: dict[str, Numbers] = {}
    if model.is_stochastic:
        latents["kl_per_group"] = model.elbo_terms(images.images, seed=seed, condition=condition).kl_per_group
    if model.has_latent_vector:
        moments = model.encode(images.images, condition=condition, seed=seed).flattened()
        latents["z"] = flat_codes(model.sample_posterior(images.images, seed=seed, condition=condition))
        latents["z_mean"] = moments.z_mean
        if model.is_stochastic:
            latents["z_log_var"] = moments.z_log_var
    return latents


def _code_counts(model: "BaseVAE", splits: Splits, images: int) -> Numbers | None:
    """Return how often training and held-out images use each code; None for a model without code vectors."""
    if model.num_codes is None:
        return None
    held_out = [] if splits.held_out is None else [splits.held_out]
    checked = [split.subsample_evenly(images) for split in (splits.train, *held_out)]
    return np.stack([model.count_codes(each.images, condition=dataset_condition(model, each)) for each in checked])


def _reconstructions(model: "BaseVAE", images: Dataset) -> dict[str, Any]:
    """Return whether reconstructions are finite, how much they differ, and how much they depend on the condition."""
    condition = dataset_condition(model, images)
    codes = model.encode(images.images, condition=condition).codes
    first = None if condition is None else np.repeat(condition[:1], len(codes), axis=0)
    under_one_condition = model.decode(codes, condition=first)
    if not np.isfinite(under_one_condition).all():
        return {"is_finite": False}
    variance = _total_variance(images.images / np.float32(255))
    if variance == 0:
        return {"is_finite": True}
    shares: dict[str, Any] = {
        "is_finite": True,
        "reconstruction_share": _total_variance(under_one_condition) / variance,
    }
    if condition is None:
        return shares
    exchanged = condition[np.random.default_rng(0).permutation(len(condition))]
    differs = (exchanged != condition).reshape(len(condition), -1).any(axis=1)
    if differs.mean() >= MIN_EXCHANGED:
        own, other = (model.decode(codes, condition=values) for values in (condition, exchanged))
        squared = np.square(np.subtract(own, other)).reshape(len(own), -1).sum(axis=1, dtype="float64")
        shares["condition_share"] = float(squared[differs].mean()) / (2 * variance)
    return shares


def _total_variance(images: Numbers) -> float:
    """Return the variance over images, summed over pixels."""
    return float(images.reshape(len(images), -1).var(axis=0, dtype="float64").sum())


def _pixel_scale(model: "BaseVAE") -> float | None:
    log_scale = getattr(model.likelihood, "log_scale", None)
    if log_scale is None:
        return None
    return float(np.exp(ops.convert_to_numpy(bounded_log_scale(ops.convert_to_tensor(log_scale)))))


def _beta_factor(model: "BaseVAE") -> float:
    schedule = getattr(model.objective, "schedule", None)
    # At the last completed step: a cyclical schedule may restart at the next one.
    return 1.0 if schedule is None else float(schedule(max(int(model.step) - 1, 0)))
