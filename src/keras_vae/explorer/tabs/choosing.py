"""Slots for images that the user chooses or draws."""

from collections.abc import Sequence
from html import escape

import gradio as gr

from keras_vae.core.errors import InputError
from keras_vae.explorer import pictures, uploads
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import Levels, caption, control, html, on_events

_NO_DRAWING = "There is no drawing yet. First draw or upload an image on the tab Draw."


class ImageChooser:
    """Slots for images, and images to fill them with.

    Args:
        explorer: The content of the page.
        names: The name of each slot.
        elem_id: The id of the slots in the page; that of the choices is `{elem_id}-choices`.
    """

    def __init__(self, explorer: Explorer, names: Sequence[str], *, elem_id: str) -> None:
        self._explorer, self._names, self._elem_id = explorer, names, elem_id
        images, self._description = explorer.choices()
        self.first_images: list[Levels] = [images[index % len(images)] for index in range(len(names))]
        """The images that fill the slots at first."""

    def build_choices(self, purpose: str) -> None:
        """Lay out a page of images to choose from.

        Args:
            purpose: What the images are chosen for, as in "to interpolate".
        """
        page = gr.State(0)
        names = f"{', '.join(self._names[:-1])} and {self._names[-1]}"
        html(caption(f"Click {self._description} {purpose}. They fill {names} in turn."))
        choices = html(pictures.choice_grid(self._explorer.choices()[0]), elem_id=f"{self._elem_id}-choices")
        more = gr.Button("Show other images", size="sm", min_width=120)
        on_events([more.click], self.next_page, [page], [choices, page])

    def build_slots(self) -> gr.HTML:
        """Lay out the slots. The value of the component is a list of data URIs; None at first."""
        return control(self._slots(), "slots.js", elem_id=self._elem_id)

    def images(self, slots: Sequence[str] | None) -> list[Levels]:
        """Return the images in the slots.

        Args:
            slots: The value of the component that `build_slots` returns.

        Raises:
            InputError: A slot holds no image.
        """
        if slots is None:
            return self.first_images
        if len(slots) != len(self._names):
            raise InputError(f"images = {len(slots)}: wrong number; choose {len(self._names)} images")
        return [uploads.convert(uploads.read_uri(uri), self._explorer.image_shape).image for uri in slots]

    def next_page(self, page: int) -> tuple[str, int]:
        """Return other images to choose from."""
        return pictures.choice_grid(self._explorer.choices(page + 1)[0]), page + 1

    def _slots(self) -> str:
        buttons = "".join(
            f'<button type="button" data-slot="{index}">{pictures.tile(image, name)}</button>'
            for index, (image, name) in enumerate(zip(self.first_images, self._names, strict=True))
        )
        return (
            f'<div class="slots" data-choices="{self._elem_id}-choices">{buttons}</div>'
            '<button type="button" class="use-drawing">Use my drawing</button>'
            f'<p class="alert" role="alert" hidden>{escape(_NO_DRAWING)}</p>'
        )
