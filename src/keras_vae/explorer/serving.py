"""The page on a port of this machine."""

import errno
import importlib.util
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keras_vae.core.errors import InputError
from keras_vae.core.progress import Progress
from keras_vae.runs.run import Run

HOST, PORT = "127.0.0.1", 7860

LOOPBACK = ("127.0.0.1", "localhost", "::1")

POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; base-uri 'self'"
"""Has the browser fetch nothing from anywhere else."""


def check_installed() -> None:
    """Refuse to go on without the packages that make the page.

    Raises:
        InputError: They are not installed.
    """
    missing = [name for name in ("gradio", "uvicorn") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"explore: {' and '.join(missing)} not installed: pip install 'keras-vae[explore]'")


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 takes a free one.

    Raises:
        InputError: The port is in use, or the host is none of this machine's.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except (socket.gaierror, OverflowError, UnicodeError):
        raise InputError(f"--host {host}, --port {port}: no such address") from None
    # Named, not 0: asyncio sends small answers at once only where it sees that this is TCP; 40 ms each are at stake.
    listener = socket.socket(family, kind, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
        listener.listen(128)
    except OSError as error:
        listener.close()
        if isinstance(error, PermissionError):
            raise InputError(f"--port {port}: not yours to open; take one above 1023") from None
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"--port {port} on {host} is in use: try --port {port + 1}") from None
        raise InputError(f"--host {host}: {error.strerror}") from None
    return listener


def _named(host: str) -> str:
    """Return a host as an address and a browser's requests name it."""
    return f"[{host}]" if ":" in host else host


class CSPMiddleware:
    """Sends the content security policy with everything; answers that are streamed pass through as they come."""

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Callable[[Any], Any]) -> None:
        """Answer a request, with the policy added to the headers of the response."""

        async def contained(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"content-security-policy", POLICY.encode())]
            await send(message)

        await self.app(scope, receive, contained)


def application(run: Run, *, host: str = HOST, progress: Progress | None = None) -> Any:
    """Return the page of a run as an ASGI application, compiled and ready.

    Args:
        run: The run.
        host: What it will be bound to: on loopback, requests for other hosts are refused.
        progress: Shown while images are loaded.
    """
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    import gradio as gr
    from fastapi import FastAPI
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from keras_vae.explorer import page, uploads, widgets
    from keras_vae.explorer.explorer import Explorer

    explorer = Explorer(run, progress)
    explorer.warm_up()
    blocks = page.build(explorer)
    # It takes seconds, in which the page can do everything else.
    threading.Thread(target=explorer.prepare, daemon=True).start()
    app = FastAPI(openapi_url=None)
    if host in LOOPBACK:
        # A page on the web may lead its own name to this machine, and then ask in it.
        app.add_middleware(TrustedHostMiddleware, allowed_hosts=[_named(name) for name in LOOPBACK])

    app.add_middleware(CSPMiddleware)
    return gr.mount_gradio_app(
        app,
        blocks,
        path="/",
        theme=page.THEME,
        css=widgets.asset("style.css"),
        max_file_size=uploads.MOST_BYTES,
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
    say: Callable[[str], None] = print,
) -> None:
    """Serve the page of a run until it is interrupted.

    Args:
        run: A run, or its folder.
        host: The address to bind to: by default none but this machine can reach it.
        port: The port; 0 takes a free one.
        progress: Shown while images are loaded.
        say: Told the address once the page is there.

    Raises:
        InputError: Packages are missing, there is no such run, or the port is in use.

    Example:
        >>> serve("runs/nowhere")
        Traceback (most recent call last):
        keras_vae.core.errors.InputError: no run at runs/nowhere: `vae train` makes one
    """
    check_installed()
    run = run if isinstance(run, Run) else Run.open(Path(run).expanduser())
    with listen(host, port) as listener:
        import uvicorn

        app = application(run, host=host, progress=progress)
        say(f"http://{_named(host)}:{listener.getsockname()[1]}")
        uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2)).run(sockets=[listener])
