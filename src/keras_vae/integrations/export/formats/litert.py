"""LiteRT (formerly TensorFlow Lite), for phones and microcontrollers."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.integrations.export.formats.base import Format

if TYPE_CHECKING:
    import keras

    from keras_vae.integrations.export.formats.base import Graph


def write(network: "keras.Model", file: Path) -> None:
    """Write a graph under the signature `serving_default`."""
    network.export(file, format="litert", verbose=False)


def load(path: str) -> "Graph":
    """Load a graph from a file."""
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(path).get_signature_runner("serving_default")


LITERT = Format("litert", ".tflite", write, load, "ai-edge-litert", ("ai-edge-litert",), "litert")
