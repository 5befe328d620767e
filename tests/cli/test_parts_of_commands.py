"""`--part` of `vae encode`, `score` and `evaluate`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import Vae, assert_rejected

from helpers import on_tensorflow

on_one_backend = on_tensorflow("what the commands call is tested on every backend")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read the thirty images in blocks of seven, and the last in a block of two."""
    monkeypatch.setattr("keras_vae.data.streams.BLOCK_SIZE", 7)


@pytest.mark.parametrize(
    "words",
    [
        ["encode", "--out", "z.npz"],
        *(pytest.param(["encode", "--out", name], marks=on_one_backend) for name in ("z.csv", "z.parquet")),
        ["score", "--out", "s.csv", "--samples", "3", "--threshold", "0.1"],
    ],
    ids=lambda words: f"{words[0]}-{words[2]}",
)
def test_merged_parts_are_the_bytes_of_the_whole(words: list[str], vae: Vae, run: Path, folder: Path) -> None:
    command, out = (words[0], run, "--data", folder, *words[1:]), Path(words[2])
    assert vae(*command).code == 0
    whole = out.read_bytes()
    page = out.with_suffix(".html")
    report = page.read_bytes() if page.exists() else b""
    for number in (2, 3, 1):
        outcome = vae(*command, "--part", f"{number}/3", "--force")
        assert (outcome.code, outcome.out) == (0, ""), outcome.err
    assert outcome.err.splitlines()[-1] == (
        f"part 1/3 of {out} is finished; all 3 parts exist: merge them with the same command without --part"
    )
    assert vae(*command, "--force").code == 0
    assert out.read_bytes() == whole
    assert not report or page.read_bytes() == report
    assert not [path for path in Path().iterdir() if path.name.startswith(".")]


@on_one_backend
@pytest.mark.parametrize("command", ["encode", "score"])
def test_missing_and_foreign_parts_are_one_line(command: str, vae: Vae, run: Path, folder: Path) -> None:
    words = (command, run, "--data", folder, "--out", "t.csv")
    assert vae(*words, "--part", "2/5").code == 0
    assert_rejected(vae(*words), "out = t.csv: parts 1, 3, 4 and 5 of 5 are missing; run the same command with", 1)
    np.save("other.npy", np.random.default_rng(1).integers(0, 256, (30, 9, 7), dtype="uint8"))
    other = (command, run, "--data", "other.npy", "--out", "t.csv")
    assert_rejected(vae(*other), "out = t.csv: its parts were computed with another images; repeat the command")
    assert vae(*other, "--force").code == 0


@on_one_backend
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["encode", "--out", "z.npz", "--part", "0/8"], "--part = '0/8': no such part; the parts are 1 to 8"),
        (["encode", "--out", "z.npz", "--part", "3-8"], "--part = '3-8': not a part; pass K/N, such as 3/8"),
        (
            ["encode", "--out", "z.npz", "--part", "3/8"],
            "part = 3/8: more parts than blocks of images; choose at most 5",
        ),
        (["score", "--out", "s.csv", "--part", "9/8"], "--part = '9/8': no such part"),
        (["score", "--out", "s.csv", "--part", "1/2", "--watch", "in"], "--part: not available with --watch"),
        (["score", "--out", "s.csv", "--part", "1/2", "--heat-maps", "h.png"], "--heat-maps: plotted when the parts"),
        (
            ["evaluate", "--part", "1/2", "--stages", "latents"],
            "part = 1/2: the stage latents needs all images",
        ),
        (["evaluate", "--part", "1/2", "--samples", "0"], "part = 1/2: there is no nll to divide"),
        (["evaluate", "--part", "1/2"], "part = 1/2: more parts than blocks of images; choose at most 1"),
    ],
)
def test_impossible_parts_are_one_line(words: list[str], message: str, vae: Vae, run: Path) -> None:
    Path("in").mkdir()
    assert_rejected(vae(words[0], run, *words[1:]), message)
    assert sorted(path.name for path in Path().iterdir()) == ["in", "run"]


@on_one_backend
def test_evaluate_merges_parts_and_writes_the_report(vae: Vae, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_vae.evaluation.likelihood._IMAGES_BETWEEN_SAVES", 1)
    monkeypatch.setattr("keras_vae.models.importance_sampling._PIXELS_AT_ONCE", 1)
    words = ("evaluate", run, "--samples", "2", "--proposal", "posterior", "--stages", "likelihood")
    assert vae(*words).code == 0
    files = [run / "evaluation.json", run / "evaluation.npz"]
    whole, report = [file.read_bytes() for file in files], (run / "report.html").read_bytes()
    (run / "report.html").unlink()
    for number in (1, 2):
        outcome = vae(*words, "--part", f"{number}/2")
        assert (outcome.code, outcome.out) == (0, ""), outcome.err
    assert "all 2 parts exist" in outcome.err
    assert not (run / "report.html").exists()
    assert_rejected(vae(*words[:-4]), "its parts were computed with proposal = posterior instead of mixture")
    assert json.loads(vae(*words, "--json").out) == json.loads(whole[0])
    assert [file.read_bytes() for file in files] == whole
    assert (run / "report.html").read_bytes() == report


@pytest.mark.slow
@on_one_backend
def test_processes_share_the_parts_as_xargs_starts_them(vae: Vae, run: Path, folder: Path) -> None:
    options = f"encode run --data {folder} --out z.csv"
    program = (
        "import sys; from keras_vae.data import streams; streams.BLOCK_SIZE = 7; from keras_vae.cli import main; main()"
    )
    assert vae(*options.split()).code == 0
    whole = Path("z.csv").read_bytes()
    Path("z.csv").unlink()
    environment = {**os.environ, "PROGRAM": program, "PYTHON": sys.executable}
    command = f'seq 2 | xargs -P2 -I{{}} "$PYTHON" -c "$PROGRAM" {options} --part {{}}/2'
    subprocess.run(["bash", "-c", command], check=True, env=environment)
    assert vae(*options.split()).code == 0
    assert Path("z.csv").read_bytes() == whole
