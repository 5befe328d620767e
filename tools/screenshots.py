"""Take the pictures of the explorer in docs/, in a headless Chromium.

    python tools/screenshots.py

wants MNIST (see `keras_vae.data`), the extras `explore` and `dev`, and Chromium with its driver. It opens what `vae
explore` opens, clicks on the map, and draws a seven.
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
    "--force-device-scale-factor=1.5",
)

SEVEN = ((-65, -60), (60, -70), (30, 20), (0, 105))
"""Where the pen goes, in pixels from the middle of the pad."""


def browser() -> webdriver.Chrome:
    """Return a browser without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome") or ""
    for flag in FLAGS:
        options.add_argument(flag)
    return webdriver.Chrome(options=options)


def main() -> None:
    """Serve, look, and save."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", "no_proxy": "127.0.0.1"}
    with subprocess.Popen(SERVE, env=environment, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        window = browser()
        try:
            window.get(server.stdout.readline().strip())

            def find(selector: str) -> WebElement:
                return WebDriverWait(window, 60).until(
                    lambda _: next(
                        (e for e in window.find_elements(By.CSS_SELECTOR, selector) if e.is_displayed()), None
                    )
                )

            def save(name: str) -> None:
                # Answers and the points of the map fade in.
                time.sleep(2)
                window.save_screenshot(str(DOCS / f"explorer-{name}.png"))

            place = find("#map-picture .canvas")
            ActionChains(window).move_to_element_with_offset(place, 40, -20).click().perform()
            save("map")

            next(e for e in window.find_elements(By.CSS_SELECTOR, "button[role=tab]") if e.text == "Draw").click()
            pad = find("#pad canvas")
            first, *others = SEVEN
            pen = ActionChains(window, duration=40).move_to_element_with_offset(pad, *first).click_and_hold()
            for x, y in others:
                for step in range(1, 9):
                    at = (first[0] + (x - first[0]) * step // 8, first[1] + (y - first[1]) * step // 8)
                    pen = pen.move_to_element_with_offset(pad, *at)
                first = (x, y)
            # Until the training images' scores are there to compare with.
            time.sleep(20)
            pen.release().perform()
            find("#draw-answer img")
            save("draw")
        finally:
            window.quit()
            server.terminate()


if __name__ == "__main__":
    main()
