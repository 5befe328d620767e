"""A local web page to explore a trained model (Gradio)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vae.explorer.explorer import Explorer
    from keras_vae.explorer.serving import serve
    from keras_vae.explorer.space import write_space

_MODULES = {"Explorer": "explorer", "serve": "serving", "write_space": "space"}

__all__ = ["Explorer", "serve", "write_space"]


def __getattr__(name: str) -> object:
    """Import a public name on first use: `write_space` must work without Keras and Gradio."""
    import importlib

    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
