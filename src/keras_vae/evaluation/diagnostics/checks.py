"""The checks: each a function of `Evidence` alone, which without the evidence that it needs finds nothing."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from keras_vae.evaluation.diagnostics.evidence import (
    COLLAPSED_RATE,
    INACTIVE_RATE,
    LEAST_EPOCHS,
    PLATEAU_GAIN,
    Evidence,
    Numbers,
    gain,
)

UNUSED_SHARE = 0.75
"""Of the dimensions. With 50 of them on MNIST, 25 to 31 stay unused and nothing is wrong (Burda et al., table 1)."""

FEW_DIMENSIONS = 3
"""Up to so many, a space is small on purpose, and each of them should be used."""

LOG_VAR_LIMITS = (-15.0, 6.0)
"""Standard deviations of 6e-4, 5 short of where log-variances are clipped, and of 20; trained ones lie in [−10, 1]."""

LOG_VAR_SHARE = 0.01
"""Of the log-variances beyond the limits: one outlier is no fault."""

LEAST_CONTRAST = 26
"""Levels of 255, a tenth of the scale, that the pixels of all images must span. Divided by 255 twice they span one."""

BRIGHTNESS_GAP = 0.2
"""Of the scale, between the means of training and held-out images; those of random splits differ by less than 0.02."""

GRAY = (0.1, 0.9)
"""Where a pixel is neither black nor white."""

GRAY_SHARE = 0.25
"""Of the pixels. In MNIST 9 % are gray, in the digits of scikit-learn 13 %, in photographs most."""

FINEST_SCALE = 1 / 255
"""The step between two gray levels: a density that is narrower describes the rounding."""

OVERFIT_RISE = 0.01
"""Of the loss, which validation must rise by: published models that are worth telling apart differ by as much."""

NOISE_FACTOR = 3.0
"""And by so many standard deviations of its changes from epoch to epoch."""

NO_BETTER = 0.98
"""Of what the mean image costs, from which on a model is no better than it."""

DOMINATED_RATE = 1.0
"""Nats a code, below which β > 1 is to blame; a β-VAE of 10 dimensions on MNIST at β = 4 keeps over 5."""

FAR_FROM_PRIOR = 3.0
"""Nats from the prior to a normal with the codes' own moments; trained at β = 1, runs have 0.1 to 1.7."""

FAR_SHARE = 0.2
"""And that share of the rate, which grows with what codes say; β = 0.1 leaves a third to a half."""

LEAST_CODES = 100
"""Codes below which their moments say little."""


class Finding(NamedTuple):
    """Something that is wrong.

    Args:
        name: What it is called.
        seen: What was seen, in numbers.
        why: Why it matters.
        change: The setting to change.
    """

    name: str
    seen: str
    why: str
    change: str

    def __str__(self) -> str:
        """Return the finding as four lines."""
        return f"{self.name}\n  seen:   {self.seen}\n  why:    {self.why}\n  change: {self.change}"


Check = Callable[[Evidence], Finding | None]


def posterior_collapse(evidence: Evidence) -> Finding | None:
    """Find codes that say nothing about their images."""
    if not evidence.has_collapsed or evidence.unused is None:
        return None
    settings = evidence.experiment.model.objective
    change = (
        f"lower model.objective.beta (now {evidence.beta:g}) to 1 or below"
        if evidence.beta > 1
        else 'let β rise slowly, model.objective.schedule = { name = "warm-up", steps = 0.2 }, or give each dimension '
        "some rate for free, model.objective.free_bits = 0.1"
        if settings["name"] == "elbo"
        else "take model.objective = elbo, with a warm-up of β"
    )
    measured = (
        f"the rate is {evidence.rate:.2g} nats"
        if evidence.rate is not None
        else "the means of all codes are the same to a variance of "
        f"{0.0 if evidence.z_mean is None else evidence.z_mean.var(axis=0).max():.2g}"
    )
    return Finding(
        "posterior collapse",
        f"{measured} an image; {_named(evidence.unused, evidence.unit)}{_since(evidence)}",
        "the code says nothing about its image: reconstructions are all the same blur, and so are samples",
        change,
    )


def unused_dimensions(evidence: Evidence) -> Finding | None:
    """Find a latent space of which little is used."""
    unused = evidence.unused
    if unused is None or not evidence.is_settled or evidence.has_collapsed or len(unused) < 2:
        return None
    few = len(unused) <= FEW_DIMENSIONS
    if unused.mean() < (1 / len(unused) if few else UNUSED_SHARE):
        return None
    ladder = evidence.unit == "group"
    why = {
        ladder: "the hierarchy is shallower than it was made: a group that says nothing costs time alone",
        few and not ladder: "a map of these dimensions shows the same images along one of them",
    }
    return Finding(
        f"unused {evidence.unit}s",
        f"{_named(unused, evidence.unit)}; {len(unused) - unused.sum()} of {len(unused)} are used",
        why.get(True, "the model works with far fewer numbers an image than it was given"),
        'model.objective.schedule = { name = "warm-up", steps = 0.2 } or model.objective.free_bits = 0.1'
        + ("" if ladder or few else f"; or a smaller model.latent_dim (now {len(unused)})")
        + (f"; or lower model.objective.beta (now {evidence.beta:g})" if evidence.beta > 1 else ""),
    )


def extreme_log_variance(evidence: Evidence) -> Finding | None:
    """Find standard deviations of codes that run away, to nothing or without bound."""
    if evidence.z_log_var is None:
        return None
    low, high = LOG_VAR_LIMITS
    for beyond, reached, why, change in (
        (
            evidence.z_log_var > high,
            evidence.z_log_var.max(),
            "codes of that spread drown in their noise, and the loss soon becomes infinite",
            f"lower training.learning_rate (now {evidence.experiment.training.learning_rate:g}), or set "
            "training.clip_norm = 100",
        ),
        (
            evidence.z_log_var < low,
            evidence.z_log_var.min(),
            "without noise the model is a plain autoencoder: between the codes of its images it has learned nothing",
            f"raise model.objective.beta (now {evidence.beta:g}) toward 1"
            if evidence.beta < 1
            else "take a likelihood that expects less precision: a fixed scale, "
            'model.likelihood = { name = "normal", scale = 0.1 }',
        ),
    ):
        if beyond.mean() > LOG_VAR_SHARE:
            return Finding(
                "log-variance out of range",
                f"{beyond.mean():.0%} of the codes' log-variances lie beyond [{low:g}, {high:g}], as far as "
                f"{reached:.1f} (σ = {math.exp(reached / 2):.1g})",
                why,
                change,
            )
    return None


def no_contrast(evidence: Evidence) -> Finding | None:
    """Find pixels that hardly differ: of another range than 0 to 255."""
    if evidence.train is None:
        return None
    low, high = int(evidence.train.min()), int(evidence.train.max())
    if high - low >= LEAST_CONTRAST:
        return None
    return Finding(
        "no contrast",
        f"all pixels of the training images lie between level {low} and {high} of 255",
        "images that are all alike teach nothing; levels of 0 and 1, or images divided by 255 twice, look like this",
        "data.source: save the images as levels 0 to 255, or as floats from 0 to 1",
    )


def other_images_held_out(evidence: Evidence) -> Finding | None:
    """Find held-out images that are inverted, or else brighter or darker than training images."""
    if evidence.train is None or evidence.held_out is None:
        return None
    (train, error), (other, other_error) = (_brightness(part) for part in (evidence.train, evidence.held_out))
    gap = abs(train - other)
    if gap < max(BRIGHTNESS_GAP, NOISE_FACTOR * math.hypot(error, other_error)):
        return None
    inverted = abs(1 - train - other) < gap / 2
    return Finding(
        "inverted images" if inverted else "other images held out",
        f"the mean pixel is {train:.2f} in training images and {other:.2f} in held-out ones, from black 0 to white 1",
        "the model is judged on images unlike those that it learns from, so that every held-out number is meaningless",
        "data.source: "
        + (
            "one of the two parts is white on black and the other black on white; invert one of them"
            if inverted
            else "prepare both parts alike, or leave out the test part and let data.test hold images out at random"
        ),
    )


def unfit_likelihood(evidence: Evidence) -> Finding | None:
    """Find colors, or images full of gray, under a likelihood that knows black and white only."""
    likelihood = evidence.experiment.model.likelihood
    if evidence.train is None or likelihood["name"] != "bernoulli":
        return None
    colors = evidence.train.shape[-1] == 3
    gray = float(((evidence.train > GRAY[0] * 255) & (evidence.train < GRAY[1] * 255)).mean())
    if not colors and (gray < GRAY_SHARE or likelihood.get("binarize", "none") != "none"):
        return None
    return Finding(
        "likelihood unfit for the images",
        "the images have 3 channels"
        if colors
        else f"{gray:.0%} of the pixels are gray, between {GRAY[0]} and {GRAY[1]} of white",
        "a Bernoulli pixel is black or white: on other images its loss is no likelihood, and means come out flat",
        'model.likelihood = { name = "discretized-logistic", num_components = 5 }'
        if colors
        else "model.likelihood = continuous-bernoulli, or discretized-logistic",
    )


def collapsed_pixel_scale(evidence: Evidence) -> Finding | None:
    """Find a density of pixels that is narrower than the step between two gray levels."""
    name = evidence.experiment.model.likelihood["name"]
    if name not in ("normal", "laplace"):
        return None
    distortion = evidence.column("reconstruction_loss")
    each = distortion[-1] / math.prod(evidence.train.shape[1:]) if distortion and evidence.train is not None else 0.0
    if evidence.pixel_scale is not None and evidence.pixel_scale < FINEST_SCALE:
        seen = f"the learned σ of a pixel is {evidence.pixel_scale:.4f}, and gray levels lie {FINEST_SCALE:.4f} apart"
    elif each < math.log(FINEST_SCALE):
        seen = f"the distortion is {each:.2f} nats a pixel, and gray levels allow no less than {-math.log(255):.2f}"
    else:
        return None
    return Finding(
        "collapsed pixel scale",
        seen,
        "a density grows without bound around pixels that never change: the loss falls, and no image gets better",
        f"model.likelihood.scale = 0.1, or model.likelihood = discretized-logistic (now {name})",
    )


def overfitting(evidence: Evidence) -> Finding | None:
    """Find a validation loss that rises while the training loss falls."""
    name = evidence.loss
    validation, train = (_smoothed(evidence.metrics.get(prefix + name, [])) for prefix in ("val_", ""))
    if evidence.experiment.training.keep == "best" or len(validation) == 0:
        return None
    best = int(np.argmin(validation))
    rise, fall = validation[-1] - validation[best], train[best] - train[-1]
    noise = float(np.std(np.diff(evidence.metrics["val_" + name][best + 1 :])))
    if len(validation) - 1 - best < LEAST_EPOCHS or fall <= 0:
        return None
    if not rise >= max(OVERFIT_RISE * abs(validation[best]), NOISE_FACTOR * noise):
        return None
    epoch = int(evidence.metrics["epoch"][best + 1]) if "epoch" in evidence.metrics else best + 2
    return Finding(
        "over-fitting",
        f"since epoch {epoch} the loss of validation images rose by {rise:.1f} nats to {validation[-1]:.1f}, while "
        f"that of training images fell by {fall:.1f} to {train[-1]:.1f}",
        "the model learns its training images by heart, and gets worse on all others",
        'training.keep = "best" keeps the weights of the best epoch, training.early_stopping = 10 ends there; '
        "training.weight_decay, a smaller model.network or more images raise how far it gets",
    )


def beta_dominates(evidence: Evidence) -> Finding | None:
    """Find a weight of the rate that leaves codes nothing to say."""
    unused, rate = evidence.unused, evidence.rate
    if evidence.beta <= 1 or not evidence.is_settled or unused is None or rate is None:
        return None
    if rate >= DOMINATED_RATE and unused.mean() < UNUSED_SHARE:
        return None
    distortion = evidence.column("reconstruction_loss")
    beside = f", beside a distortion of {distortion[-1]:.1f}" if distortion else ""
    return Finding(
        "β dominates",
        f"β = {evidence.beta:g}, and the rate is {rate:.2g} nats an image{beside}",
        f"a nat that the code says must save {evidence.beta:g} nats of distortion, and little is worth that",
        f"lower model.objective.beta (now {evidence.beta:g}): halve it until the rate rises, down to 1",
    )


def plateau(evidence: Evidence) -> Finding | None:
    """Find a loss that stands still where nothing was learned."""
    losses = evidence.column(evidence.loss)
    if len(losses) <= LEAST_EPOCHS:
        return None
    span = max(LEAST_EPOCHS, len(losses) // 3)
    gained = gain(losses, span)
    blank = _cost_of_mean_image(evidence)
    gained_at_all = losses[0] - min(losses)
    stuck = gained_at_all < PLATEAU_GAIN * abs(losses[0]) if blank is None else losses[-1] >= NO_BETTER * blank
    if not stuck or gained >= PLATEAU_GAIN * abs(losses[-1]):
        return None
    rate = evidence.experiment.training.learning_rate
    beside = f"it began at {losses[0]:.1f}" if blank is None else f"showing the mean image every time costs {blank:.1f}"
    return Finding(
        "loss on a plateau",
        f"{evidence.loss} is {losses[-1]:.1f} nats after {len(losses)} epochs, {max(gained, 0.0):.1f} less than {span} "
        f"epochs before; {beside}",
        "the model has learned next to nothing about single images, and more epochs will not help",
        f"training.learning_rate (now {rate:g}): ten times less, and if nothing changes ten times more"
        + (f"; and a lower model.objective.beta (now {evidence.beta:g})" if evidence.beta > 1 else ""),
    )


def non_finite_gradients(evidence: Evidence) -> Finding | None:
    """Find steps that were left out, or numbers that are none."""
    skipped = (evidence.metrics.get("skipped") or [0.0])[-1]
    broken = [name for name, values in evidence.metrics.items() if not np.isfinite(values).all()]
    if not (skipped or broken):
        return None
    training = evidence.experiment.training
    return Finding(
        "non-finite gradients",
        f"{skipped:.0f} steps had gradients that are NaN or infinite, and were left out"
        if skipped
        else f"NaN or infinite values of {', '.join(broken)}",
        "somewhere numbers overflow; steps that are left out hide it, and the next may not be",
        f"lower training.learning_rate (now {training.learning_rate:g})"
        + ("" if training.clip_norm else "; training.clip_norm = 100")
        + ("" if training.precision == "float32" else f"; training.precision = float32 (now {training.precision})"),
    )


def codes_far_from_prior(evidence: Evidence) -> Finding | None:
    """Find codes that together do not look like draws from the prior."""
    z, prior = evidence.z, evidence.experiment.model.prior or {"name": "standard-normal"}
    if z is None or len(z) < LEAST_CODES or not evidence.is_settled:
        return None
    if evidence.has_fitted_prior or prior["name"] != "standard-normal":
        return None
    mean, variance = z.mean(axis=0, dtype="float64"), z.var(axis=0, dtype="float64")
    nats = 0.5 * (mean**2 + variance - 1 - np.log(np.maximum(variance, 1e-12)))
    if nats.sum() < max(FAR_FROM_PRIOR, FAR_SHARE * (evidence.rate or 0.0)):
        return None
    worst = int(np.argmax(nats))
    return Finding(
        "codes far from the prior",
        f"z[{worst}] of all images has mean {mean[worst]:.2f} and variance {variance[worst]:.2f}, the prior 0 and 1; "
        f"over {len(nats)} dimensions that is {nats.sum():.1f} nats",
        "samples will look bad: they are decoded from places where no image has its code",
        "`vae fit-prior RUN` fits a prior to the codes as they are"
        + (f"; or raise model.objective.beta (now {evidence.beta:g}) toward 1" if evidence.beta < 1 else ""),
    )


def collapsed_codebook(evidence: Evidence) -> Finding | None:
    """Find a codebook of which hardly any code is used."""
    codes = evidence.experiment.model.architecture.get("num_codes")
    perplexity, used = (evidence.column(name) for name in ("perplexity", "used_codes"))
    if not (codes and perplexity and used):
        return None
    # Of two codes used alike the perplexity is 2; black backgrounds alone bring it down to 3.
    if perplexity[-1] >= 2 and used[-1] >= codes / 10:
        return None
    return Finding(
        "collapsed codebook",
        f"{used[-1]:.0f} of {codes} codes are used in a batch, with a perplexity of {perplexity[-1]:.1f}",
        "so few codes tell few images apart: reconstructions become alike",
        f"lower training.learning_rate (now {evidence.experiment.training.learning_rate:g}), or lower "
        "model.architecture.decay to 0.9, so that codes follow the encoder sooner; or fewer model.architecture.codes "
        f"(now {codes})",
    )


CHECKS: tuple[Check, ...] = (
    no_contrast,
    other_images_held_out,
    unfit_likelihood,
    non_finite_gradients,
    posterior_collapse,
    unused_dimensions,
    beta_dominates,
    extreme_log_variance,
    collapsed_pixel_scale,
    collapsed_codebook,
    plateau,
    overfitting,
    codes_far_from_prior,
)
"""Every check, those whose faults cause others first."""


def _named(unused: Numbers, unit: str) -> str:
    """Return which are unused, up to eight of them by number, counted as their columns and codes are."""
    first = 1 if unit == "group" else 0
    numbers = [int(index) + first for index in np.flatnonzero(unused)]
    if not numbers:
        return f"no {unit} says more than a trace"
    if len(numbers) == len(unused):
        return f"all {len(numbers)} {unit}s say nothing" if len(numbers) > 1 else f"the one {unit} says nothing"
    listed = ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
    several = len(numbers) > 1
    return f"{unit}{'s' * several} {listed} (counted from {first}) say{'s' * (not several)} nothing"


def _since(evidence: Evidence) -> str:
    """Return since which epoch the rate has been as low, where the history tells."""
    dimensions = 1 if evidence.unused is None else len(evidence.unused)
    low = np.asarray(evidence.column("kl_loss")) < max(COLLAPSED_RATE, INACTIVE_RATE * dimensions)
    if len(low) == 0 or not low[-1]:
        return ""
    first = len(low) - int(np.argmin(low[::-1])) if not low.all() else 0
    epochs = evidence.metrics.get("epoch", range(1, len(low) + 1))
    return f"; since epoch {int(epochs[first])} of {int(epochs[-1])}"


def _smoothed(values: Sequence[float]) -> Numbers:
    """Return the means of three epochs each."""
    return np.convolve(values, np.ones(3) / 3, mode="valid") if len(values) > 2 else np.empty(0)


def _brightness(images: Numbers) -> tuple[float, float]:
    """Return the mean pixel from 0 to 1, and its standard error."""
    means = images.reshape(len(images), -1).mean(axis=1) / 255
    return float(means.mean()), float(means.std() / math.sqrt(len(means)))


def _cost_of_mean_image(evidence: Evidence) -> float | None:
    """Return what a Bernoulli likelihood loses on average that shows the mean image every time, in nats."""
    likelihood = evidence.experiment.model.likelihood
    if evidence.train is None or likelihood["name"] != "bernoulli" or likelihood.get("binarize") == "threshold":
        return None
    mean = np.clip(evidence.train.mean(axis=0) / 255, 1e-7, 1 - 1e-7)
    return float(-(mean * np.log(mean) + (1 - mean) * np.log1p(-mean)).sum())
