"""Base definitions of the export formats."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from keras_vae.core.errors import InputError, require_packages

if TYPE_CHECKING:
    import keras

InputDtype = Literal["uint8", "float32"]
"""The dtype of input images: `"uint8"`, levels 0…255, or `"float32"`, in [0, 1]."""

Graph: TypeAlias = Callable[..., dict[str, Any]]
"""A graph loaded in its own runtime, which maps input arrays by name to output arrays by name."""


@dataclass(frozen=True)
class Format:
    """A file format for graphs.

    Args:
        name: Name of the format.
        suffix: Suffix of a graph's file; empty for a folder.
        write: Writes a functional Keras model to a file or folder.
        load: Loads a graph from a file or folder into its own runtime. Its source is printed in the model card, so it
            must contain its imports and must not use this package.
        runtime: Package that runs the graphs.
        packages: Additional packages that the export needs.
        extra: The extra of this package that installs them.
        backend: Keras backend that the export needs; None accepts any.
        stores_operations: Whether a file contains the operations of a graph. If it contains its layers instead, layers
            of this package cannot be part of it.
    """

    name: str
    suffix: str
    write: Callable[["keras.Model", Path], None]
    load: Callable[[str], Graph]
    runtime: str
    packages: tuple[str, ...] = ()
    extra: str = ""
    backend: str | None = "tensorflow"
    stores_operations: bool = True

    def check_installed(self) -> None:
        """Check that the packages of the format are installed.

        Raises:
            InputError: A package is missing.
        """
        require_packages(f"format = {self.name!r}", self.packages, self.extra)

    def check_backend(self) -> None:
        """Check that Keras uses the backend of the format.

        Raises:
            InputError: It uses another backend.
        """
        from keras_vae.core import backend

        if self.backend not in (None, backend.name()):
            raise InputError(
                f"format = {self.name!r}: needs the {self.backend} backend, but the current one is {backend.name()}; "
                f"set KERAS_BACKEND={self.backend} before importing Keras, or run `vae export`"
            )
