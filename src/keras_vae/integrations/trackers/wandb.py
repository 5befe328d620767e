"""Recording of a training in Weights & Biases."""

import os
from collections.abc import Mapping
from typing import Any, ClassVar

from keras_vae.integrations.trackers.base import PROJECT, Status, Tracker, evaluation_numbers
from keras_vae.integrations.trackers.pictures import Pictures
from keras_vae.report.context import PlotContext

FINISH_TIMEOUT = 120.0
"""Seconds to wait for the end of an upload. The files remain on this machine."""


class WandB(Tracker):
    """Records a training in a project of Weights & Biases.

    The variables of the library apply: `WANDB_PROJECT` (default: keras-vae), `WANDB_ENTITY`, `WANDB_MODE`, `WANDB_DIR`
    (default: the folder of the run) and so on. If you are not logged in, nothing is sent: the record is written for
    `wandb sync`.

    Args:
        warn: Called with a line if the service fails.

    Raises:
        InputError: The package `wandb` is missing.
    """

    package: ClassVar[str] = "wandb"

    @property
    def location(self) -> str:
        """The address of the record, or the command that uploads it."""
        return f"wandb sync {self._local}" if self._wandb.offline else str(self._wandb.url)

    def _open(self, name: dict[str, str], epochs: int) -> tuple[dict[str, str], int]:
        # By default, the library sends reports about its own errors to its makers.
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        os.environ.setdefault("WANDB_SILENT", "true")
        import wandb

        mode: Any = os.environ.get("WANDB_MODE") or wandb.setup().settings.mode
        if mode in ("online", "shared") and not wandb.login(prompt=False, verify=False):
            mode = "offline"
        project = name.get("project") or os.environ.get("WANDB_PROJECT") or PROJECT
        self._wandb = wandb.init(
            project=project,
            id=name.get("id"),
            resume="allow" if name else None,
            name=os.environ.get("WANDB_NAME") or self.run.name,
            dir=os.environ.get("WANDB_DIR") or self.run.path_to_write("."),
            mode=mode,
            settings=wandb.Settings(
                silent=True, console="off", finish_timeout=FINISH_TIMEOUT, finish_timeout_raises=True
            ),
        )
        self._local = os.path.dirname(self._wandb.dir)
        # The service returns the last step of a record that was continued online.
        return {"id": self._wandb.id, "project": project}, max(epochs, self._wandb.step)

    def _log_settings(self, settings: Mapping[str, Any]) -> None:
        self._wandb.config.update(dict(settings), allow_val_change=True)

    def _log_epoch(self, epoch: int, metrics: Mapping[str, float], pictures: Pictures) -> None:
        import wandb

        images = {name: wandb.Image(picture) for name, picture in pictures.items()}
        self._wandb.log({**metrics, **images}, step=epoch)

    def _log_results(self, context: PlotContext) -> None:
        import wandb

        self._wandb.summary.update(evaluation_numbers(self.run))
        if self.run.has_report:
            self._wandb.log({"report": wandb.Html(str(self.run.path / "report.html"), inject=False)}, step=self._epochs)

    def _close(self, status: Status) -> None:
        self._wandb.finish(exit_code=0 if status == "finished" else 1)
