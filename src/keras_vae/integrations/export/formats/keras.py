"""The `.keras` format, for Keras on any backend without this package."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.integrations.export.formats.base import Format

if TYPE_CHECKING:
    import keras

    from keras_vae.integrations.export.formats.base import Graph


def write(network: "keras.Model", file: Path) -> None:
    """Write a graph."""
    network.save(file)


def load(path: str) -> "Graph":
    """Load a graph from a file."""
    import keras

    network = keras.saving.load_model(path, compile=False)
    return lambda **inputs: {
        name: keras.ops.convert_to_numpy(value) for name, value in network.predict_on_batch(inputs).items()
    }


KERAS = Format("keras", ".keras", write, load, "keras", backend=None, stores_operations=False)
