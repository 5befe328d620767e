"""The page: tabs whose every event asks an `Explorer` something and shows the answer."""

from html import escape

import gradio as gr

from keras_vae.explorer import api
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.tabs.between import between
from keras_vae.explorer.tabs.draw import draw
from keras_vae.explorer.tabs.findings import findings
from keras_vae.explorer.tabs.latent_map import latent_map
from keras_vae.explorer.tabs.samples import samples
from keras_vae.explorer.tabs.sliders import sliders

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

_HOUR = 3600


def build(explorer: Explorer) -> gr.Blocks:
    """Return the page of a run, with the tabs that apply to its model."""
    title = f"{explorer.run.name} · keras-vae"
    with gr.Blocks(title=title, analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as page:
        run, note = explorer.run, explorer.material.note
        about = f"<h1>{escape(run.name)}</h1><p>{escape(run.experiment.description)}</p>"
        missing = f'<p class="small">{escape(note[:1].upper() + note[1:])}</p>' if note else ""
        gr.HTML(f'<div class="vae-head">{about}{missing}</div>')
        # What was last drawn, for the tab that goes from one image to another.
        drawn = gr.State(None)
        if explorer.has_plane:
            with gr.Tab("Latent map", id="map"):
                latent_map(explorer)
        if explorer.has_vector:
            with gr.Tab("Sliders", id="sliders"):
                sliders(explorer)
        with gr.Tab("Draw", id="draw"):
            draw(explorer, drawn)
        if explorer.has_lines:
            with gr.Tab("Between", id="between"):
                between(explorer, drawn)
        with gr.Tab("Samples", id="samples"):
            samples(explorer)
        with gr.Tab("Run", id="run") as tab:
            findings(explorer, tab)
        api.offer(explorer)
    return page
