"""The command that opens a page."""

from pathlib import Path
from typing import Annotated

import typer

from keras_vae.cli.common import import_keras, progress, say

SHIPPED = Path("mnist-2d")
"""The model that is explored where none is named."""


def explore(
    run: Annotated[
        Path, typer.Argument(metavar="[RUN]", help="A run folder, or the name of a shipped model.")
    ] = SHIPPED,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Bind to another address: whoever reaches it may use the page.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7860,
) -> None:
    """Open a page on which to explore a model, on this machine alone, and print its address."""
    from keras_vae.explorer.serving import check_installed, listen, serve
    from keras_vae.runs.run import Run

    opened = Run.open(run)
    check_installed()
    # Before the seconds that the model takes.
    listen(host, port).close()
    import_keras()
    say(f"{opened.name}: compiling the model …")
    serve(opened, host=host, port=port, progress=progress(), say=lambda address: print(address, flush=True))
