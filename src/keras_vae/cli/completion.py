"""Completion of names in a shell, without importing Keras.

The shell completes paths itself if nothing is returned.
"""

from collections.abc import Callable, Iterable


def words(*accepted: str) -> Callable[[str], list[str]]:
    """Return a completion of fixed words.

    Args:
        *accepted: The words.
    """
    return lambda incomplete: _starting_with(incomplete, accepted)


def runs(incomplete: str) -> list[str]:
    """Complete the name of a pretrained run, or the path of a run in `runs/`."""
    from keras_vae.runs.files import run_paths
    from keras_vae.runs.run import pretrained_names

    return _starting_with(incomplete, [*pretrained_names(), *run_paths()])


def presets(incomplete: str) -> list[str]:
    """Complete the name of a preset."""
    from keras_vae.runs.experiment import preset_names

    return _starting_with(incomplete, preset_names())


def sources(incomplete: str) -> list[str]:
    """Complete the name of a data source."""
    from keras_vae.data.sources import SOURCES

    return _starting_with(incomplete, SOURCES)


def settings(incomplete: str) -> list[str]:
    """Complete the dotted name of a setting for `--set`, up to the `=`."""
    from keras_vae.core.config import dotted_names
    from keras_vae.runs.experiment import Experiment

    names = list(dotted_names(Experiment))
    return _starting_with(incomplete, (f"{name}=" for name in names if f"{name}." not in " ".join(names)))


def in_list(*accepted: str) -> Callable[[str], list[str]]:
    """Return a completion of the last word of a list with commas.

    Args:
        *accepted: The words.
    """

    def complete(incomplete: str) -> list[str]:
        before, comma, last = incomplete.rpartition(",")
        return [before + comma + word for word in _starting_with(last, accepted)]

    return complete


def _starting_with(incomplete: str, accepted: Iterable[str]) -> list[str]:
    return [word for word in accepted if word.startswith(incomplete)]
