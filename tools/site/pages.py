"""Pages of the site that are files of the repository: Markdown that GitHub shows as well, with links between them."""

import posixpath
import re
from pathlib import Path

from keras_vae.evaluation.descriptions import FIGURES
from keras_vae.runs.experiment import preset_names
from tools import notebooks

ROOT = Path(__file__).parents[2]

MOVED = {
    "README.md": "index.md",
    "docs/index.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/results.md": "benchmarks.md",
    "examples": "examples/index.md",
}
"""Pages whose path on the site is not that in docs/."""

LINK = re.compile(r"(?<=\]\()(?!https?:)([^)\s#]+)(?=[)#])")
CODE = re.compile(r"^```.*?^```|`[^`\n]+`", re.DOTALL | re.MULTILINE)


def documents() -> dict[str, str]:
    """Return the path on the site of each page of the repository, by its path in the repository."""
    found = dict(MOVED)
    for page in sorted((ROOT / "docs").rglob("*.md")):
        path = page.relative_to(ROOT).as_posix()
        gallery_page = page.parent.name == "gallery" and page.stem in preset_names()
        found.setdefault(path, f"presets/{page.name}" if gallery_page else path.removeprefix("docs/"))
    return found | tutorials() | programs()


def tutorials() -> dict[str, str]:
    """Return the path on the site of each tutorial, an executed notebook, by its path in the repository."""
    return {f"docs/tutorials/{name}.md": f"tutorials/{name}.ipynb" for name in notebooks.names()}


def programs() -> dict[str, str]:
    """Return the path on the site of each program in examples/, by its path in the repository."""
    found = sorted((ROOT / "examples").glob("*.py"))
    return {f"examples/{program.name}": f"examples/{program.stem}.md" for program in found}


def written(repository_path: str, site_path: str, text: str) -> str:
    """Return the text of a page with its links as they are on the site.

    Args:
        repository_path: Path of the page in the repository, from which its links are relative.
        site_path: Path of the page on the site.
        text: The text.

    Raises:
        ValueError: A link leads to a file that is neither a page nor an image.
    """
    pages = documents()

    def moved(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(repository_path), match[1]))
        if target not in pages and not target.endswith(".png"):
            raise ValueError(f"{repository_path}: the link {match[1]} leads to no page of the site")
        return posixpath.relpath(pages.get(target, target.removeprefix("docs/")), posixpath.dirname(site_path) or ".")

    parts, end = [], 0
    for code in CODE.finditer(text):
        parts += [LINK.sub(moved, text[end : code.start()]), code[0]]
        end = code.end()
    return "".join([*parts, LINK.sub(moved, text[end:])])


def pages() -> dict[str, str]:
    """Return the pages in Markdown by their paths on the site. Those of the gallery become parts of other pages."""
    found = {}
    for path, site_path in documents().items():
        if site_path.endswith(".md") and path.endswith(".md") and path != "README.md" and "presets/" not in site_path:
            found[site_path] = written(path, site_path, (ROOT / path).read_text("utf-8"))
    found["report.md"] += _figures()
    found |= {site_path: _program_page(path) for path, site_path in programs().items()}
    return found | {"examples/index.md": _list_of_programs()}


def with_latent_map(text: str) -> str:
    """Return the front page with a frame for the page `latent-map/index.html` in place of its picture."""
    frame = '<iframe class="latent-map" src="latent-map/index.html" title="Latent map of mnist-2d"></iframe>'
    replaced, count = re.subn(r"^!\[.*\]\(latent-grid\.png\)$", frame, text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError("docs/index.md: the picture latent-grid.png is missing")
    return replaced


def pictures() -> dict[str, Path]:
    """Return the images of docs/, by their paths on the site."""
    folder = ROOT / "docs"
    return {image.relative_to(folder).as_posix(): image for image in sorted(folder.rglob("*.png"))}


def _figures() -> str:
    """Return the explanations of the report's figures, which the report itself shows below each figure."""
    rows = [f"| {figure.heading} | {figure.good} | {figure.bad} |" for figure in FIGURES.values()]
    head = ["## The figures", "", "| figure | good signs | bad signs |", "|---|---|---|"]
    return "\n".join(["", *head, *rows, ""])


def _summary(path: str) -> str:
    return (ROOT / path).read_text("utf-8").split('"""')[1].strip().split("\n\n")[0].replace("\n", " ")


def _program_page(path: str) -> str:
    return f"# {path}\n\n{_summary(path)}\n\n```python\n{(ROOT / path).read_text('utf-8')}```\n"


def _list_of_programs() -> str:
    rows = [f"* [{path}]({Path(site_path).name}): {_summary(path)}" for path, site_path in programs().items()]
    return "\n".join(["# Examples", "", "Complete programs in `examples/`.", "", *rows, ""])
