"""The tab that goes from one image to another."""

from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr

from keras_vae.core.errors import InputError
from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.widgets import Levels, asset, caption, label_chooser, on_event


def between(explorer: Explorer, drawn: gr.State) -> None:
    """Lay the tab out and have it answer; `drawn` is what was drawn last, or None."""
    images, what = explorer.picks()
    ends, number, side = gr.State([images[0], images[1]]), gr.State(0), gr.State(0)

    def strips(ends: Sequence[Levels], label: str | None) -> str:
        told = explorer.label(label)
        ways = {"on the straight line between the codes": False, "on the great circle between the codes": True}
        drawings = [
            pictures.strip(explorer.between(ends[0], ends[1], spherical=spherical, label=told), name)
            for name, spherical in ways.items()
        ]
        return pictures.row(list(ends), ["from", "to"]) + "".join(drawings)

    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            gr.HTML(caption(what), elem_classes="vae")
            picks = gr.HTML(pictures.picks(images), js_on_load=asset("picks.js"), elem_classes="vae", elem_id="picks")
            with gr.Row():
                other = gr.Button("Other images", size="sm", min_width=120)
                mine = gr.Button("Take my drawing", size="sm", min_width=120, elem_id="take-drawing")
            label = label_chooser(explorer)
        with gr.Column(scale=3, min_width=320):
            answer = gr.HTML(strips([images[0], images[1]], None), elem_classes="vae between", elem_id="between-answer")
            with gr.Row():
                line = gr.Button("Make a GIF of the line", size="sm", elem_id="gif-line", min_width=120)
                circle = gr.Button("… of the great circle", size="sm", min_width=120)
            saved = gr.HTML(elem_classes="vae", elem_id="gif")

    def put(image: Levels, ends: Sequence[Levels], side: int, label: str | None) -> tuple[Any, ...]:
        ends = [image, ends[1]] if side == 0 else [ends[0], image]
        return strips(ends, label), ends, 1 - side

    def pick(event: gr.EventData, number: int, ends: Sequence[Levels], side: int, label: str | None) -> tuple[Any, ...]:
        return put(explorer.picks(number)[0][event.index], ends, side, label)

    def take(image: Levels | None, ends: Sequence[Levels], side: int, label: str | None) -> tuple[Any, ...]:
        if image is None:
            raise InputError("nothing is drawn yet: go to the tab Draw first")
        return put(image, ends, side, label)

    def turn(number: int) -> tuple[Any, ...]:
        return pictures.picks(explorer.picks(number + 1)[0]), number + 1

    def save(spherical: bool) -> Callable[..., Any]:
        def gif(ends: Sequence[Levels], label: str | None) -> str:
            way = explorer.between(ends[0], ends[1], spherical=spherical, label=explorer.label(label))
            return pictures.animation(explorer.animate(way))

        return gif

    on_event(picks.pick, pick, [number, ends, side, label], [answer, ends, side])
    on_event(mine.click, take, [drawn, ends, side, label], [answer, ends, side], may_fail=True)
    on_event(other.click, turn, [number], [picks, number])
    on_event(label.input, strips, [ends, label], answer)
    on_event(line.click, save(False), [ends, label], saved)
    on_event(circle.click, save(True), [ends, label], saved)
