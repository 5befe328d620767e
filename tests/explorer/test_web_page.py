"""The page of `vae export --format web`: its content, and its decoder in a browser."""

import base64
import functools
import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from explorer_runs import CLASSIC, LADDER, VQ, MakeRun

from helpers import on_tensorflow
from keras_vae import Run
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.typing import Array
from keras_vae.explorer.web_page import write_web_page
from keras_vae.integrations.export import web_runtime

pytest.importorskip("tf2onnx", reason="the extra onnx is not installed")
pytestmark = on_tensorflow("`vae export` computes with TensorFlow")

COLOR = (*CLASSIC, "model.latent_dim=3", 'model.condition="label"', 'model.likelihood="discretized-logistic"')


@pytest.fixture
def fake_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runtime that cannot run, for tests without a browser."""
    monkeypatch.setattr(web_runtime, "load_runtime", lambda folder: web_runtime.WebRuntime(b"export {};", b"\0asm"))


@pytest.fixture(scope="module")
def color_run(make_run: MakeRun, frames: tuple[Array, Array]) -> Run:
    """A run of a conditional model of color images with three latent dimensions."""
    return make_run(*COLOR, images=np.concatenate([frames[0], frames[0] // 2, 255 - frames[0]], axis=-1))


def content(page: str, name: str) -> str:
    """Return the content of a script with an id."""
    found = re.search(rf'<script type="[\w/]+" id="{name}">(.*?)</script>', page, re.DOTALL)
    assert found
    return found[1]


@pytest.mark.usefixtures("fake_runtime")
def test_the_page_contains_all_it_needs_and_nothing_from_elsewhere(classic_run: Run, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")
    out = write_web_page(classic_run, tmp_path / "web")
    assert [file.name for file in out.iterdir()] == ["index.html"]
    page = (out / "index.html").read_text("utf-8")
    assert not re.findall(r"""(?:src|href)=["'](?!data:)""", page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src " in page
    assert f"script-src 'sha256-{digest}' blob: 'wasm-unsafe-eval'" in page

    data = json.loads(content(page, "data"))
    assert (data["imageShape"], data["label"]) == ([9, 11, 1], None)
    session = onnxruntime.InferenceSession(gzip.decompress(base64.b64decode(content(page, "decoder"))))
    codes = np.array([[0.5, -1.0], [2.0, 0.0]], "float32")
    (images,) = session.run(["mean_images"], {data["codeName"]: codes})
    np.testing.assert_allclose(images, classic_run.load_model().decode(codes), atol=1e-5)

    held_out = classic_run.load_splits().held_out
    assert held_out is not None
    assert page.count("data-index=") == len(held_out)
    with pytest.raises(InputError, match="exists; choose another name"):
        write_web_page(classic_run, out)
    write_web_page(classic_run, out, force=True)


@pytest.mark.usefixtures("fake_runtime")
def test_latent_maps_are_points_of_the_page_without_sliders(
    make_run: MakeRun, frames: tuple[Array, Array], tmp_path: Path
) -> None:
    network = 'model.network={ name = "autoencoder", widths = [4, 6], groups = 2, latent_channels = 2 }'
    run = make_run(network, images=frames[0][:, :8, :8])
    page = (write_web_page(run, tmp_path / "web") / "index.html").read_text("utf-8")
    data = json.loads(content(page, "data"))
    shape = run.load_model().latent_shape
    assert (tuple(data["latentShape"]), len(data["origin"])) == (shape, np.prod(shape))
    assert "first principal component" in page
    assert 'type="range"' not in page


@pytest.mark.usefixtures("fake_runtime")
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (VQ, "model = VQVAE: its code is not one vector"),
        (LADDER, "model = HierarchicalVAE: its code is not one vector"),
        ((*CLASSIC, "model.latent_dim=1"), "latent_dim = 1: a plane needs two dimensions"),
    ],
)
def test_models_without_a_plane_are_rejected(
    settings: tuple[str, ...], message: str, make_run: MakeRun, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=message):
        write_web_page(make_run(*settings), tmp_path / "web")
    assert not (tmp_path / "web").exists()


# ---- In a browser ----


@pytest.fixture(scope="module")
def open_page(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Any]:
    """Return a function that writes the page of a run, and opens the file in a browser."""
    pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
    pytest.importorskip("selenium", reason="selenium is not installed")
    from browser_page import HAS_BROWSER, opened

    if not HAS_BROWSER:
        pytest.skip("no Chromium and chromedriver on this machine")
    try:
        web_runtime.load_runtime()
    except (InputError, RunError) as error:
        pytest.skip(f"no ONNX Runtime Web: {error}")

    @functools.cache
    def address(run: Run) -> str:
        return (write_web_page(run, tmp_path_factory.mktemp("page") / "web") / "index.html").as_uri()

    return lambda run, **keywords: opened(address(run), **keywords)


@pytest.fixture
def page(open_page: Callable[..., Any], classic_run: Run) -> Iterator[Any]:
    with open_page(classic_run) as page:
        wait_until_decoded(page)
        yield page


DECODED = """const canvas = document.querySelector("#image");
return [canvas.dataset.code, canvas.dataset.label,
  [...canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data]]"""


def wait_until_decoded(page: Any) -> None:
    page.wait.until(lambda _: "ms per image" in page.find("#status").text)


def act(page: Any, action: Callable[[], object]) -> list[float]:
    """Act, wait until another code is decoded, and return it."""
    before = page.picture("#image", "data-code")
    action()
    page.wait.until(lambda _: page.picture("#image", "data-code") != before)
    return json.loads(page.picture("#image", "data-code"))


def assert_decoded(page: Any, run: Run) -> Array:
    """Check the image in the page against the model, and return its levels."""
    code, label, values = page.run(DECODED)
    height, width, channels = run.environment["data"]["image_shape"]
    levels = np.reshape(values, (height, width, 4))
    condition = None if label == "" else run.load_model().condition.class_names[int(label)]
    expected = run.load_model().decode(np.array([json.loads(code)], "float32"), condition=condition)[0]
    np.testing.assert_allclose(levels[..., :channels], 255 * expected, atol=2)
    assert (levels[..., 3] == 255).all()
    return levels


@pytest.mark.slow
def test_the_image_follows_the_pointer(page: Any, classic_run: Run) -> None:
    canvas = ".map .canvas"
    images = [assert_decoded(page, classic_run)]
    for x, y in ((-150, -120), (140, 90)):
        u, v = act(page, page.at(canvas, x, y).perform)
        images.append(assert_decoded(page, classic_run))
    assert min(np.abs(a - b).max() for a, b in itertools.pairwise(images)) > 10
    # The first axis points to the right, the second one up.
    center_u, center_v, half = map(float, page.find(".map").get_attribute("data-view").split())
    box = page.find(canvas).rect
    assert (u - center_u) / half == pytest.approx(2 * 140 / box["width"], abs=0.02)
    assert (v - center_v) / half == pytest.approx(-2 * 90 / box["height"], abs=0.02)
    assert page.find(".coordinate").text == f"{u:.2f}".replace("-", "−")

    from selenium.webdriver.common.keys import Keys

    moved = act(page, lambda: page.find(".map").send_keys(Keys.ARROW_LEFT))
    assert moved == pytest.approx([u - half / 20, v], abs=1e-4)
    assert_decoded(page, classic_run)
    # Outside the map, the ring stays where it is.
    page.at("h1", 0, 0).perform()
    assert json.loads(page.picture("#image", "data-code")) == moved
    assert page.hosts() == set()
    assert [entry for entry in page.browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_many_moves_end_with_the_image_of_the_last_one(page: Any, classic_run: Run) -> None:
    move = """const map = document.querySelector(".map"), box = map.querySelector(".canvas").getBoundingClientRect();
      for (let i = 1; i <= 200; i++) map.dispatchEvent(new PointerEvent("pointermove",
        { clientX: box.left + box.width * i / 250, clientY: box.top + box.height / 4 }));"""
    act(page, lambda: page.run(move))
    center_u, center_v, half = map(float, page.find(".map").get_attribute("data-view").split())
    last = pytest.approx([center_u + 0.6 * half, center_v + 0.5 * half], abs=1e-3 * half)
    page.wait.until(lambda _: json.loads(page.picture("#image", "data-code")) == last)
    assert_decoded(page, classic_run)


@pytest.mark.slow
def test_classes_and_sliders_of_a_conditional_model_of_color_images(
    open_page: Callable[..., Any], color_run: Run
) -> None:
    with open_page(color_run, phone=True) as page:
        wait_until_decoded(page)
        first = assert_decoded(page, color_run)
        assert page.run("return document.documentElement.scrollWidth") <= 390

        def choose() -> None:
            page.find("#class option[value='2']").click()
            page.wait.until(lambda _: page.picture("#image", "data-label") == "2")

        page.change(choose, ".map .canvas", "href")
        assert np.abs(assert_decoded(page, color_run) - first).max() > 5
        before = json.loads(page.picture("#image", "data-code"))
        slide = """const slider = document.querySelector("input[data-dimension='1']");
          slider.value = slider.max; slider.dispatchEvent(new Event("input")); return +slider.max"""
        results: list[float] = []
        page.change(lambda: results.append(page.run(slide)), ".map .canvas", "href")
        shifted = json.loads(page.picture("#image", "data-code"))
        assert np.subtract(shifted, before) == pytest.approx([0, results[0], 0], abs=1e-4)
        assert_decoded(page, color_run)
        assert act(page, page.find("#reset").click) == before

        # Only the images of pressed classes are shown.
        shown = """const circles = [...document.querySelectorAll(".points circle")];
          return circles.filter((each) => each.style.display !== "none")"""
        count = len(page.run(shown))
        page.find(".legend button").click()
        assert 0 < len(page.run(shown)) < count
