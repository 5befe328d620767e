"""Checks of the latents: whether they are used, and whether they match the prior."""

import math

import numpy as np

from keras_vae.evaluation.descriptions import format_number
from keras_vae.evaluation.diagnostics.finding import Finding
from keras_vae.evaluation.diagnostics.run_diagnostics import Numbers, RunDiagnostics
from keras_vae.evaluation.diagnostics.thresholds import (
    COLLAPSED_KL,
    DEAD_CODES,
    DOMINATED_KL,
    FAR_FROM_PRIOR,
    FAR_SHARE,
    INACTIVE_KL,
    LOG_VAR_RANGE,
    LOG_VAR_SHARE,
    MIN_CODES,
    MIN_INDICES_PER_CODE,
    MIN_PERPLEXITY,
    SMALL_LATENT_DIM,
    UNUSED_SHARE,
)

WARM_UP = 'model.objective.schedule = { name = "warm-up", steps = 0.2 }'


def posterior_collapse(diagnostics: RunDiagnostics) -> Finding | None:
    """Find codes that carry no information about their images."""
    if not diagnostics.has_collapsed or diagnostics.unused is None:
        return None
    if diagnostics.beta > 1:
        suggestion = f"Lower model.objective.beta (now {diagnostics.beta:g}) to 1 or less."
    elif diagnostics.experiment.model.objective["name"] == "elbo":
        suggestion = (
            f"Raise β slowly, {WARM_UP}; or leave a little KL per dimension unpenalized, "
            "model.objective.free_bits = 0.1."
        )
    else:
        suggestion = f"Use model.objective = elbo with a warm-up, {WARM_UP}."
    if (trend := diagnostics.unfinished_trend) is not None:
        suggestion = f"First train for longer, with training.epochs = {trend.suggested_epochs}. {suggestion}"
    measured = [f"{_list_unused(diagnostics.unused, diagnostics.unit)}{_since_epoch(diagnostics)}."]
    if diagnostics.z_mean is not None and diagnostics.unused.all():
        variance = diagnostics.z_mean.var(axis=0, dtype="float64").max()
        measured.append(f"All images have nearly the same code, with a variance of {format_number(variance)} or less.")
    if diagnostics.kl is not None:
        measured.append(f"The KL loss is {format_number(diagnostics.kl)} nats per image.")
    is_conditional = diagnostics.experiment.model.condition is not None
    return Finding(
        "posterior collapse",
        " ".join([*measured, *_unused_cost(diagnostics)]),
        "The code carries no information about its image: all reconstructions and all samples"
        + (" of a label" if is_conditional else "")
        + " are the same blur.",
        suggestion,
    )


def unused_dimensions(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a latent space that is mostly unused."""
    unused = diagnostics.unused
    if unused is None or not diagnostics.is_settled or diagnostics.has_collapsed or len(unused) < 2:
        return None
    if unused.all():
        return None
    is_small = len(unused) <= SMALL_LATENT_DIM
    if unused.mean() < (1 / len(unused) if is_small else UNUSED_SHARE):
        return None
    is_hierarchical = diagnostics.unit == "group"
    if is_hierarchical:
        explanation = "The hierarchy is shallower than configured: an unused group costs time and has no effect."
    elif is_small:
        explanation = "A map of the latent space shows the same images all along an unused dimension."
    else:
        explanation = "The model describes each image with far fewer numbers than its latent space offers."
    suggestion = f"Set {WARM_UP} or model.objective.free_bits = 0.1"
    if not (is_hierarchical or is_small):
        suggestion += f"; or reduce model.latent_dim (now {len(unused)})"
    if diagnostics.beta > 1:
        suggestion += f"; or lower model.objective.beta (now {diagnostics.beta:g})"
    return Finding(
        f"unused {diagnostics.unit}s",
        " ".join(
            [
                f"{_list_unused(unused, diagnostics.unit)}; {len(unused) - unused.sum()} of {len(unused)} are used.",
                *_unused_cost(diagnostics),
            ]
        ),
        explanation,
        suggestion + ".",
    )


def beta_too_large(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a weight of the KL that leaves the codes almost no information."""
    unused, kl = diagnostics.unused, diagnostics.kl
    if diagnostics.beta <= 1 or not diagnostics.is_settled or unused is None or kl is None:
        return None
    if kl >= DOMINATED_KL and unused.mean() < UNUSED_SHARE:
        return None
    losses = diagnostics.history("reconstruction_loss")
    compared = f", compared with a reconstruction loss of {losses[-1]:.1f}" if losses else ""
    return Finding(
        "β too large",
        f"β is {diagnostics.beta:g}. The KL loss is {format_number(kl)} nats per image{compared}.",
        f"A nat of information is only worth encoding if it saves {diagnostics.beta:g} nats of reconstruction loss.",
        f"Lower model.objective.beta (now {diagnostics.beta:g}): halve it until the KL loss rises, down to 1.",
    )


def extreme_log_variance(diagnostics: RunDiagnostics) -> Finding | None:
    """Find posteriors whose standard deviations vanish or explode."""
    if diagnostics.z_log_var is None:
        return None
    low, high = LOG_VAR_RANGE
    above, below = (diagnostics.z_log_var > high).mean(), (diagnostics.z_log_var < low).mean()
    if above > LOG_VAR_SHARE:
        share, extreme = above, diagnostics.z_log_var.max()
        explanation = "Codes with so much noise carry no information, and the loss soon becomes infinite."
        suggestion = (
            f"Lower training.learning_rate (now {diagnostics.experiment.training.learning_rate:g}), or set "
            "training.clip_norm = 100."
        )
    elif below > LOG_VAR_SHARE:
        share, extreme = below, diagnostics.z_log_var.min()
        explanation = "Without noise the model is a plain autoencoder: it learns nothing about the space between codes."
        suggestion = (
            f"Raise model.objective.beta (now {diagnostics.beta:g}) toward 1."
            if diagnostics.beta < 1
            else "Use a likelihood that demands less precision, such as one with a fixed scale, "
            'model.likelihood = { name = "normal", scale = 0.1 }.'
        )
    else:
        return None
    return Finding(
        "log-variance out of range",
        f"{share:.0%} of the posterior log-variances lie outside [{low:g}, {high:g}]; the most extreme one is "
        f"{extreme:.1f} (σ = {math.exp(extreme / 2):.1g}).",
        explanation,
        suggestion,
    )


def collapsed_codebook(diagnostics: RunDiagnostics) -> Finding | None:
    """Find a quantizer that uses nearly the same code everywhere."""
    perplexity, used = (diagnostics.history(name) for name in ("perplexity", "used_codes"))
    if not (perplexity and used) or perplexity[-1] >= MIN_PERPLEXITY:
        return None
    return Finding(
        "collapsed codebook",
        f"{used[-1]:.0f} codes are used per batch, with a perplexity of {perplexity[-1]:.1f}.",
        "So few codes can distinguish only a few images: reconstructions look alike.",
        f"Lower training.learning_rate (now {diagnostics.experiment.training.learning_rate:g}); "
        f"{_suggest_quantizer(diagnostics)}.",
    )


def dead_codes(diagnostics: RunDiagnostics) -> Finding | None:
    """Find codes that no image uses."""
    counts = diagnostics.code_counts
    if counts is None or not diagnostics.is_settled or collapsed_codebook(diagnostics) is not None:
        return None
    total = counts.sum(axis=0)
    unused = int((total == 0).sum())
    if total.sum() < MIN_INDICES_PER_CODE * len(total) or unused < DEAD_CODES * len(total):
        return None
    return Finding(
        "dead codes",
        f"{unused:,} of {len(total):,} codes ({unused / len(total):.0%}) are never used, in {total.sum():,} indices.",
        "Unused codes cost memory and parameters of the prior, and the model compresses images into fewer bits than it "
        "could.",
        f"Change the quantizer: {_suggest_quantizer(diagnostics)}.",
    )


def _suggest_quantizer(diagnostics: RunDiagnostics) -> str:
    """Return settings that use more of the codes, as the end of a sentence."""
    table, key = diagnostics.experiment.model.architecture.get("quantizer", {}), "model.architecture.quantizer"
    if table.get("name") == "residual":
        table, key = table["quantizer"], f"{key}.quantizer"
    if table.get("name") == "fsq":
        return f"pass fewer levels, {key}.levels (now {list(table['levels'])})"
    settings = f"reduce {key}.num_codes (now {table.get('num_codes')})"
    if table.get("name") == "ema":
        settings = f"lower {key}.decay to 0.9, so that codes follow the encoder faster; or {settings}"
    others = " or ".join(name for name in ("fsq", "simvq") if name != table.get("name"))
    return f"{settings}; or set {key} to {others}" if key.count("quantizer") == 1 else settings


def codes_far_from_prior(diagnostics: RunDiagnostics) -> Finding | None:
    """Find codes that, taken together, do not look like draws from the prior."""
    z, prior = diagnostics.z, diagnostics.experiment.model.prior or {"name": "standard-normal"}
    if z is None or len(z) < MIN_CODES or not diagnostics.is_settled:
        return None
    if diagnostics.has_fitted_prior or prior["name"] != "standard-normal":
        return None
    mean, variance = z.mean(axis=0, dtype="float64"), z.var(axis=0, dtype="float64")
    nats = 0.5 * (mean**2 + variance - 1 - np.log(np.maximum(variance, 1e-12)))
    if nats.sum() < max(FAR_FROM_PRIOR, FAR_SHARE * (diagnostics.kl or 0.0)):
        return None
    farthest = int(np.argmax(nats))
    return Finding(
        "codes far from the prior",
        f"Over all images, z[{farthest}] has mean {mean[farthest]:.2f} and variance {variance[farthest]:.2f}, whereas "
        f"the prior has 0 and 1. Summed over {len(nats)} dimensions, the KL divergence of a normal with the "
        f"moments of the codes from the prior is {nats.sum():.1f} nats.",
        "Samples will look bad: the prior draws codes where no image was encoded.",
        "Run `vae fit-prior RUN` to fit a prior to these codes"
        + (f"; or raise model.objective.beta (now {diagnostics.beta:g}) toward 1." if diagnostics.beta < 1 else "."),
    )


def _list_unused(unused: Numbers, unit: str) -> str:
    """Return a clause that lists up to eight unused units, numbered as in metrics and codes."""
    first = 1 if unit == "group" else 0
    numbers = [int(index) + first for index in np.flatnonzero(unused)]
    if not numbers:
        return f"Each {unit} carries only a trace of information"
    if len(numbers) == len(unused):
        return f"All {len(numbers)} {unit}s are unused" if len(numbers) > 1 else f"The only {unit} is unused"
    listed = ", ".join(map(str, numbers[:8])) + (f" and {len(numbers) - 8} more" if len(numbers) > 8 else "")
    plural, verb = ("s", "are") if len(numbers) > 1 else ("", "is")
    return f"{unit.capitalize()}{plural} {listed} (counted from {first}) {verb} unused"


def _unused_cost(diagnostics: RunDiagnostics) -> list[str]:
    """Return a sentence about the KL of unused units, if it is noticeable."""
    if diagnostics.unused is None or diagnostics.unused_kl < max(COLLAPSED_KL, INACTIVE_KL * diagnostics.unused.sum()):
        return []
    return [
        f"Unused {diagnostics.unit}s cost {format_number(diagnostics.unused_kl)} nats per image: "
        "their posteriors are the same for every image, but lie away from the prior."
    ]


def _since_epoch(diagnostics: RunDiagnostics) -> str:
    """Return a clause that names the epoch since which the KL has been this low, if the metrics show it."""
    dimensions = 1 if diagnostics.unused is None else len(diagnostics.unused)
    is_low = np.asarray(diagnostics.history("kl_loss")) < max(COLLAPSED_KL, INACTIVE_KL * dimensions)
    if len(is_low) == 0 or not is_low[-1]:
        return ""
    first = len(is_low) - int(np.argmin(is_low[::-1])) if not is_low.all() else 0
    epochs = diagnostics.metrics.get("epoch", range(1, len(is_low) + 1))
    return f" since epoch {int(epochs[first])} of {int(epochs[-1])}"
