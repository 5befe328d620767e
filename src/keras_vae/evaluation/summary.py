"""A summary of an evaluation as lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_vae.evaluation.descriptions import (
    IMAGE_QUALITY,
    LATENTS,
    LOSSY,
    SAMPLES,
    SCORES,
    UNTRUSTED,
    format_bounds,
    format_number,
    format_value,
    untrusted_reason,
)

_NATS = ("negative_elbo", "reconstruction_loss", "kl_loss", "nll")


def summarize(evaluation: Mapping[str, Any]) -> list[str]:
    """Return a summary of an evaluation for a terminal.

    Args:
        evaluation: The content of an `evaluation.json`.

    Returns:
        Lines: the numbers of each stage with their standard errors, followed by their limitations.
    """
    sections = {
        "likelihood": _likelihood,
        "latents": _latents,
        "samples": _samples,
        "image_quality": _image_quality,
        "disentanglement": _disentanglement,
    }
    return [
        line
        for name, lines in sections.items()
        if name in evaluation
        for line in (*lines(evaluation[name]), *evaluation[name].get("notes", ()))
    ]


def _likelihood(section: Mapping[str, Any]) -> Iterator[str]:
    mark = "" if section.get("trusted", True) else " (unreliable)"
    for name in _NATS:
        if name in section:
            yield _row(name, section[name], f"nats per image{mark if name == 'nll' else ''}")
    if section.get("bits_per_dim"):
        yield _row("bits_per_dim", section["bits_per_dim"], f"bits{mark}")
        if section.get("lossy"):
            yield f"{LOSSY.badge}: {LOSSY.explanation}"
    if "perplexity" in section:
        yield _row("perplexity", section["perplexity"], f"({section['used_codes']} codes in use)")
    if "kl_per_group" in section:
        yield f"{'kl_per_group':<20} {', '.join(map(format_number, section['kl_per_group']))} nats per image"
    yield from _images(section)
    if "nll" in section:
        sizes = section["effective_sample_size"]
        median, low = (format_number(sizes[name]) for name in ("median", "percentile_5"))
        yield (
            f"nll estimated from {section['samples']:,} draws per image (proposal: {section['proposal']}); effective "
            f"sample size {median} (median), {low} (5th percentile)"
        )
        if not section["trusted"]:
            yield f"{UNTRUSTED.badge}: {untrusted_reason(section)}"
    if section["binarization"] in ("static", "dynamic"):
        yield f"images binarized once at random, with seed {section['binarization_seed']}"
    if not section["normalized"]:
        yield "gray images under a Bernoulli likelihood: not a normalized likelihood"
    if section["density"]:
        yield "a density of gray values: not comparable with probabilities of gray levels"
    if not section["bound"]:
        yield "deterministic posterior: negative_elbo is not a bound on −log p(x)"
    if section.get("image_losses"):
        names = ", ".join(section["image_losses"])
        yield f"trained with image losses ({names}): total_loss is not a bound on −log p(x)"


def _images(section: Mapping[str, Any]) -> Iterator[str]:
    warning = "" if section["held_out"] else " (no held-out data)"
    yield f"measured on {section['images']:,} {section['split']} images{warning}"


def _latents(section: Mapping[str, Any]) -> Iterator[str]:
    active = section["active_units"]
    yield f"{'active_units':<20} {active['count']:9} of {section['latent_dim']}"
    for name in LATENTS:
        if name != "active_units" and section.get(name):
            yield from _numbers({name: section[name]})
        elif section.get(f"{name}_bounds"):
            yield f"{name:<20} {format_bounds(section[f'{name}_bounds'])} nats"
    yield from _images(section)


def _samples(section: Mapping[str, Any]) -> Iterator[str]:
    floor = section["floor"] or {}
    for name in SAMPLES:
        if section[name] is not None:
            (line,) = _numbers({name: section[name]})
            (real,) = _numbers({name: floor[name]}) if floor.get(name) is not None else ("",)
            yield f"{line:<44}{'real images' if real else ''}{real[len(name.ljust(20)) :]}".rstrip()
    memorization = section["memorization"]
    if memorization and memorization["copying_suspected"]:
        yield "samples lie closer to training images than held-out images do: the model copies training images"
    images = "mean images" if section["images_scored"] == "means" else "draws of pixels"
    yield f"{section['samples']:,} samples ({images}), compared by {section['features']['name']} features"


def _image_quality(section: Mapping[str, Any]) -> Iterator[str]:
    for name in IMAGE_QUALITY:
        if section.get(name):
            unit = {"psnr": "dB", "code_usage": f"of {section.get('num_codes', 0):,} codes"}.get(name, "")
            yield _row(name, section[name], unit)
    yield from _images(section)
    yield f"reconstructions are mean images of posterior means, compared by {section['features']['name']} features"


def _disentanglement(section: Mapping[str, Any]) -> Iterator[str]:
    yield from _numbers({name: section[name] for name in SCORES})
    yield from _images(section)


def _numbers(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        yield _row(name, value, "")


def _row(name: str, value: Mapping[str, Any] | float, unit: str) -> str:
    return f"{name:<20} {format_value(value):>9} {unit}".rstrip()
