"""Export formats. To add one, add a module and list its format here."""

from keras_vae.integrations.export.formats.keras import KERAS
from keras_vae.integrations.export.formats.litert import LITERT
from keras_vae.integrations.export.formats.onnx import ONNX
from keras_vae.integrations.export.formats.savedmodel import SAVED_MODEL

FORMATS = {fmt.name: fmt for fmt in (ONNX, SAVED_MODEL, LITERT, KERAS)}
"""Formats by name."""
