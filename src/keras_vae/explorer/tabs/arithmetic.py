"""The tab that adds and subtracts the codes of images."""

from collections.abc import Sequence

import gradio as gr

from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.tabs.choosing import ImageChooser
from keras_vae.explorer.widgets import caption, html, label_dropdown, large, on_events

_NAMES = ("a", "b", "c")


class ArithmeticTab:
    """Decodes a + b − c of the codes of three images that the user chooses or draws."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._chooser = ImageChooser(explorer, _NAMES, elem_id="arithmetic-slots")

    def build(self) -> None:
        """Lay out the tab and connect its events."""
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                self._chooser.build_choices("to add and subtract their codes")
                label = label_dropdown(self._explorer)
            with gr.Column(scale=3, min_width=320):
                slots = self._chooser.build_slots()
                result = html(self.result(None, None), elem_id="arithmetic")
        on_events([slots.input, label.input], self.result, [slots, label], [result])

    def result(self, slots: Sequence[str] | None, label: str | None) -> str:
        """Return the image of a + b − c, and the images on the way from a to it."""
        images = self._explorer.arithmetic(*self._chooser.images(slots), label=self._explorer.label_index(label))
        return (
            pictures.strip(images, "a + t (b − c), for t from 0 to 1")
            + caption("a + b − c")
            + large(images[-1], "image decoded from a + b − c")
        )
