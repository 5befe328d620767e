"""The HTML page of a run."""

import base64
import io
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.evaluation.descriptions import FIGURES, NOT_HELD_OUT, NOT_NORMALIZED, SCORES, UNTRUSTED
from keras_vae.evaluation.diagnostics import CHECKS, Finding
from keras_vae.report.figures.style import INK, PAGE, PALETTE, SOFT
from keras_vae.report.figures.themes import DARK, ThemedImage
from keras_vae.report.html import render
from keras_vae.report.plots import PLOTS
from keras_vae.runs.run import Run

METRICS: dict[str, list[float]] = {
    "epoch": [1, 2, 3, 4],
    "negative_elbo": [250.0, 180.0, 160.0, 150.0],
    "val_negative_elbo": [251.25, 182.25, 171.25, 179.25],
    "reconstruction_loss": [245.0, 174.0, 154.0, 143.0],
    "kl_loss": [5.0, 6.0, 6.0, 7.0],
}
LIKELIHOOD: dict[str, Any] = {
    "split": "test",
    "images": 10000,
    "negative_elbo": {"mean": 150.8312, "standard_error": 0.3121},
    "reconstruction_loss": {"mean": 144.51, "standard_error": 0.305},
    "kl_loss": {"mean": 6.93147, "standard_error": 0.0121},
    "normalized": True,
    "held_out": True,
    "bound": True,
    "density": False,
}


class Page(HTMLParser):
    """Texts and tags of a page; checks that tags are closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.contents: list[str] = []
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img", "input", "source"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            (self.contents if "nav" in self.open else self.texts).append(" ".join(data.split()))

    @property
    def images(self) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == "img"]


def page(**changes: Any) -> Page:
    arguments: dict[str, Any] = {
        "title": "a run",
        "summary": "classic on digits",
        "experiment_toml": 'name = "classic"\n',
        "environment": {"backend": "tensorflow", "versions": {"keras": "3.15.1"}},
        "metrics": METRICS,
        "evaluation": {"likelihood": LIKELIHOOD},
        "figures": {},
    }
    result = Page(render(**(arguments | changes)))
    assert result.open == []
    return result


def webp(levels: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(levels).save(content, format="WEBP", lossless=True)
    return content.getvalue()


@pytest.fixture
def images() -> dict[str, ThemedImage]:
    return {
        name: ThemedImage(
            *(webp(np.full((3 + index, 5), level + index, np.uint8)) for level in (200, 10)), (5, 3 + index)
        )
        for index, name in enumerate(FIGURES)
    }


def decoded(source: str | None) -> bytes:
    return base64.b64decode((source or "").removeprefix("data:image/webp;base64,"), validate=True)


def test_every_figure_is_embedded_for_light_and_dark_pages(images: dict[str, ThemedImage]) -> None:
    assert set(images) == set(PLOTS)
    shown = page(figures=images)
    dark = [attributes for tag, attributes in shown.tags if tag == "source"]
    assert len(shown.images) == len(dark) == len(PLOTS)
    for image, source, expected in zip(shown.images, dark, images.values(), strict=True):
        assert decoded(image["src"]) == expected.light
        assert source["media"] == "(prefers-color-scheme: dark)"
        assert decoded(source["srcset"]) == expected.dark
        assert (image["width"], image["height"]) == tuple(str(side) for side in expected.size)
    assert [image["alt"] for image in shown.images] == [f"{FIGURES[name].heading} of a run" for name in images]


def test_missing_figure_has_no_section(images: dict[str, ThemedImage]) -> None:
    shown = page(figures={"curves": images["curves"]})
    assert [image["alt"] for image in shown.images] == ["Training of a run"]
    assert FIGURES["grid"].heading not in shown.texts


def test_table_of_contents_links_to_every_section(images: dict[str, ThemedImage]) -> None:
    samples = {
        "samples": 2,
        "images": 2,
        "split": "test",
        "images_scored": "means",
        "floor": None,
        "memorization": None,
    }
    shown = page(figures=images, findings=[], evaluation={"likelihood": LIKELIHOOD, "samples": samples})
    sections = [attributes["id"] for tag, attributes in shown.tags if tag == "section"]
    assert len(set(sections)) == len(sections)
    assert [attributes["href"] for tag, attributes in shown.tags if tag == "a"] == [f"#{name}" for name in sections]
    label, *headings = shown.contents
    assert label == "Contents"
    assert [text for text in shown.texts if text in headings] == headings


def test_controls_and_scrolling_boxes_have_names_and_keyboard_focus(images: dict[str, ThemedImage]) -> None:
    shown = page(figures=images, findings=[])
    ids = [attributes["id"] for tag, attributes in shown.tags if tag == "input"]
    assert ids == [attributes["for"] for tag, attributes in shown.tags if tag == "label"]
    boxes = [attributes for _, attributes in shown.tags if "scroll" in (attributes.get("class") or "").split()]
    assert len(boxes) == len(images) + 2
    for box in boxes:
        assert box["tabindex"] == "0"
        assert box["role"] == "region"
        assert box["aria-label"]


def luminance(color: str) -> float:
    """Return the relative luminance of a color by the definition of WCAG 2."""
    levels = [int(color[index : index + 2], 16) / 255 for index in (1, 3, 5)]
    linear = [level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in levels]
    return sum(weight * level for weight, level in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted(luminance(color) for color in (one, other))
    return (high + 0.05) / (low + 0.05)


def test_texts_have_enough_contrast_on_light_and_dark_pages() -> None:
    source = render(title="", summary="", experiment_toml="", environment={}, metrics={}, evaluation=None, figures={})
    light, dark = (dict(re.findall(r"--([a-z-]+): (#[0-9a-f]{6})", block)) for block in source.split("prefers")[:2])
    assert light.keys() == dark.keys()
    assert light != dark
    for colors in (light, dark):
        for ink in ("ink", "soft", "accent", "good", "bad"):
            assert min(contrast(colors[ink], colors[paper]) for paper in ("page", "card")) >= 4.5, ink
        assert contrast(colors["warn-ink"], colors["warn-page"]) >= 4.5
        assert contrast(colors["card"], colors["accent"]) >= 4.5
    assert DARK[PAGE] == dark["card"]
    for page_color, inks in ((PAGE, (INK, SOFT)), (DARK[PAGE], (DARK[INK], DARK[SOFT]))):
        assert min(contrast(ink, page_color) for ink in inks) >= 4.5
    assert min(contrast(DARK[color], DARK[PAGE]) for color in PALETTE) >= 3


def test_page_loads_no_external_content_and_runs_no_scripts(images: dict[str, ThemedImage]) -> None:
    shown = page(figures=images)
    names = {tag for tag, _ in shown.tags}
    assert not names & {"script", "link", "iframe", "object", "form"}
    for _, attributes in shown.tags:
        assert (attributes.get("href") or "#").startswith("#")
        assert not any(name.startswith("on") for name in attributes)
        for source in ("src", "srcset"):
            assert (attributes.get(source) or "data:").startswith("data:")
    style = render(title="", summary="", experiment_toml="", environment={}, metrics={}, evaluation=None, figures={})
    assert not re.search(r"url\(|@import", style)


EVIL = '<script>alert("1")</script>&amp;$title{{ title }}{% if %}'


def test_user_text_is_escaped() -> None:
    shown = page(
        title=EVIL,
        summary=EVIL,
        experiment_toml=EVIL,
        environment={EVIL: {EVIL: EVIL}},
        metrics={EVIL: [1.0]},
        evaluation={"likelihood": LIKELIHOOD | {"split": EVIL}},
    )
    assert "script" not in {tag for tag, _ in shown.tags}
    # Title and heading, summary, experiment, environment's key and value, a metric, the split.
    assert sum(text.count(EVIL) for text in shown.texts) == 2 + 1 + 1 + 3 + 1 + 1


def test_every_text_of_an_evaluation_and_a_finding_is_escaped() -> None:
    estimate = {"nll": {"mean": 1.0}, "samples": 5, "effective_sample_size": {"median": 5.0, "percentile_5": 5.0}}
    samples = {"samples": 2, "images": 2, "images_scored": "means", "floor": None, "memorization": None}
    shown = page(
        figures={},
        findings=[Finding(EVIL, EVIL, EVIL, EVIL)],
        evaluation={
            "likelihood": LIKELIHOOD | estimate | {"proposal": EVIL},
            "samples": samples | {"split": EVIL, "notes": [EVIL]},
            "latents": {"active_units": {"count": 1}, "latent_dim": 2, "notes": [EVIL]},
            "disentanglement": {"factors": [EVIL], "notes": [EVIL]},
        },
    )
    assert "script" not in {tag for tag, _ in shown.tags}
    assert sum(text.count(EVIL) for text in shown.texts) == 4 + 1 + 2 + 1 + 1


def test_results_come_first_with_units_and_standard_errors() -> None:
    shown = page()
    headings = [text for text in shown.texts if text in ("Results", "Epochs", "Settings")]
    assert headings == ["Results", "Epochs", "Settings"]
    for mean, error in (("150.83", "± 0.31"), ("144.51", "± 0.30"), ("6.931", "± 0.012")):
        at = shown.texts.index(mean)
        assert shown.texts[at + 1 : at + 3] == [error, "nats per image"]
    assert any("10,000 images of the test split" in text for text in shown.texts)
    # One bit is ln 2 nats, so 6.93147 nats are 10 bits.
    assert any("here 10 bits" in text for text in shown.texts)


@pytest.mark.parametrize("error", [None, math.nan, 0.0])
def test_missing_standard_error_is_not_shown(error: float | None) -> None:
    numbers = {
        name: {"mean": 12.5, "standard_error": error} for name in ("negative_elbo", "reconstruction_loss", "kl_loss")
    }
    shown = page(evaluation={"likelihood": LIKELIHOOD | numbers})
    assert "12.5" in shown.texts
    assert not any(text.startswith("±") for text in shown.texts)


@pytest.mark.parametrize("held_out", [True, False])
@pytest.mark.parametrize("normalized", [True, False])
def test_warnings_are_shown_exactly_when_they_apply(held_out: bool, normalized: bool) -> None:
    texts = " ".join(
        page(evaluation={"likelihood": LIKELIHOOD | {"held_out": held_out, "normalized": normalized}}).texts
    )
    # One next to each number it concerns, and one that explains it.
    assert texts.count(NOT_HELD_OUT.badge) == (0 if held_out else 3 + 1)
    assert texts.count(NOT_NORMALIZED.badge) == (0 if normalized else 2 + 1)


def test_run_without_evaluation_shows_its_last_epoch() -> None:
    shown = page(evaluation=None, metrics=METRICS | {"val_kl_loss": [1.0, 1.0, 1.0, 1.5]})
    assert "179.2" in shown.texts
    assert "1.5" in shown.texts
    assert any("last epoch on validation images" in text for text in shown.texts)
    alone = page(evaluation=None, metrics={"negative_elbo": [3.0, 2.5]})
    assert any("on training images" in text for text in alone.texts)
    assert "Results" not in page(evaluation=None, metrics={}).texts


def table(shown: Page) -> list[str]:
    start = shown.texts.index("Epochs")
    return shown.texts[start : shown.texts.index("Settings")]


def test_table_shows_the_first_the_best_and_the_last_epoch() -> None:
    texts = table(page())
    assert texts[1:7] == ["epoch 1", "first", "epoch 3", "best", "epoch 4", "last"]
    at = texts.index("negative ELBO, validation")
    assert texts[at + 1 : at + 4] == ["251.2", "171.2", "179.2"]
    at = texts.index("KL loss, training")
    assert texts[at + 1 : at + 4] == ["5.000", "6.000", "7.000"]
    joined = " ".join(texts)
    assert "The best epoch has the lowest negative ELBO, validation ( val_negative_elbo ). Losses are in nats" in joined


def test_best_epoch_is_the_one_that_keep_best_keeps() -> None:
    # The loss is lowest in epochs 2 and 4, and training keeps the later one.
    texts = table(page(metrics=METRICS | {"val_total_loss": [9.0, 7.0, 8.0, 7.0]}))
    assert texts[1:5] == ["epoch 1", "first", "epoch 4", "best, last"]
    joined = " ".join(texts)
    assert 'The best epoch has the lowest total loss, validation ( val_total_loss ), which keep = "best"' in joined


def test_single_epoch_is_first_best_and_last() -> None:
    assert table(page(metrics={"total_loss": [3.0]}))[1:5] == [
        "epoch 1",
        "first, best, last",
        "total loss, training",
        "3.000",
    ]


def test_non_finite_epoch_is_not_the_best() -> None:
    texts = table(page(metrics={"total_loss": [3.0, 2.0, math.nan]}))
    assert texts[1:7] == ["epoch 1", "first", "epoch 2", "best", "epoch 3", "last"]
    assert "not finite" in texts
    assert table(page(metrics={"total_loss": [math.nan, math.nan]}))[1:5] == ["epoch 1", "first", "epoch 2", "last"]


def test_experiment_and_environment_are_shown() -> None:
    texts = page().texts
    assert 'name = "classic"' in texts
    assert texts[texts.index("versions.keras") + 1] == "3.15.1"
    assert texts[texts.index("backend") + 1] == "tensorflow"


def test_unknown_figures_and_incomplete_evaluations_are_rejected(images: dict[str, ThemedImage]) -> None:
    with pytest.raises(InputError, match=r"figure.* 'grids'.*did you mean 'grid'"):
        page(figures={"grids": images["grid"]})
    with pytest.raises(InputError, match=r"evaluation\.likelihood: incomplete, without held_out"):
        page(evaluation={"likelihood": {name: value for name, value in LIKELIHOOD.items() if name != "held_out"}})
    for section in ("latents", "samples", "disentanglement"):
        with pytest.raises(InputError, match=rf"evaluation\.{section}: incomplete, without "):
            page(evaluation={section: {}})


@pytest.mark.parametrize(
    ("evaluation", "message"),
    [
        ({"likelihood": LIKELIHOOD | {"images": "<b>many</b>"}}, "likelihood.images = '<b>many</b>': not an integer"),
        ({"likelihood": LIKELIHOOD | {"kl_loss": {"mean": "low"}}}, "likelihood.kl_loss.mean = 'low': not a number"),
        ({"likelihood": LIKELIHOOD | {"kl_loss": [1]}}, "likelihood.kl_loss = .*: not a table"),
        ({"likelihood": None}, "likelihood = None: not a table"),
        ({"likelihood": ["text"]}, "likelihood = .*: not a table"),
        ({"likelihood": LIKELIHOOD | {"held_out": "no"}}, "likelihood.held_out = 'no': not a Boolean"),
        ({"samples": {"precision": "high"}}, "samples.precision = 'high': not a number"),
        ({"samples": {"kid": {"mean": "low"}}}, "samples.kid = .*mean = 'low': not a number"),
        ({"samples": {"split": 3}}, "samples.split = 3: not a string"),
        ({"latents": {"latent_dim": "2"}}, "latents.latent_dim = '2': not an integer"),
        ({"disentanglement": {"mig": True}}, "disentanglement.mig = True: not a number"),
    ],
)
def test_text_in_place_of_a_number_is_rejected_in_one_line(evaluation: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=f"^evaluation: {message}") as error:
        page(evaluation=evaluation)
    assert len(str(error.value).splitlines()) == 1


def test_text_in_an_evaluation_file_is_rejected_when_it_is_read(tmp_path: Path) -> None:
    run = Run(tmp_path)
    for text in ('{"likelihood": {"nll": {"mean": "x"}}}', "[1]", '"text"', "{"):
        (tmp_path / "evaluation.json").write_text(text)
        with pytest.raises(InputError, match=r"evaluation\.json: ") as error:
            _ = run.evaluation
        assert len(str(error.value).splitlines()) == 1


def test_findings_are_shown_with_commands_as_code() -> None:
    finding = Finding("codes far from the prior", "1 < 2 nats", "samples will look bad", "`vae fit-prior RUN`")
    shown = page(findings=[finding])
    assert "1 < 2 nats" in shown.texts
    assert "vae fit-prior RUN" in shown.texts
    assert ("code", {}) in shown.tags
    assert f"No problems found ({len(CHECKS)} checks passed)." in page(findings=[]).texts
    assert "Diagnostics" not in page().texts
    few = LIKELIHOOD | {
        "nll": {"mean": 140.25, "standard_error": 0.5},
        "samples": 1000,
        "proposal": "posterior",
        "effective_sample_size": {"median": 17.0, "percentile_5": 1.5},
        "trusted": False,
    }
    texts = page(evaluation={"likelihood": few}).texts
    assert "140.25" in texts
    assert texts.count(UNTRUSTED.badge) == 2
    assert UNTRUSTED.badge not in page(evaluation={"likelihood": few | {"trusted": True}}).texts


def test_sample_quality_is_shown_next_to_that_of_real_images() -> None:
    numbers = {"frechet_distance": 67.5, "precision": 0.81, "recall": 0.79, "density": 0.48, "coverage": 0.42}
    error = {"mean": 39.1, "standard_error": 0.6}
    section = {
        **numbers,
        "kid": error,
        "samples": 10_000,
        "images": 5000,
        "split": "test",
        "images_scored": "means",
        "floor": {**dict.fromkeys(numbers, 0.9375), "kid": None},
        "memorization": {"copying_suspected": True},
        "notes": ["a remark"],
    }
    texts = page(evaluation={"samples": section}).texts
    for text in ("67.5", "0.9375", "39.10", "± 0.60", "–", "a remark"):
        assert text in texts
    assert any("may be copying training images" in text for text in texts)
    alone = page(evaluation={"samples": section | {"floor": None, "memorization": None}}).texts
    assert "0.9375" not in alone
    assert "real images" not in alone


def test_disentanglement_and_latent_codes_are_tables() -> None:
    scores = {name: 0.125 * index for index, name in enumerate(SCORES)}
    texts = page(evaluation={"disentanglement": {**scores, "factors": ["shape", "size"]}}).texts
    assert {f"{value:.4g}" for value in scores.values()} <= set(texts)
    assert any("2 known factors" in text for text in texts)
    latents = {"active_units": {"count": 3}, "latent_dim": 8}
    texts = page(evaluation={"latents": latents | {"mutual_information": {"mean": 5.5, "standard_error": None}}}).texts
    assert "3 of 8" in texts
    assert "5.5" in texts
    ends = {end: {"mean": mean, "standard_error": 0.1} for end, mean in (("lower", 9.207), ("upper", 18.42))}
    texts = page(evaluation={"latents": latents | {"mutual_information_bounds": ends}}).texts
    assert "9.2 – 18.4 nats" in texts
