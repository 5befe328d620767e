"""Processes that are killed and restarted produce the result of an uninterrupted process."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from keras import ops

from helpers import on_tensorflow
from keras_vae import load
from keras_vae.cli import app
from keras_vae.runs.run import Run

SIGNALS = {signal.SIGKILL: -signal.SIGKILL, signal.SIGTERM: 143, signal.SIGINT: 130}
"""Exit codes by signal."""

# Enough that none of the processes that are killed completes the last one.
EPOCHS = 24
# Drawing all figures would take longer than the training.
CODE = """
from keras_vae.cli import main
from keras_vae.report import plots

plots.available_plots = lambda context: ("curves",)
main()
"""
PROGRAM = [sys.executable, "-c", CODE]
SETTINGS = ["model.network.widths=[4, 8]", f"training.epochs={EPOCHS}", "training.batch_size=128", "training.keep=best"]
ARGUMENTS = [
    "--data",
    "digits",
    "--image-size",
    "12x12",
    *(part for setting in SETTINGS for part in ("--set", setting)),
]


def epochs(run: Path) -> int:
    return len(Run(run).metrics.get("epoch", []))


def vae(*arguments: str) -> None:
    """Run `vae …` in this process."""
    app(list(arguments), standalone_mode=False)


@pytest.mark.slow
def test_training_killed_at_random_moments_resumes_to_a_bitwise_equal_run(tmp_path: Path) -> None:
    # In one process, the second model would have other names of layers, and its file another checksum.
    subprocess.run([*PROGRAM, "train", *ARGUMENTS, "--out", str(tmp_path / "whole")], check=True, capture_output=True)
    assert epochs(tmp_path / "whole") == EPOCHS

    cut, rng, completed = tmp_path / "cut", random.Random(0), []
    for sent, code in SIGNALS.items():
        arguments = ["--resume", str(cut)] if cut.exists() else [*ARGUMENTS, "--out", str(cut)]
        done, process = epochs(cut), subprocess.Popen([*PROGRAM, "train", *arguments], stderr=subprocess.DEVNULL)
        # Kill at any moment after at least one more epoch: within a step, between epochs, or while a file is written.
        while epochs(cut) <= done:
            assert process.poll() is None, "training ended before it could be killed"
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.1))
        process.send_signal(sent)
        assert process.wait() == code
        completed.append(epochs(cut))
        assert not Run(cut).is_complete
    assert completed == sorted(set(completed)), "every attempt must complete further epochs"
    subprocess.run([*PROGRAM, "train", "--resume", str(cut)], check=True, capture_output=True)

    whole, resumed = Run(tmp_path / "whole"), Run(cut)
    models = whole.load_model(), resumed.load_model()
    for left, right in zip(*(model.variables + model.optimizer.variables for model in models), strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(left), ops.convert_to_numpy(right))
    assert {**whole.metrics, "seconds": 0} == {**resumed.metrics, "seconds": 0}
    evaluations = [json.loads((run.path / "evaluation.json").read_text()) for run in (whole, resumed)]
    assert evaluations[0] == evaluations[1]
    assert not [path for path in cut.rglob("*") if "part" in path.name]


@pytest.mark.slow
@on_tensorflow("the table does not depend on the backend")
def test_killed_encoding_resumes_with_the_first_missing_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    images = np.random.default_rng(0).integers(0, 256, (16_000, 28, 28), dtype="uint8")
    np.save(tmp_path / "images.npy", images)
    command = ["encode", "mnist-2d", "--data", "images.npy", "--out", "z.npz"]
    part = tmp_path / ".z.npz.part"
    process = subprocess.Popen([*PROGRAM, *command], stderr=subprocess.DEVNULL)
    try:
        while not (part / "000000003.npz").exists():
            assert process.poll() is None, "the encoding ended before it could be killed"
            time.sleep(0.002)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not (tmp_path / "z.npz").exists()
    # Change a finished block, in order to check that it is not computed again.
    with np.load(part / "000000001.npz") as block:
        marked = {**block, "z_mean": block["z_mean"] + 100}
    np.savez(part / "000000001.npz", **marked)
    vae(*command)
    with np.load(tmp_path / "z.npz") as table:
        codes = table["z_mean"]
    assert not part.exists()
    codes[512:1024] -= 100
    np.testing.assert_allclose(codes, load("mnist-2d").encode(images[..., None]).z_mean, atol=1e-4)
