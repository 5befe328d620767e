"""Recording of a training in MLflow."""

import json
import logging
import os
import time
from collections.abc import Mapping
from typing import Any, ClassVar

from keras_vae.integrations.trackers.base import PROJECT, Status, Tracker, evaluation_numbers
from keras_vae.integrations.trackers.pictures import Pictures
from keras_vae.report.context import PlotContext

STATUS: Mapping[Status, str] = {"finished": "FINISHED", "failed": "FAILED", "interrupted": "KILLED"}
"""The names of the ends of a training in MLflow."""

MAX_PARAMS, MAX_METRICS = 100, 1000
"""Largest numbers of settings and of metrics in one request."""

REPORT = ("report.html", "evaluation.json")
"""Files of a run that are uploaded at the end."""


class MLflow(Tracker):
    """Records a training in an experiment of MLflow.

    The variables of the library apply: `MLFLOW_TRACKING_URI` (default: `mlflow.db` in the current folder),
    `MLFLOW_EXPERIMENT_NAME` (default: keras-vae), `MLFLOW_EXPERIMENT_ID` and so on.

    Args:
        warn: Called with a line if the service fails.

    Raises:
        InputError: The package `mlflow` is missing.
    """

    package: ClassVar[str] = "mlflow"

    @property
    def location(self) -> str:
        """The store and the identifier of the record."""
        return f"run {self._id} in {self._client.tracking_uri}"

    def _open(self, name: dict[str, str], epochs: int) -> tuple[dict[str, str], int]:
        # By default, the library sends reports about its use to its makers.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        from mlflow import MlflowClient

        # It prints every step of creating a database.
        logging.getLogger("mlflow").setLevel(logging.WARNING)
        logging.getLogger("alembic").setLevel(logging.WARNING)
        self._client = MlflowClient()
        if name:
            self._id = name["id"]
            self._client.update_run(self._id, status="RUNNING")
            steps = [metric.step for metric in self._client.get_metric_history(self._id, "total_loss")]
            return name, max(steps, default=0)
        self._id = self._client.create_run(self._experiment_id(), run_name=self.run.name).info.run_id
        return {"id": self._id}, 0

    def _experiment_id(self) -> str:
        if number := os.environ.get("MLFLOW_EXPERIMENT_ID"):
            return number
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or PROJECT
        experiment = self._client.get_experiment_by_name(name)
        return self._client.create_experiment(name) if experiment is None else experiment.experiment_id

    def _log_settings(self, settings: Mapping[str, Any]) -> None:
        from mlflow.entities import Param

        texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in settings.items()}
        params = [Param(name, text) for name, text in texts.items()]
        for start in range(0, len(params), MAX_PARAMS):
            self._client.log_batch(self._id, params=params[start : start + MAX_PARAMS])

    def _log_epoch(self, epoch: int, metrics: Mapping[str, float], pictures: Pictures) -> None:
        for name, picture in pictures.items():
            self._client.log_image(self._id, picture, key=name, step=epoch)
        # The metrics come last: if the process is killed in between, the epoch counts as missing.
        self._log_metrics(metrics, epoch)

    def _log_metrics(self, metrics: Mapping[str, float], step: int) -> None:
        from mlflow.entities import Metric

        milliseconds = int(1000 * time.time())
        values = [Metric(name, value, milliseconds, step) for name, value in metrics.items()]
        for start in range(0, len(values), MAX_METRICS):
            self._client.log_batch(self._id, metrics=values[start : start + MAX_METRICS])

    def _log_results(self, context: PlotContext) -> None:
        self._log_metrics(evaluation_numbers(self.run), self._epochs)
        for name in REPORT:
            if (self.run.path / name).is_file():
                self._client.log_artifact(self._id, self.run.path / name)

    def _close(self, status: Status) -> None:
        self._client.set_terminated(self._id, STATUS[status])
