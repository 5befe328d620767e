"""Input pipelines of the backend."""

import itertools
from types import GeneratorType
from typing import Any

import keras
import numpy as np

from keras_vae.core.backend.hardware import name


def batch_pipeline(batches: Any) -> Any:
    """Return the input of `fit`: the batches themselves, or, with TensorFlow, an equivalent `tf.data` pipeline.

    Keras turns a `PyDataset` into a pipeline that calls Python, which doubles the time per step of dense models on a
    CPU, even if one batch is repeated.

    Args:
        batches: `ShuffledBatches`. Its attribute `follow` is set to a function that is called with the order of each
            epoch, unless its images are read on demand.
    """
    if name() != "tensorflow":
        return batches
    import tensorflow as tf

    if not all(isinstance(array, np.ndarray) for array in keras.tree.flatten(batches.images)):
        return _generated(batches)

    size = batches.batch_size
    with tf.device("CPU"):
        order = tf.Variable(batches.order, trainable=False)
    batches.follow = order.assign
    indices = tf.data.Dataset.range(len(batches)).map(lambda index: order[index * size : (index + 1) * size])
    return _gather_rows(batches.images, indices)


def _generated(batches: Any) -> Any:
    """Return a pipeline of batches that Python reads, one ahead of the step that uses it; not tuned: see `_gather_rows`."""
    import tensorflow as tf

    signature = keras.tree.map_structure(
        lambda array: tf.TensorSpec((None, *array.shape[1:]), array.dtype), (batches.images,)
    )
    pipeline = tf.data.Dataset.from_generator(
        lambda: (batches[index] for index in range(len(batches))), output_signature=signature
    )
    options = tf.data.Options()
    options.autotune.enabled = False
    counted = pipeline.apply(tf.data.experimental.assert_cardinality(len(batches)))
    return counted.prefetch(1).with_options(options)


def array_pipeline(arrays: Any, batch_size: int | None, shuffle: bool = False) -> tuple[Any, bool]:
    """Return an input pipeline for arrays of equal length, and whether Keras must still shuffle it.

    With TensorFlow, this is a `tf.data` pipeline of batches, which are reshuffled in every epoch if requested. It
    replaces the pipeline of Keras, which is autotuned; see `_gather_rows`.

    Args:
        arrays: A NumPy array or a dict of arrays; anything else is returned unchanged.
        batch_size: Rows per batch; the last batch may be smaller. None means 32, as in Keras.
        shuffle: Whether to shuffle the rows.
    """
    flat = list(arrays.values()) if isinstance(arrays, dict) else [arrays]
    are_arrays = all(isinstance(array, np.ndarray) for array in flat)
    # Keras raises an error for arrays of different lengths.
    if name() != "tensorflow" or not are_arrays or len({len(array) for array in flat}) != 1:
        return arrays, shuffle
    import tensorflow as tf

    indices = tf.data.Dataset.range(len(flat[0]))
    if shuffle:
        indices = indices.shuffle(len(flat[0]))
    return _gather_rows(arrays, indices.batch(batch_size or 32)), False


def _gather_rows(arrays: Any, indices: Any) -> Any:
    """Return a pipeline of the rows of arrays at the positions in a pipeline of indices.

    Autotuning is off: at its end, a tuned pipeline waits for its tuner, which wakes up after 10·2ᵏ milliseconds. This
    can double the duration of an epoch.
    """
    import tensorflow as tf

    with tf.device("CPU"):
        tensors = tf.nest.map_structure(tf.constant, arrays)
    options = tf.data.Options()
    options.autotune.enabled = False
    batches = indices.map(lambda rows: (tf.nest.map_structure(lambda tensor: tf.gather(tensor, rows), tensors),))
    return batches.prefetch(2).with_options(options)


def is_data_source(x: Any) -> bool:
    """Return whether Keras reads batches from an object: a `PyDataset`, a generator, or a data set of a library."""
    libraries = {cls.__module__.partition(".")[0] for cls in type(x).__mro__}
    is_library_data = bool(libraries & {"tensorflow", "torch", "grain"}) and hasattr(x, "__iter__")
    return isinstance(x, keras.utils.PyDataset | GeneratorType) or is_library_data


def peek(batches: Any, count: int = 1) -> tuple[Any, Any]:
    """Return the first of the batches of a Keras step function, and an equivalent argument for its next call.

    A `tf.data` iterator is replaced by one of the same element type, so that TensorFlow does not trace the step again.

    Args:
        batches: The argument that Keras passes to `train_function`, `test_function` or `predict_function`.
        count: Number of batches per call, `steps_per_execution`.

    Raises:
        StopIteration: There are no batches.
    """
    if isinstance(batches, list | tuple):
        return batches[0], batches
    first = next(batches)
    all_batches = itertools.chain([first], batches)
    if name() != "tensorflow":
        return first, all_batches
    import tensorflow as tf

    values = keras.tree.map_structure(
        lambda value: None if isinstance(value, tf.experimental.Optional) else value, first
    )
    if not isinstance(batches, tf.data.Iterator):
        return values, all_batches
    next_call = tf.data.Dataset.from_generator(
        lambda: itertools.islice(all_batches, count), output_signature=batches.element_spec
    )
    return values, iter(next_call)
