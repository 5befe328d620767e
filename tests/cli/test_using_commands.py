"""`vae encode`, `score` and `reconstruct`."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import SMALL, Vae, assert_rejected

from helpers import on_tensorflow
from keras_vae import load
from keras_vae.core import tables
from keras_vae.data import sources
from keras_vae.runs.experiment import Experiment
from keras_vae.training.trainer import train

pytestmark = on_tensorflow("what the commands call is tested on every backend")


@pytest.mark.parametrize("out", ["z.npz", "z.csv", "z.parquet"])
def test_encode_writes_codes_with_names_and_labels(out: str, vae: Vae, run: Path, folder: Path) -> None:
    outcome = vae("encode", run, "--data", folder, "--out", out)
    assert (outcome.code, outcome.out.strip()) == (0, out), outcome.err
    first = tables.read_column(Path(out), "z_mean_0" if out != "z.npz" else "z_mean")
    model, images = load("run"), sources.load(folder).train.images
    assert first.reshape(30, -1)[:, 0] == pytest.approx(model.encode(images).z_mean[:, 0], abs=1e-6)
    if out == "z.csv":
        header, row = Path(out).read_text("utf-8").splitlines()[:2]
        assert header.split(",")[:3] == ["name", "label", "z_mean_0"]
        assert row.split(",")[:2] == ["cats/1.png", "cats"]
    again = vae("encode", run, "--data", folder, "--out", out)
    assert again.code == 2
    assert "exists" in again.err


def test_encode_uses_the_images_of_the_run_by_default(vae: Vae, run: Path) -> None:
    assert vae("encode", run, "--out", "z.npz").code == 0
    assert len(np.load("z.npz")["z_log_var"]) == 30


def test_reconstruct_writes_a_picture_or_floats(vae: Vae, run: Path, folder: Path) -> None:
    assert vae("reconstruct", run, "--data", folder, "-n", "4", "--out", "r.npz").code == 0
    assert np.load("r.npz")["images"].shape == (4, 9, 7, 1)
    assert vae("reconstruct", run, "--data", folder, "-n", "4", "--out", "r.png").code == 0


def test_encode_rejects_images_of_another_size(vae: Vae, run: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "large.npy", np.full((3, 20, 20), 9, "uint8"))
    outcome = vae("encode", run, "--data", "large.npy", "--out", "z.npz")
    assert outcome.code == 2
    assert "(3, 20, 20, 1)" in outcome.err
    assert not list(Path().glob("*z.npz*"))


@pytest.mark.parametrize(
    "arguments",
    [
        *(["encode", "--out", "z.npz"], ["reconstruct", "--out", "r.png"], ["score", "--out", "s.csv"]),
        *(["evaluate"], ["doctor"], ["fit-prior"], ["plot", "latents"]),
    ],
    ids=lambda arguments: arguments[0],
)
def test_missing_training_images_are_named(arguments: list[str], vae: Vae, run: Path) -> None:
    toml = (run / "experiment.toml").read_text()
    source = Experiment.from_file(run / "experiment.toml").data.source
    (run / "experiment.toml").write_text(toml.replace(source, "/gone/photos"))
    outcome = vae(arguments[0], run, *arguments[1:])
    assert_rejected(
        outcome,
        "run = run: its training images, /gone/photos, do not exist any more; restore them, or set data.source in",
    )
    assert "experiment.toml" in outcome.err


def test_invalid_images_leave_no_partial_table(vae: Vae, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("keras_vae.data.streams.BLOCK_SIZE", 4)
    images = np.full((10, 9, 7, 1), 0.5, "float32")
    images[9, 0, 0] = np.nan
    np.save("x.npy", images)
    outcome = vae("encode", run, "--data", "x.npy", "--out", "z.npz")
    assert outcome.code == 2
    assert outcome.err.splitlines()[-1].endswith(
        "from all/8 to all/9: images: NaN or infinite pixels; pass floats in [0, 1]"
    )
    assert sorted(path.name for path in Path().iterdir()) == ["run", "x.npy"]


def test_unwritable_output_is_rejected_before_the_work(vae: Vae, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("z.npz").mkdir()
    assert_rejected(vae("encode", run, "--out", "z.npz", "--force"), "--out = z.npz: a folder")
    # Tests may run as the superuser, who may write anywhere.
    monkeypatch.setattr("os.access", lambda _, mode: mode != os.W_OK)
    for command, out in (("encode", "a.npz"), ("sample", "a.png"), ("reconstruct", "a.png")):
        assert_rejected(vae(command, run, "--out", out), f"--out = {out}: the folder . is not writable")


@pytest.mark.parametrize("command", ["encode", "score", "reconstruct"])
def test_unfinished_run_is_rejected(command: str, vae: Vae, run: Path) -> None:
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "state.npz").write_bytes(b"")
    assert_rejected(
        vae(command, run, "--out", "out.npz"),
        "run = run: training is unfinished; complete it with `vae train --resume run`",
    )


@pytest.mark.usefixtures("conditional_run")
def test_labels_of_another_folder_are_matched_by_name(vae: Vae, pets: Path) -> None:
    shutil.copytree(pets, "pets")
    shutil.copytree("pets", "fewer", ignore=shutil.ignore_patterns("cat"))
    codes = {}
    for source in ("pets", "fewer"):
        assert vae("encode", "run", "--data", source, "--out", f"{source}.npz").code == 0
        with np.load(f"{source}.npz") as table:
            names = [Path(name).name for name in table["name"].tolist()]
            codes[source] = dict(zip(names, table["z_mean"], strict=True))
    assert len(codes["fewer"]) == 20
    for name, code in codes["fewer"].items():
        np.testing.assert_allclose(code, codes["pets"][name], atol=1e-6)
    Path("fewer/dog").rename("fewer/wolf")
    assert_rejected(
        vae("encode", "run", "--data", "fewer", "--out", "w.npz"),
        "unknown labels wolf; run was trained on the labels cat, dog, horse",
    )


def test_label_option_conditions_images_without_labels(vae: Vae) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 9, 7), dtype="uint8")
    np.savez("labeled.npz", images=images, labels=np.arange(30) % 3)
    np.savez("unlabeled.npz", images=images[:4])
    experiment = Experiment.preset("classic").with_overrides([*SMALL[1::2], "model.condition=label"])
    train(experiment.with_overrides(["data.source=labeled.npz"]), out="run")
    for words in (("encode", "run"), ("score", "run", "--samples", 2), ("reconstruct", "run")):
        outcome = vae(*words, "--data", "unlabeled.npz", "--out", "rejected.npz")
        assert_rejected(outcome, "the images have no labels; give the label that run needs with --label")
        assert not Path("rejected.npz").exists()
        assert vae(*words, "--data", "unlabeled.npz", "--label", 2, "--out", f"{words[0]}.npz").code == 0
    codes = load("run").encode(images[:4, ..., None], condition=2)
    with np.load("encode.npz") as table:
        np.testing.assert_allclose(table["z_mean"], codes.z_mean, atol=1e-5)
    rejected = vae("encode", "run", "--data", "unlabeled.npz", "--label", 7, "--out", "w.npz")
    assert_rejected(rejected, "--label = '7': unknown; accepted: 0, 1, 2")
    rejected = vae("encode", "mnist-2d", "--data", "unlabeled.npz", "--label", 7, "--out", "w.npz")
    assert_rejected(rejected, "--label = 7: mnist-2d is not a conditional model; leave out --label")
