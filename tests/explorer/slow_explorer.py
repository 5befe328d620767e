"""Run the command `vae` with a model that answers slowly once the page is served."""

import time
from collections.abc import Callable
from typing import Any

from keras_vae.cli import main
from keras_vae.explorer.engine import Engine
from keras_vae.explorer.explorer import Explorer

SECONDS = 0.6


def _slow(function: Callable[..., Any]) -> Callable[..., Any]:
    def wrapped(*arguments: Any, **keywords: Any) -> Any:
        time.sleep(SECONDS)
        return function(*arguments, **keywords)

    return wrapped


if __name__ == "__main__":
    warm_up = Explorer.warm_up

    def warm_up_fast(explorer: Explorer) -> None:
        """Compile the model before it becomes slow."""
        warm_up(explorer)
        Engine.decode = _slow(Engine.decode)  # type: ignore[method-assign]
        Engine.sample_code = _slow(Engine.sample_code)  # type: ignore[method-assign]

    Explorer.warm_up = warm_up_fast  # type: ignore[method-assign]
    main()
