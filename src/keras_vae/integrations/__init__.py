"""Integrations: model export, the Hugging Face Hub, scikit-learn, sweeps with Optuna, experiment trackers."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["trackers"])
