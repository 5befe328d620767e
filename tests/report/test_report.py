"""The HTML page of a run."""

import base64
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
from keras_vae.report.html import render
from keras_vae.report.plots import PLOTS

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
        self.open: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open[-1] != "style":
            self.texts.append(" ".join(data.split()))

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


@pytest.fixture
def pngs(tmp_path: Path) -> dict[str, Path]:
    paths = {}
    for index, name in enumerate(FIGURES):
        paths[name] = tmp_path / f"{name}.png"
        Image.fromarray(np.full((3 + index, 5), 10 * index, np.uint8)).save(paths[name])
    return paths


def test_every_figure_is_embedded_with_its_size(pngs: dict[str, Path]) -> None:
    assert set(pngs) == set(PLOTS)
    images = page(figures=pngs).images
    assert len(images) == len(PLOTS)
    for image, path in zip(images, pngs.values(), strict=True):
        source = image["src"] or ""
        assert base64.b64decode(source.removeprefix("data:image/png;base64,"), validate=True) == path.read_bytes()
        with Image.open(path) as picture:
            assert (image["width"], image["height"]) == tuple(str(side) for side in picture.size)
        assert image["alt"]


def test_missing_figure_has_no_section(pngs: dict[str, Path]) -> None:
    shown = page(figures={"curves": pngs["curves"]})
    assert [attributes["id"] for tag, attributes in shown.tags if tag == "section"] == ["curves"]
    assert FIGURES["grid"].heading not in shown.texts


def test_page_loads_no_external_content_and_runs_no_scripts(pngs: dict[str, Path]) -> None:
    shown = page(figures=pngs)
    names = {tag for tag, _ in shown.tags}
    assert not names & {"script", "link", "iframe", "object", "a"}
    for _, attributes in shown.tags:
        assert "href" not in attributes
        assert not any(name.startswith("on") for name in attributes)
        assert (attributes.get("src") or "data:").startswith("data:")
    style = render(title="", summary="", experiment_toml="", environment={}, metrics={}, evaluation=None, figures={})
    assert not re.search(r"url\(|@import", style)


def test_user_text_is_escaped() -> None:
    evil = '<script>alert("1")</script>&amp;$title'
    shown = page(
        title=evil,
        summary=evil,
        experiment_toml=evil,
        environment={evil: {evil: evil}},
        metrics={evil: [1.0]},
        evaluation={"likelihood": LIKELIHOOD | {"split": evil}},
    )
    assert "script" not in {tag for tag, _ in shown.tags}
    # Title and heading, summary, experiment, environment's key and value, a metric, the split.
    assert sum(text.count(evil) for text in shown.texts) == 2 + 1 + 1 + 3 + 1 + 1


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
    assert "The best epoch has the lowest negative ELBO, validation. Losses are in nats per image." in texts


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


def test_invalid_figures_and_evaluations_are_rejected(tmp_path: Path, pngs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=r"figure.* 'grids'.*did you mean 'grid'"):
        page(figures={"grids": pngs["grid"]})
    with pytest.raises(InputError, match=r"figures\['grid'\] = .*none.png: No such file"):
        page(figures={"grid": tmp_path / "none.png"})
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"figures\['grid'\] = .*text.png: not a PNG"):
        page(figures={"grid": tmp_path / "text.png"})
    with pytest.raises(InputError, match="evaluation: incomplete, without held_out"):
        page(evaluation={"likelihood": {name: value for name, value in LIKELIHOOD.items() if name != "held_out"}})


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
