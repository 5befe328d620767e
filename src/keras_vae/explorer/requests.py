"""Checks of what the browser sends: the origin of requests, and the values of events."""

import contextlib
import json
import logging
import traceback
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import gradio as gr

from keras_vae.core.errors import first_line

INVALID = "Invalid input"
"""The title of errors that the sender of an event caused."""

_HARMLESS = ("GET", "HEAD", "OPTIONS")
_EVENTS = ("/gradio_api/run/", "/gradio_api/api/", "/gradio_api/call/", "/gradio_api/queue/")

_logger = logging.getLogger(__name__)


class InvalidInput(gr.Error):
    """An error that the sender of an event caused. The page shows its message, and the terminal shows nothing."""

    def __init__(self, message: str) -> None:
        super().__init__(message, title=INVALID, print_exception=False)


class Page(gr.Blocks):
    """A Gradio page that answers malformed events with one line."""

    async def process_api(self, block_fn: Any, *arguments: Any, **keywords: Any) -> Any:
        """Handle an event.

        The functions of the page report wrong values themselves. Any other error means that the event was malformed, or
        that the page has a defect, whose place is logged.
        """
        try:
            return await super().process_api(block_fn, *arguments, **keywords)
        except InvalidInput:
            raise
        except Exception as error:
            raise _malformed(getattr(block_fn, "api_name", None) or "event", error) from None


class SameOriginMiddleware:
    """Refuses requests that change something and come from the page of another site.

    A browser sends uploads to any host without asking it first, and names the site of the page in `Origin`.
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        """Pass a request on, or answer it with 403."""
        if scope["type"] == "http" and scope["method"] not in _HARMLESS:
            headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
            origin = headers.get(b"origin")
            # A proxy in front of the page, as on a Space, forwards the name by which the browser knows it.
            hosts = {headers.get(b"host"), headers.get(b"x-forwarded-host")}
            if origin is not None and urlsplit(origin).netloc not in hosts:
                await _respond(send, 403, f"origin = {origin[:80]}: another site; use the page itself")
                return
        await self.app(scope, receive, send)


class MalformedEventMiddleware:
    """Answers malformed events with 422 and one line; Gradio answers 500, and Starlette prints a traceback."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        """Pass a request on, and replace its response if it failed."""
        if scope["type"] != "http" or not scope["path"].startswith(_EVENTS):
            await self.app(scope, receive, send)
            return
        failure: list[Any] = []

        async def send_unless_failed(message: Any) -> None:
            if failure or message.get("status") == 500:
                failure.append(message)
            else:
                await send(message)

        try:
            await self.app(scope, receive, send_unless_failed)
        except Exception as error:
            malformed = _malformed("request", error)
            # A response that has started cannot be replaced.
            if failure:
                await _respond(send, 422, str(malformed))
        else:
            if failure:
                await _respond(send, 422, _error_of(failure))


async def _respond(send: Callable[[Any], Any], status: int, error: str) -> None:
    body = json.dumps({"error": error, "title": INVALID, "visible": True}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _error_of(messages: list[Any]) -> str:
    """Return the error in the response of a failed event."""
    with contextlib.suppress(ValueError):
        return json.loads(b"".join(message.get("body", b"") for message in messages))["error"]
    return "event: malformed; reload the page"


def _malformed(name: str, error: Exception) -> InvalidInput:
    place = traceback.extract_tb(error.__traceback__)[-1]
    _logger.warning("event %s: %s in %s: %s", name, type(error).__name__, place.name, first_line(error))
    return InvalidInput(f"event = {name}: malformed; reload the page")
