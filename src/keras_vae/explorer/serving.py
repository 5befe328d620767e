"""The server of the page, on a port of this machine."""

import errno
import logging
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_vae.core.errors import InputError, require_packages
from keras_vae.core.progress import Progress
from keras_vae.runs.run import Run

HOST, PORT = "127.0.0.1", 7860

LOOPBACK = ("127.0.0.1", "localhost", "::1")

POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'"
"""The content security policy: the browser may not fetch anything from another host."""


def check_installed() -> None:
    """Check that the optional packages are installed.

    Raises:
        InputError: A package is missing.
    """
    require_packages("explore", ["gradio", "uvicorn"], "explore")


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket.

    Args:
        host: A name or address of this machine.
        port: The port; 0 for a free one.

    Raises:
        InputError: The port is in use, or the host is not an address of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, OverflowError, UnicodeError):
        raise InputError(f"host = {host}: cannot be resolved; pass an address of this machine") from None
    # TCP is named explicitly: asyncio sets TCP_NODELAY only then, which saves 40 ms per response.
    listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise InputError(f"port = {port}: permission denied; choose a port above 1023") from None
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port = {port}: already in use on {host}; try {port + 1}") from None
        raise InputError(f"host = {host}: {error.strerror}; pass an address of this machine") from None
    return listener


def _url_host(host: str) -> str:
    """Return a host as it is written in a URL."""
    return f"[{host}]" if ":" in host else host


class CSPMiddleware:
    """Adds the content security policy to every response, without buffering streams."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        """Pass a request on, and add the policy to the headers of its response."""

        async def send_with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, send_with_policy)


def create_app(run: Run, *, host: str = HOST, progress: Progress | None = None) -> Any:
    """Return the page of a run as an ASGI application, with its model compiled.

    Args:
        run: The run.
        host: The address to bind to. On loopback, requests for other hosts are rejected.
        progress: Shows the progress of loading images.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from keras_vae.explorer import app as page
    from keras_vae.explorer import uploads
    from keras_vae.explorer.assets import asset
    from keras_vae.explorer.explorer import Explorer
    from keras_vae.explorer.requests import MalformedEventMiddleware, SameOriginMiddleware

    explorer = Explorer(run, progress)
    explorer.warm_up()
    blocks = page.build(explorer)
    # This takes seconds, during which the page already responds.
    threading.Thread(target=explorer.prepare, daemon=True).start()
    app = FastAPI(openapi_url=None)
    if host in LOOPBACK:
        # DNS rebinding: a website could resolve its own name to this machine and then send requests.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[_url_host(name) for name in LOOPBACK])

    app.add_middleware(MalformedEventMiddleware)
    app.add_middleware(SameOriginMiddleware)
    app.add_middleware(CSPMiddleware)
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=page.THEME,
        css=asset("style.css"),
        max_file_size=uploads.MAX_BYTES,
        show_error=True,
        ssr_mode=False,
        footer_links=["api"],
        pwa=False,
        mcp_server=False,
    )


def serve(
    run: Run | str | Path,
    *,
    host: str = HOST,
    port: int = PORT,
    progress: Progress | None = None,
    on_ready: Callable[[str], None] = print,
) -> None:
    """Serve the page of a run until interrupted.

    Args:
        run: A run, or its folder.
        host: The address to bind to. By default, only this machine can reach the page.
        port: The port; 0 for a free one.
        progress: Shows the progress of loading images.
        on_ready: Called with the URL as soon as the page is ready.

    Raises:
        InputError: A package is missing, there is no such run, or the port is in use.

    Example:
        >>> serve("mnist-2d")  # doctest: +SKIP
        http://127.0.0.1:7860
    """
    check_installed()
    run = run if isinstance(run, Run) else Run.open(Path(run).expanduser())
    with listen(host, port) as listener:
        import uvicorn

        app = create_app(run, host=host, progress=progress)
        on_ready(f"http://{_url_host(host)}:{listener.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
        stop = server.handle_exit

        def stop_at_once(*signal: Any) -> None:
            # Every open page keeps a stream open. Uvicorn would wait for these streams, and log their cancellation.
            server.force_exit = True
            logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)
            stop(*signal)

        server.handle_exit = stop_at_once
        server.run(sockets=[listener])
