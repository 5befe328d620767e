"""Two processes on this machine train one model together, lose each other, and resume."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from helpers import on_jax
from keras_vae.cli import app
from keras_vae.core.backend.cluster import ClusterPlan
from keras_vae.core.errors import InputError
from keras_vae.runs.run import Run

pytestmark = on_jax("only JAX trains in several processes")

EPOCHS = 12
# The sizes of the training batches, 50, and of the last one, 40, are multiples of two, the number of processes.
DATA = ["--data", "images.npy", "--set", "data.validation=20", "--set", "data.test=20"]
SETTINGS = ["model.network.widths=[2, 3]", f"training.epochs={EPOCHS}", "training.batch_size=50", "training.keep=best"]
ARGUMENTS = ["classic", *DATA, *(part for setting in SETTINGS for part in ("--set", setting))]
TRAIN = [sys.executable, "-c", "from keras_vae.cli import main; main()", "train"]


class Cluster:
    """Processes that run `vae train`.

    Args:
        folder: Their working directory.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        images = np.random.default_rng(0).integers(0, 256, (480, 8, 8), dtype="uint8")
        np.save(folder / "images.npy", images)

    def start(self, *arguments: str, started: tuple[int, ...] = (0, 1), timeout: int = 240) -> list[subprocess.Popen]:
        """Start processes of a cluster of two."""
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            address = f"127.0.0.1:{free.getsockname()[1]}"
        shared = os.environ | {
            "KERAS_DISTRIBUTION_JOB_ADDRESSES": address,
            "KERAS_DISTRIBUTION_NUM_PROCESSES": "2",
            "KERAS_VAE_CLUSTER_TIMEOUT": str(timeout),
        }
        return [
            subprocess.Popen(
                [*TRAIN, *arguments, "--distributed"],
                env=shared | {"KERAS_DISTRIBUTION_PROCESS_ID": str(number)},
                cwd=self.folder,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in started
        ]

    def interrupt(self, name: str, number: int, sent: int, *arguments: str) -> list[tuple[int, str]]:
        """Start a training, send a signal to one process after some epochs, and return exit codes and last lines."""
        processes = self.start(*ARGUMENTS, *arguments, "--out", name)
        metrics = self.folder / name / "metrics.csv"
        while not metrics.exists() or len(metrics.read_text("utf-8").splitlines()) < 4:
            assert processes[number].poll() is None, processes[number].communicate()[1]
            time.sleep(0.02)
        processes[number].send_signal(sent)
        return end(processes)


def end(processes: list[subprocess.Popen]) -> list[tuple[int, str]]:
    """Wait for processes, and return their exit codes and the last lines of their messages."""
    outputs, messages = zip(*(process.communicate(timeout=300) for process in processes), strict=True)
    # pytest shows them if an assertion fails.
    print(*outputs, *messages, sep="\n---\n")
    # Results are printed by process 0, and nothing else is: `--json` is for programs.
    assert not any("Gloo" in output for output in outputs)
    lines = [(message.strip().splitlines() or [""])[-1] for message in messages]
    return [(process.returncode, line) for process, line in zip(processes, lines, strict=True)]


def weights(run: Path) -> list[np.ndarray]:
    return [ops.convert_to_numpy(variable) for variable in Run(run).load_model().weights]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    return Cluster(tmp_path_factory.mktemp("cluster"))


@pytest.fixture(scope="module")
def whole(cluster: Cluster) -> Path:
    """A run that two processes trained without an interruption."""
    assert [code for code, _ in end(cluster.start(*ARGUMENTS, "--out", "whole"))] == [0, 0]
    return cluster.folder / "whole"


@pytest.mark.slow
def test_two_processes_train_the_model_of_one(cluster: Cluster, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(cluster.folder)
    app(["train", *ARGUMENTS, "--out", "one"], standalone_mode=False)
    one, two = Run(cluster.folder / "one"), Run(whole)
    assert two.environment["num_processes"] == 2
    assert two.is_complete
    assert two.has_report
    for name in one.metrics.keys() - {"seconds"}:
        np.testing.assert_allclose(two.metrics[name], one.metrics[name], rtol=1e-4)
    assert sorted(path.name for path in whole.iterdir()) == sorted(path.name for path in one.path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_training_that_lost_a_process_resumes_to_the_same_weights(cluster: Cluster, whole: Path, number: int) -> None:
    name = f"lost-{number}"
    started = time.monotonic()
    ended = cluster.interrupt(name, number, signal.SIGKILL)
    assert ended[number][0] == -signal.SIGKILL
    code, line = ended[1 - number]
    assert code == 75
    assert line.startswith(
        "vae: another process of the cluster was lost; all completed epochs are saved: continue with"
    )
    assert time.monotonic() - started < 240
    assert not Run(cluster.folder / name).is_complete
    if number == 1:
        assert [code for code, _ in end(cluster.start("--resume", name))] == [0, 0]
        for left, right in zip(weights(cluster.folder / name), weights(whole), strict=True):
            np.testing.assert_array_equal(left, right)


@pytest.mark.slow
def test_sigterm_to_one_process_stops_all_after_the_same_step(cluster: Cluster) -> None:
    # Long enough that the training does not end before the processes have agreed.
    ended = cluster.interrupt("stopped", 1, signal.SIGTERM, "--set", "training.epochs=1000")
    assert [code for code, _ in ended] == [143, 143]
    assert ended[0][1].startswith("stopped; all completed epochs are saved: continue with `vae train --resume stopped")
    alone = subprocess.run([*TRAIN, "--resume", "stopped"], cwd=cluster.folder, capture_output=True, text=True)
    assert alone.returncode == 2
    assert "--distributed" in alone.stderr.splitlines()[-1]


@pytest.mark.slow
def test_processes_that_do_not_start_are_listed(cluster: Cluster) -> None:
    ((code, line),) = end(cluster.start(*ARGUMENTS, "--out", "missing", started=(0,), timeout=8))
    assert code == 75
    assert line == ("vae: process 1 of 2 did not start within 8 s; start all, or set $KERAS_VAE_CLUSTER_TIMEOUT")
    assert not list(cluster.folder.glob("*missing*"))


VARIABLES = ("KERAS_DISTRIBUTION_JOB_ADDRESSES", "KERAS_DISTRIBUTION_NUM_PROCESSES", "KERAS_DISTRIBUTION_PROCESS_ID")


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ((None, None, None), r"\$KERAS_DISTRIBUTION_JOB_ADDRESSES is not set"),
        (("host:1", "2", None), r"\$KERAS_DISTRIBUTION_PROCESS_ID is not set"),
        (("host", "2", "0"), "no port"),
        (("host:1", "two", "0"), "not an integer"),
        (("host:1,host:2", "3", "0"), "2 addresses"),
        (("host:1", "2", "2"), "pass 0 to 1"),
    ],
)
def test_invalid_variables_are_named(
    values: tuple[str | None, ...], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in zip(VARIABLES, values, strict=True):
        monkeypatch.delenv(variable, raising=False)
        if value is not None:
            monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=problem):
        ClusterPlan.from_environment()


def test_variables_of_keras_or_slurm_give_the_place_of_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in zip(VARIABLES, ("host:1234", "3", "2"), strict=True):
        monkeypatch.setenv(variable, value)
    assert ClusterPlan.from_environment() == ("host:1234", 3, 2)
    for variable in VARIABLES:
        monkeypatch.delenv(variable)
    slurm = {"JOB_ID": "7", "STEP_NODELIST": "node[1-2]", "NTASKS": "4", "PROCID": "3", "LOCALID": "1"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    assert ClusterPlan.from_environment() == (None, 4, 3)
