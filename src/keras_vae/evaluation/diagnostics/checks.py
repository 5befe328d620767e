"""All checks of a run, and the function that runs them."""

from keras_vae.evaluation.diagnostics.adversarial_checks import idle_discriminator, winning_discriminator
from keras_vae.evaluation.diagnostics.data_checks import held_out_images_differ, low_contrast, unsuitable_likelihood
from keras_vae.evaluation.diagnostics.finding import Check, Finding
from keras_vae.evaluation.diagnostics.latent_checks import (
    beta_too_large,
    codes_far_from_prior,
    collapsed_codebook,
    dead_codes,
    extreme_log_variance,
    posterior_collapse,
    unused_dimensions,
)
from keras_vae.evaluation.diagnostics.reconstruction_checks import (
    copied_images,
    identical_reconstructions,
    ignored_condition,
)
from keras_vae.evaluation.diagnostics.run_diagnostics import RunDiagnostics
from keras_vae.evaluation.diagnostics.training_checks import (
    collapsed_pixel_scale,
    loss_plateau,
    non_finite_gradients,
    overfitting,
    rising_loss,
    under_training,
)

CHECKS: tuple[Check, ...] = (
    low_contrast,
    held_out_images_differ,
    unsuitable_likelihood,
    non_finite_gradients,
    under_training,
    rising_loss,
    posterior_collapse,
    unused_dimensions,
    identical_reconstructions,
    ignored_condition,
    beta_too_large,
    extreme_log_variance,
    collapsed_pixel_scale,
    collapsed_codebook,
    dead_codes,
    loss_plateau,
    overfitting,
    winning_discriminator,
    idle_discriminator,
    codes_far_from_prior,
    copied_images,
)
"""Every check; problems that cause others come first."""


def run_checks(diagnostics: RunDiagnostics) -> tuple[Finding, ...]:
    """Return the findings of all checks.

    Args:
        diagnostics: The facts about the run.

    Example:
        >>> import numpy as np
        >>> black = np.zeros((4, 28, 28, 1), "uint8")
        >>> [finding.name for finding in run_checks(RunDiagnostics(train_images=black))]
        ['low contrast']
        >>> run_checks(RunDiagnostics())
        ()
    """
    return tuple(finding for check in CHECKS if (finding := check(diagnostics)) is not None)
