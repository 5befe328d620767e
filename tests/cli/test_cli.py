"""The command line as a user meets it: results, messages, exit codes, and what a wrong call leaves behind."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
from PIL import Image, ImageSequence

from helpers import on_tensorflow
from keras_vae import cli, load
from keras_vae.core import tables
from keras_vae.data import sources
from keras_vae.runs.experiment import Experiment, preset_names
from keras_vae.training import trainer

pytestmark = on_tensorflow("what it calls is tested on every backend")

SMALL = ["--set", "model.network.widths=[2, 3]", "--set", "training.batch_size=9", "--set", "training.epochs=2"]


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


Vae = Callable[..., Outcome]


@pytest.fixture
def vae(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Vae:
    """Run `vae …` in this process, in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["vae", *map(str, arguments)])
        try:
            cli.main()
            code = 0
        except SystemExit as stop:
            code = int(stop.code or 0)
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 30 small gray PNGs in two classes."""
    rng, photos = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "photos"
    for index in range(30):
        path = photos / ("cats" if index % 2 else "dogs") / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7), dtype="uint8")).save(path)
    return photos


@pytest.fixture(scope="module")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained run."""
    experiment = Experiment.preset("classic").with_overrides([*SMALL[1::2], f"data.source={folder}"])
    return trainer.train(experiment, experiment.load_splits()[0], tmp_path_factory.mktemp("runs") / "run").path


@pytest.fixture
def run(vae: Vae, trained: Path) -> Path:
    """A copy of it in the working folder."""
    shutil.copytree(trained, "run")
    return Path("run")


def test_train_on_own_folder_says_what_it_does_and_prints_the_result(vae: Vae, folder: Path) -> None:
    outcome = vae("train", "--data", folder, *SMALL)
    assert outcome.code == 0, outcome.err
    assert "25 train · 2 validation · 3 test · 9×7×1" in outcome.err
    assert "reconstruction" in outcome.err
    lines = outcome.out.splitlines()
    assert lines[0].split() == ["run", "runs/classic"]
    assert "negative_elbo" in lines[1]
    assert "nats per image" in lines[1]
    assert "not a normalized likelihood" in outcome.out
    assert Path("runs/classic/report.html").is_file()
    # The next one finds a free name.
    assert vae("train", "--data", folder, *SMALL).out.splitlines()[0].split() == ["run", "runs/classic-2"]


def test_train_as_json(vae: Vae, folder: Path) -> None:
    outcome = vae("train", "--data", folder, "--out", "r", "--json", *SMALL)
    answer = json.loads(outcome.out)
    assert answer["run"] == "r"
    assert answer["evaluation"]["likelihood"]["images"] == 3


def test_train_from_a_file_and_with_the_tutorials_honesty(vae: Vae, folder: Path) -> None:
    Path("mine.toml").write_text(
        f'name = "mine"\n[data]\nsource = "{folder}"\nholdout = false\n'
        '[model]\nlatent_dim = 1\nnetwork = { name = "conv", widths = [2] }\n[training]\nepochs = 1\nbatch_size = 4\n'
    )
    outcome = vae("train", "mine.toml")
    assert outcome.code == 0, outcome.err
    assert "no held-out data" in outcome.err
    assert "no held-out data" in outcome.out
    assert "no held-out data" in vae("info", "runs/mine").out


@pytest.mark.parametrize(
    "options",
    [
        ["grid", "-n", "3", "--range", "-2", "2"],
        ["grid", "-n", "3"],
        ["grid", "-n", "2", "--dims", "1", "0"],
        ["samples", "-n", "5", "--seed", "3"],
        ["reconstructions", "-n", "2"],
        ["worst", "-n", "2"],
        ["neighbors", "-n", "3", "--seed", "1"],
        ["latents"],
        ["traversals", "-n", "3"],
        ["interpolation", "-n", "3", "--spherical"],
        ["rates"],
        ["curves"],
        ["rate_distortion"],
    ],
)
def test_every_plot_with_its_options(options: list[str], vae: Vae, run: Path) -> None:
    outcome = vae("plot", run, *options)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == f"run/figures/{options[0]}.png"
    assert np.asarray(Image.open(outcome.out.strip())).std() > 0


@pytest.mark.parametrize("kind", ["traversals", "interpolation"])
def test_what_moves_is_drawn_as_a_gif_there_and_back(kind: str, vae: Vae, run: Path) -> None:
    outcome = vae("plot", run, kind, "-n", "4", "--out", "moving.gif")
    assert outcome.code == 0, outcome.err
    with Image.open("moving.gif") as moving:
        # Pillow shows equal pictures that follow one another as one, for longer.
        shown = [frame.info["duration"] for frame in ImageSequence.Iterator(moving)]
    assert sum(shown) == 6 * 80


def test_what_does_not_move_is_no_gif(vae: Vae, run: Path) -> None:
    outcome = vae("plot", run, "samples", "--out", "samples.gif")
    assert (outcome.code, outcome.out) == (2, "")
    assert "does not move" in outcome.err
    assert not Path("samples.gif").exists()


@pytest.mark.parametrize("out", ["z.npz", "z.csv", "z.parquet"])
def test_the_codes_of_a_folder_by_name_and_label(out: str, vae: Vae, run: Path, folder: Path) -> None:
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


def test_the_codes_of_the_runs_own_images(vae: Vae, run: Path) -> None:
    assert vae("encode", run, "--out", "z.npz").code == 0
    assert len(np.load("z.npz")["z_log_var"]) == 30


def test_scores_with_percentiles_marks_and_heat_maps(vae: Vae, run: Path, folder: Path) -> None:
    options = ["--samples", "3", "--threshold", "0.1", "--heat-maps", "heat.png", "-n", "4"]
    outcome = vae("score", run, "--data", folder, "--out", "scores.npz", *options)
    assert outcome.code == 0, outcome.err
    assert outcome.out.split() == ["scores.npz", "heat.png"]
    assert "nll above" in outcome.err
    scores = np.load("scores.npz")
    assert scores["anomaly"].sum() == (scores["nll"] > np.sort(scores["nll"])[-scores["anomaly"].sum() - 1]).sum()
    assert scores["nll_percentile"].min() >= 0
    assert scores["nll_percentile"].max() <= 100
    assert np.asarray(Image.open("heat.png")).std() > 0


def test_reconstructions_of_a_source(vae: Vae, run: Path, folder: Path) -> None:
    assert vae("reconstruct", run, "--data", folder, "-n", "4", "--out", "r.npz").code == 0
    assert np.load("r.npz")["images"].shape == (4, 9, 7, 1)
    assert vae("reconstruct", run, "--data", folder, "-n", "4", "--out", "r.png").code == 0


def test_images_of_another_size_are_refused(vae: Vae, run: Path, tmp_path: Path) -> None:
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
def test_a_run_whose_images_are_gone_says_where_they_were(arguments: list[str], vae: Vae, run: Path) -> None:
    toml = (run / "experiment.toml").read_text()
    source = Experiment.from_file(run / "experiment.toml").data.source
    (run / "experiment.toml").write_text(toml.replace(source, "/gone/photos"))
    outcome = vae(arguments[0], run, *arguments[1:])
    assert_refused(outcome, "run was trained on /gone/photos, which is gone: put it back, or write where it is now")
    assert "experiment.toml (data.source)" in outcome.err


def test_images_that_are_no_good_leave_nothing_behind(vae: Vae, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_place_where_nothing_can_be_written_is_refused_before_the_work(
    vae: Vae, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("z.npz").mkdir()
    assert_refused(vae("encode", run, "--out", "z.npz", "--force"), "--out z.npz is a folder")
    # The superuser, as who tests may run, is refused nothing.
    monkeypatch.setattr("os.access", lambda _, mode: mode != os.W_OK)
    for command, out in (("encode", "a.npz"), ("sample", "a.png"), ("reconstruct", "a.png")):
        assert_refused(vae(command, run, "--out", out), f"--out {out}: nothing may be written into the folder .")


@pytest.mark.parametrize("command", ["encode", "score", "reconstruct"])
def test_unfinished_run_is_not_put_to_use(command: str, vae: Vae, run: Path) -> None:
    (run / "checkpoint").mkdir()
    (run / "checkpoint" / "state.npz").write_bytes(b"")
    assert_refused(
        vae(command, run, "--out", "out.npz"), "run is unfinished: go on with `vae train --resume run` first"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["curves", "--range", "-1", "1"], "curves plot: option = 'bounds': unknown"),
        (["grid", "--seed", "1"], "grid plot: option = 'seed': unknown"),
        (["grid", "-n", "0"], "n = 0: too small; pass at least 1 point per side"),
        (["grid", "--range", "1", "-1"], "bounds = (1, -1): must be two finite numbers, the smaller one first"),
        (["grid", "--dims", "0", "2"], "dims = (0, 2): must be two different dimensions from 0 to 1"),
        (["grid", "--out", "grid.jpg"], "must end in .png"),
        (["grid", "--out", "nowhere/grid.png"], "there is no folder nowhere"),
        (["grid", "--out", "run/report.html"], "must end in .png"),
        (["grid", "--out", "run/figures/curves.png"], "exists: choose another name, or replace it with --force"),
    ],
)
def test_wrong_plot_option_is_one_line(options: list[str], message: str, vae: Vae, run: Path) -> None:
    assert_refused(vae("plot", run, *options), message)


def test_sample_writes_a_sheet_or_floats_and_repeats_with_a_seed(vae: Vae, run: Path) -> None:
    for name in ("a", "b"):
        assert vae("sample", run, "-n", 6, "--seed", 1, "--out", f"{name}.npz").out.strip() == f"{name}.npz"
    with np.load("a.npz") as one, np.load("b.npz") as other:
        assert one["images"].shape == (6, 9, 7, 1)
        np.testing.assert_array_equal(one["images"], other["images"])
    assert vae("sample", run, "--out", "s.png").code == 0
    before = Path("s.png").read_bytes()
    assert_refused(vae("sample", run, "--out", "s.png"), "s.png exists")
    assert Path("s.png").read_bytes() == before
    assert vae("sample", run, "--out", "s.png", "--force").code == 0
    assert_refused(vae("sample", run, "-n", "0"), "n = 0")


def test_info_in_words_and_in_json(vae: Vae, run: Path) -> None:
    words = vae("info", run).out
    assert "2 of 2 epochs, complete" in words
    assert "photos" in words
    facts = json.loads(vae("info", run, "--json").out)
    assert facts["complete"]
    assert facts["experiment"]["training"]["epochs"] == 2
    assert len(facts["metrics"]["total_loss"]) == 2


def test_presets_and_data_are_listed(vae: Vae) -> None:
    assert set(json.loads(vae("presets", "--json").out)) == set(preset_names())
    assert vae("presets").out.splitlines()[0].startswith("beta-tcvae")
    listed = {row["name"] for row in json.loads(vae("data", "--json").out)}
    assert listed == {"mnist", "fashion_mnist", "digits", "sprites"}
    assert "embedded in scikit-learn" in vae("data").out


def test_data_looks_into_a_source(vae: Vae, folder: Path) -> None:
    (row,) = json.loads(vae("data", folder, "--image-size", "8x8", "--color", "rgb", "--json").out)
    assert row["images"] == 30
    assert row["image_shape"] == [8, 8, 3]
    assert row["classes"] == 2


def test_resuming_a_complete_run_does_nothing_and_says_so(vae: Vae, run: Path) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    outcome = vae("train", "--resume", run)
    assert outcome.code == 0
    assert "complete: nothing to resume" in outcome.err
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_tensorboard_logs_are_written_into_the_run(vae: Vae, folder: Path) -> None:
    pytest.importorskip("tensorboard")
    assert vae("train", "--data", folder, "--out", "run", "--tensorboard", *SMALL).code == 0
    assert list(Path("run/tensorboard").rglob("events.out.tfevents.*"))


def assert_refused(outcome: Outcome, message: str, code: int = 2) -> None:
    assert outcome.code == code, outcome
    assert message in outcome.err
    last = outcome.err.strip().splitlines()[-1]
    assert last.startswith("vae: ")
    assert message in last, "the line that matters is the last"
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def write_png(path: Path, shape: tuple[int, ...] = (9, 7)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full(shape, 100, "uint8")).save(path)


def truncated(path: Path) -> None:
    write_png(path / "a.png")
    content = (path / "a.png").read_bytes()
    (path / "b.png").write_bytes(content[: len(content) // 2])


def text_as_png(path: Path) -> None:
    write_png(path / "a.png")
    (path / "b.png").write_text("not an image")


def of_two_sizes(path: Path) -> None:
    write_png(path / "a.png")
    write_png(path / "b.png", (5, 5))


def empty_folder(path: Path) -> None:
    path.mkdir()
    (path / "notes.txt").write_text("no image here")


def arrays(**contents: object) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        with path.open("wb") as file:
            np.savez(file, **contents)

    return write


GOOD = np.arange(20 * 6 * 6).reshape(20, 6, 6).astype("uint8")
NAN = np.full((20, 6, 6), np.nan)


@pytest.mark.parametrize(
    ("make", "name", "message"),
    [
        (lambda path: None, "nowhere.npz", "nowhere.npz; accepted: mnist, fashion_mnist, digits, sprites, or"),
        (empty_folder, "folder", "folder: no images, only notes.txt; accepted: .png"),
        (truncated, "folder", "b.png: cannot be read: not a complete PNG"),
        (text_as_png, "folder", "b.png: cannot be read: not a complete PNG"),
        (of_two_sizes, "folder", "b.png 5x5; resize them with --image-size HxW"),
        (arrays(names=np.array(["a", "b"])), "x.npz", "x.npz: no images: the file holds names (2,); pass x_train"),
        (arrays(images=GOOD * 1.0), "x.npz", "images: floats from 0 to 255; pass floats in [0, 1]"),
        (arrays(images=NAN), "x.npz", "images: NaN or infinite pixels; pass floats in [0, 1]"),
        (arrays(images=GOOD.reshape(20, 36)), "x.npz", "images.shape = (20, 36): not images; pass N x H x W"),
        (arrays(images=GOOD[:0]), "x.npz", "images.shape = (0, 6, 6, 1): no pixels; pass at least one image"),
        (arrays(images=GOOD[:1]), "x.npz", "a single image cannot be split or trained on; pass at least two"),
        (
            arrays(images=GOOD, labels=np.arange(7)),
            "x.npz",
            "labels.shape = (7,): there are 20 images; pass one integer",
        ),
        (
            lambda path: path.write_bytes(b"PK\x03\x04 half a zip"),
            "x.npz",
            "x.npz: cannot be read: ",
        ),
    ],
)
def test_bad_images_are_refused_and_nothing_is_written(
    make: Callable[[Path], object], name: str, message: str, vae: Vae, tmp_path: Path
) -> None:
    make(tmp_path / name)
    assert_refused(vae("train", "--data", tmp_path / name, *SMALL), message)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["clasic"], "did you mean 'classic'"),
        (["nowhere.toml"], "no experiment file at nowhere.toml"),
        (["--data", "mnits"], "did you mean 'mnist'"),
        (["--set", "training.epoch=3"], "did you mean 'epochs'"),
        (["--set", "model.latent_dim=0"], "model.latent_dim = 0"),
        (["--set", "training.epochs=0"], "training.epochs = 0"),
        (["--set", "training.epochs=-1"], "training.epochs = -1"),
        (["--set", "training.batch_size=5000", "--data", "digits"], "training.batch_size = 5000"),
        (["--image-size", "28", "--data", "digits"], "--image-size 28: write height x width"),
        (["--resume", "nowhere"], "no run at nowhere"),
        (["--resume", "nowhere", "--set", "seed=1"], "--resume goes on with the run as it was begun"),
        (["--data", "digits", "--set", "model.objective=vae"], "objective = 'vae': unknown"),
    ],
)
def test_wrong_call_is_one_line_and_nothing_is_written(
    arguments: list[str], message: str, vae: Vae, tmp_path: Path
) -> None:
    assert_refused(vae("train", *arguments), message)
    assert list(tmp_path.iterdir()) == []


def test_existing_run_is_refused_before_anything_is_read(vae: Vae, run: Path) -> None:
    assert_refused(vae("train", "--data", "nowhere", "--out", run), "run exists: choose another folder")


def test_folder_that_cannot_be_written_is_a_failure_in_one_line(vae: Vae, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    outcome = vae("train", "--data", folder, "--out", tmp_path / "file" / "run", *SMALL)
    assert_refused(outcome, "Not a directory", code=1)


def test_no_network_for_mnist_names_the_ways_on(vae: Vae, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("KERAS_VAE_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "keras"))

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr("keras_vae.data.published.urlopen", offline)
    outcome = vae("train", "classic")
    assert_refused(outcome, "--data", code=1)
    for way in ("--data", "KERAS_VAE_DATA", str(tmp_path / "keras"), "digits"):
        assert way in outcome.err


def test_damaged_and_dangerous_models_are_refused(vae: Vae, run: Path, make_vae: Callable[..., keras.Model]) -> None:
    model = make_vae()
    outputs = keras.layers.Lambda(lambda x: x * 1.0)(model.decoder.output)
    type(model)(model.encoder, keras.Model(model.decoder.input, outputs)).save(run / "model.keras")
    assert_refused(vae("sample", run), "asks to run code")
    (run / "model.keras").write_bytes((run / "model.keras").read_bytes()[:1000])
    assert_refused(vae("sample", run), "is damaged")


def test_program_itself_exits_with_2_and_no_traceback(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from keras_vae.cli import main; main()", "train", "--data", "nowhere"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=False,
    )
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1


def test_help_needs_neither_keras_nor_a_backend() -> None:
    code = (
        "import sys; sys.argv = ['vae', '--help']\n"
        "from keras_vae.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'keras', 'tensorflow', 'numpy', 'matplotlib', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_evaluate_measures_prints_and_rewrites_the_report(vae: Vae, run: Path) -> None:
    before = (run / "report.html").read_text()
    outcome = vae("evaluate", run, "--only", "likelihood,latents", "--samples", "30")
    assert outcome.code == 0, outcome.err
    evaluation = json.loads((run / "evaluation.json").read_text())
    assert f"{evaluation['likelihood']['nll']['mean']:.2f}" in outcome.out
    assert "nll estimated from 30 draws per image" in outcome.out
    assert "not a normalized likelihood" in outcome.out
    assert (run / "report.html").read_text() != before
    answer = json.loads(vae("evaluate", run, "--only", "likelihood", "--samples", "30", "--json").out)
    assert answer["likelihood"] == evaluation["likelihood"]


def test_evaluate_on_other_images_leaves_the_runs_own_numbers(vae: Vae, run: Path) -> None:
    before = (run / "evaluation.json").read_text()
    np.savez("other.npz", images=np.random.default_rng(1).integers(0, 256, (3, 9, 7), dtype="uint8"))
    outcome = vae("evaluate", run, "--data", "other.npz", "--samples", "5")
    assert outcome.code == 0, outcome.err
    assert "measured on 3 all images" in outcome.out
    assert (run / "evaluation.json").read_text() == before
    assert json.loads((run / "evaluation-other.json").read_text())["likelihood"]["data"] == "other"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--samples", "0"], "samples = 0"),
        (["--generated", "1"], "generated = 1"),
        (["--only", "likelyhood"], "stage = 'likelyhood'"),
        (["--only", "disentanglement"], "factors are not known"),
        (["--data", "nowhere"], "data = 'nowhere': no such source"),
        (["--prior", "fitted"], "has none"),
    ],
)
def test_wrong_evaluation_is_one_line(options: list[str], message: str, vae: Vae, run: Path) -> None:
    assert_refused(vae("evaluate", run, *options), message)


def test_evaluate_images_of_another_size_is_refused(vae: Vae, run: Path) -> None:
    np.savez("other.npz", images=np.full((3, 5, 5), 9, "uint8"))
    assert_refused(vae("evaluate", run, "--data", "other.npz"), "this model takes (n, 9, 7, 1)")


def test_compare_prints_and_writes_one_table(vae: Vae, run: Path) -> None:
    shutil.copytree(run, "second")
    outcome = vae("compare", run, "second", "--out", "comparison")
    assert outcome.code == 0, outcome.err
    assert "negative_elbo" in outcome.out
    assert {path.name for path in Path("comparison").iterdir()} == {"comparison.md", "comparison.json", "curves.png"}
    assert_refused(vae("compare", run, "second", "--out", "comparison"), "exists")
    assert json.loads(vae("compare", run, "second", "--json").out)
    assert_refused(vae("compare", run), "two runs")


def test_doctor_prints_what_it_found(vae: Vae, run: Path) -> None:
    outcome = vae("doctor", run)
    assert outcome.code == 0, outcome.err
    findings = json.loads(vae("doctor", run, "--json").out)
    assert all(finding["name"] in outcome.out for finding in findings)
    # Random pixels are gray all over, and a Bernoulli knows black and white.
    assert any("model.likelihood" in finding["suggestion"] for finding in findings)


class TestExport:
    def test_it_prints_the_graphs_and_how_far_they_are_from_the_model(self, vae: Vae, run: Path) -> None:
        outcome = vae("export", run, "--format", "keras")
        assert outcome.code == 0, outcome.err
        assert "compared with the model on 3 images (photos, test split)" in outcome.err
        rows = [line.split() for line in outcome.out.splitlines()]
        assert [row[0] for row in rows] == [
            f"run/export/keras/{name}.keras" for name in ("encoder", "encoder", "decoder", "reconstruct", "sampler")
        ]
        assert all(float(row[-1]) < 1e-4 for row in rows)
        again = vae("export", run, "--format", "keras")
        assert (again.code, again.out) == (2, "")
        assert "out = run/export/keras: exists" in again.err
        answer = json.loads(vae("export", run, "--format", "keras", "--force", "--json", "--pixels", "float32").out)
        assert answer["graphs"]["encoder"]["inputs"]["images"]["dtype"] == "float32"

    def test_what_is_wrong_is_said_before_anything_is_written(self, vae: Vae, run: Path, tmp_path: Path) -> None:
        for words, message in (
            (("export", "nowhere", "--format", "keras"), "no run at nowhere"),
            (("export", run, "--format", "keras", "--out", run, "--force"), "out = run: not an earlier export"),
            (("export", run, "--format", "keras", "--prior", "fitted"), "prior = 'fitted'"),
        ):
            outcome = vae(*words)
            assert (outcome.code, outcome.out) == (2, ""), words
            assert message in outcome.err
            assert len(outcome.err.strip().splitlines()) == 1
        (run / "model.keras").unlink()
        assert "is unfinished" in vae("export", run, "--format", "keras").err
        assert not (run / "export").exists()


def test_labels_of_another_folder_go_by_their_names(vae: Vae, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for index in range(30):
        path = Path("pets") / ("cat", "dog", "horse")[index % 3] / f"{index:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (9, 7), dtype="uint8")).save(path)
    outcome = vae("train", "--data", "pets", "--set", "model.condition=label", *SMALL, "--out", "run")
    assert outcome.code == 0, outcome.err
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
    assert_refused(
        vae("encode", "run", "--data", "fewer", "--out", "w.npz"), "labels wolf; the run knows cat, dog, horse"
    )


def test_images_without_labels_are_taken_for_those_of_a_label_that_is_given(vae: Vae) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 9, 7), dtype="uint8")
    np.savez("told.npz", images=images, labels=np.arange(30) % 3)
    np.savez("untold.npz", images=images[:4])
    assert vae("train", "--data", "told.npz", "--set", "model.condition=label", *SMALL, "--out", "run").code == 0
    for words in (("encode", "run"), ("score", "run", "--samples", 2), ("reconstruct", "run")):
        said = vae(*words, "--data", "untold.npz", "--out", "refused.npz")
        assert_refused(said, "images without labels, and the model is told Label(classes=3): give --label")
        assert not Path("refused.npz").exists()
        assert vae(*words, "--data", "untold.npz", "--label", 2, "--out", f"{words[0]}.npz").code == 0
    codes = load("run").encode(images[:4, ..., None], condition=2)
    with np.load("encode.npz") as table:
        np.testing.assert_allclose(table["z_mean"], codes.z_mean, atol=1e-5)
    refused = vae("encode", "run", "--data", "untold.npz", "--label", 7, "--out", "w.npz")
    assert_refused(refused, "labels run from 0 to 2")
    refused = vae("encode", "mnist-2d", "--data", "untold.npz", "--label", 7, "--out", "w.npz")
    assert_refused(refused, "--label 7: the model of mnist-2d is told none")


def test_a_run_measured_on_its_own_training_images_says_so(vae: Vae, run: Path, folder: Path) -> None:
    outcome = vae("evaluate", run, "--data", folder, "--samples", 2)
    assert outcome.code == 0, outcome.err
    assert "no held-out data" in outcome.out


def test_numbers_of_other_images_by_the_same_name_are_not_kept(vae: Vae, run: Path) -> None:
    rng = np.random.default_rng(1)
    for place in ("a", "b"):
        Path(place).mkdir()
        np.save(f"{place}/x.npy", rng.integers(0, 256, (12, 9, 7), dtype="uint8"))
    assert vae("evaluate", run, "--data", "a/x.npy", "--only", "likelihood", "--samples", 2).code == 0
    assert vae("evaluate", run, "--data", "b/x.npy", "--only", "latents").code == 0
    assert "likelihood" not in json.loads((run / "evaluation-x.json").read_text())


def test_a_space_takes_no_options_of_graphs(vae: Vae, run: Path) -> None:
    outcome = vae("export", run, "--format", "space", "--json", "--prior", "original")
    assert_refused(outcome, "--prior, --json: graphs have such; --format space takes the run as it is")
