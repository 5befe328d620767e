"""Web pages to explore a trained model: one served on this machine (Gradio), and one that needs no server."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vae.explorer.explorer import Explorer
    from keras_vae.explorer.serving import serve
    from keras_vae.explorer.space import write_space
    from keras_vae.explorer.web_page import write_web_page

_MODULES = {"Explorer": "explorer", "serve": "serving", "write_space": "space", "write_web_page": "web_page"}

__all__ = ["Explorer", "serve", "write_space", "write_web_page"]


def __getattr__(name: str) -> object:
    """Import a public name on first use: `write_space` must work without Keras and Gradio."""
    import importlib

    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
