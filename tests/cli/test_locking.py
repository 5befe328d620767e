"""Commands that write to a run or file that another process writes to."""

from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Vae, assert_rejected

from helpers import on_tensorflow
from keras_vae.core.locks import locked
from keras_vae.runs.run import Run
from lock_helpers import held_elsewhere

pytestmark = on_tensorflow("what the commands call is tested on every backend")


@pytest.mark.parametrize(
    "words",
    [
        ("evaluate", "run", "--samples", "2"),
        ("fit-prior", "run"),
        ("plot", "run", "curves"),
        ("sample", "run"),
        ("export", "run", "--format", "keras"),
        ("export", "run", "--format", "space"),
        ("export", "run", "--format", "web"),
    ],
)
def test_run_in_use_is_reported_in_one_line(words: tuple[str, ...], vae: Vae, run: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    with held_elsewhere(Run(run).lock()):
        assert_rejected(vae(*words), "run = run: in use by process ", code=1)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()} == before


def test_interrupted_run_in_use_is_not_resumed(vae: Vae, run: Path) -> None:
    (run / "model.keras").rename(run / "model.away")
    with held_elsewhere(Run(run).lock()):
        assert_rejected(vae("train", "--resume", run), "run = run: in use by process ", code=1)


@pytest.mark.parametrize(
    "words",
    [
        ("encode", "mnist-2d", "--out", "z.npz"),
        ("score", "mnist-2d", "--out", "scores.csv"),
        ("reconstruct", "mnist-2d", "--out", "images.png"),
        ("sample", "mnist-2d", "--out", "images.npz"),
        ("plot", "mnist-2d", "grid", "--out", "grid.png"),
        ("compare", "mnist-2d", "mnist-16d", "--out", "compared"),
    ],
)
def test_file_in_use_is_reported_in_one_line(words: tuple[str, ...], vae: Vae, tmp_path: Path) -> None:
    with held_elsewhere(locked(tmp_path / words[-1])):
        assert_rejected(vae(*words), f"--out = {words[-1]}: in use by process ", code=1)
    assert list(tmp_path.iterdir()) == []


def test_command_releases_its_locks(vae: Vae, run: Path) -> None:
    np.save("images.npy", np.full((2, 9, 7), 99, "uint8"))
    for _ in range(2):
        outcome = vae("encode", run, "--data", "images.npy", "--out", "z.npz", "--force")
        assert outcome.code == 0, outcome.err
        assert vae("plot", run, "curves").code == 0
    assert not [path for path in Path().rglob("*") if path.name.endswith(".lock")]
