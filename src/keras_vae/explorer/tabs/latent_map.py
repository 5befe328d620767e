"""The tab on which images lie where the encoder puts them, over what the decoder makes of each place."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
import numpy as np

from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.plane import View
from keras_vae.explorer.widgets import (
    asset,
    dimension_name,
    facts_list,
    label_chooser,
    large,
    number_text,
    on_event,
    vector_text,
)


def latent_map(explorer: Explorer) -> None:
    """Lay the tab out and have it answer."""
    shown = explorer.shown
    labels = None if shown is None else shown.labels
    names = () if shown is None else shown.classes

    def draw(
        kind: str,
        dims: Sequence[int],
        view: View | None,
        show: bool,
        label: str | None,
        mark: Sequence[float],
    ) -> tuple[str, View]:
        plane = explorer.plane(kind, (dims[0], dims[1]))
        view = view or explorer.home(plane)
        points = plane.points(explorer.codes) if show and len(explorer.codes) else None
        images = explorer.grid(plane, view, explorer.label(label))
        return pictures.latent_map(images, plane, view, points=points, labels=labels, names=names, mark=mark), view

    def decoded(kind: str, dims: Sequence[int], mark: Sequence[float], label: str | None) -> tuple[str, str]:
        plane = explorer.plane(kind, (dims[0], dims[1]))
        code = plane.codes(np.array([mark]))[0]
        facts = {name: number_text(value) for name, value in zip(plane.names, mark, strict=True)}
        if len(code) > 2:
            facts["z"] = vector_text(code)
        return large(explorer.decode(code, explorer.label(label))), facts_list(facts)

    first = sorted(explorer.order[:2])
    home = explorer.home(explorer.plane())
    start, _ = draw("dimensions", first, home, True, None, home[:2])
    image, facts = decoded("dimensions", first, home[:2], None)
    view, mark, dims = gr.State(home), gr.State(home[:2]), gr.State(list(first))
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            picture = gr.HTML(start, js_on_load=asset("map.js"), elem_classes="vae", elem_id="map-picture")
            gr.HTML(pictures.legend(labels, names), elem_classes="vae")
        with gr.Column(scale=2, min_width=260):
            answer = gr.HTML(image, elem_classes="vae", elem_id="map-image")
            coordinates = gr.HTML(facts, elem_classes="vae", elem_id="map-facts")
            with gr.Row():
                closer = gr.Button("Zoom in", size="sm", min_width=70)
                further = gr.Button("Zoom out", size="sm", min_width=70)
                back = gr.Button("All", size="sm", min_width=70)
            label = label_chooser(explorer)
            many = explorer.engine.model.latent_dim > 2
            kind = gr.Radio(
                [("two dimensions", "dimensions"), ("principal components", "components")][: len(explorer.planes)],
                value="dimensions",
                label="Plane",
                visible=len(explorer.planes) > 1,
            )
            with gr.Row(visible=many):
                choices = [(dimension_name(explorer, dimension), dimension) for dimension in explorer.order]
                across = gr.Dropdown(choices, value=first[0], label="Across")
                up = gr.Dropdown(choices, value=first[1], label="Up")
            show = gr.Checkbox(True, label="Show images as points", visible=len(explorer.codes) > 0)
            gr.HTML('<p class="small">Click to decode a point; drag to zoom into a region.</p>', elem_classes="vae")

    def pick(event: gr.EventData, kind: str, dims: Sequence[int], view: View, label: str | None) -> tuple[Any, ...]:
        mark = View(*view).at(event.x, event.y)
        return (*decoded(kind, dims, mark, label), mark)

    def region(
        event: gr.EventData,
        kind: str,
        dims: Sequence[int],
        view: View,
        show: bool,
        label: str | None,
        mark: Sequence[float],
    ) -> tuple[Any, ...]:
        return draw(kind, dims, View(*view).region(event.x0, event.y0, event.x1, event.y1), show, label, mark)

    def zoom(factor: float) -> Callable[..., tuple[Any, ...]]:
        def zoomed(
            kind: str, dims: Sequence[int], view: View, show: bool, label: str | None, mark: Sequence[float]
        ) -> tuple[Any, ...]:
            middle = (mark[0], mark[1]) if factor < 1 else None
            return draw(kind, dims, View(*view).zoomed(factor, middle), show, label, mark)

        return zoomed

    def other(kind: str, across: int, up: int, show: bool, label: str | None) -> tuple[Any, ...]:
        dims, view = [across, up], explorer.home(explorer.plane(kind, (across, up)))
        mark = view[:2]
        return (*draw(kind, dims, view, show, label, mark), *decoded(kind, dims, mark, label), dims, mark)

    def same(
        kind: str, dims: Sequence[int], view: View, show: bool, label: str | None, mark: Sequence[float]
    ) -> tuple[Any, ...]:
        return (*draw(kind, dims, View(*view), show, label, mark), *decoded(kind, dims, mark, label))

    def home_again(
        kind: str, dims: Sequence[int], view: View, show: bool, label: str | None, mark: Sequence[float]
    ) -> tuple[Any, ...]:
        return draw(kind, dims, None, show, label, mark)

    seen = [kind, dims, view, show, label, mark]
    on_event(picture.pick, pick, [kind, dims, view, label], [answer, coordinates, mark])
    on_event(picture.region, region, seen, [picture, view])
    on_event(closer.click, zoom(0.5), seen, [picture, view])
    on_event(further.click, zoom(2.0), seen, [picture, view])
    on_event(back.click, home_again, seen, [picture, view])
    for chooser in (kind, across, up):
        seen_anew = [picture, view, answer, coordinates, dims, mark]
        on_event(chooser.input, other, [kind, across, up, show, label], seen_anew, may_fail=True)
    for chooser in (show, label):
        on_event(chooser.input, same, seen, [picture, view, answer, coordinates])
