"""`vae plot`, `sample`, `info`, `presets` and `data`."""

import importlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from cli_helpers import Vae, assert_rejected
from PIL import Image, ImageSequence
from rich.console import Console

from helpers import on_tensorflow
from keras_vae.cli import common
from keras_vae.report.plots import PLOTS
from keras_vae.runs.experiment import preset_names
from keras_vae.runs.run import Run

pytestmark = on_tensorflow("what the commands call is tested on every backend")


@pytest.mark.parametrize(
    "options",
    [
        ["grid", "-n", "3", "--bounds", "-2", "2"],
        ["grid", "-n", "3"],
        ["grid", "-n", "2", "--dims", "1", "0"],
        ["samples", "-n", "5", "--seed", "3"],
        ["reconstructions", "-n", "2"],
        ["worst-reconstructions", "-n", "2"],
        ["neighbors", "-n", "3", "--seed", "1"],
        ["latents"],
        ["traversals", "-n", "3"],
        ["interpolation", "-n", "3", "--spherical"],
        ["kl-per-dimension"],
        ["curves"],
        ["rate-distortion"],
    ],
)
def test_plot_draws_every_kind(options: list[str], vae: Vae, run: Path) -> None:
    outcome = vae("plot", run, *options)
    assert outcome.code == 0, outcome.err
    assert outcome.out.strip() == f"run/figures/{options[0]}.png"
    assert np.asarray(Image.open(outcome.out.strip())).std() > 0


@pytest.mark.usefixtures("all_figures")
def test_plot_all_draws_every_plot_that_the_run_supports(vae: Vae, run: Path) -> None:
    outcome = vae("plot", run, "all", "--out", "figs")
    assert outcome.code == 0, outcome.err
    assert [Path(line).stem for line in outcome.out.split()] == list(PLOTS)
    assert sorted(Path("figs").iterdir()) == sorted(map(Path, outcome.out.split()))
    assert_rejected(vae("plot", run, "all", "--out", "figs"), "--out = figs: exists; choose another folder")
    assert_rejected(vae("plot", run, "all", "-n", 3), "kind = all: every plot has its default options; leave out n")


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".pdf", b"%PDF")])
@pytest.mark.parametrize("kind", ["curves", "traversals"])
def test_plot_writes_svg_and_pdf(kind: str, suffix: str, start: bytes, vae: Vae, run: Path) -> None:
    outcome = vae("plot", run, kind, "--out", f"figure{suffix}")
    assert outcome.code == 0, outcome.err
    assert Path(f"figure{suffix}").read_bytes().startswith(start)


@pytest.mark.parametrize("kind", ["traversals", "interpolation"])
def test_plot_writes_an_animation_that_runs_forward_and_back(kind: str, vae: Vae, run: Path) -> None:
    outcome = vae("plot", run, kind, "-n", "4", "--out", "moving.gif")
    assert outcome.code == 0, outcome.err
    with Image.open("moving.gif") as moving:
        # Pillow merges equal consecutive frames into one of longer duration.
        durations = [frame.info["duration"] for frame in ImageSequence.Iterator(moving)]
    assert sum(durations) == 6 * 80


def test_plot_rejects_to_animate_a_still_plot(vae: Vae, run: Path) -> None:
    outcome = vae("plot", run, "samples", "--out", "samples.gif")
    assert (outcome.code, outcome.out) == (2, "")
    assert "cannot write a samples plot as '.gif'; use .png, .svg or .pdf" in outcome.err
    assert not Path("samples.gif").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["rate_distortion"], "did you mean 'rate-distortion'"),
        (["curves", "--bounds", "-1", "1"], "curves plot: option"),
        (["grid", "--seed", "1"], "grid plot: option"),
        (["grid", "-n", "0"], "n = 0: too small; pass at least 1 point per side"),
        (["grid", "--bounds", "1", "-1"], "bounds = (1, -1): not an interval; pass two finite numbers, the smaller"),
        (["grid", "--dims", "0", "2"], "dims = (0, 2): not a plane; pass two different dimensions from 0 to 1"),
        (["grid", "--out", "grid.jpg"], "unknown format; choose a name that ends in .png"),
        (["grid", "--out", "nowhere/grid.png"], "the folder nowhere does not exist"),
        (["grid", "--out", "run/report.html"], "unknown format; choose a name that ends in .png"),
        (["grid", "--out", "run/figures/curves.png"], "exists; choose another name, or replace it with --force"),
    ],
)
def test_plot_rejects_invalid_options(options: list[str], message: str, vae: Vae, run: Path) -> None:
    assert_rejected(vae("plot", run, *options), message)


def test_sample_writes_a_picture_or_floats_and_is_reproducible(vae: Vae, run: Path) -> None:
    for name in ("a", "b"):
        assert vae("sample", run, "-n", 6, "--seed", 1, "--out", f"{name}.npz").out.strip() == f"{name}.npz"
    with np.load("a.npz") as one, np.load("b.npz") as other:
        assert one["images"].shape == (6, 9, 7, 1)
        np.testing.assert_array_equal(one["images"], other["images"])
    assert vae("sample", run, "-n", 1, "--out", "s.png").code == 0
    # Twelve times 9 x 7 pixels.
    assert Image.open("s.png").size == (84, 108)
    before = Path("s.png").read_bytes()
    assert_rejected(vae("sample", run, "--out", "s.png"), "s.png: exists")
    assert Path("s.png").read_bytes() == before
    assert vae("sample", run, "--out", "s.png", "--force").code == 0
    assert_rejected(vae("sample", run, "-n", "0"), "n = 0")


def test_sample_from_an_unfinished_run_names_the_epoch(vae: Vae, run: Path) -> None:
    opened = Run.open(run)
    weights = opened.load_model().get_weights()
    opened.write_checkpoint({"weights": weights}, {name: values[:1] for name, values in opened.metrics.items()})
    (run / "model.keras").unlink()
    outcome = vae("sample", run, "-n", 2, "--out", "s.npz")
    assert outcome.out.strip() == "s.npz"
    assert outcome.err.strip() == "training of run is unfinished: sampling from the model after epoch 1 of 2"


def test_sample_rejects_damaged_and_unsafe_models(vae: Vae, run: Path, make_vae: Callable[..., keras.Model]) -> None:
    model = make_vae()
    outputs = keras.layers.Lambda(lambda x: x * 1.0)(model.decoder.output)
    type(model)(model.encoder, keras.Model(model.decoder.input, outputs)).save(run / "model.keras")
    assert_rejected(vae("sample", run), "contains code; if you trust it")
    (run / "model.keras").write_bytes((run / "model.keras").read_bytes()[:1000])
    assert_rejected(vae("sample", run), "not a .keras archive")


def test_info_prints_text_and_json(vae: Vae, run: Path) -> None:
    text = vae("info", run).out
    assert "2 of 2 epochs, complete" in text
    assert "photos" in text
    facts = json.loads(vae("info", run, "--json").out)
    assert facts["complete"]
    assert facts["experiment"]["training"]["epochs"] == 2
    assert len(facts["metrics"]["total_loss"]) == 2


def test_presets_and_data_sources_are_listed(vae: Vae) -> None:
    assert set(json.loads(vae("presets", "--json").out)) == set(preset_names())
    assert vae("presets").out.splitlines()[0].startswith("beta-tcvae")
    listed = {row["name"] for row in json.loads(vae("data", "--json").out)}
    assert listed == {"mnist", "fashion_mnist", "digits", "sprites"}
    assert "embedded in scikit-learn" in vae("data").out


def test_data_describes_a_source(vae: Vae, folder: Path) -> None:
    (row,) = json.loads(vae("data", folder, "--image-size", "8x8", "--color", "rgb", "--json").out)
    assert row["images"] == 30
    assert row["image_shape"] == [8, 8, 3]
    assert row["classes"] == 2


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The output on stderr if it is a terminal."""
    output = io.StringIO()
    monkeypatch.setattr(common, "console", lambda file=None: Console(file=output, force_terminal=True))
    return output


@pytest.mark.parametrize(
    ("words", "titles"),
    [
        (["sample", "-n", "2"], ["loading run", "computing batches"]),
        (["plot", "samples", "-n", "2"], ["loading run", "drawing samples"]),
        (["evaluate", "--samples", "2", "--stages", "likelihood"], ["loading run", "K = 2", "figures"]),
        (["doctor"], ["encoding images"]),
        (["export", "--format", "keras"], ["writing keras"]),
    ],
)
def test_commands_show_what_they_are_doing_on_a_terminal(
    words: list[str], titles: list[str], vae: Vae, run: Path, terminal: io.StringIO
) -> None:
    outcome = vae(words[0], run, *words[1:])
    assert outcome.code == 0, outcome.err
    for title in titles:
        assert title in terminal.getvalue()


def test_import_of_the_backend_is_shown_on_a_terminal(terminal: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "keras_vae.models.registration")
    monkeypatch.setattr(importlib, "import_module", lambda _: None)
    monkeypatch.setenv("KERAS_BACKEND", "jax")
    common.import_keras()
    assert "loading JAX" in terminal.getvalue()


def test_nothing_is_shown_if_stderr_is_not_a_terminal(vae: Vae, run: Path) -> None:
    assert vae("sample", run, "-n", "2", "--out", "s.npz").err == ""
