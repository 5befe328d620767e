"""The page: tabs whose every event asks an `Explorer` something and shows the answer."""

import functools
import tempfile
from collections.abc import Callable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from keras_vae.errors import InputError, RunError
from keras_vae.explorer import pictures, uploads
from keras_vae.explorer.exploring import SAMPLES, Explorer
from keras_vae.explorer.plane import View
from keras_vae.types import Array

Levels = NDArray[np.uint8]

SLIDERS = 64
"""Sliders at most: those of the dimensions that carry most."""

_OPEN_SLIDERS = 16

THEME = gr.themes.Soft(
    primary_hue="blue", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    block_title_background_fill="none",
    block_title_text_color="*neutral_600",
    block_title_padding="0",
    block_title_text_weight="500",
    button_large_text_weight="500",
)
"""Fonts of the machine: nothing is fetched."""


def asset(name: str) -> str:
    """Return a file of the page."""
    return resources.files("keras_vae.explorer").joinpath(f"assets/{name}").read_text("utf-8")


def build(explorer: Explorer) -> gr.Blocks:
    """Return the page of a run, with the tabs that apply to its model."""
    with gr.Blocks(title=f"{explorer.run.name} · keras-vae", analytics_enabled=False) as page:
        run, note = explorer.run, explorer.material.note
        about = f"<h1>{escape(run.name)}</h1><p>{escape(run.experiment.description)}</p>"
        missing = f'<p class="small">{escape(note[:1].upper() + note[1:])}</p>' if note else ""
        gr.HTML(f'<div class="vae-head">{about}{missing}</div>')
        # What was last drawn, for the tab that goes from one image to another.
        drawn = gr.State(None)
        if explorer.has_plane:
            with gr.Tab("Latent map", id="map"):
                _map(explorer)
        if explorer.has_vector:
            with gr.Tab("Sliders", id="sliders"):
                _sliders(explorer)
        with gr.Tab("Draw", id="draw"):
            _draw(explorer, drawn)
        if explorer.has_lines:
            with gr.Tab("Between", id="between"):
                _between(explorer, drawn)
        with gr.Tab("Samples", id="samples"):
            _samples(explorer)
        with gr.Tab("Run", id="run") as tab:
            _run(explorer, tab)
        _api(explorer)
    return page


# ---- Tabs ----


def _map(explorer: Explorer) -> None:
    shown = explorer.shown
    labels = None if shown is None else shown.labels
    names = () if shown is None else shown.classes

    def draw(
        kind: str,
        dims: Sequence[int],
        view: View | None,
        show: bool,
        label: str | None,
        mark: Sequence[float],
    ) -> tuple[str, View]:
        plane = explorer.plane(kind, (dims[0], dims[1]))
        view = view or explorer.home(plane)
        points = plane.points(explorer.codes) if show and len(explorer.codes) else None
        images = explorer.grid(plane, view, explorer.label(label))
        return pictures.latent_map(images, plane, view, points=points, labels=labels, names=names, mark=mark), view

    def decoded(kind: str, dims: Sequence[int], mark: Sequence[float], label: str | None) -> tuple[str, str]:
        plane = explorer.plane(kind, (dims[0], dims[1]))
        code = plane.codes(np.array([mark]))[0]
        facts = {name: _number(value) for name, value in zip(plane.names, mark, strict=True)}
        if len(code) > 2:
            facts["z"] = _vector(code)
        return _large(explorer.decode(code, explorer.label(label))), _facts(facts)

    first = sorted(explorer.order[:2])
    start, home = draw("dimensions", first, None, True, None, (0.0, 0.0))
    image, facts = decoded("dimensions", first, (0.0, 0.0), None)
    view, mark, dims = gr.State(home), gr.State((0.0, 0.0)), gr.State(list(first))
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            picture = gr.HTML(start, js_on_load=asset("map.js"), elem_classes="vae", elem_id="map-picture")
            gr.HTML(pictures.legend(labels, names), elem_classes="vae")
        with gr.Column(scale=2, min_width=260):
            answer = gr.HTML(image, elem_classes="vae", elem_id="map-image")
            coordinates = gr.HTML(facts, elem_classes="vae", elem_id="map-facts")
            with gr.Row():
                closer = gr.Button("Zoom in", size="sm", min_width=70)
                further = gr.Button("Zoom out", size="sm", min_width=70)
                back = gr.Button("All", size="sm", min_width=70)
            label = _label(explorer)
            many = explorer.engine.model.latent_dim > 2
            kind = gr.Radio(
                [("two dimensions", "dimensions"), ("principal components", "components")][: len(explorer.planes)],
                value="dimensions",
                label="Plane",
                visible=len(explorer.planes) > 1,
            )
            with gr.Row(visible=many):
                choices = [(_dimension(explorer, dimension), dimension) for dimension in explorer.order]
                across = gr.Dropdown(choices, value=first[0], label="Across")
                up = gr.Dropdown(choices, value=first[1], label="Up")
            show = gr.Checkbox(True, label="Show images as points", visible=len(explorer.codes) > 0)
            gr.HTML('<p class="small">Click to decode a point; drag to zoom into a region.</p>', elem_classes="vae")

    def pick(event: gr.EventData, kind: str, dims: Sequence[int], view: View, label: str | None) -> tuple[Any, ...]:
        mark = View(*view).at(event.x, event.y)
        return (*decoded(kind, dims, mark, label), mark)

    def region(
        event: gr.EventData,
        kind: str,
        dims: Sequence[int],
        view: View,
        show: bool,
        label: str | None,
        mark: Sequence[float],
    ) -> tuple[Any, ...]:
        return draw(kind, dims, View(*view).region(event.x0, event.y0, event.x1, event.y1), show, label, mark)

    def zoom(factor: float) -> Callable[..., tuple[Any, ...]]:
        def zoomed(
            kind: str, dims: Sequence[int], view: View, show: bool, label: str | None, mark: Sequence[float]
        ) -> tuple[Any, ...]:
            middle = (mark[0], mark[1]) if factor < 1 else None
            return draw(kind, dims, View(*view).zoomed(factor, middle), show, label, mark)

        return zoomed

    def other(kind: str, across: int, up: int, show: bool, label: str | None) -> tuple[Any, ...]:
        dims, mark = [across, up], (0.0, 0.0)
        return (*draw(kind, dims, None, show, label, mark), *decoded(kind, dims, mark, label), dims, mark)

    def same(
        kind: str, dims: Sequence[int], view: View, show: bool, label: str | None, mark: Sequence[float]
    ) -> tuple[Any, ...]:
        return (*draw(kind, dims, View(*view), show, label, mark), *decoded(kind, dims, mark, label))

    def home_again(
        kind: str, dims: Sequence[int], view: View, show: bool, label: str | None, mark: Sequence[float]
    ) -> tuple[Any, ...]:
        return draw(kind, dims, None, show, label, mark)

    seen = [kind, dims, view, show, label, mark]
    _on(picture.pick, pick, [kind, dims, view, label], [answer, coordinates, mark])
    _on(picture.region, region, seen, [picture, view])
    _on(closer.click, zoom(0.5), seen, [picture, view])
    _on(further.click, zoom(2.0), seen, [picture, view])
    _on(back.click, home_again, seen, [picture, view])
    for chooser in (kind, across, up):
        _on(chooser.input, other, [kind, across, up, show, label], [picture, view, answer, coordinates, dims, mark])
    for chooser in (show, label):
        _on(chooser.input, same, seen, [picture, view, answer, coordinates])


def _sliders(explorer: Explorer) -> None:
    latent_dim, order = explorer.engine.model.latent_dim, explorer.order[:SLIDERS]
    active = [dimension for dimension in order if explorer.is_active(dimension)]
    opened, folded = (
        active[:_OPEN_SLIDERS],
        [dimension for dimension in order if dimension not in active[:_OPEN_SLIDERS]],
    )

    def slider(dimension: int) -> gr.Slider:
        return gr.Slider(
            -4, 4, value=0, step=0.01, label=_dimension(explorer, dimension), elem_id=f"slider-{dimension}"
        )

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            answer = gr.HTML(
                _large(explorer.decode(np.zeros(latent_dim), explorer.label(None))),
                elem_classes="vae",
                elem_id="slider-image",
            )
            label = _label(explorer)
            with gr.Row():
                draw = gr.Button("Random draw", variant="primary", elem_id="slider-draw", min_width=120)
                reset = gr.Button("Reset", elem_id="slider-reset", min_width=120)
            heat = gr.Slider(
                0, 2, value=1, step=0.05, label="Temperature of the draw", visible=explorer.engine.has_temperature
            )
        with gr.Column(scale=3, min_width=320):
            sliders = [slider(dimension) for dimension in opened]
            if folded:
                unused = [dimension for dimension in folded if not explorer.is_active(dimension)]
                title = (
                    f"{len(folded)} more, {len(unused)} of them inactive"
                    if len(unused) < len(folded)
                    else (f"{len(folded)} inactive: each carries under 0.01 nats")
                )
                with gr.Accordion(title, open=not opened):
                    sliders += [slider(dimension) for dimension in folded]
    places = [*opened, *folded]

    def image(label: str | None, *values: float) -> str:
        code = np.zeros(latent_dim, "float32")
        code[places] = values
        return _large(explorer.decode(code, explorer.label(label)))

    def drawn(label: str | None, temperature: float) -> list[Any]:
        code = explorer.engine.draw(int(np.random.default_rng().integers(2**31)), temperature, explorer.label(label))
        values = [round(float(value), 2) for value in np.clip(code[places], -4, 4)]
        return [image(label, *values), *values]

    def zero(label: str | None) -> list[Any]:
        values = [0.0] * len(places)
        return [image(label, *values), *values]

    for control in (*sliders, label):
        _on(control.input, image, [label, *sliders], answer)
    _on(draw.click, drawn, [label, heat], [answer, *sliders])
    _on(reset.click, zero, [label], [answer, *sliders])


def _draw(explorer: Explorer, drawn: gr.State) -> None:
    height, width, _ = explorer.image_shape
    scale = max(1, 336 // max(height, width))
    pad_html = (
        f'<div class="pad"><canvas width="{width * scale}" height="{height * scale}" aria-label="drawing pad"></canvas>'
        "<button>Clear</button></div>"
    )
    hint = _caption("Draw something, or upload a picture: its reconstruction, its score and its place appear here.")
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            pad = gr.HTML(pad_html, js_on_load=asset("pad.js"), elem_classes="vae", elem_id="pad")
            with gr.Row():
                upload = gr.UploadButton("Upload a picture", file_types=["image"], size="sm", min_width=120)
                real = gr.Button(
                    "Take one of the run's", size="sm", min_width=120, visible=explorer.material.shown is not None
                )
            invert = gr.Checkbox(False, label="Swap dark and light in uploads")
            label = _label(explorer)
        with gr.Column(scale=3, min_width=320):
            answer = gr.HTML(hint, elem_classes="vae", elem_id="draw-answer")
    grid = functools.cache(
        lambda label: explorer.grid(explorer.plane(), explorer.home(explorer.plane()), explorer.label(label))
    )

    def place(image: Levels, label: str | None, notes: Sequence[str] = ()) -> str:
        placed = explorer.place(image, explorer.label(label))
        tiles = {"as the model sees it": image, "reconstruction": placed.reconstruction}
        shown = pictures.row([*tiles.values(), pictures.heat(placed.difference)], [*tiles, "difference"])
        parts = [
            shown,
            _facts(_judged(explorer, placed, image)),
            *(f'<p class="small">{escape(note)}</p>' for note in notes),
        ]
        if explorer.has_plane and placed.code is not None:
            plane = explorer.plane()
            mark = plane.points(placed.code[None])[0]
            view = explorer.home(plane)
            labels = None if explorer.shown is None else explorer.shown.labels
            parts.append(
                pictures.latent_map(
                    grid(label),
                    plane,
                    view,
                    points=plane.points(explorer.codes) if len(explorer.codes) else None,
                    labels=labels,
                    mark=(float(mark[0]), float(mark[1])),
                )
            )
        return "".join(parts)

    def sketched(event: gr.EventData, label: str | None) -> tuple[Any, ...]:
        picture = uploads.prepare(uploads.read_uri(event.picture), explorer.image_shape)
        return place(picture.image, label), picture.image

    def uploaded(file: str, invert: bool, label: str | None) -> tuple[Any, ...]:
        picture = uploads.prepare(uploads.read_file(file), explorer.image_shape, invert=invert)
        return place(picture.image, label, picture.notes), picture.image

    def taken(label: str | None) -> tuple[Any, ...]:
        images = explorer.material.shown
        if images is None:
            return hint, None
        index = int(np.random.default_rng().integers(len(images)))
        told = label if images.labels is None or not explorer.classes else explorer.classes[int(images.labels[index])]
        return place(images.images[index], told), images.images[index]

    def again(image: Levels | None, label: str | None) -> str:
        return hint if image is None else place(image, label)

    _on(pad.sketch, sketched, [label], [answer, drawn])
    _on(pad.wipe, lambda: (hint, None), [], [answer, drawn])
    _on(upload.upload, uploaded, [upload, invert, label], [answer, drawn])
    _on(real.click, taken, [label], [answer, drawn])
    _on(label.input, again, [drawn, label], answer)


def _between(explorer: Explorer, drawn: gr.State) -> None:
    images, what = explorer.picks()
    ends, number, side = gr.State([images[0], images[1]]), gr.State(0), gr.State(0)

    def strips(ends: Sequence[Levels], label: str | None) -> str:
        told = explorer.label(label)
        ways = {"on the straight line between the codes": False, "on the great circle between the codes": True}
        drawings = [
            pictures.strip(explorer.between(ends[0], ends[1], spherical=spherical, label=told), name)
            for name, spherical in ways.items()
        ]
        return pictures.row(list(ends), ["from", "to"]) + "".join(drawings)

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            gr.HTML(_caption(what), elem_classes="vae")
            picks = gr.HTML(pictures.picks(images), js_on_load=asset("picks.js"), elem_classes="vae", elem_id="picks")
            with gr.Row():
                other = gr.Button("Other images", size="sm", min_width=120)
                mine = gr.Button("Take my drawing", size="sm", min_width=120)
            label = _label(explorer)
        with gr.Column(scale=3, min_width=320):
            answer = gr.HTML(strips([images[0], images[1]], None), elem_classes="vae between", elem_id="between-answer")
            with gr.Row():
                line = gr.Button("Make a GIF of the line", size="sm", elem_id="gif-line", min_width=120)
                circle = gr.Button("… of the great circle", size="sm", min_width=120)
            saved = gr.File(label="GIF", visible=False, elem_id="gif-file")

    def put(image: Levels, ends: Sequence[Levels], side: int, label: str | None) -> tuple[Any, ...]:
        ends = [image, ends[1]] if side == 0 else [ends[0], image]
        return strips(ends, label), ends, 1 - side

    def pick(event: gr.EventData, number: int, ends: Sequence[Levels], side: int, label: str | None) -> tuple[Any, ...]:
        return put(explorer.picks(number)[0][event.index], ends, side, label)

    def take(image: Levels | None, ends: Sequence[Levels], side: int, label: str | None) -> tuple[Any, ...]:
        if image is None:
            raise InputError("nothing is drawn yet: go to the tab Draw first")
        return put(image, ends, side, label)

    def turn(number: int) -> tuple[Any, ...]:
        return pictures.picks(explorer.picks(number + 1)[0]), number + 1

    def save(spherical: bool) -> Callable[..., Any]:
        def gif(ends: Sequence[Levels], label: str | None) -> Any:  # noqa: ANN401
            # Gradio copies it into a cache of its own, whose files go after a day.
            folder = Path(tempfile.mkdtemp(prefix="keras-vae-"))
            way = explorer.between(ends[0], ends[1], spherical=spherical, label=explorer.label(label))
            return gr.File(value=str(explorer.animate(way, folder / "between.gif")), visible=True)

        return gif

    _on(picks.pick, pick, [number, ends, side, label], [answer, ends, side])
    _on(mine.click, take, [drawn, ends, side, label], [answer, ends, side])
    _on(other.click, turn, [number], [picks, number])
    _on(label.input, strips, [ends, label], answer)
    _on(line.click, save(False), [ends, label], saved)
    _on(circle.click, save(True), [ends, label], saved)


def _samples(explorer: Explorer) -> None:
    compared, trained = explorer.training_images

    def page(prior: str, label: str | None) -> str:
        told = None if label in (None, "all in turn") else explorer.label(label)
        images = explorer.sample(SAMPLES, int(np.random.default_rng().integers(2**31)), prior=prior, label=told)
        found = explorer.neighbours(images)
        if found is None:
            return pictures.pairs(images, None, [])
        nearest, where = found
        return pictures.pairs(images, nearest, [f"{distance:.1f}" for distance in where.distances])

    below = (
        "Each sample above the training image that is nearest to it, and their distance (black to white is 1 a pixel)"
        + ("." if compared == trained else f": of {compared:,} of the {trained:,}.")
        if compared
        else "Training images are not at hand: samples alone."
    )
    with gr.Row(equal_height=True):
        again = gr.Button("New samples", variant="primary", elem_id="new-samples", scale=0, min_width=180)
        prior = gr.Radio(
            explorer.priors, value=explorer.priors[0], label="Prior", visible=len(explorer.priors) > 1, min_width=240
        )
        label = gr.Dropdown(
            ["all in turn", *explorer.classes], value="all in turn", label="Label", visible=bool(explorer.classes)
        )
    sheet = gr.HTML(page(explorer.priors[0], None), elem_classes="vae", elem_id="sample-sheet")
    gr.HTML(_caption(below), elem_classes="vae")
    _on(again.click, page, [prior, label], sheet)
    for chooser in (prior, label):
        _on(chooser.input, page, [prior, label], sheet)


def _run(explorer: Explorer, tab: gr.Tab) -> None:
    report = gr.HTML('<p class="small">The doctor is looking at the run …</p>', elem_classes="vae", elem_id="report")

    def show() -> str:
        return f'<iframe sandbox srcdoc="{escape(explorer.report)}" title="report of the run"></iframe>'

    _on(tab.select, show, [], report)


# ---- The Python API ----


def _api(explorer: Explorer) -> None:
    """Offer what the tabs do to programs, as functions of numbers and texts; pictures are data URIs of PNG files."""

    def decode(code: list[float], label: str | None = None) -> str:
        """Return the mean image of one code, as a data URI of a PNG file."""
        return pictures.uri(explorer.decode(code, explorer.label(label)))

    def place(picture: str, label: str | None = None) -> dict[str, Any]:
        """Return code, reconstruction, score in nats and percentile of a picture given as a data URI."""
        image = uploads.prepare(uploads.read_uri(picture), explorer.image_shape).image
        placed = explorer.place(image, explorer.label(label))
        return {
            "code": None if placed.code is None else placed.code.tolist(),
            "reconstruction": pictures.uri(placed.reconstruction),
            "score": placed.score,
            "nats": placed.nats,
            "percentile": placed.percentile,
        }

    def interpolate(first: str, second: str, spherical: bool = False, label: str | None = None) -> list[str]:
        """Return the images on the way between two pictures, as data URIs."""
        ends = [uploads.prepare(uploads.read_uri(end), explorer.image_shape).image for end in (first, second)]
        return [
            pictures.uri(image)
            for image in explorer.between(ends[0], ends[1], spherical=spherical, label=explorer.label(label))
        ]

    def sample(count: int = 1, seed: int = 0, prior: str | None = None, label: str | None = None) -> list[str]:
        """Return mean images of draws from the prior, as data URIs; at most 100."""
        if not 1 <= count <= 100:
            raise InputError(f"count = {count}: from 1 to 100")
        told = None if label is None else explorer.label(label)
        return [pictures.uri(image) for image in explorer.sample(count, seed, prior=prior, label=told)]

    def describe() -> dict[str, Any]:
        """Return what is explored: sizes, labels, priors, rates and what the doctor finds."""
        model = explorer.engine.model
        return {
            "run": explorer.run.name,
            "model": type(model).__name__,
            "image_shape": list(explorer.image_shape),
            "latent_dim": model.latent_dim,
            "labels": list(explorer.classes),
            "priors": list(explorer.priors),
            "rates": None if not explorer.has_vector or explorer.rates is None else explorer.rates.tolist(),
            "note": explorer.material.note,
        }

    offered: list[Callable[..., Any]] = [place, sample, describe]
    offered += [decode] if explorer.has_vector else []
    offered += [interpolate] if explorer.has_lines else []
    for function in offered:
        gr.api(_failures_said(function), api_name=function.__name__)


# ---- What tabs share ----


def _on(event: Any, function: Callable[..., Any], inputs: Any, outputs: Any) -> None:  # noqa: ANN401
    """Answer an event; of many in a row, the last one."""
    event(
        _failures_said(function),
        inputs,
        outputs,
        show_progress="hidden",
        trigger_mode="always_last",
        api_visibility="private",
    )


def _failures_said(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with what a user can help told on the page."""

    @functools.wraps(function)
    def told(*arguments: Any, **named: Any) -> Any:  # noqa: ANN401
        try:
            return function(*arguments, **named)
        except (InputError, RunError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    return told


def _label(explorer: Explorer) -> gr.Dropdown:
    classes = explorer.classes
    return gr.Dropdown(list(classes), value=classes[0] if classes else None, label="Label", visible=bool(classes))


def _dimension(explorer: Explorer, dimension: int) -> str:
    carried = "" if explorer.rates is None else f" · {explorer.rates[dimension]:.2f} nats"
    return f"z[{dimension}]{carried}"


def _large(image: Array) -> str:
    return f'<div class="large">{pictures.tile(image)}</div>'


def _number(value: float) -> str:
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def _vector(code: Array) -> str:
    return f"({', '.join(map(_number, code[:8].tolist()))}{', …' if len(code) > 8 else ''})"


def _caption(text: str) -> str:
    return f'<p class="small">{escape(text)}</p>'


def _facts(facts: dict[str, str]) -> str:
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def _judged(explorer: Explorer, placed: Any, image: Array) -> dict[str, str]:  # noqa: ANN401
    likelihood, draws = explorer.engine.model.likelihood, explorer.engine.draws
    nats = f"{-placed.nats:.1f}".replace("-", "\N{MINUS SIGN}")
    named = {
        "nll": ("log p(x)", f"{nats} nats, from {draws} draws"),
        "negative_elbo": ("log p(x)", f"at least {nats} nats (the ELBO)"),
        "reconstruction_loss": ("log p(x|z)", f"{nats} nats"),
    }
    name, value = named[placed.score]
    if not likelihood.is_normalised_on(image[None]):
        value += "; not a normalised likelihood"
    elif likelihood.is_density:
        value += "; a density of grey values"
    facts = {name: value}
    known = explorer.material.known
    if known is not None:
        kind = "training" if explorer.material.splits is not None else known.split
        facts["strangeness"] = (
            f"still measuring {kind} images"
            if placed.percentile is None
            else f"scores above {placed.percentile:.0f} % of {kind} images"
        )
    if placed.code is not None and explorer.has_vector:
        facts["z"] = _vector(placed.code)
    return facts
