"""Navigation of the site: the order of its pages, appended to pages as tables of contents."""

from collections.abc import Iterable

from keras_vae.runs.experiment import preset_names
from tools.site import components, pages
from tools.site.guidance import KINDS

TUTORIALS = ["first-vae", "likelihoods", "disentanglement", "color-samples", "anomalies", "few-labels"]
"""Names of the tutorials, in the order in which to read them."""

FRONT_PAGE = {
    "Start": ["report", "commands", "keras", "examples/index"],
    "Tutorials": ["tutorials/index", *(f"tutorials/{name}" for name in TUTORIALS)],
    "Guides": [
        "photographs",
        "beta",
        "samples",
        "doctor",
        "explorer",
        "anomaly",
        "production",
        "color",
        "missing-pixels",
        "scale",
        "export",
        "own-component",
        "migration",
    ],
    "Reference": ["components", "presets/index", "api/index"],
    "Results": ["results", "gallery", "performance", "benchmarks"],
    "Project": ["architecture", "contributing", "changelog"],
}
"""Pages in the navigation, by the caption above them."""


def appended() -> dict[str, str]:
    """Return the tables of contents by the page that they belong to."""
    found = {"index.md": "".join(_toctree(documents, caption) for caption, documents in FRONT_PAGE.items())}
    kinds = [f"components/{kind}" for kind in KINDS]
    found["examples/index.md"] = _toctree(path.removesuffix(".md") for path in pages.programs().values())
    found["components.md"] = _toctree(kinds)
    found["presets/index.md"] = _toctree(f"presets/{name}" for name in preset_names())
    return found | {f"components/{kind}.md": _toctree(components.documents_of_kind(kind)) for kind in KINDS}


def _toctree(documents: Iterable[str], caption: str = "") -> str:
    options = [":hidden:", *([f":caption: {caption}"] if caption else [])]
    return "\n".join(["", "```{toctree}", *options, "", *(f"/{page}" for page in documents), "```", ""])
