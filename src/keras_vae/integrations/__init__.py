"""Integrations with other software: model export, the Hugging Face Hub, scikit-learn, trackers of experiments."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["trackers"])
