"""The HTML of images and of the latent map."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from PIL import Image

from keras_vae.explorer import pictures
from keras_vae.explorer.plane import View, coordinate_plane
from keras_vae.report.pages import png_uri


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_data_uris_keep_every_pixel() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype="uint8")
    np.testing.assert_array_equal(decoded(png_uri(levels)), levels)
    gray = levels[..., :1].astype("float32") / 255
    np.testing.assert_array_equal(decoded(png_uri(gray)), levels[..., 0])


def test_points_of_the_map_lie_over_the_cells_of_their_codes() -> None:
    view, plane = View(1.0, -2.0, 2.0), coordinate_plane(np.zeros(2), (0, 1))
    images = np.zeros((16, 6, 12, 1))
    images[3] = 1
    # Cell 3 is the upper right one.
    point = view.cell_centers(4)[3:4]
    outside = np.array([[9.0, 9.0]])
    points, labels = np.concatenate([point, outside]), np.array([1, 0])
    svg = ElementTree.fromstring(pictures.latent_map(images, plane, view, points=points, labels=labels))
    canvas = next(node for node in svg.iter() if node.get("class") == "canvas")
    width, height = float(canvas.get("width", 0)), float(canvas.get("height", 0))
    assert (width, height) == (1000, 500)
    group = next(node for node in svg.iter() if node.get("class") == "points")
    assert len(group) == 1
    x, y = float(group[0].get("cx", 0)) / width, float(group[0].get("cy", 0)) / height
    page = decoded(canvas.get("href", ""))
    assert page[int(y * page.shape[0]), int(x * page.shape[1])] == 255
    assert page.mean() < 20


def test_every_label_has_its_own_color() -> None:
    for count in (3, 10, 40):
        chosen = pictures.label_colors(np.arange(count))
        assert len(set(chosen.values())) == count
        assert all(re.fullmatch(r"#[0-9a-f]{6}", color) for color in chosen.values())


def test_class_names_are_escaped() -> None:
    assert "<b>" not in pictures.legend(np.array([0]), ("<b>",))
    points, labels, plane = np.zeros((1, 2)), np.zeros(1, "int64"), coordinate_plane(np.zeros(2), (0, 1))
    svg = pictures.latent_map(
        np.zeros((4, 2, 2, 1)), plane, View(0, 0, 1), points=points, labels=labels, names=('"<b>',)
    )
    circle = next(node for node in ElementTree.fromstring(svg).iter() if node.get("data-name") is not None)
    assert circle.get("data-name") == '"<b>'


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (5, 3, 2), (9, 3, 3), (10, 4, 3)])
def test_the_sheet_of_thumbnails_holds_every_image_in_its_place(count: int, columns: int, rows: int) -> None:
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 6, 1), dtype="uint8")
    box = ElementTree.fromstring(pictures.thumbnail_sheet(images))
    assert (box.get("data-columns"), box.get("data-rows")) == (str(columns), str(rows))
    uri = re.search(r"url\((.*?)\)", box[0].get("style", ""))
    assert uri is not None
    sheet = decoded(uri[1])
    assert sheet.shape == (4 * rows, 6 * columns)
    for index, image in enumerate(images):
        top, left = 4 * (index // columns), 6 * (index % columns)
        np.testing.assert_array_equal(sheet[top : top + 4, left : left + 6], image[..., 0])


def test_thumbnails_of_large_images_are_small() -> None:
    uri = re.search(r"url\((.*?)\)", pictures.thumbnail_sheet(np.zeros((4, 100, 200, 3), "uint8")))
    assert uri is not None
    assert decoded(uri[1]).shape == (40, 80, 3)


def test_every_image_has_an_alternative_text() -> None:
    images = np.random.default_rng(0).random((3, 4, 4, 1)).astype("float32")
    pages = (
        pictures.tile(images[0], "input"),
        pictures.row(images, ["a", "b", "c"]),
        pictures.strip(images, "linear"),
        pictures.animation(images, "linear"),
        pictures.sample_grid(images, images, ["1", "2", "3"]),
        pictures.sample_grid(images, None, []),
        pictures.choice_grid(images),
    )
    for page in pages:
        texts = re.findall(r'<img [^>]*alt="([^"]*)"', page)
        assert len(texts) == page.count("<img")
        assert all(texts)
    assert len(set(re.findall(r'alt="([^"]*)"', pages[4]))) == 6
