"""The tab with one slider for each latent dimension."""

import math
from typing import Any

import gradio as gr
import numpy as np

from keras_vae.core.typing import Array
from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import dimension_name, label_chooser, large, on_event

MOST = 64
"""Sliders at most: those of the dimensions that carry most."""

_OPEN = 16
_STEP = 0.01


def sliders(explorer: Explorer) -> None:
    """Lay the tab out and have it answer."""
    order, middle = explorer.order[:MOST], explorer.middle
    active = [dimension for dimension in order if explorer.is_active(dimension)]
    opened = active[:_OPEN]
    folded = [dimension for dimension in order if dimension not in opened]

    def slider(dimension: int) -> gr.Slider:
        reach = float(explorer.reach[dimension])
        return gr.Slider(
            -reach,
            reach,
            value=round(float(middle[dimension]), 2),
            step=_STEP,
            label=dimension_name(explorer, dimension),
            elem_id=f"slider-{dimension}",
        )

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            answer = gr.HTML(_pictured(explorer, middle, None), elem_classes="vae", elem_id="slider-image")
            label = label_chooser(explorer)
            with gr.Row():
                draw = gr.Button("Random draw", variant="primary", elem_id="slider-draw", min_width=120)
                reset = gr.Button("Reset", elem_id="slider-reset", min_width=120)
            heat = gr.Slider(
                0, 2, value=1, step=0.05, label="Temperature of the draw", visible=explorer.engine.has_temperature
            )
        with gr.Column(scale=3, min_width=320):
            controls = [slider(dimension) for dimension in opened]
            if folded:
                unused = [dimension for dimension in folded if not explorer.is_active(dimension)]
                title = (
                    f"{len(folded)} more, {len(unused)} of them inactive"
                    if len(unused) < len(folded)
                    else (f"{len(folded)} inactive: each carries under 0.01 nats")
                )
                with gr.Accordion(title, open=not opened):
                    controls += [slider(dimension) for dimension in folded]
    places = [*opened, *folded]
    # Whole: a draw may lie beyond the sliders' ends, and has dimensions that have none.
    code = gr.State(middle)

    def image(code: Array, label: str | None, *values: float) -> str:
        code = code.copy()
        ends = explorer.reach[places]
        # A slider at its end says nothing more than that the number lies there or beyond.
        moved = np.abs(np.clip(code[places], -ends, ends) - np.asarray(values)) > _STEP / 2
        code[places] = np.where(moved, values, code[places])
        return _pictured(explorer, code, label)

    def shown(code: Array, label: str | None) -> list[Any]:
        ends = explorer.reach[places]
        values = [round(float(value), 2) for value in np.clip(code[places], -ends, ends)]
        return [_pictured(explorer, code, label), code, *values]

    def drawn(label: str | None, temperature: float) -> list[Any]:
        seed = int(np.random.default_rng().integers(2**31))
        return shown(explorer.engine.draw(seed, temperature, explorer.label(label)), label)

    def back(label: str | None) -> list[Any]:
        return shown(middle, label)

    for control in (*controls, label):
        on_event(control.input, image, [code, label, *controls], answer)
    on_event(draw.click, drawn, [label, heat], [answer, code, *controls])
    on_event(reset.click, back, [label], [answer, code, *controls])


def _pictured(explorer: Explorer, code: Array, label: str | None) -> str:
    """Return the image of a code and, where there are more than two dimensions, the plane through it."""
    told = explorer.label(label)
    image = large(explorer.decode(code, told))
    if len(code) <= 2:
        return image
    plane, images = explorer.through(code, told)
    across, up = plane.names
    return image + pictures.strip(images, f"{across} across, {up} up, the others as they are", math.isqrt(len(images)))
