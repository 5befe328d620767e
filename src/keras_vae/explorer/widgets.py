"""What the tabs share: how an event is answered, and how a thing is written down."""

import functools
from collections.abc import Callable
from html import escape
from importlib import resources
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.explorer import pictures
from keras_vae.explorer.explorer import Explorer

Levels = NDArray[np.uint8]


def asset(name: str) -> str:
    """Return a file of the page."""
    return resources.files("keras_vae.explorer").joinpath(f"assets/{name}").read_text("utf-8")


def on_event(
    event: Any,
    function: Callable[..., Any],
    inputs: Any,
    outputs: Any,
    *,
    may_fail: bool = False,
) -> None:
    """Answer an event; of many in a row, the last one.

    Args:
        event: The listener of a component.
        function: Inputs → outputs.
        inputs: The components whose values it takes.
        outputs: The components whose values it returns.
        may_fail: Whether a user may do what the function refuses. Then the answer goes through Gradio's queue, which
            shows why, and hands answers over every 50 ms only.
    """
    event(
        failures_said(function) if may_fail else function,
        inputs,
        outputs,
        show_progress="hidden",
        trigger_mode="always_last",
        queue=may_fail,
        api_visibility="private",
    )


def failures_said(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function with what a user can help told on the page."""

    @functools.wraps(function)
    def told(*arguments: Any, **named: Any) -> Any:
        try:
            return function(*arguments, **named)
        except (InputError, RunError) as error:
            raise gr.Error(str(error), print_exception=False) from None

    return told


def label_chooser(explorer: Explorer) -> gr.Dropdown:
    """Return what a label is chosen with; hidden where the model is told none."""
    classes = explorer.classes
    return gr.Dropdown(list(classes), value=classes[0] if classes else None, label="Label", visible=bool(classes))


def dimension_name(explorer: Explorer, dimension: int) -> str:
    """Return a latent dimension as a user reads it, with its rate where that is known."""
    carried = "" if explorer.rates is None else f" · {explorer.rates[dimension]:.2f} nats"
    return f"z[{dimension}]{carried}"


def large(image: Array) -> str:
    """Return the HTML of an image that a tab is about."""
    return f'<div class="large">{pictures.tile(image)}</div>'


def number_text(value: float) -> str:
    """Return a number with two decimals and a true minus sign."""
    return f"{value:.2f}".replace("-", "\N{MINUS SIGN}")


def vector_text(code: Array) -> str:
    """Return the first numbers of a code."""
    return f"({', '.join(map(number_text, code[:8].tolist()))}{', …' if len(code) > 8 else ''})"


def caption(text: str) -> str:
    """Return the HTML of a small line of text."""
    return f'<p class="small">{escape(text)}</p>'


def facts_list(facts: dict[str, str]) -> str:
    """Return the HTML of names and values."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'
