"""Checks of the training: numerical failures, its length, plateaus and rises of the loss, and overfitting."""

import math

import numpy as np

from keras_vae.evaluation.descriptions import format_number
from keras_vae.evaluation.diagnostics.curves import moving_average, recent_improvement
from keras_vae.evaluation.diagnostics.finding import Finding
from keras_vae.evaluation.diagnostics.run_diagnostics import RunDiagnostics
from keras_vae.evaluation.diagnostics.thresholds import (
    FINEST_SCALE,
    LOST_SHARE,
    MEAN_IMAGE_SHARE,
    MIN_EPOCHS,
    OVERFITTING_NOISE,
    OVERFITTING_RISE,
    PLATEAU_IMPROVEMENT,
)


def non_finite_gradients(diagnostics: RunDiagnostics) -> Finding | None:
    """Find skipped training steps, and metrics, codes or reconstructions that are NaN or infinite."""
    skipped = (diagnostics.metrics.get("skipped") or [0.0])[-1]
    broken = [name for name, values in diagnostics.metrics.items() if not np.isfinite(values).all()]
    if not diagnostics.outputs_are_finite:
        broken.append("the codes or reconstructions of some images")
    if not (skipped or broken):
        return None
    training = diagnostics.experiment.training
    suggestion = f"Lower training.learning_rate (now {training.learning_rate:g})"
    if not training.clip_norm:
        suggestion += "; set training.clip_norm = 100"
    if training.precision != "float32":
        suggestion += f"; set training.precision = float32 (now {training.precision})"
    return Finding(
        "non-finite gradients",
        f"NaN or infinite values in {', '.join(broken)}."
        if broken
        else f"The gradients of {skipped:.0f} steps were NaN or infinite; these steps were skipped.",
        "The computation overflows. Skipping steps hides the overflow but does not remove its cause.",
        suggestion + ".",
    )


def under_training(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a training that ended while the loss was still falling."""
    trend = diagnostics.unfinished_trend
    if trend is None:
        return None
    losses = diagnostics.history(diagnostics.loss_name)
    return Finding(
        "under-training",
        f"{diagnostics.loss_name} was still falling when the training ended: from {losses[-trend.span]:.1f} to "
        f"{losses[-1]:.1f} nats in the last {trend.span} of {trend.epochs} epochs, {format_number(trend.slope)} nats "
        "per epoch.",
        "The model has not learned what it can: extrapolated, the loss would fall by about "
        f"{format_number(trend.remaining)} more nats. Other findings may disappear with more training.",
        "Train a new run for longer: `vae train RUN/experiment.toml --set "
        f"training.epochs={trend.suggested_epochs}` (now training.epochs = {trend.epochs}).",
    )


def rising_loss(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a training that ended far above its best epoch, on training and validation images alike."""
    name, metrics = diagnostics.loss_name, diagnostics.metrics
    curves = [metrics[prefix + name] for prefix in ("", "val_") if metrics.get(prefix + name)]
    if diagnostics.experiment.training.keep == "best" or diagnostics.is_adversarial:
        return None
    if not curves or not np.isfinite(np.concatenate(curves)).all():
        return None
    for losses in curves:
        rise, best = losses[-1] - min(losses), min(losses)
        if rise < max(LOST_SHARE * (losses[0] - best), OVERFITTING_RISE * abs(best)) or rise <= 0:
            return None
    losses = curves[-1]
    best = int(np.argmin(losses))
    epoch = int(metrics["epoch"][best]) if "epoch" in metrics else best + 1
    return Finding(
        "rising loss",
        f"{name} rose from {losses[best]:.1f} nats in epoch {epoch} to {losses[-1]:.1f} nats in epoch "
        f"{epoch + len(losses) - 1 - best}, on training images as well.",
        "The training became unstable, and the run keeps the weights of its last epoch, not of its best.",
        'Set training.keep = "best", and lower training.learning_rate '
        f"(now {diagnostics.experiment.training.learning_rate:g}).",
    )


def collapsed_pixel_scale(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a density of pixels that is narrower than the distance between two gray levels."""
    name = diagnostics.experiment.model.likelihood["name"]
    if name not in ("normal", "laplace"):
        return None
    losses, images = diagnostics.history("reconstruction_loss"), diagnostics.train_images
    loss_per_pixel = losses[-1] / math.prod(images.shape[1:]) if losses and images is not None else 0.0
    if diagnostics.pixel_scale is not None and diagnostics.pixel_scale < FINEST_SCALE:
        observation = (
            f"The learned σ of a pixel is {diagnostics.pixel_scale:.4f}, but gray levels are {FINEST_SCALE:.4f} apart."
        )
    elif loss_per_pixel < math.log(FINEST_SCALE):
        observation = (
            f"The reconstruction loss is {loss_per_pixel:.2f} nats per pixel, below {-math.log(255):.2f}, the least "
            "that gray levels allow."
        )
    else:
        return None
    return Finding(
        "collapsed pixel scale",
        observation,
        "The density grows without bound around pixels that never change: the loss falls, but images do not improve.",
        f"Set model.likelihood.scale = 0.1, or model.likelihood = discretized-logistic (now {name}).",
    )


def loss_plateau(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a loss that reaches a plateau before the model has learned anything."""
    losses = diagnostics.history(diagnostics.loss_name)
    if len(losses) <= MIN_EPOCHS:
        return None
    span = max(MIN_EPOCHS, len(losses) // 3)
    recent, total = recent_improvement(losses, span), losses[0] - min(losses)
    mean_image_cost = _mean_image_cost(diagnostics)
    if mean_image_cost is None:
        is_stuck = total < PLATEAU_IMPROVEMENT * abs(losses[0])
        baseline = f"It started at {losses[0]:.1f}."
    else:
        is_stuck = losses[-1] >= MEAN_IMAGE_SHARE * mean_image_cost
        baseline = f"Always predicting the mean image costs {mean_image_cost:.1f}."
    if not is_stuck or recent >= PLATEAU_IMPROVEMENT * abs(losses[-1]):
        return None
    return Finding(
        "loss plateau",
        f"{diagnostics.loss_name} is {losses[-1]:.1f} nats after {len(losses)} epochs, {max(recent, 0.0):.1f} less "
        f"than {span} epochs earlier. {baseline}",
        "The model has learned almost nothing about individual images, and more epochs will not help.",
        f"Divide training.learning_rate (now {diagnostics.experiment.training.learning_rate:g}) by 10; if nothing "
        "changes, multiply the present value by 10"
        + (f"; also lower model.objective.beta (now {diagnostics.beta:g})." if diagnostics.beta > 1 else "."),
    )


def overfitting(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a validation loss that rises while the training loss falls."""
    name, metrics = diagnostics.loss_name, diagnostics.metrics
    validation, train = (moving_average(metrics.get(prefix + name, [])) for prefix in ("val_", ""))
    if diagnostics.experiment.training.keep == "best" or len(validation) == 0:
        return None
    best = int(np.argmin(validation))
    rise, fall = validation[-1] - validation[best], train[best] - train[-1]
    noise = float(np.std(np.diff(metrics["val_" + name][best + 1 :])))
    if len(validation) - 1 - best < MIN_EPOCHS or fall <= 0:
        return None
    if not rise >= max(OVERFITTING_RISE * abs(validation[best]), OVERFITTING_NOISE * noise):
        return None
    epoch = int(metrics["epoch"][best + 1]) if "epoch" in metrics else best + 2
    return Finding(
        "overfitting",
        f"Since epoch {epoch} the validation loss rose by {rise:.1f} nats to {validation[-1]:.1f}, while the training "
        f"loss fell by {fall:.1f} nats to {train[-1]:.1f}.",
        "The model memorizes its training images and gets worse on all others.",
        'Set training.keep = "best" to keep the weights of the best epoch, or training.early_stopping = 10 to stop '
        "there. Use training.weight_decay, a smaller model.network or more images to improve the best epoch itself.",
    )


def _mean_image_cost(diagnostics: RunDiagnostics) -> float | None:
    """Return the mean loss in nats of a Bernoulli likelihood that always predicts the mean image; else None."""
    likelihood, images = diagnostics.experiment.model.likelihood, diagnostics.train_images
    if images is None or likelihood["name"] != "bernoulli" or likelihood.get("binarize") == "threshold":
        return None
    mean = np.clip(images.mean(axis=0) / 255, 1e-7, 1 - 1e-7)
    return float(-(mean * np.log(mean) + (1 - mean) * np.log1p(-mean)).sum())
