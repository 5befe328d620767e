"""Take the screenshots of the explorer in docs/ with a headless Chromium.

    python tools/screenshots.py

This requires MNIST (see `keras_vae.data`), the extras `explore` and `dev`, and Chromium with its driver. The script
serves the page of `vae explore`, clicks on the map, and draws a seven.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

DOCS = Path(__file__).parents[1] / "docs"
SERVE = (sys.executable, "-c", "from keras_vae.cli import main; main()", "explore", "--port", "0")
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--window-size=1280,1040",
    "--hide-scrollbars",
    "--force-device-scale-factor=1.5",
)

SEVEN = ((-65, -60), (60, -70), (30, 20), (0, 105))
"""The corners of the drawing, in pixels from the center of the pad."""

STEPS_PER_LINE = 8


class Page:
    """The page in a headless browser."""

    def __init__(self, url: str) -> None:
        options = webdriver.ChromeOptions()
        options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
        for flag in FLAGS:
            options.add_argument(flag)
        self.browser = webdriver.Chrome(options=options)
        self.browser.get(url)

    def find(self, selector: str) -> WebElement:
        """Wait for a visible element and return it."""

        def visible(_: object) -> WebElement | None:
            elements = self.browser.find_elements(By.CSS_SELECTOR, selector)
            return next((element for element in elements if element.is_displayed()), None)

        return WebDriverWait(self.browser, 60).until(visible)

    def open(self, tab: str) -> None:
        """Open a tab."""
        buttons = self.browser.find_elements(By.CSS_SELECTOR, "button[role=tab]")
        next(button for button in buttons if button.text == tab).click()

    def save(self, name: str) -> None:
        """Save a screenshot."""
        # Wait until the results and the points of the map have faded in.
        time.sleep(2)
        self.browser.save_screenshot(str(DOCS / f"explorer-{name}.png"))

    def click_map(self) -> None:
        """Click on the map, a little to the right of its center."""
        canvas = self.find("#latent-map .canvas")
        ActionChains(self.browser).move_to_element_with_offset(canvas, 40, -20).click().perform()

    def draw(self, corners: tuple[tuple[int, int], ...]) -> None:
        """Draw lines from corner to corner on the pad, and wait for the analysis."""
        pad = self.find("#drawing-pad canvas")
        start, *others = corners
        pen = ActionChains(self.browser, duration=40).move_to_element_with_offset(pad, *start).click_and_hold()
        for end in others:
            for step in range(1, STEPS_PER_LINE + 1):
                x, y = (a + (b - a) * step // STEPS_PER_LINE for a, b in zip(start, end, strict=True))
                pen = pen.move_to_element_with_offset(pad, x, y)
            start = end
        pen.release().perform()
        self.find("#analysis img")


def main() -> None:
    """Serve the page and save the screenshots."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "no_proxy": "127.0.0.1"}
    with subprocess.Popen(SERVE, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            page = Page(server.stdout.readline().strip())
            page.click_map()
            page.save("map")
            page.open("Draw")
            # Wait until the training images are scored, so that the drawing has a percentile.
            time.sleep(20)
            page.draw(SEVEN)
            page.save("draw")
            page.browser.quit()
        finally:
            server.terminate()


if __name__ == "__main__":
    main()
