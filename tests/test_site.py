"""The documentation site: every public name, component and preset has a page, and the site builds without a warning."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tools.site import api, components, navigation, pages, presets
from tools.site.docstrings import summary, to_rst

import keras_vae
from helpers import on_tensorflow
from keras_vae.core import registry
from keras_vae.runs.experiment import Experiment, preset_names

ROOT = Path(__file__).parents[1]


def blocks(language: str) -> list[tuple[str, str]]:
    """Return the code of the pages of components, with its page."""
    found = components.pages().items()
    pattern = rf"^```{language}\n(.+?)^```"
    return [(page, code) for page, text in found for code in re.findall(pattern, text, re.DOTALL | re.MULTILINE)]


def test_every_public_name_has_an_entry() -> None:
    entries = set(re.findall(r"^\.\. auto\w+:: (\S+)$", "\n".join(api.pages().values()), re.MULTILINE))
    for name in keras_vae.__all__:
        public = getattr(keras_vae, name)
        members = api.exported(public) if isinstance(public, type(keras_vae)) else []
        full_names = [f"keras_vae.{name}.{member}" for member in members] or [f"keras_vae.{name}"]
        for full_name in full_names:
            if full_name not in ("keras_vae.__version__", "keras_vae.distributions.image"):
                assert api.link(full_name) in entries, full_name


def test_every_component_and_preset_has_a_page_with_its_parameters() -> None:
    found = components.pages()
    for kind, classes in registry.snapshot().items():
        for name, cls in classes.items():
            if cls.__module__.startswith("keras_vae."):
                page = found[f"components/{kind.replace('_', '-')}-{name}.md"]
                for parameter in registry.settings(cls):
                    assert re.search(rf"^\| `{parameter}` \| .+ \| \S.+ \|$", page, re.MULTILINE), (
                        f"{name}: {parameter}"
                    )
    for name in preset_names():
        assert "**Do not use it**" in presets.pages()[f"presets/{name}.md"]


def test_experiment_files_on_the_pages_of_components_select_them() -> None:
    files = [(page, code) for page, code in blocks("toml") if page.startswith("components/")]
    assert len(files) > 35
    for page, code in files:
        name = re.sub(r"components/(image-)?[a-z]+-", "", page).removesuffix(".md")
        assert f'"{name}"' in code
        assert name in Experiment.from_toml(code, page).to_toml()


@pytest.mark.slow
@on_tensorflow("the code is the same on every backend")
@pytest.mark.parametrize(("page", "code"), [block for block in blocks("python") if "fit_prior(" not in block[1]])
def test_python_code_of_a_component_runs(page: str, code: str) -> None:
    exec(code, {})


def test_docstring_becomes_restructuredtext() -> None:
    def link(name: str) -> str | None:
        return "keras_vae.priors.VampPrior" if name == "VampPrior" else None

    assert to_rst(r"The \(q(z|x)\) of `VampPrior`, `z_` and p(z|x).", link) == (
        r"The :math:`q(z|x)` of :py:obj:`VampPrior <keras_vae.priors.VampPrior>`, ``z_`` and p(z\|x)."
    )
    assert to_rst("    \\[a\n    = b.\\]\n\nText") == "    .. math::\n\n       a = b.\n\n\n\nText"
    assert to_rst("Text.\n\n>>> f('`a|b`')\n'`*'\n\nA * b") == "Text.\n\n>>> f('`a|b`')\n'`*'\n\nA \\* b"
    assert to_rst("* one\n* two*") == "* one\n* two\\*"
    assert summary("The bound, \\(a.b\\). It is tight.\n\nMore.") == "The bound, \\(a.b\\)."


def test_links_of_a_page_lead_to_pages_of_the_site() -> None:
    text = "[a](../CONTRIBUTING.md#rules) [b](gallery/classic.md) ![c](anomaly.png) `[d](e.md)` [f](https://x.org/y.md)"
    expected = (
        "[a](contributing.md#rules) [b](presets/classic.md) ![c](anomaly.png) `[d](e.md)` [f](https://x.org/y.md)"
    )
    assert pages.written("docs/x.md", "x.md", text) == expected
    with pytest.raises(ValueError, match=r"docs/x\.md: the link none\.md leads to no page"):
        pages.written("docs/x.md", "x.md", "[a](none.md)")


def test_every_page_is_in_the_navigation() -> None:
    documents = [*pages.pages(), *pages.tutorials().values(), *components.pages(), *presets.pages()]
    found = {path.rsplit(".", 1)[0] for path in documents}
    listed = set(re.findall(r"^/(\S+)$", "".join(navigation.appended().values()), re.MULTILINE))
    assert found - listed == {"index"}


@pytest.mark.slow
@on_tensorflow("the site does not depend on the backend")
def test_site_builds_without_warnings_and_shows_formulas(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "tools.site", "--out", tmp_path], cwd=ROOT, capture_output=True, text=True
    )
    assert built.returncode == 0, built.stderr
    page = (tmp_path / "html" / "api" / "objectives.html").read_text("utf-8")
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML">' in page
    tutorial = (tmp_path / "html" / "tutorials" / "first-vae.html").read_text("utf-8")
    assert "nats per image" in tutorial
    assert 'href="first-vae.ipynb"' in tutorial
    assert (tmp_path / "html" / "tutorials" / "first-vae.ipynb").exists()
    for html in (tmp_path / "html").rglob("*.html"):
        assert not re.search(r'<(?:script|img|link)[^>]* (?:src|href)="https?:', html.read_text("utf-8")), html
