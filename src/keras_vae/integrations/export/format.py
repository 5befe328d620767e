"""What a format can do."""

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from keras_vae.core.errors import InputError

if TYPE_CHECKING:
    import keras

Graph: TypeAlias = Callable[..., dict[str, Any]]
"""A graph in its own runtime: arrays by the names of its inputs → arrays by the names of its outputs."""


@dataclass(frozen=True)
class Format:
    """A way to write a graph for other programs.

    Args:
        name: What it is called.
        suffix: Of a graph's file; of a folder, nothing.
        write: Writes a functional Keras model to a file or folder.
        load: Returns the graph in a file or folder, in its own runtime. Its source is shown to readers of an export, so
            that it imports what it needs and nothing of this package.
        needs: What a program that runs the graphs must have installed.
        packages: What must be installed here besides what this package needs anyway.
        extra: The extra of this package that brings them.
        backend: The one backend that it is written through; None takes any.
    """

    name: str
    suffix: str
    write: Callable[["keras.Model", Path], None]
    load: Callable[[str], Graph]
    needs: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    backend: str | None = "tensorflow"

    def check_installed(self) -> None:
        """Refuse a format whose packages are missing.

        Raises:
            InputError: Some are.
        """
        missing = [name for name in self.packages if importlib.util.find_spec(name.replace("-", "_")) is None]
        if missing:
            raise InputError(
                f"format = {self.name}: {' and '.join(missing)} not installed: pip install 'keras-vae[{self.extra}]'"
            )
