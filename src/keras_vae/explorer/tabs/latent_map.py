"""The tab with the map of the latent space."""

import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import gradio as gr
import numpy as np

from keras_vae.core.errors import InputError
from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.plane import Plane, View
from keras_vae.explorer.widgets import (
    caption,
    control,
    dimension_name,
    fact_list,
    html,
    label_dropdown,
    large,
    number_text,
    on_events,
    vector_text,
)

_HELP = (
    "Point to decode, click to move the ring, drag to zoom into a region. Keys on the map: arrows move the ring (with"
    " Shift, farther), + and − zoom, 0 resets the view. Press classes to show only their images."
)


class MapState(NamedTuple):
    """The part of the latent space that the map shows.

    Args:
        plane: The plane.
        view: The visible part of the plane.
    """

    plane: Plane
    view: View


class Cursor(NamedTuple):
    """Where the user points, in coordinates of a plane.

    Args:
        point: The point to decode.
        mark: The point marked with a ring: where the user clicked last.
        region: Two opposite corners of the region that was selected last; None at first.
    """

    point: tuple[float, float]
    mark: tuple[float, float]
    region: tuple[float, float, float, float] | None = None


class LatentMapTab:
    """Shows images at their posterior means, over images decoded from a grid."""

    def __init__(self, explorer: Explorer) -> None:
        self._explorer, self._space = explorer, explorer.latent_space
        self._state = functools.cache(self._state_of)

    def build(self) -> None:
        """Lay out the tab and connect its events."""
        space, dataset = self._space, self._space.dataset
        start = self._state("dimensions", space.top_dims)
        image, coordinates = self.decode(None, "dimensions", *space.top_dims, None)
        state = gr.State(start)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                canvas = html(self._map(start, start.view.center, True, None), elem_id="latent-map")
                if dataset is not None:
                    html(pictures.thumbnail_sheet(dataset.images), elem_id="map-tip")
                    entries = pictures.legend(dataset.labels, dataset.classes)
                    if entries:
                        control(entries, "legend.js", elem_id="map-legend")
            with gr.Column(scale=2, min_width=260):
                decoded = html(image, elem_id="map-image")
                facts = html(coordinates, elem_id="map-facts")
                with gr.Row():
                    zoom_in = gr.Button("Zoom in", size="sm", min_width=70, elem_id="zoom-in")
                    zoom_out = gr.Button("Zoom out", size="sm", min_width=70, elem_id="zoom-out")
                    reset = gr.Button("Reset view", size="sm", min_width=70, elem_id="reset-view")
                label = label_dropdown(self._explorer)
                plane_choice = self._plane_choice()
                show = gr.Checkbox(True, label="Show images as points", visible=dataset is not None)
                html(caption(_HELP))
                cursor = control("", "latent_map.js", elem_id="map-cursor")
        changed = [choice.input for choice in (*plane_choice, label)]
        on_events(
            [*changed, show.input],
            self.update,
            [state, cursor, *plane_choice, show, label],
            [canvas, state],
            actions={
                "zoom in": zoom_in.click,
                "zoom out": zoom_out.click,
                "reset": reset.click,
                "region": cursor.select,
            },
        )
        on_events([*changed, cursor.input], self.decode, [cursor, *plane_choice, label], [decoded, facts], errors=facts)

    def update(
        self,
        action: str | None,
        state: MapState,
        cursor: Mapping[str, Any] | None,
        kind: str,
        horizontal: int,
        vertical: int,
        show: bool,
        label: str | None,
    ) -> tuple[Any, MapState]:
        """Return the map after a change of the plane or of the view."""
        try:
            start = self._state(kind, (horizontal, vertical))
        except InputError:
            # There is no such plane: `decode` shows the message, and the map stays.
            return gr.skip(), state
        if state.plane.names != start.plane.names or action == "reset":
            state = start
        place = self._cursor(cursor, start)
        if action == "region" and place.region is not None:
            state = state._replace(view=View.around(*place.region))
        elif action == "zoom in":
            state = state._replace(view=state.view.zoom(0.5, place.mark))
        elif action == "zoom out":
            state = state._replace(view=state.view.zoom(2.0))
        return self._map(state, place.mark, show, label), state

    def decode(
        self, cursor: Mapping[str, Any] | None, kind: str, horizontal: int, vertical: int, label: str | None
    ) -> tuple[str, str]:
        """Return the image decoded from the point of the cursor, and its coordinates."""
        start = self._state(kind, (horizontal, vertical))
        point = self._cursor(cursor, start).point
        code = start.plane.codes(np.array([point]))[0]
        image = self._explorer.decode(code, self._explorer.label_index(label))
        facts = {name: number_text(value) for name, value in zip(start.plane.names, point, strict=True)}
        description = f"image decoded from {', '.join(f'{name} = {value}' for name, value in facts.items())}"
        if len(code) > 2:
            facts["z"] = vector_text(code)
        return large(image, description), fact_list(facts)

    def _state_of(self, kind: str, dims: tuple[int, int]) -> MapState:
        """Return a plane with its default view."""
        plane = self._space.plane(kind, dims)
        return MapState(plane, self._space.default_view(plane))

    def _cursor(self, value: Mapping[str, Any] | None, start: MapState) -> Cursor:
        """Return the cursor; the center of the default view of a plane if the cursor was on another plane."""
        if value is None or value["plane"] != " ".join(start.plane.names):
            return Cursor(start.view.center, start.view.center)
        (u, v), (mark_u, mark_v), region = value["point"], value["mark"], value["region"]
        cursor = Cursor((float(u), float(v)), (float(mark_u), float(mark_v)))
        if region is None:
            return cursor
        u0, v0, u1, v1 = map(float, region)
        return cursor._replace(region=(u0, v0, u1, v1))

    def _map(self, state: MapState, mark: tuple[float, float], show: bool, label: str | None) -> str:
        space, (plane, view) = self._space, state
        return pictures.latent_map(
            space.decode_grid(plane, view, self._explorer.label_index(label)),
            plane,
            view,
            points=plane.points(space.codes) if show and len(space.codes) else None,
            labels=None if space.dataset is None else space.dataset.labels,
            names=() if space.dataset is None else space.dataset.classes,
            mark=mark,
            description="map of the latent space; arrow keys move the ring, plus and minus zoom, 0 resets the view",
            focusable=True,
        )

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
