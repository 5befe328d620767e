"""The tab that interpolates between two images."""

from collections.abc import Sequence

import gradio as gr

from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.tabs.choosing import ImageChooser
from keras_vae.explorer.widgets import html, label_dropdown, on_events

_KINDS = {"linear interpolation": False, "spherical interpolation": True}


class InterpolateTab:
    """Interpolates between the codes of two images that the user chooses or draws."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer
        self._chooser = ImageChooser(explorer, ("start", "end"), elem_id="interpolate-slots")

    def build(self) -> None:
        """Lay out the tab and connect its events."""
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                self._chooser.build_choices("to interpolate between two of them")
                label = label_dropdown(self._explorer)
            with gr.Column(scale=3, min_width=320):
                slots = self._chooser.build_slots()
                strips = html(self.strips(None, None), elem_id="interpolation")
                with gr.Row():
                    linear = gr.Button("Linear GIF", size="sm", elem_id="gif-linear", min_width=120)
                    spherical = gr.Button("Spherical GIF", size="sm", min_width=120)
                gif = html(elem_id="gif")
        changed = [slots.input, label.input]
        on_events(changed, self.strips, [slots, label], [strips])
        on_events(
            changed,
            self.gif,
            [slots, label],
            [gif],
            actions={"linear interpolation": linear.click, "spherical interpolation": spherical.click},
        )

    def strips(self, slots: Sequence[str] | None, label: str | None) -> str:
        """Return both interpolations."""
        first, second = self._chooser.images(slots)
        index = self._explorer.label_index(label)
        return "".join(
            pictures.strip(self._explorer.interpolate(first, second, spherical=spherical, label=index), name)
            for name, spherical in _KINDS.items()
        )

    def gif(self, kind: str | None, slots: Sequence[str] | None, label: str | None) -> str:
        """Return an interpolation as a GIF; nothing after a change of the images."""
        if kind is None:
            return ""
        first, second = self._chooser.images(slots)
        index = self._explorer.label_index(label)
        images = self._explorer.interpolate(first, second, spherical=_KINDS[kind], label=index)
        return pictures.animation(images, kind)
