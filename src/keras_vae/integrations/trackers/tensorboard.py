"""Recording of a training in event files for TensorBoard, without TensorFlow."""

import io
import json
import os
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from keras_vae.core.files import writing
from keras_vae.core.markdown import code_block
from keras_vae.evaluation.summary import summarize
from keras_vae.integrations.trackers.base import Status, Tracker, evaluation_numbers
from keras_vae.integrations.trackers.pictures import Pictures
from keras_vae.integrations.trackers.projector import write_projector
from keras_vae.report.context import PlotContext

if TYPE_CHECKING:
    from PIL.Image import Image

FOLDER = "tensorboard"
"""The folder of a run that contains the event files."""


class TensorBoard(Tracker):
    """Records a training in the folder `tensorboard` of the run.

    TensorBoard shows metrics as scalars, samples, reconstructions and the figures of the report as images, settings as
    hyperparameters and as text and, if the model has a latent vector, the codes of up to 2,000 held-out images with
    thumbnails in its projector. It stores numbers in single precision, in which all losses are exact.

    Args:
        warn: Called with a line if a file cannot be written.

    Raises:
        InputError: The package `tensorboard` is missing.

    Example:
        >>> import keras_vae
        >>> with keras_vae.trackers.TensorBoard() as tracker:  # doctest: +SKIP
        ...     run = keras_vae.train("classic", callbacks=[tracker])
        ...     tracker.log_results(keras_vae.write_report(run).parent)
    """

    package: ClassVar[str] = "tensorboard"

    @property
    def location(self) -> str:
        """The command that shows the record."""
        return f"tensorboard --logdir {self.run.path / FOLDER}"

    def _open(self, name: dict[str, str], epochs: int) -> tuple[dict[str, str], int]:
        self._folder = self.run.path_to_write(FOLDER)
        self._writer = EventWriter(self._folder, first_step=epochs + 1)
        return {"folder": FOLDER}, epochs

    def _log_settings(self, settings: Mapping[str, Any]) -> None:
        self._writer.write_settings(settings)

    def _log_epoch(self, epoch: int, metrics: Mapping[str, float], pictures: Pictures) -> None:
        for name, value in metrics.items():
            self._writer.write_scalar(name, value, epoch)
        for name, picture in pictures.items():
            self._writer.write_image(name, picture, epoch)
        self._writer.flush()

    def _log_results(self, context: PlotContext) -> None:
        from PIL import Image

        for name, value in evaluation_numbers(self.run).items():
            self._writer.write_scalar(name, value, self._epochs)
        self._writer.write_text("evaluation", code_block("\n".join(summarize(self.run.evaluation or {}))), self._epochs)
        for file in sorted((self.run.path / "figures").glob("*.png")):
            with Image.open(file) as figure:
                self._writer.write_image(f"report/{file.stem}", figure, self._epochs)
        self._writer.flush()
        if context.model.has_latent_vector:
            write_projector(context, self._folder)

    def _close(self, status: Status) -> None:
        self._writer.close(status)


class EventWriter:
    """Writes an event file.

    The package `tensorboard` writes the format but opens files with TensorFlow, which would be loaded next to JAX or
    PyTorch. Python's own files suffice.

    Args:
        folder: The folder of the new file.
        first_step: The first step of the file. TensorBoard then ignores later steps of older files, which a killed
            process may have written.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        from tensorboard.compat.proto import event_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        now = time.time()
        self._file = folder / f"events.out.tfevents.{now:.6f}.{socket.gethostname()}.{os.getpid()}"
        with writing(self._file):
            folder.mkdir(exist_ok=True)
            self._records = RecordWriter(self._file.open("ab"))
        self._write(event_pb2.Event(wall_time=now, file_version="brain.Event:2"))
        start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
        self._write(event_pb2.Event(wall_time=now, step=first_step, session_log=start))

    def write_scalar(self, name: str, value: float, step: int) -> None:
        """Write a number, which TensorBoard reads in single precision: losses are exact, other numbers are rounded."""
        from tensorboard.compat.proto import tensor_pb2, types_pb2
        from tensorboard.plugins.scalar.metadata import create_summary_metadata

        tensor = tensor_pb2.TensorProto(dtype=types_pb2.DT_FLOAT, float_val=[value])
        self._write_summary(name, create_summary_metadata("", ""), tensor, step)

    def write_image(self, name: str, picture: "Image", step: int) -> None:
        """Write a picture."""
        from tensorboard.plugins.image.metadata import create_summary_metadata

        png = io.BytesIO()
        picture.save(png, "PNG")
        size = [str(side).encode() for side in picture.size]
        self._write_summary(name, create_summary_metadata("", ""), _strings([*size, png.getvalue()]), step)

    def write_text(self, name: str, text: str, step: int) -> None:
        """Write a text in Markdown."""
        from tensorboard.plugins.text.metadata import create_summary_metadata

        self._write_summary(name, create_summary_metadata("", ""), _strings([text.encode()]), step)

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Write settings as hyperparameters and as a text."""
        from tensorboard.plugins.hparams import metadata, plugin_data_pb2

        start = plugin_data_pb2.SessionStartInfo(start_time_secs=time.time())
        for name, value in settings.items():
            if isinstance(value, bool):
                start.hparams[name].bool_value = value
            elif isinstance(value, int | float):
                start.hparams[name].number_value = value
            else:
                start.hparams[name].string_value = value if isinstance(value, str) else json.dumps(value)
        content = plugin_data_pb2.HParamsPluginData(session_start_info=start)
        self._write_summary(
            metadata.SESSION_START_INFO_TAG, metadata.create_summary_metadata(content), metadata.NULL_TENSOR, 0
        )
        rows = "\n".join(f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in settings.items())
        self.write_text("settings", code_block(rows), 0)

    def close(self, status: Status) -> None:
        """Write the status of the training, and close the file."""
        from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

        success = api_pb2.STATUS_SUCCESS if status == "finished" else api_pb2.STATUS_FAILURE
        end = plugin_data_pb2.SessionEndInfo(status=success, end_time_secs=time.time())
        content = plugin_data_pb2.HParamsPluginData(session_end_info=end)
        self._write_summary(
            metadata.SESSION_END_INFO_TAG, metadata.create_summary_metadata(content), metadata.NULL_TENSOR, 0
        )
        with writing(self._file):
            self._records.close()

    def flush(self) -> None:
        """Write all events to the file."""
        with writing(self._file):
            self._records.flush()

    def _write_summary(self, name: str, metadata: Any, tensor: Any, step: int) -> None:
        from tensorboard.compat.proto import event_pb2, summary_pb2

        value = summary_pb2.Summary.Value(tag=name, metadata=metadata, tensor=tensor)
        self._write(event_pb2.Event(wall_time=time.time(), step=step, summary=summary_pb2.Summary(value=[value])))

    def _write(self, event: Any) -> None:
        with writing(self._file):
            self._records.write(event.SerializeToString())


def _strings(values: list[bytes]) -> Any:
    """Return a tensor of strings with one axis."""
    from tensorboard.compat.proto import tensor_pb2, tensor_shape_pb2, types_pb2

    shape = tensor_shape_pb2.TensorShapeProto(dim=[tensor_shape_pb2.TensorShapeProto.Dim(size=len(values))])
    return tensor_pb2.TensorProto(dtype=types_pb2.DT_STRING, tensor_shape=shape, string_val=values)
