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
        # Without a base of its own, the links of the table of contents would open the explorer inside the frame.
        page = self._explorer.report.html.replace("<head>", '<head>\n<base href="about:srcdoc">', 1)
        return f'<iframe sandbox srcdoc="{escape(page)}" title="report of the run"></iframe>'
