"""The tab with the run's report."""

from html import escape

import gradio as gr

from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import caption, html, on_events


class ReportTab:
    """Shows the report of the run: metrics, curves, and the findings of the doctor."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer

    def build(self, tab: gr.Tab) -> None:
        """Lay out the tab, and load the report when the tab is opened."""
        report = html(caption("Analyzing the run …"), elem_id="report")
        on_events([tab.select], self.show, [], [report])

    def show(self) -> str:
        """Return the report in a sandboxed frame."""
        return f'<iframe sandbox srcdoc="{escape(self._explorer.report.html)}" title="report of the run"></iframe>'
