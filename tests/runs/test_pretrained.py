"""The pretrained runs: their completeness, size, documented quality, and protection from changes."""

import hashlib
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import keras_vae
from helpers import on_tensorflow
from keras_vae import AnomalyDetector, Run, cli, load
from keras_vae.core.errors import InputError
from keras_vae.data import sources
from keras_vae.evaluation.likelihood import binarize_if_needed, measure_likelihood
from keras_vae.evaluation.per_image import load_per_image
from keras_vae.runs.files import pretrained_names

DIGITS = ("mnist-16d", "mnist-2d")
NAMES = ("emoji", *DIGITS)
FILES = {
    *("environment.json", "evaluation.json", "evaluation.npz", "experiment.toml"),
    *("images.npz", "metrics.csv", "model.keras"),
}
TRAINED = Path(keras_vae.__file__).parent / "runs" / "pretrained"


@pytest.fixture
def vae(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., tuple[int, str, str]]:
    """Run `vae …` in an empty folder; return its exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vae", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as stop:
            code = int(stop.code or 0)
        return (code, *capsys.readouterr())

    return run


@pytest.fixture(autouse=True)
def untouched() -> object:
    """Assert that no test changes the package."""
    before = contents(TRAINED)
    yield
    assert contents(TRAINED) == before


def contents(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_pretrained_runs_are_small() -> None:
    assert pretrained_names() == list(NAMES)
    sizes = {name: sum(path.stat().st_size for path in (TRAINED / name).iterdir()) for name in NAMES}
    assert max(sizes.values()) <= 1_500_000, sizes


# Mean ELBO in nats of the first 64 images of `images.npz` with seed 0, when the files were written or last changed.
ELBO = {"emoji": 6674.896, "mnist-2d": -156.33702087402344, "mnist-16d": -92.66633605957031}


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_weights_have_kept_their_elbo(name: str) -> None:
    images = np.load(TRAINED / name / "images.npz")["images"][:64]
    assert load(name).elbo(images, seed=0).mean() == pytest.approx(ELBO[name], rel=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_pretrained_run_is_complete(name: str) -> None:
    run = Run.open(name)
    fitted = {"fitted.keras"} if name == "emoji" else set()
    assert {path.name for path in run.path.iterdir()} == FILES | fitted
    assert run.is_complete
    assert run.name == name
    assert len(run.metrics["epoch"]) == run.experiment.training.epochs
    model = load(name)
    assert not model.compiled
    assert run.evaluation is not None
    assert run.evaluation["model"] == run.model_fingerprint()


@pytest.mark.parametrize("name", DIGITS)
def test_samples_look_like_digits(name: str) -> None:
    pictures = load(name).sample(100, seed=0)
    assert pictures.shape == (100, 28, 28, 1)
    # MNIST's mean is 0.13, and ink is white.
    assert 0.08 < pictures.mean() < 0.2
    assert pictures.max() > 0.95
    included = sources.load(TRAINED / name / "images.npz").train
    assert set(included.labels.tolist()) == set(range(10))


def test_samples_of_emoji_have_the_colors_of_emoji() -> None:
    pictures = load("emoji").sample(64, seed=0)
    included = np.load(TRAINED / "emoji" / "images.npz")["images"] / 255
    assert pictures.shape == (64, 64, 64, 3)
    assert np.abs(pictures.mean((0, 1, 2)) - included.mean((0, 1, 2))).max() < 0.08
    # The channels of a gray picture do not differ.
    assert np.ptp(pictures, axis=-1).mean() > 0.7 * np.ptp(included, axis=-1).mean()


@pytest.mark.parametrize("name", NAMES)
def test_included_images_have_the_documented_negative_elbo(name: str) -> None:
    run, included = Run.open(name), sources.load(TRAINED / name / "images.npz").train
    values = -load(name).elbo(observed_levels(run, included.images))
    expected = run.evaluation["likelihood"]["negative_elbo"]["mean"]
    assert values.mean() == pytest.approx(expected, abs=4 * values.std() / np.sqrt(len(values)))


def observed_levels(run: Run, images: np.ndarray) -> np.ndarray:
    if run.experiment.model.likelihood.get("binarize") != "dynamic":
        return images
    return np.random.default_rng(0).binomial(1, images / 255).astype("uint8") * np.uint8(255)


@pytest.mark.parametrize("name", NAMES)
def test_no_file_contains_a_path_of_the_training_machine(name: str) -> None:
    for file in ("environment.json", "evaluation.json", "experiment.toml"):
        text = (TRAINED / name / file).read_text()
        assert not [word for word in ("/home/", "/root/", "/work/", "/tmp/", "/Users/") if word in text]
    assert Run.open(name).experiment.data.source == ("emoji.npz" if name == "emoji" else "mnist")


@pytest.mark.slow
@on_tensorflow("test_backends.py compares the backends")
@pytest.mark.parametrize("name", DIGITS)
def test_evaluation_reproduces_the_documented_numbers(name: str, real_mnist: Path) -> None:
    run, model = Run.open(name), load(name)
    splits = run.load_splits()
    written = run.evaluation["likelihood"]
    if written["images"] < len(splits.test):
        splits = splits._replace(test=splits.test.subsample_evenly(written["images"]))
    again = measure_likelihood(model, splits, seed=written["seed"]).section
    for term in ("negative_elbo", "reconstruction_loss", "kl_loss"):
        assert again[term]["mean"] == pytest.approx(written[term]["mean"], rel=1e-5)
    # All images with all samples take minutes. Fewer samples have the same mean for each image, up to noise.
    stored = load_per_image(run, run.evaluation)["likelihood"]["nll"]
    assert stored.mean() == pytest.approx(written["nll"]["mean"], rel=1e-5)
    chosen = np.linspace(0, len(stored) - 1, 30).astype(int)
    images = binarize_if_needed(model, splits, splits.test).images[chosen]
    differences = -model.log_likelihood(images, samples=200, seed=1) - stored[chosen]
    assert np.abs(differences).mean() < 0.2
    assert np.abs(differences).max() < 1
    assert written["trusted"]
    assert written["nll"]["mean"] < written["negative_elbo"]["mean"]


def test_unknown_name_is_rejected_with_a_list_of_the_known_ones() -> None:
    with pytest.raises(
        InputError, match=r"run = mnist-3d: does not exist; .+ pretrained one: emoji, mnist-16d or mnist-2d"
    ):
        Run.open("mnist-3d")
    with pytest.raises(InputError, match=r"run = runs/mnist-2d: does not exist"):
        Run.open("runs/mnist-2d")


def test_folder_of_the_same_name_takes_precedence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(TRAINED / "mnist-16d", "mnist-2d")
    assert load("mnist-2d").latent_dim == 16
    assert Run.open("mnist-2d").writable_copy().path == Path("mnist-2d")


@on_tensorflow("independent of the backend")
def test_reading_commands_use_the_run_in_the_package(vae: Callable[..., tuple[int, str, str]]) -> None:
    for words in (("info", "mnist-2d"), ("sample", "mnist-2d", "--out", "s.png"), ("compare", *DIGITS)):
        code, _, err = vae(*words)
        assert code == 0, err
    assert sorted(path.name for path in Path().iterdir()) == ["s.png"]
    assert AnomalyDetector("mnist-2d", samples=2).fit(np.zeros((4, 28, 28, 1), "uint8")).offset_


@on_tensorflow("independent of the backend")
def test_commands_that_need_training_images_ask_for_their_file(vae: Callable[..., tuple[int, str, str]]) -> None:
    code, out, err = vae("evaluate", "emoji")
    assert (code, out) == (2, "")
    assert "emoji: its training images, emoji.npz, are not a part of the package; repeat this in the folder of" in err
    np.savez("emoji.npz", x_train=np.full((99, 64, 64, 3), 200, "uint8"), x_test=np.full((9, 64, 64, 3), 9, "uint8"))
    code, _, err = vae("evaluate", "emoji")
    assert code == 2
    assert "data = emoji.npz: not the images on which" in err


@on_tensorflow("independent of the backend")
def test_writing_commands_use_a_copy_and_print_its_path(vae: Callable[..., tuple[int, str, str]]) -> None:
    for words in (("evaluate", "mnist-2d", "--data", "nowhere.npz"), ("fit-prior", "mnist-2d", "--prior", "nonsense")):
        assert vae(*words)[0] == 2
        assert not Path("runs").exists()
    code, out, err = vae("sample", "mnist-2d", "-n", "4", "--seed", "1")
    assert (code, out) == (0, "runs/mnist-2d/figures/image-grid.png\n")
    assert "mnist-2d is a pretrained run: written into its copy runs/mnist-2d" in err
    # The existing copy is used again.
    code, out, _ = vae("plot", "mnist-2d", "grid", "-n", "4")
    assert (code, out) == (0, "runs/mnist-2d/figures/grid.png\n")
    assert vae("info", "runs/mnist-2d")[0] == 0
    shutil.copyfile(TRAINED / "mnist-16d" / "model.keras", "runs/mnist-2d/model.keras")
    code, out, err = vae("sample", "mnist-2d")
    assert (code, out) == (2, "")
    assert "the folder of its copy, runs/mnist-2d, contains something else" in err


def test_pretrained_run_is_read_only() -> None:
    run = Run.open("mnist-2d")
    for write in (
        lambda: run.write_report("x"),
        lambda: run.write_evaluation({}),
        lambda: run.write_metrics({}),
        lambda: run.figure_path("x"),
        lambda: run.save_model(run.load_model(), fitted=True),
    ):
        with pytest.raises(InputError, match=r"read-only; write to Run\.writable_copy\(\)"):
            write()
