"""Of several events in a row, the last one wins, also if the model answers slowly."""

import base64
import io
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import on_tensorflow
from keras_vae import Run

pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")

import slow_explorer
from browser_page import HAS_BROWSER, Page, opened
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_serving import served

pytestmark = [
    on_tensorflow("the page is the same on every backend"),
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_BROWSER, reason="no Chromium and chromedriver on this machine"),
]

REQUESTS = 'performance.getEntriesByType("resource").filter((e) => e.name.endsWith("/run/predict")).length'


@pytest.fixture(scope="module")
def run(classic_run: Run) -> Run:
    return classic_run


@pytest.fixture(scope="module")
def page(run: Run) -> Iterator[Page]:
    command = (sys.executable, slow_explorer.__file__, "explore", run.path, "--port", 0)
    with served(*command) as address, opened(address) as page:
        yield page


def settle(page: Page, until: Callable[[], bool] = lambda: True) -> None:
    """Wait until the page has not sent or received anything for a while, and shows what is expected.

    On a busy machine, a single request can take longer than the while.
    """
    quiet, before = 0, ""
    deadline = time.monotonic() + 60
    while quiet < 2 * slow_explorer.SECONDS or not until():
        time.sleep(0.1)
        # The number of finished requests, and the images that are shown.
        now = page.run(f"return {REQUESTS} + [...document.images].map((each) => each.src).join()")
        quiet, before = (quiet + 0.1 if now == before else 0), now
        assert time.monotonic() < deadline


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))) / 255


def draw(page: Page, x: int) -> None:
    """Draw a vertical line in many small steps, at a distance from the center of the pad in pixels."""
    line = page.at("#drawing-pad canvas", x, -90).click_and_hold()
    for _ in range(9):
        line = line.move_by_offset(0, 20)
    line.release().perform()


def drawn(page: Page) -> np.ndarray:
    """Return the mean brightness of the left and of the right half of the image that was analyzed."""
    columns = pixels(page.picture("#analysis img")).mean(axis=0)
    return np.array([columns[: len(columns) // 2].mean(), columns[-(len(columns) // 2) :].mean()])


def facts(page: Page, selector: str) -> list[float]:
    return [
        float(text.replace("\N{MINUS SIGN}", "-")) for text in re.findall(r"[−-]?\d+\.\d+", page.find(selector).text)
    ]


def decoded(run: Run, code: list[float]) -> np.ndarray:
    return np.asarray(run.load_model().decode(np.array([code], "float32")))[0, ..., 0]


def test_the_whole_drawing_is_analyzed(page: Page) -> None:
    page.open("Draw")
    draw(page, -110)
    settle(page, until=lambda: drawn(page)[0] > 0.1)
    assert drawn(page)[1] == 0
    # Two more strokes while the model is busy with the first of them.
    draw(page, 110)
    draw(page, 60)
    settle(page, until=lambda: bool((drawn(page) > 0.1).all()))


def test_the_last_of_strokes_examples_uploads_and_clear_is_shown(page: Page, tmp_path: Path) -> None:
    page.open("Draw")
    draw(page, 110)
    page.find("#drawing-pad button").click()
    settle(page, until=lambda: not page.browser.find_elements(By.CSS_SELECTOR, "#analysis img"))
    draw(page, 110)
    draw(page, 60)
    page.find("#random-image").click()
    # Examples are bright everywhere, and the drawing is black on the left.
    settle(page, until=lambda: bool((pixels(page.picture("#analysis img"))[0] > 0).any()))
    page.find("#random-image").click()
    draw(page, -110)
    settle(page, until=lambda: drawn(page)[0] > 0.1)
    gray = tmp_path / "gray.png"
    Image.new("L", (11, 9), 128).save(gray)
    draw(page, 60)
    page.browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(gray))
    settle(page, until=lambda: np.unique(pixels(page.picture("#analysis img"))).tolist() == [128 / 255])


def test_an_error_does_not_lose_the_next_event(page: Page, tmp_path: Path) -> None:
    page.open("Draw")
    text = tmp_path / "text.png"
    text.write_text("not an image")
    page.browser.find_element(By.CSS_SELECTOR, "input[type=file]").send_keys(str(text))
    page.wait.until(lambda _: "cannot be read" in page.find("#analysis").text)
    draw(page, -110)
    draw(page, -60)
    settle(page, until=lambda: drawn(page)[0] > 0.1)


def test_the_picture_belongs_to_the_sliders(page: Page, run: Run) -> None:
    page.open("Sliders")
    first, second = (page.find(f"#slider-{dimension} input[type=range]") for dimension in range(2))
    for _ in range(3):
        first.send_keys(*[Keys.ARROW_RIGHT] * 20)
        second.send_keys(*[Keys.ARROW_LEFT] * 15)
    settle(page)

    def shown() -> list[float]:
        return [float(page.run("return arguments[0].value", slider)) for slider in (first, second)]

    np.testing.assert_allclose(pixels(page.picture("#slider-image img")), decoded(run, shown()), atol=0.004)
    page.find("#random-code").click()
    page.find("#slider-reset").click()
    settle(page)
    np.testing.assert_allclose(pixels(page.picture("#slider-image img")), decoded(run, shown()), atol=0.01)
    before = shown()
    page.find("#random-code").click()
    settle(page)
    assert shown() != before


def test_hovering_decodes_the_last_point_and_builds_no_queue(page: Page, run: Run) -> None:
    page.open("Latent map")
    settle(page)
    sent, start = page.run(f"return {REQUESTS}"), time.monotonic()
    sweep = page.at("#latent-map .canvas", -150, -100)
    for step in range(40):
        sweep = sweep.move_by_offset(6, 4 if step % 2 else -2)
    sweep.perform()
    moved = time.monotonic() - start
    settle(page)
    assert 1 <= page.run(f"return {REQUESTS}") - sent <= moved / slow_explorer.SECONDS + 2
    box = page.run('return document.querySelector("#latent-map .canvas").getBoundingClientRect()')
    u, v, half = map(float, str(page.find("#latent-map svg.map").get_attribute("data-view")).split())
    # 40 steps to the right; 20 steps each of 4 pixels down and 2 pixels up.
    x, y = -150 + 240, -100 + 40
    expected = [u + half * 2 * x / box["width"], v - half * 2 * y / box["height"]]
    np.testing.assert_allclose(facts(page, "#map-facts")[-2:], expected, atol=2 * half / box["width"] * 2 + 0.01)
    np.testing.assert_allclose(
        pixels(page.picture("#map-image img")), decoded(run, facts(page, "#map-facts")[-2:]), atol=0.02
    )


def test_the_map_follows_the_last_of_zooms_and_clicks(page: Page) -> None:
    page.open("Latent map")
    settle(page)
    u, v, half = map(float, str(page.find("#latent-map svg.map").get_attribute("data-view")).split())
    page.at("#latent-map .canvas", 50, 50).click().perform()
    for _ in range(2):
        page.find("#zoom-in").click()
    page.find("#reset-view").click()
    page.at("#latent-map .canvas", -80, 30).click().perform()
    settle(page)
    reset = list(map(float, str(page.find("#latent-map svg.map").get_attribute("data-view")).split()))
    np.testing.assert_allclose(reset, [u, v, half])
    ring = page.find("#latent-map .mark").rect
    box = page.find("#latent-map .canvas").rect
    assert ring["x"] + ring["width"] / 2 - box["x"] - box["width"] / 2 == pytest.approx(-80, abs=3)
    assert ring["y"] + ring["height"] / 2 - box["y"] - box["height"] / 2 == pytest.approx(30, abs=3)


def test_slots_and_results_hold_the_last_choices(page: Page, run: Run) -> None:
    page.open("Arithmetic")
    page.find("#arithmetic-slots [aria-pressed=true]")
    choices = [page.find(f"#arithmetic-slots-choices [data-index='{index}']") for index in range(6)]
    # Three slots: the second round of choices replaces the first.
    for index in (0, 1, 2, 5, 3, 4):
        choices[index].click()
    settle(page)
    chosen = [str(page.picture(f"#arithmetic-slots-choices [data-index='{index}'] img")) for index in (5, 3, 4)]
    assert [page.picture(f"#arithmetic-slots [data-slot='{slot}'] img") for slot in range(3)] == chosen
    images = np.stack([np.rint(255 * pixels(uri)).astype("uint8")[..., None] for uri in chosen])
    a, b, c = run.load_model().encode(images).z_mean
    shown = pixels(page.picture("#arithmetic .large img"))
    np.testing.assert_allclose(shown, decoded(run, (a + b - c).tolist()), atol=0.004)
