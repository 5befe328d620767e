"""Export of models as deterministic graphs in ONNX, SavedModel, LiteRT or plain Keras, verified after writing."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vae.integrations.export.exporter import export

__all__ = ["export"]


def __getattr__(name: str) -> object:
    """Import `export` on first use, so that the formats can be imported without Keras."""
    if name == "export":
        from keras_vae.integrations.export.exporter import export

        return export
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
