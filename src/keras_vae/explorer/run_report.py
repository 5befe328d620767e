"""The report of a run, with the findings of the doctor."""

import functools
import time
from collections.abc import Iterable, Iterator
from typing import Any

from keras_vae.data.dataset import Splits
from keras_vae.evaluation.diagnostics import Finding, RunDiagnostics, current_evaluation, diagnose, run_checks
from keras_vae.explorer.analyzer import YIELD_SECONDS
from keras_vae.explorer.engine import Engine
from keras_vae.runs.run import Run


class RunReport:
    """The report of a run as a web page. Computing it takes seconds the first time.

    Args:
        run: The run.
        engine: Its model.
        splits: Its images; None if its data is not available.
    """

    def __init__(self, run: Run, engine: Engine, splits: Splits | None) -> None:
        self._run, self._engine, self._splits = run, engine, splits

    @functools.cached_property
    def findings(self) -> tuple[Finding, ...]:
        """The findings of the doctor; without images, only those about the training and the evaluation."""
        run = self._run
        if self._splits is None:
            has_fitted_prior, evaluation = run.has_fitted_prior, current_evaluation(run)
            return run_checks(
                RunDiagnostics(run.experiment, run.metrics, has_fitted_prior=has_fitted_prior, evaluation=evaluation)
            )
        with Engine.lock:
            model = run.load_model("original") if run.has_fitted_prior else self._engine.model
        return diagnose(run, self._splits, model, _take_turns)

    @functools.cached_property
    def html(self) -> str:
        """The report with its curves and findings, as one self-contained HTML page.

        Raises:
            InputError: A file of the run is damaged, or its images do not fit the model.
        """
        from keras_vae.report import plots
        from keras_vae.report.figures.themes import themed_image
        from keras_vae.report.report import render_run

        kinds = plots.METRICS_PLOTS if self._run.metrics else ()
        figures = {kind: themed_image(plots.plot(self._run, kind)) for kind in kinds}
        return render_run(self._run, figures, self.findings)


def _take_turns(batches: Iterable[Any], _: str) -> Iterator[Any]:
    """Yield batches while holding the engine's lock; between batches, events of the page can acquire it."""
    for batch in batches:
        with Engine.lock:
            yield batch
        time.sleep(YIELD_SECONDS)
