"""The page in a browser: click, drag, draw and choose, and wait for the images to change."""

from collections.abc import Iterator

import pytest

from helpers import on_tensorflow

pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")

from browser_page import HAS_BROWSER, Page, opened
from selenium.webdriver.common.keys import Keys

pytestmark = [
    on_tensorflow("the page is the same on every backend"),
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_BROWSER, reason="no Chromium and chromedriver on this machine"),
]


@pytest.fixture
def page(classic_address: str) -> Iterator[Page]:
    with opened(classic_address) as page:
        yield page


def test_every_tab_responds_to_its_events(page: Page) -> None:
    canvas = "#latent-map .canvas"
    page.change(lambda: page.at(canvas, -120, -90).click().perform(), "#map-image img")
    first = page.find("#map-facts").text
    page.change(lambda: page.at(canvas, 90, 60).click().perform(), "#map-image img")
    assert page.find("#map-facts").text != first
    drag = page.at(canvas, -60, -60).click_and_hold().move_by_offset(40, 40).move_by_offset(40, 40).release()
    page.change(drag.perform, canvas, "href")

    page.open("Sliders")
    handle = page.find("#slider-0 input[type=range]")
    page.change(lambda: handle.send_keys(*[Keys.ARROW_RIGHT] * 40), "#slider-image img")
    page.change(page.find("#random-code").click, "#slider-image img")
    page.change(page.find("#slider-reset").click, "#slider-image img")

    page.open("Interpolate")
    page.find("#interpolate-slots [aria-pressed=true]")
    page.find("#interpolate-slots .use-drawing").click()
    assert "There is no drawing yet" in page.find("#interpolate-slots .alert").text

    page.open("Draw")
    stroke = (
        page.at("#drawing-pad canvas", -60, -60)
        .click_and_hold()
        .move_by_offset(60, 30)
        .move_by_offset(20, 60)
        .release()
    )
    stroke.perform()
    drawn = page.picture("#analysis img")
    assert drawn.startswith("data:image/png;base64,")
    assert "log p(x)" in page.find("#analysis").text
    more = page.at("#drawing-pad canvas", 60, -80).click_and_hold().move_by_offset(10, 120).release()
    page.change(more.perform, "#analysis img")

    page.open("Interpolate")
    page.change(page.find("#interpolate-slots-choices [data-index='2']").click, "#interpolation .strip img")
    page.change(page.find("#interpolate-slots .use-drawing").click, "#interpolation .strip img")
    page.find("#gif-linear").click()
    assert page.picture("#gif img").startswith("data:image/gif")

    page.open("Arithmetic")
    page.find("#arithmetic-slots [aria-pressed=true]")
    page.change(page.find("#arithmetic-slots-choices [data-index='4']").click, "#arithmetic .large img")

    page.open("Samples")
    page.change(page.find("#new-samples").click, "#sample-grid img")

    page.open("Report")
    report = page.find("#report iframe").get_attribute("srcdoc") or ""
    assert "negative ELBO" in report
    # Links of the table of contents stay inside the frame.
    assert '<base href="about:srcdoc">' in report

    assert page.hosts() == {"127.0.0.1"}
