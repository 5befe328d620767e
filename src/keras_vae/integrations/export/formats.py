"""The formats by name: one more is one more file, and one more name here."""

from keras_vae.integrations.export.litert import LITERT
from keras_vae.integrations.export.onnx import ONNX
from keras_vae.integrations.export.plain_keras import KERAS
from keras_vae.integrations.export.savedmodel import SAVED_MODEL

FORMATS = {form.name: form for form in (ONNX, SAVED_MODEL, LITERT, KERAS)}
