"""The programs in tools/ that do not need a browser."""

import importlib.util
import zipfile
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from keras_vae import Run
from keras_vae.runs.experiment import Experiment, preset_names

ROOT = Path(__file__).parents[1]


def tool(name: str) -> ModuleType:
    """Import a program in tools/, which is not a package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("bits", [7, 9, 12])
def test_rounded_weights_have_zeros_after_the_last_bit_and_the_nearest_value(bits: int) -> None:
    rounded = tool("package_pretrained").rounded
    exact = np.concatenate([[0.0, 1.0, -1.5], np.random.default_rng(0).normal(size=1000)]).astype("float32")
    # A number m·2^e with 1 ≤ m < 2 is rounded to a multiple of 2^(e − bits), so by at most half of that.
    exponent = np.floor(np.log2(np.abs(exact), where=exact != 0, out=np.zeros_like(exact)))
    nearest = np.round(exact.astype("float64") * 2.0 ** (bits - exponent)) / 2.0 ** (bits - exponent)
    np.testing.assert_array_equal(rounded(exact, bits), nearest.astype("float32"))
    counts = np.arange(4, dtype="uint32")
    np.testing.assert_array_equal(rounded(counts, bits), counts)


def test_compressed_archive_has_the_same_members_and_is_smaller(tmp_path: Path) -> None:
    package_pretrained = tool("package_pretrained")
    weights = package_pretrained.rounded(np.random.default_rng(0).normal(size=20_000).astype("float32"), 9)
    file = tmp_path / "model.keras"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("model.weights.h5", weights.tobytes())
    package_pretrained.compress(file)
    with zipfile.ZipFile(file) as archive:
        assert archive.read("model.weights.h5") == weights.tobytes()
    assert file.stat().st_size < 0.6 * weights.nbytes


def test_page_states_the_settings_in_which_a_run_differs_from_its_preset() -> None:
    gallery, run = tool("gallery"), Run.open("mnist-2d")
    assert gallery.command("classic", Experiment.preset("classic"), run) == "vae train classic"
    shorter = Experiment.preset("classic").with_overrides(["training.epochs=7", "data.source=digits"])
    expected = "vae train classic --data mnist --set training.epochs=30"
    assert gallery.command("classic", shorter, run) == expected


def test_gallery_lists_every_preset_and_links_to_every_page() -> None:
    text, pages = (ROOT / "docs" / "gallery.md").read_text("utf-8"), ROOT / "docs" / "gallery"
    for name in preset_names():
        linked = f"| [`{name}`](gallery/{name}.md) |" in text
        assert linked or f"| `{name}` |" in text
        assert linked == (pages / f"{name}.md").exists()
        if linked:
            assert f"vae train {name}" in (pages / f"{name}.md").read_text("utf-8")
            assert (pages / f"{name}.png").stat().st_size <= 100_000


def test_smoke_test_calls_every_command(monkeypatch: pytest.MonkeyPatch) -> None:
    smoke_test = tool("smoke_test")
    smoke_test.check_complete()
    monkeypatch.delitem(smoke_test.COMMANDS, "impute")
    with pytest.raises(SystemExit, match=r"differ by: impute$"):
        smoke_test.check_complete()
    for name, calls in smoke_test.COMMANDS.items():
        assert calls
        assert all(f"{words} ".startswith(f"{name} ") for words in calls)
