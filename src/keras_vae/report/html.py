"""The HTML page of a run: results and figures, explained for readers who are new to VAEs."""

import base64
import math
import re
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, Protocol

from keras_vae.core.errors import InputError, unknown
from keras_vae.evaluation.descriptions import (
    DENSITY,
    FIGURES,
    LATENTS,
    NAMES,
    NOT_A_BOUND,
    NOT_HELD_OUT,
    NOT_NORMALIZED,
    NUMBERS,
    REQUIRED,
    SAMPLES,
    SCORES,
    UNTRUSTED,
    Caveat,
    Quantity,
    format_bounds,
    format_mean,
    format_number,
)
from keras_vae.evaluation.diagnostics import CHECKS


class Finding(Protocol):
    """A problem of a run."""

    @property
    def name(self) -> str:
        """Name of the problem."""

    @property
    def observation(self) -> str:
        """Measurements that show the problem."""

    @property
    def explanation(self) -> str:
        """Effect of the problem."""

    @property
    def suggestion(self) -> str:
        """The setting to change."""


def render(
    *,
    title: str,
    summary: str,
    experiment_toml: str,
    environment: Mapping[str, Any],
    metrics: Mapping[str, Sequence[float]],
    evaluation: Mapping[str, Any] | None,
    figures: Mapping[str, Path],
    findings: Sequence[Finding] | None = None,
) -> str:
    """Return a self-contained HTML page about a run, with embedded figures, that needs no network and no scripts.

    Args:
        title: Name of the run.
        summary: Subtitle, such as the description of the experiment.
        experiment_toml: The resolved experiment.
        environment: Versions, devices and other facts; may be nested.
        metrics: Columns of the run's metrics with one value per epoch: losses in nats per image, the same with the
            prefix `val_`, and `epoch`, which defaults to 1, 2, ….
        evaluation: Content of `evaluation.json`. Without its section `likelihood`, the page shows the losses of the
            last epoch instead.
        figures: PNG files by name, a key of `FIGURES`; the page shows only these.
        findings: Findings of the doctor; None omits the section.

    Returns:
        The page.

    Raises:
        InputError: The name of a figure is unknown, its file is missing or not a PNG, or `evaluation` lacks a key.
    """
    for name in figures:
        if name not in FIGURES:
            raise unknown("figure", name, FIGURES)
    sections = evaluation or {}
    numbers = _likelihood(sections["likelihood"]) if "likelihood" in sections else _last_epoch(metrics)
    page = Template(resources.files("keras_vae.report").joinpath("templates/report.html").read_text("utf-8"))
    return page.substitute(
        title=escape(title),
        summary=escape(summary),
        numbers=numbers,
        findings="" if findings is None else _findings(findings),
        sections="\n".join(_SECTIONS[name](sections[name]) for name in _SECTIONS if name in sections),
        figures="\n".join(_figure(name, figures[name]) for name in FIGURES if name in figures),
        epochs=_epochs(metrics),
        experiment=escape(experiment_toml),
        environment=_environment(environment),
    )


def _likelihood(likelihood: Mapping[str, Any]) -> str:
    missing = [key for key in (*REQUIRED, "split", "images", "held_out", "normalized") if key not in likelihood]
    if missing:
        raise InputError(f"evaluation: incomplete, without {', '.join(missing)}; pass the result of `evaluate`")
    where = f"{int(likelihood['images']):,} images of the {escape(str(likelihood['split']))} split"
    note = f"Measured on {where}. ± is one standard error over images."
    if "nll" in likelihood:
        size = likelihood["effective_sample_size"]
        note += (
            f" NLL estimated from {likelihood['samples']:,} importance samples per image (proposal:"
            f" {likelihood['proposal']}); effective sample size {size['median']:,.0f} (median),"
            f" {size['percentile_5']:,.1f} (5th percentile)."
        )
    warnings = [
        warning
        for warning, due in {
            NOT_HELD_OUT: not likelihood["held_out"],
            NOT_NORMALIZED: not likelihood["normalized"],
            NOT_A_BOUND: not likelihood["bound"],
            DENSITY: likelihood["density"],
            UNTRUSTED: not likelihood.get("trusted", True),
        }.items()
        if due
    ]
    shown = {name: likelihood[name] for name in NUMBERS if likelihood.get(name)}
    return _numbers(shown, note, warnings, samples=f"{likelihood.get('samples', 0):,}")


def _latents(section: Mapping[str, Any]) -> str:
    active = section["active_units"]
    bounds = {
        name: f"{format_bounds(section[f'{name}_bounds'])} nats"
        for name in LATENTS
        if section.get(name) is None and section.get(f"{name}_bounds")
    }
    values = {**section, **bounds, "active_units": f"{active['count']} of {section['latent_dim']}"}
    table = _table(LATENTS, values, values)
    return f"<h2>Latent codes</h2>\n{table}{_remarks(section)}"


def _samples(section: Mapping[str, Any]) -> str:
    floor = section["floor"]
    head = ("samples", "real images") if floor else ("samples",)
    columns = (section, floor) if floor else (section,)
    kind = "mean images" if section["images_scored"] == "means" else "images with pixels drawn from the likelihood"
    table = _table(SAMPLES, *columns, head=head)
    text = (
        f"<p>{section['samples']:,} {kind} compared with {int(section['images']):,} images of the {section['split']}"
        " split."
        + (" The second column compares training images instead of samples: the best score to expect." if floor else "")
        + "</p>"
    )
    copying = section["memorization"]
    if copying and copying["copying_suspected"] is not None:
        verdict = (
            "Samples are closer to training images than new images are: the model may be copying training images."
            if copying["copying_suspected"]
            else "Samples are not closer to training images than new images are: no sign of copying."
        )
        text += f"<p>{verdict}</p>"
    return f"<h2>Sample quality</h2>\n{text}{table}{_remarks(section)}"


def _disentanglement(section: Mapping[str, Any]) -> str:
    text = (
        f"<p>These scores measure whether each latent dimension represents one of the {len(section['factors'])} known"
        " factors of variation of the images. The best score is 1.</p>"
    )
    return f"<h2>Disentanglement</h2>\n{text}{_table(SCORES, section, section)}{_remarks(section)}"


_SECTIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "latents": _latents,
    "samples": _samples,
    "disentanglement": _disentanglement,
}


def _table(quantities: Mapping[str, Quantity], *columns: Mapping[str, Any], head: Sequence[str] = ()) -> str:
    facts = columns[0]
    rows = "".join(
        f"<tr><th>{quantity.label}</th>"
        + "".join(f"<td>{_value(column.get(name))}</td>" for column in columns[: max(1, len(head))])
        + f'<td class="meaning">{_markup(quantity.meaning.format(**facts))}</td></tr>'
        for name, quantity in quantities.items()
        if facts.get(name) is not None
    )
    titles = (
        f"<thead><tr><th></th>{''.join(f'<th>{title}</th>' for title in head)}<th></th></tr></thead>" if head else ""
    )
    return f'<div class="scroll"><table class="quantities">{titles}<tbody>{rows}</tbody></table></div>'


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        mean, error = format_mean(float(value["mean"]), value["standard_error"])
        return f"<b>{mean}</b> <small>{error}</small>"
    if isinstance(value, float):
        return f"<b>{format_number(value)}</b>"
    return "–" if value is None else f"<b>{escape(str(value))}</b>"


def _markup(text: str) -> str:
    """Return a text as HTML, with text between backticks as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))


def _remarks(section: Mapping[str, Any]) -> str:
    return "".join(f'<p class="small">{_markup(note)}</p>' for note in section.get("notes", ()))


def _findings(findings: Sequence[Finding]) -> str:
    if not findings:
        return f"<h2>Diagnostics</h2>\n<p>No problems found ({len(CHECKS)} checks passed).</p>"
    entries = "".join(
        f'<div class="finding"><h3>{escape(finding.name)}</h3><p>{_markup(finding.observation)}</p>'
        f"<p>{_markup(finding.explanation)}</p><p><b>Suggestion:</b> {_markup(finding.suggestion)}</p></div>"
        for finding in findings
    )
    return f"<h2>Diagnostics</h2>\n{entries}"


def _last_epoch(metrics: Mapping[str, Sequence[float]]) -> str:
    """Return the losses of the last epoch, for a run without an evaluation."""
    prefix = "val_" if "val_negative_elbo" in metrics else ""
    losses = {name: metrics[prefix + name] for name in REQUIRED if len(metrics.get(prefix + name, ()))}
    if not losses:
        return ""
    images = "validation images" if prefix else "training images, averaged during the epoch"
    note = f"Losses of the last epoch on {images}. The run has not been evaluated, so there are no standard errors."
    return _numbers({name: {"mean": values[-1]} for name, values in losses.items()}, note, [])


def _numbers(values: Mapping[str, Mapping[str, Any]], note: str, warnings: Sequence[Caveat], samples: str = "") -> str:
    cards = []
    for name, value in values.items():
        mean, error = format_mean(float(value["mean"]), value.get("standard_error"))
        badges = "".join(f'<p class="badge">{warning.badge}</p>' for warning in warnings if name in warning.numbers)
        bits = format_number(float(value["mean"]) / math.log(2))
        cards.append(
            f'<div class="number"><h3>{NAMES[name]}</h3><p class="value"><b>{mean}</b> <span>{error}</span>'
            f" <small>{'bits' if name == 'bits_per_dim' else 'nats per image'}</small></p>{badges}"
            f"<p>{NUMBERS[name].format(bits=bits, samples=samples)}</p></div>"
        )
    notices = [f'<p class="warning"><b>{warning.badge}</b>: {_markup(warning.explanation)}</p>' for warning in warnings]
    return "\n".join(
        [
            "<h2>Results</h2>",
            f'<div class="numbers">{"".join(cards)}</div>',
            *notices,
            f'<p class="small">{note}</p>',
        ]
    )


def _figure(name: str, path: Path) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(
            f"figures['{name}'] = {path}: {error.strerror or error}; pass the path of a PNG file"
        ) from error
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        raise InputError(f"figures['{name}'] = {path}: not a PNG file; pass the path of a PNG file")
    width, height = struct.unpack(">II", content[16:24])
    caption = FIGURES[name]
    image = base64.b64encode(content).decode("ascii")
    return (
        f'<section id="{name}">\n<h2>{caption.heading}</h2>\n<p>{caption.shows}</p>\n'
        f'<figure><img src="data:image/png;base64,{image}" width="{width}" height="{height}" alt="{caption.heading}">'
        f'</figure>\n<dl class="judge"><dt class="good">Good</dt><dd>{caption.good}</dd>'
        f'<dt class="bad">Bad</dt><dd>{caption.bad}</dd></dl>\n</section>'
    )


def _epochs(metrics: Mapping[str, Sequence[float]]) -> str:
    """Return a table of the first, the best and the last epoch."""
    columns = {name: [float(value) for value in values] for name, values in metrics.items()}
    count = max(map(len, columns.values()), default=0)
    if not count:
        return ""
    epochs = columns.pop("epoch", [float(i + 1) for i in range(count)])
    roles: dict[int, list[str]] = {0: ["first"]}
    ranked = next(
        (name for name in ("val_negative_elbo", "val_total_loss", "negative_elbo", "total_loss") if name in columns),
        None,
    )
    if ranked is not None:
        finite = [(value, index) for index, value in enumerate(columns[ranked]) if math.isfinite(value)]
        if finite:
            roles.setdefault(min(finite)[1], []).append("best")
    roles.setdefault(count - 1, []).append("last")

    shown = sorted(roles)
    head = "".join(f"<th>epoch {epochs[index]:g}<br>{', '.join(roles[index])}</th>" for index in shown)
    order = [prefix + name for name in NAMES for prefix in ("", "val_")]
    names = [name for name in order if name in columns] + [name for name in columns if name not in order]
    body = "".join(
        f"<tr><th>{escape(_name(name))}</th>"
        + "".join(f"<td>{format_number(columns[name][index], zeros=_is_loss(name))}</td>" for index in shown)
        + "</tr>"
        for name in names
    )
    note = (
        ""
        if ranked is None
        else f'<p class="small">The best epoch has the lowest {_name(ranked)}. Losses are in nats per image.</p>'
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h2>Epochs</h2>\n<div class="scroll">{table}</div>\n{note}'


def _name(column: str) -> str:
    loss = column.removeprefix("val_")
    name = NAMES.get(loss, loss)
    if loss != column:
        return f"{name}, validation"
    return f"{name}, training" if _is_loss(column) else name


def _is_loss(column: str) -> bool:
    return column.endswith(("_loss", "_elbo"))


def _environment(environment: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><td>{escape(key)}</td><td>{escape(value)}</td></tr>" for key, value in _flat(environment))
    return f"<table><tbody>{rows}</tbody></table>"


def _flat(nested: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in nested.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
