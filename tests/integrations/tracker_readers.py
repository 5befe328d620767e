"""Readers of what TensorBoard, Weights & Biases and MLflow have recorded of a run."""

import io
import json
import struct
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_vae import Run
from keras_vae.core.typing import Array

LOSSES = {"total_loss", "reconstruction_loss", "kl_loss", "negative_elbo"}


def events(run: Run, tag: str) -> list[tuple[int, Any]]:
    """Return the steps and values of a tag that TensorBoard shows."""
    from tensorboard.backend.event_processing.plugin_event_accumulator import EventAccumulator
    from tensorboard.util.tensor_util import make_ndarray

    reader = EventAccumulator(str(run.path / "tensorboard"), size_guidance={"tensors": 0}).Reload()
    return [(event.step, make_ndarray(event.tensor_proto)) for event in reader.Tensors(tag)]


def pictures(run: Run, tag: str) -> list[Array]:
    return [np.asarray(Image.open(io.BytesIO(values[2]))) for _, values in events(run, tag)]


def wandb_records(run: Run, file: Path | None = None) -> list[Any]:
    """Return the records of an offline file, whose format is that of LevelDB's log with another header."""
    from wandb.proto.wandb_internal_pb2 import Record

    content = (file or next(run.path.glob("wandb/offline-run-*/*.wandb"))).read_bytes()
    position, records, part = 7, [], b""
    while position + 7 <= len(content):
        if (left := -position % 2**15) and left < 7:
            position += left
        _, length, kind = struct.unpack_from("<IHB", content, position)
        part += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # The record is complete.
            records.append(Record.FromString(part))
            part = b""
    return records


def wandb_history(records: list[Any]) -> list[dict[str, Any]]:
    rows = [record.history for record in records if record.HasField("history")]
    return [{"step": row.step.num} | values_of(row.item) for row in rows]


def values_of(items: Iterable[Any]) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def assert_metrics_equal(values: dict[str, list[tuple[int, float]]], run: Run, *, single: bool = False) -> None:
    """Assert that every column of `metrics.csv` was recorded once per epoch, with the same numbers."""
    metrics = run.metrics
    epochs = [int(epoch) for epoch in metrics.pop("epoch")]
    assert set(metrics) >= LOSSES | {f"val_{name}" for name in LOSSES}
    for name, column in metrics.items():
        steps, numbers = zip(*values[name], strict=True)
        assert list(steps) == epochs, name
        expected = [float(np.float32(value)) for value in column] if single else column
        assert list(numbers) == expected, name
        if single and name != "seconds":
            assert expected == column, "losses are exact in single precision"


def tensorboard_metrics(run: Run) -> dict[str, list[tuple[int, float]]]:
    return {
        name: [(step, float(value)) for step, value in events(run, name)] for name in run.metrics if name != "epoch"
    }


def mlflow_metrics(run: Run) -> dict[str, list[tuple[int, float]]]:
    client, identifier = mlflow_run(run)
    return {
        name: [(metric.step, metric.value) for metric in client.get_metric_history(identifier, name)]
        for name in run.metrics
        if name != "epoch"
    }


def mlflow_run(run: Run) -> tuple[Any, str]:
    from mlflow import MlflowClient

    return MlflowClient(), json.loads((run.path / "trackers.json").read_text())["mlflow"]["name"]["id"]


def settings(run: Run) -> dict[str, Any]:
    """Return the leaves of `experiment.toml` by their dotted keys."""
    leaves, tables = {}, [("", tomllib.loads((run.path / "experiment.toml").read_text()))]
    for prefix, table in tables:
        for key, value in table.items():
            if isinstance(value, dict):
                tables.append((f"{prefix}{key}.", value))
            else:
                leaves[prefix + key] = value
    return leaves
