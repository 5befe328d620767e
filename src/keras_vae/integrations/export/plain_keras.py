"""Keras's own format, for Keras on any backend, without this package."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.integrations.export.format import Format

if TYPE_CHECKING:
    import keras

    from keras_vae.integrations.export.format import Graph


def write(network: "keras.Model", file: Path) -> None:
    """Write a graph."""
    network.save(file)


def load(path: str) -> "Graph":
    """Return the graph in a file."""
    import keras

    network = keras.saving.load_model(path, compile=False)
    return lambda **inputs: {
        name: keras.ops.convert_to_numpy(value) for name, value in network.predict_on_batch(inputs).items()
    }


KERAS = Format("keras", ".keras", write, load, "keras", backend=None)
