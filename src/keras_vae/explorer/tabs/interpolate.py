"""The tab that interpolates between two images."""

from collections.abc import Sequence

import gradio as gr

from keras_vae.core.errors import InputError
from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import Levels, caption, html, label_dropdown, on_event

_KINDS = {"linear interpolation": False, "spherical interpolation": True}


class InterpolateTab:
    """Interpolates between the codes of two images that the user chooses or draws."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer = explorer

    def build(self, drawing: gr.State) -> None:
        """Lay out the tab and connect its events.

        Args:
            drawing: The last drawing of the tab Draw, or None.
        """
        images, description = self._explorer.choices()
        # The two endpoints, the page of choices, and which endpoint the next choice replaces.
        first_ends = [images[0], images[1 % len(images)]]
        ends, page, side = gr.State(first_ends), gr.State(0), gr.State(0)
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                html(caption(f"Click two {description} to interpolate between them."))
                choices = html(pictures.choice_grid(images), script="choices.js", elem_id="choices")
                with gr.Row():
                    more = gr.Button("Show other images", size="sm", min_width=120)
                    use_drawing = gr.Button("Use my drawing", size="sm", min_width=120, elem_id="use-drawing")
                label = label_dropdown(self._explorer)
            with gr.Column(scale=3, min_width=320):
                strips = html(self.strips(first_ends, None), elem_id="interpolation")
                with gr.Row():
                    linear = gr.Button("Linear GIF", size="sm", elem_id="gif-linear", min_width=120)
                    spherical = gr.Button("Spherical GIF", size="sm", min_width=120)
                gif = html(elem_id="gif")
        changed = [strips, ends, side]
        on_event(choices.choose, self.choose, [page, ends, side, label], changed)
        on_event(use_drawing.click, self.use_drawing, [drawing, ends, side, label], changed, may_fail=True)
        on_event(more.click, self.next_page, [page], [choices, page])
        on_event(label.input, self.strips, [ends, label], strips)
        on_event(linear.click, self.linear_gif, [ends, label], gif)
        on_event(spherical.click, self.spherical_gif, [ends, label], gif)

    def strips(self, ends: Sequence[Levels], label: str | None) -> str:
        """Return the endpoints and both interpolations."""
        index = self._explorer.label_index(label)
        strips = [
            pictures.strip(self._explorer.interpolate(ends[0], ends[1], spherical=spherical, label=index), name)
            for name, spherical in _KINDS.items()
        ]
        return pictures.row(list(ends), ["start", "end"]) + "".join(strips)

    def choose(
        self, event: gr.EventData, page: int, ends: Sequence[Levels], side: int, label: str | None
    ) -> tuple[str, list[Levels], int]:
        """Replace an endpoint with the chosen image."""
        return self._replace(self._explorer.choices(page)[0][event.index], ends, side, label)

    def use_drawing(
        self, image: Levels | None, ends: Sequence[Levels], side: int, label: str | None
    ) -> tuple[str, list[Levels], int]:
        """Replace an endpoint with the last drawing."""
        if image is None:
            raise InputError("drawing: there is no drawing yet; first draw or upload an image on the tab Draw")
        return self._replace(image, ends, side, label)

    def next_page(self, page: int) -> tuple[str, int]:
        """Return other images to choose from."""
        return pictures.choice_grid(self._explorer.choices(page + 1)[0]), page + 1

    def linear_gif(self, ends: Sequence[Levels], label: str | None) -> str:
        """Return the linear interpolation as a GIF."""
        return self._gif(ends, label, spherical=False)

    def spherical_gif(self, ends: Sequence[Levels], label: str | None) -> str:
        """Return the spherical interpolation as a GIF."""
        return self._gif(ends, label, spherical=True)

    def _replace(
        self, image: Levels, ends: Sequence[Levels], side: int, label: str | None
    ) -> tuple[str, list[Levels], int]:
        replaced = [image, ends[1]] if side == 0 else [ends[0], image]
        return self.strips(replaced, label), replaced, 1 - side

    def _gif(self, ends: Sequence[Levels], label: str | None, *, spherical: bool) -> str:
        index = self._explorer.label_index(label)
        return pictures.animation(self._explorer.interpolate(ends[0], ends[1], spherical=spherical, label=index))
