"""The page in a browser: click on the map, move a slider, draw, pick, and read the pictures that change."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from explorer_runs import CLASSIC, MakeRun

from helpers import on_tensorflow

pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
pytestmark = [
    on_tensorflow("the page says nothing about backends"),
    pytest.mark.slow,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium and chromedriver on this machine"),
]

from selenium import webdriver  # noqa: E402
from selenium.common.exceptions import StaleElementReferenceException  # noqa: E402
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.remote.webelement import WebElement  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402
from test_serving import VAE, served  # noqa: E402

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1280,1000"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
    *("--disable-domain-reliability", "--disable-default-apps", "--disable-extensions"),
)


class Page:
    """A browser with the page in it, and what a user does there."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser, self.patience = browser, WebDriverWait(browser, 60)

    def find(self, selector: str) -> WebElement:
        return self.patience.until(
            lambda _: next((e for e in self.browser.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None)
        )

    def picture(self, selector: str, attribute: str = "src") -> str:
        for _ in range(100):
            # It may be replaced between being found and being asked.
            with suppress(StaleElementReferenceException):
                return str(self.find(selector).get_attribute(attribute))
        raise AssertionError(f"{selector} never stands still")

    def changes(self, act: Callable[[], object], selector: str, attribute: str = "src") -> str:
        """Act, wait until a picture is another, and return it."""
        before = self.picture(selector, attribute)
        act()
        self.patience.until(lambda _: self.picture(selector, attribute) != before)
        return self.picture(selector, attribute)

    def open(self, tab: str) -> None:
        def is_open(_: object) -> bool:
            for button in self.browser.find_elements(By.CSS_SELECTOR, "button[role=tab]"):
                if button.is_displayed() and button.text.strip() == tab:
                    if button.get_attribute("aria-selected") == "true":
                        return True
                    button.click()
            return False

        self.patience.until(is_open)

    def at(self, selector: str, x: int, y: int) -> ActionChains:
        return ActionChains(self.browser, duration=40).move_to_element_with_offset(self.find(selector), x, y)

    def hosts(self) -> set[str]:
        """Return every host that the browser has asked."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return {url.split("/")[2].split(":")[0] for url in asked if url.startswith(("http", "ws"))}


@pytest.fixture
def page(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    # The browser's way to this machine leads through no proxy.
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with served(*VAE, "explore", make_run(*CLASSIC).path, "--port", 0) as address:
        browser = webdriver.Chrome(options=options, service=Service(DRIVER, log_output=os.devnull))
        try:
            browser.get(address)
            yield Page(browser)
        finally:
            browser.quit()


def test_every_tab_answers(page: Page) -> None:
    canvas = "#map-picture .canvas"
    page.changes(lambda: page.at(canvas, -120, -90).click().perform(), "#map-image img")
    first = page.find("#map-facts").text
    page.changes(lambda: page.at(canvas, 90, 60).click().perform(), "#map-image img")
    assert page.find("#map-facts").text != first
    drag = page.at(canvas, -60, -60).click_and_hold().move_by_offset(40, 40).move_by_offset(40, 40).release()
    page.changes(drag.perform, canvas, "href")

    page.open("Sliders")
    handle = page.find("#slider-0 input[type=range]")
    page.changes(lambda: handle.send_keys(*[Keys.ARROW_RIGHT] * 40), "#slider-image img")
    page.changes(page.find("#slider-draw").click, "#slider-image img")
    page.changes(page.find("#slider-reset").click, "#slider-image img")

    page.open("Between")
    page.find("#take-drawing").click()
    assert "nothing is drawn yet" in page.find(".toast-body").text

    page.open("Draw")
    stroke = page.at("#pad canvas", -60, -60).click_and_hold().move_by_offset(60, 30).move_by_offset(20, 60).release()
    stroke.perform()
    drawn = page.picture("#draw-answer img")
    assert drawn.startswith("data:image/png;base64,")
    assert "log p(x)" in page.find("#draw-answer").text
    more = page.at("#pad canvas", 60, -80).click_and_hold().move_by_offset(10, 120).release()
    page.changes(more.perform, "#draw-answer img")

    page.open("Between")
    page.changes(page.find("#picks [data-index='2']").click, "#between-answer .strip img")

    page.open("Samples")
    page.changes(page.find("#new-samples").click, "#sample-sheet img")

    page.open("Run")
    assert "negative ELBO" in (page.find("#report iframe").get_attribute("srcdoc") or "")

    assert page.hosts() == {"127.0.0.1"}
