"""Figures of a run, and the HTML report that shows them next to its numbers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["plots"])
