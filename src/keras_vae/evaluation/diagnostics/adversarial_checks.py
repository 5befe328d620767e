"""Checks of a discriminator: whether it wins against the model, or does not learn."""

import numpy as np

from keras_vae.evaluation.diagnostics.finding import Finding
from keras_vae.evaluation.diagnostics.run_diagnostics import RunDiagnostics
from keras_vae.evaluation.diagnostics.thresholds import (
    DISCRIMINATOR_EPOCHS,
    EQUAL_OUTPUTS,
    PERFECT_ACCURACY,
    SATURATED_LOSS,
    STUCK_LOSS,
)


def winning_discriminator(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a discriminator that separates all reconstructions from images."""
    recent = _recent_means(diagnostics)
    if recent is None or recent["accuracy"] < PERFECT_ACCURACY or recent["loss"] > SATURATED_LOSS:
        return None
    return Finding(
        "winning discriminator",
        f"The discriminator recognizes {recent['accuracy']:.1%} of the patches, with a loss of {recent['loss']:.3f} "
        f"and mean outputs of {recent['real']:.1f} for images and {recent['fake']:.1f} for reconstructions.",
        "Its outputs are beyond the margins of the hinge loss, so that it learns nothing more, and the model cannot "
        "follow: its reconstructions get artifacts instead of details.",
        "Start it later (start of the adversarial loss in model.image_losses), give it fewer or smaller widths, or "
        "enlarge the decoder.",
    )


def idle_discriminator(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a discriminator that does not separate reconstructions from images at all."""
    recent = _recent_means(diagnostics)
    if recent is None or recent["loss"] < STUCK_LOSS or abs(recent["real"] - recent["fake"]) > EQUAL_OUTPUTS:
        return None
    return Finding(
        "idle discriminator",
        f"The loss of the discriminator is {recent['loss']:.2f}, close to the 2 of outputs of 0; its mean outputs are "
        f"{recent['real']:.2f} for images and {recent['fake']:.2f} for reconstructions.",
        "It has learned nothing, so that its gradient makes reconstructions no sharper, only noisier.",
        "Give it more or larger widths (the adversarial loss in model.image_losses) or an earlier start, or raise "
        f"training.learning_rate (now {diagnostics.experiment.training.learning_rate:g}).",
    )


def _recent_means(diagnostics: RunDiagnostics) -> dict[str, float] | None:
    """Return the means of the discriminator's metrics over the last epochs; None before it was trained for as many."""
    if diagnostics.discriminator_epochs < DISCRIMINATOR_EPOCHS:
        return None
    names = ("loss", "accuracy", "real", "fake")
    columns = {name: diagnostics.metrics.get(f"discriminator_{name}", []) for name in names}
    if not all(columns.values()):
        return None
    return {name: float(np.mean(values[-DISCRIMINATOR_EPOCHS:])) for name, values in columns.items()}
