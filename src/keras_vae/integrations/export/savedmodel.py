"""SavedModel, for TensorFlow and TensorFlow Serving."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.integrations.export.format import Format

if TYPE_CHECKING:
    import keras

    from keras_vae.integrations.export.format import Graph


def write(network: "keras.Model", folder: Path) -> None:
    """Write a graph as the signature `serving_default`."""
    network.export(folder, format="tf_saved_model", verbose=False)


def load(path: str) -> "Graph":
    """Return the graph in a folder."""
    import tensorflow as tf

    module = tf.saved_model.load(path)  # kept, for its variables live as long as it does
    return lambda **inputs: {
        name: value.numpy() for name, value in module.signatures["serving_default"](**inputs).items()
    }


SAVED_MODEL = Format("savedmodel", "", write, load, "tensorflow")
