"""SavedModel, for TensorFlow and TensorFlow Serving."""

from pathlib import Path
from typing import TYPE_CHECKING

from keras_vae.integrations.export.formats.base import Format

if TYPE_CHECKING:
    import keras

    from keras_vae.integrations.export.formats.base import Graph


def write(network: "keras.Model", folder: Path) -> None:
    """Write a graph under the signature `serving_default`."""
    network.export(folder, format="tf_saved_model", verbose=False)


def load(path: str) -> "Graph":
    """Load a graph from a folder."""
    import tensorflow as tf

    module = tf.saved_model.load(path)  # Keep a reference, because it owns the variables.
    return lambda **inputs: {
        name: value.numpy() for name, value in module.signatures["serving_default"](**inputs).items()
    }


SAVED_MODEL = Format("savedmodel", "", write, load, "tensorflow")
