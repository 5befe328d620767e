"""A browser with the page, and the actions of a user."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
HAS_BROWSER = bool(CHROMIUM and DRIVER)

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--window-size=1280,1000"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--no-first-run"),
    *("--disable-domain-reliability", "--disable-default-apps", "--disable-extensions"),
)

PHONE = {"deviceMetrics": {"width": 390, "height": 844, "pixelRatio": 2.0, "touch": True}}


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

    def run(self, script: str, *arguments: object) -> Any:
        """Run a script in the page and return its result."""
        return self.browser.execute_script(script, *arguments)

    def hosts(self) -> set[str]:
        """Return the hosts that the browser sent requests to."""
        events = [json.loads(entry["message"])["message"] for entry in self.browser.get_log("performance")]
        urls = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
        return {url.split("/")[2].split(":")[0] for url in urls if url.startswith(("http", "ws"))}


@contextmanager
def opened(address: str, *, phone: bool = False) -> Iterator[Page]:
    """Open the page in a browser, on a phone if asked."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM or ""
    for flag in FLAGS:
        options.add_argument(flag)
    if phone:
        options.add_experimental_option("mobileEmulation", PHONE)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    # Connect to this machine without a proxy.
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("no_proxy", "127.0.0.1,localhost")
        browser = webdriver.Chrome(options=options, service=Service(DRIVER, log_output=os.devnull))
        try:
            browser.get(address)
            yield Page(browser)
        finally:
            browser.quit()
