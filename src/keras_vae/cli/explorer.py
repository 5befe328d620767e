"""The command `vae explore`."""

import os
from pathlib import Path
from typing import Annotated

import typer

from keras_vae.cli import completion
from keras_vae.cli.common import import_keras, progress, say

DEFAULT_RUN = Path("mnist-2d")
"""The pretrained run to explore by default."""


def explore(
    run: Annotated[
        Path,
        typer.Argument(
            metavar="[RUN]",
            help="A run folder, or the name of a pretrained run.",
            autocompletion=completion.runs,
        ),
    ] = DEFAULT_RUN,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to bind to; anyone who can reach it can use the page.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for a free one.")] = 7860,
) -> None:
    """Serve a local web page to explore a model, and print its URL."""
    from keras_vae.explorer.serving import check_installed, listen, serve
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    check_installed()
    # Fail on a bad address before the model is loaded, which takes seconds.
    listen(host, port).close()
    import_keras()
    say(f"{opened.name}: compiling the model …")
    try:
        serve(opened, host=host, port=port, progress=progress(), on_ready=lambda url: print(url, flush=True))
    except KeyboardInterrupt:
        # Python would wait for, or abort in, threads that still compute.
        os._exit(130)
