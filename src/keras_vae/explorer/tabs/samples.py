"""The tab of draws from the prior, each with its nearest training image."""

import gradio as gr
import numpy as np

from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import SAMPLES, Explorer
from keras_vae.explorer.widgets import caption, on_event


def samples(explorer: Explorer) -> None:
    """Lay the tab out and have it answer."""
    compared, trained = explorer.training_images

    def page(prior: str, label: str | None) -> str:
        told = None if label in (None, "all in turn") else explorer.label(label)
        images = explorer.sample(SAMPLES, int(np.random.default_rng().integers(2**31)), prior=prior, label=told)
        found = explorer.neighbors(images)
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
    gr.HTML(caption(below), elem_classes="vae")
    on_event(again.click, page, [prior, label], sheet)
    for chooser in (prior, label):
        on_event(chooser.input, page, [prior, label], sheet)
