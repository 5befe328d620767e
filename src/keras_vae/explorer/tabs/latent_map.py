"""The tab with the map of the latent space."""

from typing import NamedTuple

import gradio as gr
import numpy as np

from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.plane import Plane, View
from keras_vae.explorer.widgets import (
    caption,
    dimension_name,
    fact_list,
    html,
    label_dropdown,
    large,
    number_text,
    on_event,
    vector_text,
)


class MapState(NamedTuple):
    """The part of the latent space that the map shows.

    Args:
        plane: The plane.
        view: The visible part of the plane.
        mark: The point that was clicked last.
    """

    plane: Plane
    view: View
    mark: tuple[float, float]


class LatentMapTab:
    """Shows images at their posterior means, over images decoded from a grid."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer, self._space = explorer, explorer.latent_space

    def build(self) -> None:
        """Lay out the tab and connect its events."""
        start = self._initial_state(self._space.plane())
        image, coordinates = self._decoded(start, None)
        dataset = self._space.dataset
        state = gr.State(start)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                canvas = html(self._map(start, True, None), script="latent_map.js", elem_id="latent-map")
                if dataset is not None:
                    html(pictures.legend(dataset.labels, dataset.classes))
            with gr.Column(scale=2, min_width=260):
                decoded = html(image, elem_id="map-image")
                facts = html(coordinates, elem_id="map-facts")
                with gr.Row():
                    zoom_in = gr.Button("Zoom in", size="sm", min_width=70)
                    zoom_out = gr.Button("Zoom out", size="sm", min_width=70)
                    reset = gr.Button("Reset view", size="sm", min_width=70)
                label = label_dropdown(self._explorer)
                plane_choice = self._plane_choice()
                show = gr.Checkbox(True, label="Show images as points", visible=len(self._space.codes) > 0)
                html(caption("Click to decode a point. Drag to zoom into a region."))
        inputs = [state, show, label]
        on_event(canvas.pick, self.pick, [state, label], [decoded, facts, state])
        on_event(canvas.region, self.zoom_to_region, inputs, [canvas, state])
        on_event(zoom_in.click, self.zoom_in, inputs, [canvas, state])
        on_event(zoom_out.click, self.zoom_out, inputs, [canvas, state])
        on_event(reset.click, self.reset_view, inputs, [canvas, state])
        for choice in plane_choice:
            outputs = [canvas, decoded, facts, state]
            on_event(choice.input, self.change_plane, [*plane_choice, show, label], outputs, may_fail=True)
        for control in (show, label):
            on_event(control.input, self.redraw, inputs, [canvas, decoded, facts])

    def pick(self, event: gr.EventData, state: MapState, label: str | None) -> tuple[str, str, MapState]:
        """Decode the point that was clicked."""
        state = state._replace(mark=state.view.point_at(event.x, event.y))
        return (*self._decoded(state, label), state)

    def zoom_to_region(
        self, event: gr.EventData, state: MapState, show: bool, label: str | None
    ) -> tuple[str, MapState]:
        """Zoom into the region that was selected."""
        return self._look_at(state, state.view.region(event.x0, event.y0, event.x1, event.y1), show, label)

    def zoom_in(self, state: MapState, show: bool, label: str | None) -> tuple[str, MapState]:
        """Zoom in around the mark."""
        return self._look_at(state, state.view.zoom(0.5, state.mark), show, label)

    def zoom_out(self, state: MapState, show: bool, label: str | None) -> tuple[str, MapState]:
        """Zoom out around the center of the view."""
        return self._look_at(state, state.view.zoom(2.0), show, label)

    def reset_view(self, state: MapState, show: bool, label: str | None) -> tuple[str, MapState]:
        """Show where the codes of the images lie."""
        return self._look_at(state, self._space.default_view(state.plane), show, label)

    def change_plane(
        self, kind: str, horizontal: int, vertical: int, show: bool, label: str | None
    ) -> tuple[str, str, str, MapState]:
        """Show another plane."""
        state = self._initial_state(self._space.plane(kind, (horizontal, vertical)))
        return (*self.redraw(state, show, label), state)

    def redraw(self, state: MapState, show: bool, label: str | None) -> tuple[str, str, str]:
        """Return the map, the decoded image and its coordinates."""
        return (self._map(state, show, label), *self._decoded(state, label))

    def _initial_state(self, plane: Plane) -> MapState:
        view = self._space.default_view(plane)
        return MapState(plane, view, view.center)

    def _look_at(self, state: MapState, view: View, show: bool, label: str | None) -> tuple[str, MapState]:
        state = state._replace(view=view)
        return self._map(state, show, label), state

    def _map(self, state: MapState, show: bool, label: str | None) -> str:
        space, (plane, view, mark) = self._space, state
        return pictures.latent_map(
            space.decode_grid(plane, view, self._explorer.label_index(label)),
            plane,
            view,
            points=plane.points(space.codes) if show and len(space.codes) else None,
            labels=None if space.dataset is None else space.dataset.labels,
            mark=mark,
        )

    def _decoded(self, state: MapState, label: str | None) -> tuple[str, str]:
        """Return the image decoded from the mark, and the coordinates of the mark."""
        code = state.plane.codes(np.array([state.mark]))[0]
        facts = {name: number_text(value) for name, value in zip(state.plane.names, state.mark, strict=True)}
        if len(code) > 2:
            facts["z"] = vector_text(code)
        return large(self._explorer.decode(code, self._explorer.label_index(label))), fact_list(facts)

    def _plane_choice(self) -> tuple[gr.Radio, gr.Dropdown, gr.Dropdown]:
        """Return the components that choose a plane, hidden if there is only one."""
        space = self._space
        kinds = {"dimensions": "two dimensions", "components": "principal components"}
        kind = gr.Radio(
            [(kinds[name], name) for name in space.plane_kinds],
            value="dimensions",
            label="Plane",
            visible=len(space.plane_kinds) > 1,
        )
        with gr.Row(visible=space.latent_dim > 2):
            choices = [(dimension_name(self._explorer, dimension), dimension) for dimension in space.order]
            horizontal = gr.Dropdown(choices, value=space.top_dims[0], label="Horizontal", min_width=170)
            vertical = gr.Dropdown(choices, value=space.top_dims[1], label="Vertical", min_width=170)
        return kind, horizontal, vertical
