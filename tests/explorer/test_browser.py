"""The page in a browser: click, drag, draw and choose, and wait for the images to change."""

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
    on_tensorflow("the page is the same on every backend"),
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
    """A browser with the page, and the actions of a user."""

    def __init__(self, browser: webdriver.Chrome) -> None:
        self.browser, self.wait = browser, WebDriverWait(browser, 60)

    def find(self, selector: str) -> WebElement:
        return self.wait.until(
            lambda _: next((e for e in self.browser.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None)
        )

    def picture(self, selector: str, attribute: str = "src") -> str:
        for _ in range(100):
            # The element may be replaced after it was found.
            with suppress(StaleElementReferenceException):
                return str(self.find(selector).get_attribute(attribute))
        raise AssertionError(f"{selector} is replaced again and again")

    def change(self, act: Callable[[], object], selector: str, attribute: str = "src") -> str:
        """Act, wait until an image changes, and return the new one."""
        before = self.picture(selector, attribute)
        act()
        self.wait.until(lambda _: self.picture(selector, attribute) != before)
        return self.picture(selector, attribute)

    def open(self, tab: str) -> None:
        def is_open(_: object) -> bool:
            for button in self.browser.find_elements(By.CSS_SELECTOR, "button[role=tab]"):
                if button.is_displayed() and button.text.strip() == tab:
                    if button.get_attribute("aria-selected") == "true":
                        return True
                    button.click()
            return False

        self.wait.until(is_open)

    def at(self, selector: str, x: int, y: int) -> ActionChains:
        return ActionChains(self.browser, duration=40).move_to_element_with_offset(self.find(selector), x, y)

    def hosts(self) -> set[str]:
        """Return the hosts that the browser sent requests to."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return {url.split("/")[2].split(":")[0] for url in urls if url.startswith(("http", "ws"))}


@pytest.fixture
def page(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[Page]:
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in FLAGS:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    # Connect to this machine without a proxy.
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    with served(*VAE, "explore", make_run(*CLASSIC).path, "--port", 0) as address:
        browser = webdriver.Chrome(options=options, service=Service(DRIVER, log_output=os.devnull))
        try:
            browser.get(address)
            yield Page(browser)
        finally:
            browser.quit()


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
    page.find("#use-drawing").click()
    assert "there is no drawing yet" in page.find(".toast-body").text

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
    page.change(page.find("#choices [data-index='2']").click, "#interpolation .strip img")

    page.open("Samples")
    page.change(page.find("#new-samples").click, "#sample-grid img")

    page.open("Report")
    assert "negative ELBO" in (page.find("#report iframe").get_attribute("srcdoc") or "")

    assert page.hosts() == {"127.0.0.1"}
