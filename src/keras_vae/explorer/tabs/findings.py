"""The tab of numbers, curves and findings."""

from html import escape

import gradio as gr

from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import on_event


def findings(explorer: Explorer, tab: gr.Tab) -> None:
    """Have the report made when the tab is opened for the first time."""
    report = gr.HTML('<p class="small">The doctor is looking at the run …</p>', elem_classes="vae", elem_id="report")

    def show() -> str:
        return f'<iframe sandbox srcdoc="{escape(explorer.report)}" title="report of the run"></iframe>'

    on_event(tab.select, show, [], report, may_fail=True)
