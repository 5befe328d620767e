"""The HTML page of a run: results and figures, explained for readers who are new to VAEs."""

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from keras_vae.core.config import flattened
from keras_vae.core.errors import InputError, unknown
from keras_vae.evaluation.descriptions import (
    DENSITY,
    FIGURES,
    IMAGE_LOSSES,
    IMAGE_QUALITY,
    INCOMPLETE,
    LATENTS,
    LOSSY,
    NAMES,
    NOT_A_BOUND,
    NOT_HELD_OUT,
    NOT_NORMALIZED,
    NUMBERS,
    REQUIRED,
    SAMPLES,
    SCORES,
    UNTRUSTED,
    Caption,
    Caveat,
    Quantity,
    format_bounds,
    format_mean,
    format_number,
)
from keras_vae.evaluation.diagnostics import CHECKS
from keras_vae.report.figures.themes import ThemedImage
from keras_vae.report.pages import data_uri, load_template
from keras_vae.runs.evaluation_file import check_evaluation
from keras_vae.runs.files import MONITORED

if TYPE_CHECKING:
    from markupsafe import Markup


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


class Section(NamedTuple):
    """A section of the page, an entry of its table of contents.

    Args:
        id: Its anchor.
        heading: Its heading.
        kind: The macro of the template that renders it.
        content: The arguments of the macro.
    """

    id: str
    heading: str
    kind: str
    content: Mapping[str, Any]


def render(
    *,
    title: str,
    summary: str,
    experiment_toml: str,
    environment: Mapping[str, Any],
    metrics: Mapping[str, Sequence[float]],
    evaluation: Mapping[str, Any] | None,
    figures: Mapping[str, ThemedImage],
    findings: Sequence[Finding] | None = None,
) -> str:
    """Return a self-contained HTML page about a run, with embedded figures, that needs no network and no scripts.

    The template escapes all texts.

    Args:
        title: Name of the run.
        summary: Subtitle, such as the description of the experiment.
        experiment_toml: The resolved experiment.
        environment: Versions, devices and other facts; may be nested.
        metrics: Columns of the run's metrics with one value per epoch: losses in nats per image, the same with the
            prefix `val_`, and `epoch`, which defaults to 1, 2, ….
        evaluation: Content of `evaluation.json`. Without its section `likelihood`, the page shows the losses of the
            last epoch instead.
        figures: Images by name, a key of `FIGURES`; the page shows only these.
        findings: Findings of the doctor; None omits the section.

    Returns:
        The page.

    Raises:
        InputError: The name of a figure is unknown, or `evaluation` lacks a key or contains a value of another type.
    """
    for name in figures:
        if name not in FIGURES:
            raise unknown("figure", name, FIGURES)
    evaluated = evaluation or {}
    check_evaluation(evaluated, "evaluation")
    sections = [
        *(_likelihood(evaluated["likelihood"]) if "likelihood" in evaluated else _last_epoch(metrics)),
        *(() if findings is None else [_findings(findings)]),
        *(figure_section(name, FIGURES[name], figures[name], title) for name in FIGURES if name in figures),
        *(_evaluation_table(name, evaluated[name]) for name in _TABLES if name in evaluated),
        *_epochs(metrics),
        settings_section(experiment_toml, environment),
    ]
    return load_template("report.html", with_code=with_code).render(title=title, summary=summary, sections=sections)


def with_code(text: str) -> "Markup":
    """Return a text as HTML, with text between backticks as code."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))


def _require(section: Mapping[str, Any], name: str, *keys: str) -> None:
    missing = [key for key in keys if section.get(key) is None]
    if missing:
        raise InputError(f"evaluation.{name}: incomplete, without {', '.join(missing)}; pass the result of `evaluate`")


class Text(NamedTuple):
    """A number as text, and its standard error, if known."""

    mean: str
    error: str = ""


class Row(NamedTuple):
    """A row of a table: the name of a quantity, its values and its meaning."""

    label: str
    values: Sequence[Text]
    meaning: str = ""


class Card(NamedTuple):
    """A number of the section of results."""

    name: str
    value: Text
    unit: str
    badges: Sequence[str]
    meaning: str


def _likelihood(likelihood: Mapping[str, Any]) -> Iterator[Section]:
    _require(likelihood, "likelihood", *REQUIRED, "split", "images", "held_out", "normalized", "bound", "density")
    note = (
        f"Measured on {likelihood['images']:,} images of the {likelihood['split']} split. ± is one standard error over"
        " images."
    )
    if "nll" in likelihood:
        _require(likelihood, "likelihood", "samples", "proposal", "effective_sample_size")
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
            IMAGE_LOSSES: bool(likelihood.get("image_losses")),
            DENSITY: likelihood["density"],
            INCOMPLETE: likelihood.get("observed", 1) < 1,
            LOSSY: bool(likelihood.get("lossy") and likelihood.get("bits_per_dim")),
            UNTRUSTED: not likelihood.get("trusted", True),
        }.items()
        if due
    ]
    shown = {name: likelihood[name] for name in NUMBERS if likelihood.get(name)}
    yield _results(shown, note, warnings, samples=f"{likelihood.get('samples', 0):,}")


def _last_epoch(metrics: Mapping[str, Sequence[float]]) -> Iterator[Section]:
    """Yield the losses of the last epoch, for a run without an evaluation."""
    prefix = "val_" if "val_negative_elbo" in metrics else ""
    losses = {name: metrics[prefix + name] for name in REQUIRED if len(metrics.get(prefix + name, ()))}
    if losses:
        images = "validation images" if prefix else "training images, averaged during the epoch"
        note = f"Losses of the last epoch on {images}. The run has not been evaluated, so there are no standard errors."
        yield _results({name: {"mean": values[-1]} for name, values in losses.items()}, note, [])


def _results(
    values: Mapping[str, Mapping[str, Any]], note: str, warnings: Sequence[Caveat], samples: str = ""
) -> Section:
    cards = [
        Card(
            NAMES[name],
            _text(value),
            "bits" if name == "bits_per_dim" else "nats per image",
            [warning.badge for warning in warnings if name in warning.numbers],
            NUMBERS[name].format(bits=format_number(float(value["mean"]) / math.log(2)), samples=samples),
        )
        for name, value in values.items()
    ]
    return Section("results", "Results", "results", {"cards": cards, "warnings": warnings, "note": note})


def _findings(findings: Sequence[Finding]) -> Section:
    return Section("diagnostics", "Diagnostics", "findings", {"findings": findings, "num_checks": len(CHECKS)})


def _latents(section: Mapping[str, Any]) -> Mapping[str, Any]:
    _require(section, "latents", "active_units", "latent_dim")
    bounds = {
        name: f"{format_bounds(section[f'{name}_bounds'])} nats"
        for name in LATENTS
        if section.get(name) is None and section.get(f"{name}_bounds")
    }
    active_units = f"{section['active_units']['count']} of {section['latent_dim']}"
    return {"rows": _rows(LATENTS, {**section, **bounds, "active_units": active_units})}


def _samples(section: Mapping[str, Any]) -> Mapping[str, Any]:
    _require(section, "samples", "samples", "images", "split", "images_scored")
    floor = section.get("floor")
    kind = "mean images" if section["images_scored"] == "means" else "images with pixels drawn from the likelihood"
    texts = [
        f"{section['samples']:,} {kind} compared with {section['images']:,} images of the {section['split']} split."
        + (" The second column compares training images instead of samples: the best score to expect." if floor else "")
    ]
    copying = (section.get("memorization") or {}).get("copying_suspected")
    if copying is not None:
        texts.append(
            "Samples are closer to training images than new images are: the model may be copying training images."
            if copying
            else "Samples are not closer to training images than new images are: no sign of copying."
        )
    columns = (section, floor) if floor else (section,)
    return {"rows": _rows(SAMPLES, *columns), "head": ("samples", "real images")[: len(columns)], "texts": texts}


def _image_quality(section: Mapping[str, Any]) -> Mapping[str, Any]:
    _require(section, "image_quality", "psnr", "images", "split")
    text = (
        f"{section['images']:,} images of the {section['split']} split compared with their reconstructions, the mean"
        " images of posterior means. ± is one standard error over images."
    )
    return {"rows": _rows(IMAGE_QUALITY, section), "texts": [text]}


def _disentanglement(section: Mapping[str, Any]) -> Mapping[str, Any]:
    _require(section, "disentanglement", "factors")
    text = (
        f"These scores measure whether each latent dimension represents one of the {len(section['factors'])} known"
        " factors of variation of the images. The best score is 1."
    )
    return {"rows": _rows(SCORES, section), "texts": [text]}


_TABLES: Mapping[str, tuple[str, Callable[[Mapping[str, Any]], Mapping[str, Any]]]] = {
    "latents": ("Latent codes", _latents),
    "samples": ("Sample quality", _samples),
    "image_quality": ("Image quality", _image_quality),
    "disentanglement": ("Disentanglement", _disentanglement),
}
"""Headings and contents of the tables by section of `evaluation.json`."""


def _evaluation_table(name: str, section: Mapping[str, Any]) -> Section:
    heading, content = _TABLES[name]
    defaults = {"head": (), "texts": (), "notes": section.get("notes", ())}
    # A figure is called `samples`, too.
    return Section(f"{name}-table", heading, "quantities", {**defaults, **content(section)})


def _rows(quantities: Mapping[str, Quantity], *columns: Mapping[str, Any]) -> list[Row]:
    return [
        Row(quantity.label, [_text(column.get(name)) for column in columns], quantity.meaning)
        for name, quantity in quantities.items()
        if columns[0].get(name) is not None
    ]


def _text(value: Any) -> Text:
    if isinstance(value, Mapping):
        return Text(*format_mean(float(value["mean"]), value.get("standard_error")))
    if isinstance(value, float):
        return Text(format_number(value))
    return Text("–" if value is None else str(value))


def figure_section(name: str, caption: Caption, image: ThemedImage, title: str) -> Section:
    """Return the section of a figure.

    Args:
        name: Name of the figure.
        caption: Its heading and explanations.
        image: The figure.
        title: Title of the page.
    """
    width, height = image.size
    light, dark = (data_uri(content, "webp") for content in (image.light, image.dark))
    content = {"caption": caption, "alt": f"{caption.heading} of {title}", "light": light, "dark": dark}
    return Section(name, caption.heading, "picture", {"id": name, "width": width, "height": height, **content})


def settings_section(experiment_toml: str, environment: Mapping[str, Any]) -> Section:
    """Return the section of the settings.

    Args:
        experiment_toml: The experiment.
        environment: Versions, devices and other facts; may be nested.
    """
    facts = [(name, str(value)) for name, value in flattened(environment).items()]
    return Section("settings", "Settings", "settings", {"toml": experiment_toml, "environment": facts})


_RANKED_BY = (MONITORED, "val_negative_elbo", "negative_elbo", "total_loss")
"""The losses that determine the best epoch: the first that exists."""


def _epochs(metrics: Mapping[str, Sequence[float]]) -> Iterator[Section]:
    """Yield a table of the first, the best and the last epoch."""
    columns = {name: [float(value) for value in values] for name, values in metrics.items()}
    count = max(map(len, columns.values()), default=0)
    if not count:
        return
    epochs = columns.pop("epoch", [float(i + 1) for i in range(count)])
    roles: dict[int, list[str]] = {0: ["first"]}
    ranked = next((name for name in _RANKED_BY if name in columns), None)
    if ranked is not None:
        # Of equal epochs, `keep = "best"` keeps the last one, too.
        finite = [(value, -index) for index, value in enumerate(columns[ranked]) if math.isfinite(value)]
        if finite:
            roles.setdefault(-min(finite)[1], []).append("best")
    roles.setdefault(count - 1, []).append("last")

    shown = sorted(roles)
    order = [prefix + name for name in NAMES for prefix in ("", "val_")]
    names = [name for name in order if name in columns] + [name for name in columns if name not in order]
    rows = [
        Row(_name(name), [Text(format_number(columns[name][index], zeros=_is_loss(name))) for index in shown])
        for name in names
    ]
    head = [(f"epoch {epochs[index]:g}", ", ".join(roles[index])) for index in shown]
    yield Section("epochs", "Epochs", "epochs", {"head": head, "rows": rows, "note": _best_epoch_note(ranked)})


def _best_epoch_note(ranked: str | None) -> str:
    if ranked is None:
        return ""
    follows = ', which `keep = "best"`, early stopping and plateaus follow' if ranked == MONITORED else ""
    return f"The best epoch has the lowest {_name(ranked)} (`{ranked}`){follows}. Losses are in nats per image."


def _name(column: str) -> str:
    loss = column.removeprefix("val_")
    name = NAMES.get(loss, loss)
    if loss != column:
        return f"{name}, validation"
    return f"{name}, training" if _is_loss(column) else name


def _is_loss(column: str) -> bool:
    return column.endswith(("_loss", "_elbo"))
