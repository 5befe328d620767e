"""Sweeps: many trainings of one experiment with other settings, which Optuna chooses."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from keras_vae.integrations.sweep.report import write_report
    from keras_vae.integrations.sweep.results import Sweep
    from keras_vae.integrations.sweep.worker import sweep

__all__ = ["Sweep", "sweep", "write_report"]


def __getattr__(name: str) -> object:
    """Import the functions on first use, so that files of sweeps can be read without Keras."""
    if name == "sweep":
        from keras_vae.integrations.sweep.worker import sweep

        return sweep
    if name == "Sweep":
        from keras_vae.integrations.sweep.results import Sweep

        return Sweep
    if name == "write_report":
        from keras_vae.integrations.sweep.report import write_report

        return write_report
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
