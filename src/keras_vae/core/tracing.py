"""Silences a warning of TensorFlow where this package traces graphs as intended."""

import contextlib
import contextvars
import logging
from collections.abc import Iterator
from typing import Any

import keras

from keras_vae.core import backend

_EXPECTS_TRACING: contextvars.ContextVar[bool] = contextvars.ContextVar("expects_tracing", default=False)


@contextlib.contextmanager
def expected_tracing() -> Iterator[None]:
    """Silence TensorFlow's warning of frequent tracing, within a block that traces a bounded number of graphs.

    Keras's steps are traced at most twice per model and form of inputs, the second time for any number of images. But
    TensorFlow counts the traces of all models together.
    """
    logging.getLogger("tensorflow").addFilter(_is_unexpected)
    token = _EXPECTS_TRACING.set(True)
    try:
        yield
    finally:
        _EXPECTS_TRACING.reset(token)


def predict_on_batch(network: keras.Model, inputs: Any) -> Any:
    """Return the outputs of a network for a batch, without TensorFlow's warning of frequent tracing.

    The batch is divided among the devices; see `backend.map_rows`.
    """
    with expected_tracing():
        return backend.map_rows(network.predict_on_batch, inputs)


def _is_unexpected(record: logging.LogRecord) -> bool:
    return not (_EXPECTS_TRACING.get() and "triggered tf.function retracing" in record.getMessage())
