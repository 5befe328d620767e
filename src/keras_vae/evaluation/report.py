"""A run on one page: numbers, figures, and what they mean to someone who has never seen a VAE."""

import base64
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template
from typing import Any, NamedTuple

from keras_vae.errors import InputError, unknown

NAMES = {
    "total_loss": "total loss",
    "negative_elbo": "negative ELBO",
    "reconstruction_loss": "reconstruction loss",
    "kl_loss": "KL loss",
    "learning_rate": "learning rate",
    "seconds": "seconds",
}

NUMBERS = {
    "negative_elbo": (
        "What it costs to describe an image with the model: reconstruction loss plus KL loss. Lower is better, among"
        " models measured on the same images in the same way."
    ),
    "reconstruction_loss": (
        "How surprising the pixels still are once the code is known: high when images come back blurred or wrong."
    ),
    "kl_loss": (
        "How much a code says that the prior does not, here {bits} bits: near 0 the code is ignored (posterior"
        " collapse); when it is very high, samples look unlike the data."
    ),
}


class _Warning(NamedTuple):
    badge: str
    explanation: str
    numbers: tuple[str, ...]


NOT_HELD_OUT = _Warning(
    "no held-out data",
    "the model was trained on these images too, so the numbers flatter it.",
    ("negative_elbo", "reconstruction_loss", "kl_loss"),
)
NOT_NORMALISED = _Warning(
    "not a normalised likelihood",
    "a Bernoulli is a distribution over black and white, and these images have grey levels. The number compares models"
    " of this kind on the same images; it is not comparable with other likelihoods, and even a perfect reconstruction"
    " does not reach 0.",
    ("negative_elbo", "reconstruction_loss"),
)


class _Caption(NamedTuple):
    heading: str
    shows: str
    good: str
    bad: str


FIGURES = {
    "grid": _Caption(
        "Latent grid",
        "The decoder draws an image for every point of a grid in the latent space. The axes give the two coordinates"
        " that vary.",
        "Neighbours change smoothly into each other, and every kind of image has a region of its own.",
        "Sudden jumps, wide areas of blur, or the same image everywhere: then the code is not used.",
    ),
    "samples": _Caption(
        "Samples",
        "New images: codes drawn at random from the prior, then decoded.",
        "Each could be taken for a real image, and they differ from one another.",
        "Smudges and in-between shapes: the prior reaches places where no training image was put.",
    ),
    "reconstructions": _Caption(
        "Reconstructions",
        "Each image above, and below it what the decoder makes of its code: all that survives the bottleneck.",
        "The same content, with its stroke, slant and place.",
        "A blur, or an image of another kind: the code is too short or the model has not learnt enough.",
    ),
    "latents": _Caption(
        "Latent space",
        "Where the encoder puts images: the mean of each image's posterior, coloured by label where there are labels."
        " Dashed is the prior: in two dimensions circles of 1 and 2 standard deviations, which hold 39% and 86% of its"
        " draws; in one dimension its density.",
        "The points fill the prior without holes, and images of a kind lie together.",
        "Holes, or points far outside (samples will look odd); everything in one heap at 0 (the code is ignored).",
    ),
    "curves": _Caption(
        "Training",
        "The losses of each epoch, in nats per image: on the images trained on, and on validation images where some"
        " were kept apart.",
        "The curves fall, level out, and stay close together.",
        "Validation rises while training falls (over-fitting: stop earlier or regularise); still falling at the end"
        " (train longer); KL loss at 0 (posterior collapse: lower β or raise it slowly).",
    ),
}


def render(
    *,
    title: str,
    summary: str,
    experiment_toml: str,
    environment: Mapping[str, Any],
    metrics: Mapping[str, Sequence[float]],
    evaluation: Mapping[str, Any] | None,
    figures: Mapping[str, Path],
) -> str:
    """Return a self-contained HTML page about a run, figures embedded, that needs no network and no script.

    Args:
        title: The run's name.
        summary: A sentence below it, such as the preset and the data.
        experiment_toml: The resolved experiment, shown as it is.
        environment: Versions, devices and the like; may be nested.
        metrics: Columns of the run's metrics, one value an epoch: losses in nats per image, `val_` before those of
            validation, and `epoch`, counted from 1 where it is absent.
        evaluation: `negative_elbo`, `reconstruction_loss` and `kl_loss`, each with `mean` and `standard_error` in nats
            per image; `split`, `images`, `held_out`, `normalised`. Without it the last epoch's losses take its place.
        figures: PNG files by name, among `grid`, `samples`, `reconstructions`, `latents`, `curves`; what is not there
            is left out of the page.

    Returns:
        The page.

    Raises:
        InputError: If a figure's name is unknown, its file is missing or no PNG, or `evaluation` lacks a key.
    """
    for name in figures:
        if name not in FIGURES:
            raise unknown("figure", name, FIGURES)
    numbers = _last_epoch(metrics) if evaluation is None else _evaluated(evaluation)
    page = Template(resources.files("keras_vae.evaluation").joinpath("report.html").read_text("utf-8"))
    return page.substitute(
        title=escape(title),
        summary=escape(summary),
        numbers=numbers,
        figures="\n".join(_figure(name, figures[name]) for name in FIGURES if name in figures),
        epochs=_epochs(metrics),
        experiment=escape(experiment_toml),
        environment=_environment(environment),
    )


def _evaluated(evaluation: Mapping[str, Any]) -> str:
    missing = [key for key in (*NUMBERS, "split", "images", "held_out", "normalised") if key not in evaluation]
    if missing:
        raise InputError(f"evaluation has no {', '.join(missing)}: pass what evaluating a run returns")
    note = (
        f"Measured on {int(evaluation['images']):,} images of the {escape(str(evaluation['split']))} split;"
        " ± is one standard error over images."
    )
    warnings = [] if evaluation["held_out"] else [NOT_HELD_OUT]
    warnings += [] if evaluation["normalised"] else [NOT_NORMALISED]
    return _numbers({name: evaluation[name] for name in NUMBERS}, note, warnings)


def _last_epoch(metrics: Mapping[str, Sequence[float]]) -> str:
    """Return the numbers of a run that has not been evaluated."""
    prefix = "val_" if "val_negative_elbo" in metrics else ""
    known = {name: metrics[prefix + name] for name in NUMBERS if len(metrics.get(prefix + name, ()))}
    if not known:
        return ""
    images = "validation images" if prefix else "the images trained on, while training"
    note = f"From the last epoch, on {images}; not evaluated yet, so without standard errors."
    return _numbers({name: {"mean": values[-1]} for name, values in known.items()}, note, [])


def _numbers(values: Mapping[str, Mapping[str, Any]], note: str, warnings: Sequence[_Warning]) -> str:
    cards = []
    for name, value in values.items():
        mean, error = _measured(float(value["mean"]), value.get("standard_error"))
        badges = "".join(f'<p class="badge">{warning.badge}</p>' for warning in warnings if name in warning.numbers)
        bits = _rounded(float(value["mean"]) / math.log(2))
        cards.append(
            f'<div class="number"><h3>{NAMES[name]}</h3><p class="value"><b>{mean}</b> <span>{error}</span>'
            f" <small>nats per image</small></p>{badges}<p>{NUMBERS[name].format(bits=bits)}</p></div>"
        )
    notices = [f'<p class="warning"><b>{warning.badge}</b>: {warning.explanation}</p>' for warning in warnings]
    return "\n".join(
        [
            "<h2>How good it is</h2>",
            f'<div class="numbers">{"".join(cards)}</div>',
            *notices,
            f'<p class="small">{note}</p>',
        ]
    )


def _figure(name: str, path: Path) -> str:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"figures['{name}'] is {path}: {error.strerror or error}") from error
    if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 24:
        raise InputError(f"figures['{name}'] is {path}: not a PNG file")
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

    chosen = sorted(roles)
    head = "".join(f"<th>epoch {epochs[index]:g}<br>{', '.join(roles[index])}</th>" for index in chosen)
    order = [prefix + name for name in NAMES for prefix in ("", "val_")]
    names = [name for name in order if name in columns] + [name for name in columns if name not in order]
    body = "".join(
        f"<tr><th>{escape(_name(name))}</th>"
        + "".join(f"<td>{_rounded(columns[name][index], zeros=_is_loss(name))}</td>" for index in chosen)
        + "</tr>"
        for name in names
    )
    note = (
        "" if ranked is None else f'<p class="small">Best is the lowest {_name(ranked)}. Losses in nats per image.</p>'
    )
    table = f"<table><thead><tr><th></th>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f'<h2>Epochs</h2>\n<div class="scroll">{table}</div>\n{note}'


def _name(column: str) -> str:
    plain = column.removeprefix("val_")
    name = NAMES.get(plain, plain)
    if plain != column:
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


def _measured(mean: float, error: float | None) -> tuple[str, str]:
    """Return a mean and its standard error, both to the error's second digit."""
    if error is None or not math.isfinite(error) or error <= 0 or not math.isfinite(mean):
        return _rounded(mean), ""
    digits = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{mean:,.{digits}f}", f"± {error:,.{digits}f}"


def _rounded(value: float, *, zeros: bool = False) -> str:
    """Return four significant digits, or thousands whole; with `zeros`, also those at the end."""
    if not math.isfinite(value):
        return "not finite"
    if 1000 <= abs(value) < 1e9:
        return f"{value:,.0f}"
    return f"{value:#.4g}".rstrip(".") if zeros else f"{value:.4g}"
