"""The tab with one slider per latent dimension."""

import math
from typing import Any

import gradio as gr
import numpy as np

from keras_vae.core.typing import Array
from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import dimension_name, html, label_dropdown, large, on_events, vector_text

MAX_SLIDERS = 64
"""Maximum number of sliders; dimensions of higher KL divergence come first."""

_MAX_UNFOLDED = 16


class SlidersTab:
    """Decodes the code that the sliders select, or a random code."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer, self._space = explorer, explorer.latent_space
        dims = self._space.order[:MAX_SLIDERS]
        self._unfolded = [dimension for dimension in dims if self._space.is_active(dimension)][:_MAX_UNFOLDED]
        self._folded = [dimension for dimension in dims if dimension not in self._unfolded]
        self._dims = [*self._unfolded, *self._folded]
        """The dimensions that have a slider, in the order of the sliders."""

    def build(self) -> None:
        """Lay out the tab and connect its events."""
        center = self._space.center
        with gr.Row():
            with gr.Column(scale=2, min_width=280):
                image = html(self._decoded(center, None), elem_id="slider-image")
                label = label_dropdown(self._explorer)
                with gr.Row():
                    draw = gr.Button("Random code", variant="primary", elem_id="random-code", min_width=120)
                    reset = gr.Button("Reset", elem_id="slider-reset", min_width=120)
                has_temperature = self._explorer.engine.has_temperature
                temperature = gr.Slider(0, 2, value=1, step=0.05, label="Temperature", visible=has_temperature)
            with gr.Column(scale=3, min_width=320):
                sliders = [self._slider(dimension) for dimension in self._unfolded]
                if self._folded:
                    with gr.Accordion(self._folded_title(), open=not self._unfolded):
                        sliders += [self._slider(dimension) for dimension in self._folded]
        # The exact code: a random one may lie beyond the sliders' range, and not every dimension has a slider.
        code = gr.State(center)
        on_events(
            [control.input for control in (*sliders, label)],
            self.update,
            [temperature, code, label, *sliders],
            [image, code, *sliders],
            actions={"random": draw.click, "reset": reset.click},
        )

    def update(self, action: str | None, temperature: float, code: Array, label: str | None, *values: float) -> Any:
        """Handle a button, or decode the code that the sliders select."""
        if action == "random":
            return self.random_code(label, temperature)
        if action == "reset":
            return self.reset(label)
        # The sliders may have moved again: leave them as they are.
        return [self.move(code, label, *values), *[gr.skip()] * (1 + len(values))]

    def move(self, code: Array, label: str | None, *values: float) -> str:
        """Decode the code that the sliders select."""
        code = code.copy()
        # A slider at the end of its range stands for a value there or beyond: keep the exact value until it moves.
        moved = np.abs(self._clip(code) - np.asarray(values)) > 0.51 * self._space.steps[self._dims]
        code[self._dims] = np.where(moved, values, code[self._dims])
        return self._decoded(code, label)

    def random_code(self, label: str | None, temperature: float) -> list[Any]:
        """Set the sliders to a code drawn from the prior."""
        seed = int(np.random.default_rng().integers(2**31))
        return self._set(self._explorer.engine.sample_code(seed, temperature, self._explorer.label_index(label)), label)

    def reset(self, label: str | None) -> list[Any]:
        """Set the sliders to the center of the latent space."""
        return self._set(self._space.center, label)

    def _set(self, code: Array, label: str | None) -> list[Any]:
        values = [
            self._rounded(dimension, value) for dimension, value in zip(self._dims, self._clip(code), strict=True)
        ]
        return [self._decoded(code, label), code, *values]

    def _clip(self, code: Array) -> Array:
        """Return the values of a code on the sliders, within their ranges."""
        return np.clip(code[self._dims], *self._space.limits[:, self._dims])

    def _rounded(self, dimension: int, value: float) -> float:
        """Return a value rounded to the steps of a slider."""
        step = float(self._space.steps[dimension])
        return round(round(float(value) / step) * step, 9)

    def _decoded(self, code: Array, label: str | None) -> str:
        """Return the image of a code and, above two dimensions, the images of a plane through the code."""
        index = self._explorer.label_index(label)
        image = large(self._explorer.decode(code, index), f"image decoded from z = {vector_text(code)}")
        if len(code) <= 2:
            return image
        plane, images = self._space.plane_through(code, index)
        horizontal, vertical = plane.names
        title = f"{horizontal} varies horizontally and {vertical} vertically; all other dimensions are fixed"
        return image + pictures.strip(images, title, math.isqrt(len(images)))

    def _slider(self, dimension: int) -> gr.Slider:
        space = self._space
        low, high = space.limits[:, dimension].tolist()
        return gr.Slider(
            self._rounded(dimension, low),
            self._rounded(dimension, high),
            value=self._rounded(dimension, space.center[dimension]),
            step=float(space.steps[dimension]),
            label=dimension_name(self._explorer, dimension),
            elem_id=f"slider-{dimension}",
        )

    def _folded_title(self) -> str:
        total = len(self._folded)
        inactive = sum(not self._space.is_active(dimension) for dimension in self._folded)
        if inactive < total:
            return f"{total} more dimensions, {inactive} of them inactive"
        return f"{total} inactive dimensions (their posterior means do not vary)"
