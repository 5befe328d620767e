"""The HTML page of a sweep: its best runs, figures about its settings, and all trials."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from keras_vae.evaluation.descriptions import SWEEP_FIGURES
from keras_vae.report.figures.themes import ThemedImage
from keras_vae.report.html import Section, figure_section, settings_section, with_code
from keras_vae.report.pages import load_template


class TrialRow(NamedTuple):
    """A trial.

    Args:
        name: Name of its first run folder, or its number.
        links: Addresses, relative to the page, by text.
        value: The metric, or the state of a trial without one.
        settings: Values of the settings by dotted key, as text.
        note: The reason of its failure, if it failed.
        thumbnail: Some images of its model as a data URI, if any.
    """

    name: str
    links: Mapping[str, str]
    value: str
    settings: Mapping[str, str]
    note: str = ""
    thumbnail: str = ""


def render_sweep(
    *,
    title: str,
    summary: str,
    metric: str,
    best: Sequence[TrialRow],
    trials: Sequence[TrialRow],
    figures: Mapping[str, ThemedImage],
    notes: Sequence[str],
    experiment_toml: str,
    environment: Mapping[str, Any],
) -> str:
    """Return a self-contained HTML page about a sweep, which needs no network and no scripts.

    Args:
        title: Name of the sweep.
        summary: Numbers of trials.
        metric: Name of the metric.
        best: The best trials, best first.
        trials: All trials.
        figures: Images by name, a key of `SWEEP_FIGURES`.
        notes: Reasons why figures are missing.
        experiment_toml: The experiment with its table `[sweep]`.
        environment: Seeds per trial, backend, versions and other facts; may be nested.
    """
    keys = list(dict.fromkeys(key for trial in trials for key in trial.settings))
    sections = [
        Section("best", "Best runs", "best_trials", {"trials": best, "metric": metric}),
        *(figure_section(name, SWEEP_FIGURES[name], figures[name], title) for name in SWEEP_FIGURES if name in figures),
        Section("trials", "Trials", "trials", {"trials": trials, "keys": keys, "metric": metric, "notes": notes}),
        settings_section(experiment_toml, environment),
    ]
    return load_template("sweep.html", with_code=with_code).render(title=title, summary=summary, sections=sections)
