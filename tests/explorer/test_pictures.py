"""The HTML of images and of the latent map."""

import base64
import io
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
from PIL import Image

from keras_vae.explorer import pictures
from keras_vae.explorer.plane import View, coordinate_plane


def decoded(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_data_uris_keep_every_pixel() -> None:
    levels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype="uint8")
    np.testing.assert_array_equal(decoded(pictures.data_uri(levels)), levels)
    gray = levels[..., :1].astype("float32") / 255
    np.testing.assert_array_equal(decoded(pictures.data_uri(gray)), levels[..., 0])


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
