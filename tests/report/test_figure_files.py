"""Writing figures: reproducible files, no global state, display in notebooks."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from figure_helpers import metrics, random_images
from matplotlib.figure import Figure
from PIL import Image

from keras_vae.report import figures
from keras_vae.report.latent_grid import grid_points


def all_figures() -> list[Figure]:
    tiles = random_images(9, 6, 6, 1)
    means, numbers = np.random.default_rng(0).normal(size=(30, 2)), np.arange(30) % 3
    return [
        figures.image_grid(tiles, "title"),
        figures.latent_grid(tiles, grid_points(3)),
        figures.image_rows({"upper": tiles, "lower": tiles}),
        figures.curves(metrics(9), "title"),
        figures.latents(means, numbers),
    ]


def test_equal_figures_give_equal_bytes_with_any_user_settings(tmp_path: Path) -> None:
    first = [figures.save(figure, tmp_path / "a.png").read_bytes() for figure in all_figures()]
    theirs: dict[Any, Any] = {
        "font.size": 30,
        "savefig.dpi": 30,
        "savefig.bbox": "tight",
        "lines.linewidth": 9,
        "axes.facecolor": "red",
    }
    with matplotlib.rc_context(theirs):
        second = [figures.save(figure, tmp_path / "b.png").read_bytes() for figure in all_figures()]
        assert matplotlib.rcParams["font.size"] == 30
    assert first == second
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.info.keys() <= {"dpi"}


def test_names_with_dollar_signs_are_drawn_literally(tmp_path: Path) -> None:
    figures.save(figures.curves(metrics(2), "cost in $^$"), tmp_path / "curves.png")
    figures.save(figures.latents(np.zeros((2, 2)), np.array([0, 1]), ["$^$", "b"]), tmp_path / "latents.png")


@pytest.mark.parametrize(
    ("count", "side", "scale"),
    [
        (1, 28, 12),  # 336 pixels
        (4, 28, 11),  # 57 pixels, with a gap of one
        (64, 28, 2),  # 231 pixels
        (4, 400, 1),
    ],
)
def test_save_images_enlarges_small_sheets_by_a_whole_number(count: int, side: int, scale: int, tmp_path: Path) -> None:
    levels = random_images(count, side, side, 3)
    figures.save_images(levels, tmp_path / "sheet.png")
    expected = figures.tile_images(levels).repeat(scale, axis=0).repeat(scale, axis=1)
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "sheet.png")), expected)


@pytest.mark.parametrize(("suffix", "start"), [(".svg", b"<?xml"), (".pdf", b"%PDF")])
def test_vector_files_are_equal_for_equal_figures(suffix: str, start: bytes, tmp_path: Path) -> None:
    def files(name: str) -> list[bytes]:
        return [figures.save(figure, tmp_path / f"{name}{suffix}").read_bytes() for figure in all_figures()]

    first = files("a")
    assert first == files("b")
    assert all(content.startswith(start) for content in first)
    assert len(set(first)) == len(first)


def test_every_figure_displays_itself_as_png_in_a_notebook(tmp_path: Path) -> None:
    for figure in all_figures():
        # IPython calls `_repr_png_` on the last expression of a cell.
        png = figure._repr_png_()  # type: ignore[attr-defined]
        assert png == figures.save(figure, tmp_path / "figure.png").read_bytes()
        with Image.open(io.BytesIO(png)) as picture:
            assert picture.format == "PNG"


def test_drawing_does_not_import_pyplot_and_importing_does_not_import_matplotlib(tmp_path: Path) -> None:
    program = f"""
import sys
from pathlib import Path
import numpy as np
from keras_vae.report import figures
assert "matplotlib" not in sys.modules
figures.save(figures.image_grid(np.zeros((1, 2, 2, 1))), Path({str(tmp_path / "sheet.png")!r}))
figures.save(figures.latents(np.zeros((3, 2)), np.arange(3)), Path({str(tmp_path / "latents.png")!r}))
assert "matplotlib.pyplot" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True)
