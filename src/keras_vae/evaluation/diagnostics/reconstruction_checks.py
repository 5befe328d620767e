"""Checks of decoded images: whether they depend on the code and on the label, and whether they are copies."""

from keras_vae.evaluation.diagnostics.finding import Finding
from keras_vae.evaluation.diagnostics.run_diagnostics import RunDiagnostics
from keras_vae.evaluation.diagnostics.thresholds import CONDITION_SHARE, IDENTICAL_SHARE
from keras_vae.evaluation.diagnostics.training_checks import loss_plateau


def identical_reconstructions(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a decoder that ignores its code: reconstructions of different images look the same."""
    share = diagnostics.reconstruction_share
    if share is None or share >= IDENTICAL_SHARE or not diagnostics.is_settled or diagnostics.has_collapsed:
        return None
    # A model that has learned nothing has codes, but random ones.
    if loss_plateau(diagnostics) is not None:
        return None
    training = diagnostics.experiment.training
    under, every = ("", "") if diagnostics.condition_share is None else (" under one label", " of a label")
    return Finding(
        "identical reconstructions",
        f"Codes differ from image to image, but the images decoded from them{under} hardly do: their variance is "
        f"{share:.1%} of the variance of the images.",
        f"The decoder ignores the code and returns almost the same image for all codes{every}; so do samples.",
        f"Lower training.learning_rate (now {training.learning_rate:g}), so that fewer units of the decoder die; or "
        f"train for longer than training.epochs = {training.epochs}.",
    )


def ignored_condition(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a conditional model whose images do not depend on the condition."""
    share = diagnostics.condition_share
    if share is None or share >= CONDITION_SHARE or not diagnostics.is_settled:
        return None
    latent_dim = diagnostics.experiment.model.latent_dim
    reduce = f"Reduce model.latent_dim (now {latent_dim}), or raise" if latent_dim else "Raise"
    return Finding(
        "ignored condition",
        "Exchanging the labels of the images changes their reconstructions by only "
        f"{share:.2%} of the variance of the images.",
        "The decoder ignores the label: an image generated for a label shows any class.",
        f"{reduce} model.objective.beta (now {diagnostics.beta:g}), so that the code cannot carry the label as well.",
    )


def copied_images(diagnostics: RunDiagnostics) -> Finding | None:
    """Find samples that the evaluation suspects to be copies of training images."""
    memorization = (diagnostics.evaluation.get("samples") or {}).get("memorization") or {}
    if not memorization.get("copying_suspected"):
        return None
    return Finding(
        "copied training images",
        f"{memorization['share_of_near_copies']:.0%} of the samples are nearer to a training image than 99% of the "
        f"held-out images are, and by the three-sample test z is {memorization['three_sample_z']:.1f}.",
        "The model reproduces training images instead of generating new ones.",
        'Set training.keep = "best" or training.weight_decay = 1e-4, reduce model.network, or use more images.',
    )
