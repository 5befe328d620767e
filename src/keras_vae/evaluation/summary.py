"""An evaluation in lines of text."""

from collections.abc import Iterator, Mapping
from typing import Any

from keras_vae.evaluation.descriptions import LATENTS, SAMPLES, SCORES

_NATS = ("negative_elbo", "reconstruction_loss", "kl_loss", "nll")


def summarize(evaluation: Mapping[str, Any]) -> list[str]:
    """Return what an evaluation found, for a terminal.

    Args:
        evaluation: The content of an `evaluation.json`.

    Returns:
        Lines: numbers with their standard errors, and below those of each stage what to keep in mind.
    """
    sections = {
        "likelihood": _likelihood,
        "latents": _latents,
        "samples": _samples,
        "disentanglement": _disentanglement,
    }
    return [
        line
        for name, lines in sections.items()
        if name in evaluation
        for line in (*lines(evaluation[name]), *evaluation[name].get("notes", ()))
    ]


def _likelihood(section: Mapping[str, Any]) -> Iterator[str]:
    for name in _NATS:
        if name in section:
            yield _row(name, section[name], "nats per image")
    if section.get("bits_per_dim"):
        yield _row("bits_per_dim", section["bits_per_dim"], "bits", digits=4)
    if "perplexity" in section:
        yield f"{'perplexity':<20} {section['perplexity']:9.1f} of the codes, {section['used_codes']} in use"
    if "kl_per_group" in section:
        yield f"{'kl_per_group':<20} {', '.join(f'{rate:.2f}' for rate in section['kl_per_group'])} nats"
    yield from _where(section)
    if "nll" in section:
        size = section["effective_sample_size"]
        yield (
            f"nll by {section['samples']:,} draws an image, of which in effect {size['median']:.0f} (median) and "
            f"{size['percentile_5']:.1f} (5th percentile) count"
        )
        if not section["trusted"]:
            yield "few draws count: nll is likely too high; raise --samples"
    if section["binarization"] in ("static", "dynamic"):
        yield f"binarized once, by draws of seed {section['binarization_seed']}"
    if not section["normalized"]:
        yield "gray levels under this likelihood: not a normalized likelihood"
    if section["density"]:
        yield "a density of gray values: not comparable with probabilities of levels"
    if not section["bound"]:
        yield "a posterior without noise: negative_elbo is no bound on −log p(x)"


def _where(section: Mapping[str, Any]) -> Iterator[str]:
    held_out = "" if section["held_out"] else ": no held-out data"
    yield f"measured on {section['images']:,} {section['split']} images{held_out}"


def _latents(section: Mapping[str, Any]) -> Iterator[str]:
    active = section["active_units"]
    yield f"{'active_units':<20} {active['count']:9} of {section['latent_dim']}"
    yield from _numbers({name: section[name] for name in LATENTS if name != "active_units" and section.get(name)})
    yield from _where(section)


def _samples(section: Mapping[str, Any]) -> Iterator[str]:
    floor = section["floor"] or {}
    for name in SAMPLES:
        if section[name] is not None:
            (line,) = _numbers({name: section[name]})
            (real,) = _numbers({name: floor[name]}) if floor.get(name) is not None else ("",)
            yield f"{line:<42}{'real images' if real else ''}{real[len(name.ljust(20)) :]}"
    copying = section["memorization"]
    if copying and copying["copying_suspected"]:
        yield "samples lie nearer to training images than new images do: the model repeats what it has seen"
    scored = "mean images" if section["images_scored"] == "means" else "draws of pixels"
    yield f"{section['samples']:,} {scored}, compared by {section['features']['name']} features"


def _disentanglement(section: Mapping[str, Any]) -> Iterator[str]:
    yield from _numbers({name: section[name] for name in SCORES})
    yield from _where(section)


def _numbers(values: Mapping[str, Any]) -> Iterator[str]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield _row(name, value, "", digits=4)
        else:
            yield f"{name:<20} {value:9.4f}"


def _row(name: str, value: Mapping[str, Any], unit: str, digits: int = 2) -> str:
    return f"{name:<20} {value['mean']:9.{digits}f} ± {value['standard_error'] or 0:.{digits}f} {unit}".rstrip()
