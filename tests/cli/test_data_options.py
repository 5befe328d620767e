"""Options of the data in the commands that read images."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import SMALL, Vae, assert_rejected
from PIL import Image

from helpers import on_tensorflow
from keras_vae.core import blocks
from keras_vae.runs.experiment import Experiment

pytestmark = on_tensorflow("what the commands call is tested on every backend")

COMMANDS = [
    ["encode", "--out", "z.npz"],
    ["reconstruct", "--out", "r.npz"],
    ["score", "--out", "s.npz", "--samples", 2],
]


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder of gray images of another size, with one 16-bit file and one damaged file."""
    rng, photos = np.random.default_rng(0), tmp_path / "mixed"
    for index in range(30):
        path = photos / ("cats" if index % 2 else "dogs") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (12, 7), dtype="uint8")).save(path)
    Image.fromarray(rng.integers(0, 4096, (12, 7), dtype="uint16")).save(photos / "cats" / "1.png")
    (photos / "dogs" / "0.png").write_text("damaged")
    return photos


OPTIONS = ["--image-size", "9x7", "--fit", "pad", "--scale", "4095", "--skip-broken"]
NOTES = (
    "resized to 9x7 (H x W, fit = pad): 29 of 29 images",
    "scaled to 8 bits (white = 4095): 1 of 29 images",
    "skipped, cannot be used: 1 of 30 files: dogs/0.png (not a complete PNG,",
)


@pytest.mark.parametrize("command", [*COMMANDS, ["evaluate", "--stages", "likelihood", "--samples", 2], ["data"]])
def test_commands_take_the_options_and_print_the_notes(command: list[str], vae: Vae, run: Path, mixed: Path) -> None:
    words = ["data", mixed] if command == ["data"] else [command[0], run, *command[1:], "--data", mixed]
    assert_rejected(
        vae(*words), "2 of 30 files cannot be used: cats/1.png (more than 8 bits per channel), dogs/0.png ("
    )
    outcome = vae(*words, *OPTIONS)
    assert outcome.code == 0, outcome.err
    for note in NOTES:
        assert note in outcome.err


def test_training_keeps_the_options_in_the_run(vae: Vae, mixed: Path) -> None:
    outcome = vae("train", "--data", mixed, *OPTIONS, *SMALL, "--out", "run")
    assert outcome.code == 0, outcome.err
    for note in NOTES:
        assert note in outcome.err
    data = Experiment.from_file(Path("run/experiment.toml")).data
    assert (data.fit, data.scale, data.skip_broken, data.image_size) == ("pad", 4095, True, [9, 7])
    # The settings of the folder do not apply to an array.
    np.save("x.npy", np.full((3, 9, 7), 9, "uint8"))
    assert vae("encode", "run", "--data", "x.npy", "--out", "x.npz").code == 0
    for option in (["--fit", "crop"], ["--scale", "7"], ["--skip-broken"]):
        rejected = vae("train", "--resume", "run", *option)
        assert_rejected(rejected, f"leave out {option[0]}")


def test_an_interrupted_table_resumes_only_with_the_same_file(
    vae: Vae, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two files have the same name, size and time; the table of the first is interrupted after one block."""
    monkeypatch.setattr("keras_vae.data.streams.BLOCK_SIZE", 4)
    images = np.random.default_rng(0).integers(0, 256, (2, 8, 9, 7), dtype="uint8")
    for name, pixels in zip("ab", images, strict=True):
        Path(name).mkdir()
        np.save(f"{name}/x.npy", pixels)
        os.utime(f"{name}/x.npy", ns=(0, 0))
    write, calls = blocks.replacing, []

    def interrupt(path: Path) -> object:
        calls.append(path)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return write(path)

    monkeypatch.setattr(blocks, "replacing", interrupt)
    try:
        assert vae("encode", run, "--data", "a/x.npy", "--out", "z.npz").code
    except KeyboardInterrupt:
        pass
    assert Path(".z.npz.part").is_dir()
    monkeypatch.setattr(blocks, "replacing", write)
    for out in ("z.npz", "expected.npz"):
        assert vae("encode", run, "--data", "b/x.npy", "--out", out).code == 0
    np.testing.assert_array_equal(np.load("z.npz")["z_mean"], np.load("expected.npz")["z_mean"])


@pytest.mark.skipif(sys.platform != "linux", reason="other systems reject such names")
@pytest.mark.usefixtures("all_figures")
def test_names_that_are_not_utf_8_work_from_training_to_tables(vae: Vae, tmp_path: Path) -> None:
    rng, parent = np.random.default_rng(0), os.fsencode(tmp_path) + b"/par\xe9nt\n"
    for index in range(30):
        path = Path(os.fsdecode(parent + [b"/caf\xe9", b"/a\nb"][index % 2] + b"/%d\xff.png" % index))
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            Image.fromarray(rng.integers(0, 256, (9, 7), dtype="uint8")).save(file, "PNG")
    folder = os.fsdecode(parent)
    outcome = vae("train", "--data", folder, "--set", "model.condition=label", *SMALL, "--out", "run")
    assert outcome.code == 0, outcome.err
    assert Path("run/report.html").read_text("utf-8")
    assert Experiment.from_file(Path("run/experiment.toml")).data.source == f"{tmp_path}/par\\xe9nt\\n"
    assert vae("train", "--resume", "run").code == 0
    for out in ("z.csv", "z.npz", "z.parquet"):
        assert vae("encode", "run", "--out", out).code == 0
    rows = Path("z.csv").read_text("utf-8").splitlines()
    assert rows[1].split(",")[:2] == [r"a\nb/11\xff.png", r"a\nb"]
    assert len(rows) == 31
    scored = vae("score", "run", "--data", folder, "--samples", 2, "--out", "s.csv", "--heat-maps", "h.png")
    assert scored.code == 0, scored.err
    assert vae("data", folder).out.splitlines()[0].split() == ["name", r"par\xe9nt\n"]
    (Path(folder) / os.fsdecode(b"caf\xe9") / os.fsdecode(b"bad\xff\n.png")).write_text("damaged")
    assert_rejected(vae("data", folder), r"par\xe9nt\n/caf\xe9/bad\xff\n.png: cannot be read")


@pytest.mark.parametrize("size", ["28x²", "²", "0x28", "9" * 5000 + "x9", "-1x5"])
def test_invalid_sizes_are_rejected(size: str, vae: Vae) -> None:
    assert_rejected(vae("data", "digits", f"--image-size={size}"), f"--image-size = {size}: not a size")


@pytest.mark.parametrize("label", ["²", "9" * 5000])
def test_labels_that_are_no_numbers_are_rejected(label: str, vae: Vae) -> None:
    assert_rejected(vae("sample", "mnist-2d", "--label", label), "is not a conditional model")


@pytest.mark.parametrize(("option", "load"), [([], "stream"), (["--data", "other.npy"], "auto")])
def test_settings_of_a_relative_path_in_an_experiment_file_apply(option: list[str], load: str, vae: Vae) -> None:
    for name in ("images", "other"):
        np.save(f"{name}.npy", np.arange(30 * 9 * 7, dtype="uint8").reshape(30, 9, 7))
    Path("x.toml").write_text('[data]\nsource = "images.npy"\nload = "stream"\n[model]\nnetwork = { name = "mlp" }\n')
    outcome = vae(
        "train", "x.toml", *option, "--set", "training.epochs=1", "--set", "training.batch_size=9", "--out", "run"
    )
    assert outcome.code == 0, outcome.err
    data = Experiment.from_file("run/experiment.toml").data
    assert (data.source, data.load) == (str(Path((option or ["images.npy"])[-1]).resolve()), load)
