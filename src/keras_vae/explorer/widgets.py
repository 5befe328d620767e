"""Event handling, components and formatting that the tabs share."""

import functools
import json
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import gradio as gr
import numpy as np
from numpy.typing import NDArray

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.explorer import pictures
from keras_vae.explorer.assets import asset
from keras_vae.explorer.explorer import Explorer
from keras_vae.explorer.requests import InvalidInput

Levels = NDArray[np.uint8]


def html(content: str = "", *, elem_id: str | None = None, classes: str = "") -> gr.HTML:
    """Return a component that shows HTML in the style of the page.

    Args:
        content: The HTML.
        elem_id: The component's id in the page.
        classes: CSS classes in addition to `vae`.
    """
    return gr.HTML(content, elem_id=elem_id, elem_classes=["vae", *classes.split()], js_on_load=None)


def control(content: str, script: str, *, elem_id: str, value: Any = None) -> gr.HTML:
    """Return a component whose value is set by a script in the browser.

    Args:
        content: The HTML, which is fixed.
        script: The name of a script in `assets/`. It sets `props.value`, then triggers `input` or `select`.
        elem_id: The component's id in the page.
        value: The first value.
    """
    return gr.HTML(value, html_template=content, elem_id=elem_id, elem_classes=["vae"], js_on_load=asset(script))


def on_events(
    events: Sequence[Any],
    function: Callable[..., Any],
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    *,
    actions: Mapping[str, Any] | None = None,
    errors: Any = None,
) -> None:
    """Connect events to a function of the current values of components, so that the last event wins.

    Connect all events that change an output in one call. While the function runs, the browser keeps at most one further
    event. It reads the values of components when it sends that event, but the data of the event would be those of the
    first of several events. Therefore functions take values only.

    Args:
        events: Listeners of components.
        function: Inputs → outputs.
        inputs: The components whose values the function takes.
        outputs: The components whose values it returns.
        actions: Further listeners by name, such as those of buttons. If given, the first argument of the function is
            the name of the last action, or None if that action was handled before.
        errors: The output that shows the message of an error; by default the first one. Errors of Gradio would lose the
            event that the browser keeps.
    """
    handler = _with_messages(function, len(outputs), 0 if errors is None else outputs.index(errors))
    settings: dict[str, Any] = {"show_progress": "hidden", "queue": False, "api_visibility": "private"}
    if actions:
        last, handled = gr.JSON(visible=False), gr.State(None)
        for name, event in actions.items():
            # This runs in the browser at once. The function is connected to the change of `last` because Gradio repeats
            # everything that is connected to an event when it sends the event that it kept.
            event(None, None, last, js=f"() => [[{json.dumps(name)}, performance.now()]]", **settings)
        handler = _with_action(handler, len(outputs))
        events = [*events, last.change]
        inputs, outputs = [last, handled, *inputs], [*outputs, handled]
    gr.on([*events], handler, [*inputs], [*outputs], trigger_mode="always_last", **settings)


def _with_messages(function: Callable[..., Any], num_outputs: int, place: int) -> Callable[..., Any]:
    """Return a function that shows the message of an input or run error in one of its outputs."""

    @functools.wraps(function)
    def wrapped(*values: Any) -> Any:
        try:
            return function(*values)
        except (InputError, RunError) as error:
            results = [alert(str(error)) if index == place else gr.skip() for index in range(num_outputs)]
            return results if num_outputs > 1 else results[0]

    return wrapped


def _with_action(function: Callable[..., Any], num_outputs: int) -> Callable[..., Any]:
    """Return a function that passes on the name of an action that was not handled before."""

    def wrapped(last: list[Any] | None, handled: list[Any] | None, *values: Any) -> list[Any]:
        results = function(None if last is None or last == handled else last[0], *values)
        return [*(results if num_outputs > 1 else [results]), last]

    return wrapped


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


def large(image: Array, description: str) -> str:
    """Return the HTML of the main image of a tab, with a description for readers who do not see it."""
    return f'<div class="large">{pictures.tile(image, alt=description)}</div>'


def number_text(value: float, digits: int = 2) -> str:
    """Return a number with a typographic minus sign."""
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def vector_text(code: Array) -> str:
    """Return the first eight numbers of a code."""
    return f"({', '.join(map(number_text, code[:8].tolist()))}{', …' if len(code) > 8 else ''})"


def caption(text: str) -> str:
    """Return the HTML of a small line of text."""
    return f'<p class="small">{escape(text)}</p>'


def alert(text: str) -> str:
    """Return the HTML of the message of an error."""
    return f'<p class="alert" role="alert">{escape(text)}</p>'


def fact_list(facts: dict[str, str]) -> str:
    """Return the HTML of a list of names and values."""
    rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'
