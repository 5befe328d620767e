"""The tab that takes a drawing or an upload, and says what the model makes of it."""

import functools
from collections.abc import Sequence
from html import escape
from typing import Any

import gradio as gr
import numpy as np

from keras_vae.core.typing import Array
from keras_vae.explorer import pictures, uploads
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import Levels, asset, caption, facts_list, label_chooser, on_event, vector_text


def draw(explorer: Explorer, drawn: gr.State) -> None:
    """Lay the tab out and have it answer; what was drawn last goes into `drawn`."""
    height, width, _ = explorer.image_shape
    scale = max(1, 336 // max(height, width))
    pad_html = (
        f'<div class="pad"><canvas width="{width * scale}" height="{height * scale}" aria-label="drawing pad"></canvas>'
        "<button>Clear</button></div>"
    )
    hint = caption("Draw something, or upload a picture: its reconstruction, its score and its place appear here.")
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            pad = gr.HTML(pad_html, js_on_load=asset("pad.js"), elem_classes="vae", elem_id="pad")
            with gr.Row():
                upload = gr.UploadButton("Upload a picture", file_types=["image"], size="sm", min_width=120)
                real = gr.Button(
                    "Take one of the run's", size="sm", min_width=120, visible=explorer.material.shown is not None
                )
            invert = gr.Checkbox(False, label="Swap dark and light in uploads")
            label = label_chooser(explorer)
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
            facts_list(_judged(explorer, placed, image)),
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

    on_event(pad.sketch, sketched, [label], [answer, drawn], may_fail=True)
    on_event(pad.wipe, lambda: (hint, None), [], [answer, drawn])
    on_event(upload.upload, uploaded, [upload, invert, label], [answer, drawn], may_fail=True)
    on_event(real.click, taken, [label], [answer, drawn])
    on_event(label.input, again, [drawn, label], answer)


def _judged(explorer: Explorer, placed: Any, image: Array) -> dict[str, str]:
    likelihood, draws = explorer.engine.model.likelihood, explorer.engine.draws
    nats = f"{-placed.nats:.1f}".replace("-", "\N{MINUS SIGN}")
    named = {
        "nll": ("log p(x)", f"{nats} nats, from {draws} draws"),
        "negative_elbo": ("log p(x)", f"at least {nats} nats (the ELBO)"),
        "reconstruction_loss": ("log p(x|z)", f"{nats} nats"),
    }
    name, value = named[placed.score]
    if not likelihood.is_normalized_on(image[None]):
        value += "; not a normalized likelihood"
    elif likelihood.is_density:
        value += "; a density of gray values"
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
        facts["z"] = vector_text(placed.code)
    return facts
