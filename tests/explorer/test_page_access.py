"""The page with a keyboard, on a phone, for readers who do not see it, and in dark mode."""

from collections.abc import Iterator

import numpy as np
import pytest
from explorer_runs import CLASSIC, MakeRun

from helpers import on_tensorflow

pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
pytest.importorskip("selenium", reason="selenium is not installed")

from browser_page import HAS_BROWSER, Page, opened
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from test_serving import VAE, served

pytestmark = [
    on_tensorflow("the page is the same on every backend"),
    pytest.mark.slow,
    pytest.mark.skipif(not HAS_BROWSER, reason="no Chromium and chromedriver on this machine"),
]

TABS = ["Latent map", "Sliders", "Draw", "Interpolate", "Arithmetic", "Samples", "Report"]

TEXTS = """
const styles = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].filter((node) => node.nodeType === 3);
  const words = own.map((node) => node.textContent.trim()).join(" ").trim();
  const style = getComputedStyle(element), box = element.getBoundingClientRect();
  const isVisible = element.checkVisibility({ opacityProperty: true, visibilityProperty: true });
  if (!words || !isVisible || box.width < 2) continue;
  const backgrounds = [];
  for (let each = element; each; each = each.parentElement) backgrounds.push(getComputedStyle(each).backgroundColor);
  const color = element instanceof SVGElement ? style.fill : style.color;
  styles.push([words.slice(0, 40), color, backgrounds]);
}
return styles;
"""


@pytest.fixture(scope="module")
def address(make_run: MakeRun) -> Iterator[str]:
    run = make_run(*CLASSIC, "model.latent_dim=3", 'model.condition="label"')
    with served(*VAE, "explore", run.path, "--port", 0) as address:
        yield address


@pytest.fixture(scope="module")
def desktop(address: str) -> Iterator[Page]:
    with opened(address) as page:
        yield page


@pytest.fixture(scope="module")
def mobile(address: str) -> Iterator[Page]:
    with opened(address, phone=True) as page:
        yield page


@pytest.fixture
def page(desktop: Page, address: str) -> Page:
    """The page as it looks when it is opened, in the browser that all tests share."""
    # The pointer starts in the corner.
    ActionChains(desktop.browser).reset_actions()
    desktop.browser.get(address)
    return desktop


@pytest.fixture
def phone(mobile: Page, address: str) -> Page:
    """The page as it looks when it is opened, on a phone."""
    mobile.browser.get(address)
    return mobile


def rgba(page: Page, color: str) -> np.ndarray:
    """Return a CSS color of any notation as red, green, blue and opacity."""
    drawn = """const pen = document.createElement("canvas").getContext("2d");
      pen.fillStyle = arguments[0]; pen.fillRect(0, 0, 1, 1); return [...pen.getImageData(0, 0, 1, 1).data];"""
    return np.array(page.run(drawn, color)) / 255


def luminance(color: np.ndarray) -> float:
    """Return the relative luminance of WCAG 2.1."""
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def over(color: np.ndarray, below: np.ndarray) -> np.ndarray:
    return color[3] * color[:3] + (1 - color[3]) * below


def contrasts(page: Page) -> dict[str, float]:
    """Return the contrast of every text that is visible."""
    found, known = {}, {}
    for words, color, backgrounds in page.run(TEXTS):
        for each in (color, *backgrounds):
            if each not in known:
                known[each] = rgba(page, each)
        below = np.ones(3)
        for each in reversed(backgrounds):
            below = over(known[each], below)
        lighter, darker = sorted((luminance(over(known[color], below)), luminance(below)), reverse=True)
        found[words] = (lighter + 0.05) / (darker + 0.05)
    return found


def test_black_on_white_has_the_highest_contrast(page: Page) -> None:
    page.run(
        'document.body.innerHTML = `<p style="color:#000;background:#fff">a</p><p style="color:#777;'
        'background:#fff">b</p><p style="background:#fff;color:rgba(0,0,0,.5)">c</p>`'
    )
    assert contrasts(page) == pytest.approx({"a": 21, "b": 4.48, "c": 3.98}, abs=0.06)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_text_has_enough_contrast(page: Page, address: str, theme: str) -> None:
    page.browser.get(f"{address}/?__theme={theme}")
    for tab in TABS:
        page.open(tab)
        if tab == "Draw":
            page.find("#random-image").click()
            page.find("#analysis img")
        if tab == "Arithmetic":
            page.find("#arithmetic-slots [aria-pressed=true]")
            page.find("#arithmetic-slots .use-drawing").click()
        found = contrasts(page)
        assert len(found) > 5
        assert {words: value for words, value in found.items() if value < 4.5} == {}, tab


def test_every_image_has_an_alternative_text(page: Page) -> None:
    for tab in TABS:
        page.open(tab)
        if tab == "Draw":
            page.find("#random-image").click()
            page.find("#analysis img")
        nameless = page.run("""
          return [...document.querySelectorAll("main img, main svg.map, main canvas, main iframe")]
            .filter((each) => each.checkVisibility() && !(each.alt || each.ariaLabel || each.title))
            .map((each) => each.outerHTML.slice(0, 80));""")
        assert nameless == [], tab


def test_all_tabs_fit_on_a_phone(phone: Page) -> None:
    phone.find("#latent-map svg.map")
    shown = [each for each in phone.browser.find_elements(By.CSS_SELECTOR, "button[role=tab]") if each.is_displayed()]
    assert [each.text.strip() for each in shown] == TABS
    for each in shown:
        assert each.rect["x"] >= 0
        assert each.rect["x"] + each.rect["width"] <= 390
    for tab in TABS:
        phone.open(tab)
        assert phone.run("return document.documentElement.scrollWidth") <= 390, tab


def test_a_finger_on_the_map_decodes_while_it_moves(phone: Page) -> None:
    phone.find("#latent-map .canvas")
    phone.run('document.querySelector("#latent-map").scrollIntoView()')
    box = phone.run('return document.querySelector("#latent-map .canvas").getBoundingClientRect()')
    before, scrolled = phone.find("#map-facts").text, phone.run("return scrollY")

    def touch(kind: str, *points: tuple[float, float]) -> None:
        places = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in points]
        phone.browser.execute_cdp_cmd("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})

    touch("touchStart", (0.2, 0.2))
    for step in range(8):
        touch("touchMove", (0.2 + 0.05 * step, 0.2 + 0.05 * step))
    phone.wait.until(lambda _: phone.find("#map-facts").text != before)
    touch("touchEnd")
    assert phone.run("return scrollY") == scrolled


def test_the_keyboard_reaches_every_control_and_moves_the_ring(page: Page) -> None:
    page.find("#latent-map svg.map")
    reached, outlines = [], []
    for _ in range(40):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        name, outline = page.run("""
          const each = document.activeElement, style = getComputedStyle(each);
          const outlined = parseFloat(style.outlineWidth) > 0 && style.outlineStyle !== "none";
          return [each.ariaLabel || each.id || each.textContent.trim() || each.type || each.tagName, outlined];
        """)
        reached.append(name)
        outlines.append(outline)
        if name.startswith("map of the latent space"):
            break
    assert reached[-1].startswith("map of the latent space")
    assert all(outlines), list(zip(reached, outlines, strict=True))
    assert "Latent map" in reached

    def ring() -> tuple[float, float]:
        box = page.find("#latent-map .mark").rect
        return box["x"], box["y"]

    x, y = ring()
    facts = page.find("#map-facts").text
    page.change(lambda: ActionChains(page.browser).send_keys(*[Keys.ARROW_RIGHT] * 3).perform(), "#map-image img")
    width = page.find("#latent-map .canvas").rect["width"]
    assert ring()[0] - x == pytest.approx(3 * width / 40, abs=2)
    ActionChains(page.browser).send_keys(Keys.ARROW_DOWN).perform()
    assert ring()[1] > y
    assert page.find("#map-facts").text != facts
    before = page.find("#latent-map svg.map").get_attribute("data-view")
    page.change(lambda: ActionChains(page.browser).send_keys("+").perform(), "#latent-map .canvas", "href")
    page.change(lambda: ActionChains(page.browser).send_keys("0").perform(), "#latent-map .canvas", "href")
    assert page.find("#latent-map svg.map").get_attribute("data-view") == before

    # The keys work after a click, too.
    page.at("#latent-map .canvas", 20, 30).click().perform()
    x, y = ring()
    ActionChains(page.browser).send_keys(Keys.ARROW_UP).perform()
    assert ring()[1] < y
    page.at("#latent-map .canvas", 20, 30).click().perform()

    more = []
    for _ in range(40):
        ActionChains(page.browser).send_keys(Keys.TAB).perform()
        more.append(page.run("const each = document.activeElement; return each.id || each.textContent.trim()"))
    assert {"0", "2", "zoom-in", "zoom-out", "reset-view"} <= set(more)


def test_the_legend_filters_and_points_show_their_images(page: Page) -> None:
    page.find("#latent-map svg.map")
    shown = """return [...document.querySelectorAll("#latent-map .points circle")]
      .filter((each) => getComputedStyle(each).display !== "none").map((each) => each.dataset.name)"""
    first, second = sorted(set(page.run(shown)))[:2]
    page.find(f"#map-legend [data-name='{first}']").click()
    assert set(page.run(shown)) == {first}
    page.find(f"#map-legend [data-name='{second}']").click()
    assert set(page.run(shown)) == {first, second}
    # A new map keeps the filter.
    page.change(page.find("#zoom-out").click, "#latent-map .canvas", "href")
    assert set(page.run(shown)) == {first, second}
    page.find(f"#map-legend [data-name='{second}']").click()

    x, y, name = page.run("""const each = [...document.querySelectorAll("#latent-map .points circle")]
      .find((each) => getComputedStyle(each).display !== "none"), box = each.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2, each.dataset.name];""")
    assert name == first
    hover = ActionChains(page.browser).move_by_offset(round(x), round(y))
    hover.perform()
    tip = page.find("#map-tip .tip")
    assert tip.text.strip() == name
    assert tip.find_element(By.TAG_NAME, "i").rect["height"] > 20
    ActionChains(page.browser).move_to_element(page.find("#map-facts")).perform()
    assert not tip.is_displayed()


def test_decoding_shifts_no_layout(page: Page) -> None:
    page.find("#latent-map svg.map")
    page.run("""window.shift = 0; new PerformanceObserver((list) => {
      for (const entry of list.getEntries()) window.shift += entry.value; }).observe({ type: "layout-shift" });""")
    canvas = "#latent-map .canvas"
    for x in (-120, 10, 130):
        page.change(lambda x=x: page.at(canvas, x, x // 2).perform(), "#map-image img")
    assert page.run("return window.shift") < 0.01
