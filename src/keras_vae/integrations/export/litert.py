"""LiteRT, once TensorFlow Lite, for phones and microcontrollers."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.integrations.export.format import Format

if TYPE_CHECKING:
    import keras

    from keras_vae.integrations.export.format import Graph


def write(network: "keras.Model", file: Path) -> None:
    """Write a graph as the signature `serving_default`."""
    network.export(file, format="litert", verbose=False)


def load(path: str) -> "Graph":
    """Return the graph in a file."""
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(path).get_signature_runner("serving_default")


LITERT = Format("litert", ".tflite", write, load, "ai-edge-litert", ("ai-edge-litert",), "litert")
