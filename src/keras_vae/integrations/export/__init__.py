"""Models for other programs: deterministic graphs as ONNX, SavedModel, LiteRT or plain Keras, checked after writing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vae.integrations.export.writing import export

__all__ = ["export"]


def __getattr__(name: str) -> object:
    """Import `export` when it is first used: the formats by themselves need no Keras."""
    if name == "export":
        from keras_vae.integrations.export.writing import export

        return export
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
