"""Event handling, components and formatting that the tabs share."""

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
from keras_vae.explorer.requests import InvalidInput

Levels = NDArray[np.uint8]


def asset(name: str) -> str:
    """Return the content of a file in `assets/`."""
    return resources.files("keras_vae.explorer").joinpath(f"assets/{name}").read_text("utf-8")


def html(content: str = "", *, script: str | None = None, elem_id: str | None = None, classes: str = "") -> gr.HTML:
    """Return a component that shows HTML in the style of the page.

    Args:
        content: The HTML.
        script: The name of a script in `assets/` that handles the browser's events.
        elem_id: The component's id in the page.
        classes: CSS classes in addition to `vae`.
    """
    names = ["vae", *classes.split()]
    extra = {} if script is None else {"js_on_load": asset(script)}
    return gr.HTML(content, elem_id=elem_id, elem_classes=names, **extra)


def on_event(
    event: Any,
    function: Callable[..., Any],
    inputs: Any,
    outputs: Any,
    *,
    may_fail: bool = False,
) -> None:
    """Connect an event to a function. Of several events in a row, only the last one is handled.

    Args:
        event: The listener of a component.
        function: Inputs → outputs.
        inputs: The components whose values the function takes.
        outputs: The components whose values it returns.
        may_fail: Whether a user can cause an error. Then events pass through Gradio's queue, which shows the error but
            delivers results only every 50 ms.
    """
    event(
        show_errors(function) if may_fail else function,
        inputs,
        outputs,
        show_progress="hidden",
        trigger_mode="always_last",
        queue=may_fail,
        api_visibility="private",
    )


def show_errors(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function whose input and run errors are shown on the page."""

    @functools.wraps(function)
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        try:
            return function(*arguments, **keywords)
        except (InputError, RunError) as error:
            raise InvalidInput(str(error)) from None

    return wrapped


def label_dropdown(explorer: Explorer) -> gr.Dropdown:
    """Return a dropdown of labels, hidden if the model is not conditional."""
    classes = explorer.classes
    return gr.Dropdown(list(classes), value=classes[0] if classes else None, label="Label", visible=bool(classes))


def dimension_name(explorer: Explorer, dimension: int) -> str:
    """Return the name of a latent dimension, with its KL divergence if evaluated."""
    kl = explorer.latent_space.kl_per_dimension
    return f"z[{dimension}]" if kl is None else f"z[{dimension}] · KL {kl[dimension]:.2f} nats"


def large(image: Array) -> str:
    """Return the HTML of the main image of a tab."""
    return f'<div class="large">{pictures.tile(image)}</div>'


def number_text(value: float, digits: int = 2) -> str:
    """Return a number with a typographic minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def vector_text(code: Array) -> str:
    """Return the first eight numbers of a code."""
    return f"({', '.join(map(number_text, code[:8].tolist()))}{', …' if len(code) > 8 else ''})"


def caption(text: str) -> str:
    """Return the HTML of a small line of text."""
    return f'<p class="small">{escape(text)}</p>'


def fact_list(facts: dict[str, str]) -> str:
    """Return the HTML of a list of names and values."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'
