"""A page on this machine on which to explore a trained model (Gradio)."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vae.explorer.explorer import Explorer
    from keras_vae.explorer.serving import serve
    from keras_vae.explorer.space import write_space

_HOMES = {"Explorer": "explorer", "serve": "serving", "write_space": "space"}

__all__ = ["Explorer", "serve", "write_space"]


def __getattr__(name: str) -> object:
    """Import a public name when it is first used: a Space is written without Keras or Gradio."""
    import importlib

    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
