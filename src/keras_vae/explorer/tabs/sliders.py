"""The tab with one slider for each latent dimension."""

from typing import Any

import gradio as gr
import numpy as np

from keras_vae.explorer.exploring import Explorer
from keras_vae.explorer.widgets import answer_to, dimension_name, label_chooser, large

MOST = 64
"""Sliders at most: those of the dimensions that carry most."""

_OPEN = 16


def sliders(explorer: Explorer) -> None:
    """Lay the tab out and have it answer."""
    latent_dim, order = explorer.engine.model.latent_dim, explorer.order[:MOST]
    active = [dimension for dimension in order if explorer.is_active(dimension)]
    opened, folded = (
        active[:_OPEN],
        [dimension for dimension in order if dimension not in active[:_OPEN]],
    )

    def slider(dimension: int) -> gr.Slider:
        return gr.Slider(
            -4, 4, value=0, step=0.01, label=dimension_name(explorer, dimension), elem_id=f"slider-{dimension}"
        )

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            answer = gr.HTML(
                large(explorer.decode(np.zeros(latent_dim), explorer.label(None))),
                elem_classes="vae",
                elem_id="slider-image",
            )
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

    def image(label: str | None, *values: float) -> str:
        code = np.zeros(latent_dim, "float32")
        code[places] = values
        return large(explorer.decode(code, explorer.label(label)))

    def drawn(label: str | None, temperature: float) -> list[Any]:
        code = explorer.engine.draw(int(np.random.default_rng().integers(2**31)), temperature, explorer.label(label))
        values = [round(float(value), 2) for value in np.clip(code[places], -4, 4)]
        return [image(label, *values), *values]

    def zero(label: str | None) -> list[Any]:
        values = [0.0] * len(places)
        return [image(label, *values), *values]

    for control in (*controls, label):
        answer_to(control.input, image, [label, *controls], answer)
    answer_to(draw.click, drawn, [label, heat], [answer, *controls])
    answer_to(reset.click, zero, [label], [answer, *controls])
