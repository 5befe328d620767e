"""The Gradio page of a run: one tab per view of its model."""

from html import escape

import gradio as gr

from keras_vae.explorer.api import register_endpoints
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.requests import Page
from keras_vae.explorer.tabs.arithmetic import ArithmeticTab
from keras_vae.explorer.tabs.draw import DrawTab
from keras_vae.explorer.tabs.interpolate import InterpolateTab
from keras_vae.explorer.tabs.latent_map import LatentMapTab
from keras_vae.explorer.tabs.report import ReportTab
from keras_vae.explorer.tabs.samples import SamplesTab
from keras_vae.explorer.tabs.sliders import SlidersTab
from keras_vae.explorer.widgets import caption, html

THEME = gr.themes.Soft(
    primary_hue="blue", neutral_hue="slate", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(
    body_background_fill="*neutral_50",
    body_background_fill_dark="*neutral_950",
    body_text_color_subdued="*neutral_600",
    body_text_color_subdued_dark="*neutral_400",
    color_accent="*primary_600",
    checkbox_label_background_fill_selected="*primary_600",
    checkbox_label_background_fill_selected_dark="*primary_600",
    button_primary_background_fill="*primary_600",
    button_primary_background_fill_hover="*primary_700",
    button_primary_background_fill_dark="*primary_600",
    button_primary_background_fill_hover_dark="*primary_700",
    block_title_background_fill="none",
    block_title_text_color="*neutral_600",
    block_title_padding="0",
    block_title_text_weight="500",
    button_large_text_weight="500",
)
"""The theme of the page. It uses system fonts, so that nothing is downloaded."""

_HOUR = 3600


def build(explorer: Explorer) -> gr.Blocks:
    """Return the page of a run, with the tabs that apply to its model."""
    title = f"{explorer.run.name} · keras-vae"
    with Page(title=title, analytics_enabled=False, delete_cache=(_HOUR, _HOUR)) as page:
        # Before the tabs: Gradio would rename an endpoint if the handler of an event had the same name.
        register_endpoints(explorer)
        html(_header(explorer), classes="header")
        with gr.Tabs(overflow_behavior="wrap"):
            _build_tabs(explorer)
    return page


def _build_tabs(explorer: Explorer) -> None:
    if explorer.has_plane:
        with gr.Tab("Latent map", id="map"):
            LatentMapTab(explorer).build()
    if explorer.has_vector:
        with gr.Tab("Sliders", id="sliders"):
            SlidersTab(explorer).build()
    with gr.Tab("Draw", id="draw"):
        DrawTab(explorer).build()
    if explorer.has_lines:
        with gr.Tab("Interpolate", id="interpolate"):
            InterpolateTab(explorer).build()
        with gr.Tab("Arithmetic", id="arithmetic"):
            ArithmeticTab(explorer).build()
    with gr.Tab("Samples", id="samples"):
        SamplesTab(explorer).build()
    with gr.Tab("Report", id="report") as report_tab:
        ReportTab(explorer).build(report_tab)


def _header(explorer: Explorer) -> str:
    run, note = explorer.run, explorer.sources.note
    missing = caption(note[:1].upper() + note[1:]) if note else ""
    return f"<h1>{escape(run.name)}</h1><p>{escape(run.experiment.description)}</p>{missing}"
