"""Pages of presets, from their experiment files, docs/components.md and the gallery."""

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from keras_vae.runs.experiment import preset_names
from tools.site.guidance import guidance, page_of, preset_guidance
from tools.site.pages import ROOT, written

FOLDER = ROOT / "src" / "keras_vae" / "runs" / "presets"


def pages() -> dict[str, str]:
    """Return the pages in Markdown, by path."""
    return {f"presets/{name}.md": _page(name) for name in preset_names()} | {"presets/index.md": _list()}


def with_links(text: str, folder: str) -> str:
    """Return a page whose tables of presets link them.

    Args:
        text: The page.
        folder: Folder of the presets, relative to the page.
    """

    def linked(table: re.Match[str]) -> str:
        cell = re.compile(r"^\|.+?\|", re.MULTILINE)
        return cell.sub(lambda first: name.sub(rf"[`\1`]({folder}\1.md)", first[0]), table[0])

    name = re.compile(r"(?:\[)?`([\w-]+)`(?:\]\([^)]+\))?")
    return re.sub(r"^\| preset \|.*\n(?:\|.*\n)+", linked, text, flags=re.MULTILINE)


def uses(preset: str, kind: str, name: str) -> bool:
    """Return whether the experiment file of a preset names a component."""
    settings = tomllib.loads((FOLDER / f"{preset}.toml").read_text("utf-8"))
    keys = {kind, f"{kind}es"}
    return any(key in keys and name in _names(value) for key, value in _items(settings))


def _items(table: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        yield key, value
        if isinstance(value, dict):
            yield from _items(value)


def _names(value: Any) -> list[Any]:
    values = value if isinstance(value, list) else [value]
    return [entry.get("name") if isinstance(entry, dict) else entry for entry in values]


def _page(name: str) -> str:
    file = (FOLDER / f"{name}.toml").read_text("utf-8")
    lines = [
        f"# {name}",
        "",
        f"{tomllib.loads(file)['description']}.",
        "",
        f"**Do not use it** {preset_guidance()[name]}.",
        "",
    ]
    lines += [run_of(name), "", "## Experiment file", "", "```toml", file.strip(), "```", ""]
    used = [key for key in guidance() if uses(name, *key)]
    links = ", ".join(f"[`{component}`](../components/{page_of(kind, component)}.md)" for kind, component in used)
    return "\n".join([*lines, f"Its components: {links}.", ""])


def run_of(name: str) -> str:
    """Return the figure, the command and the numbers of the run of a preset, from the gallery if it has any."""
    site_path = f"presets/{name}.md"
    page = ROOT / "docs" / "gallery" / f"{name}.md"
    if page.exists():
        text = page.read_text("utf-8").split("\n", 4)[-1]
        return "## A run\n\n" + written(f"docs/gallery/{name}.md", site_path, text)
    gallery = (ROOT / "docs" / "gallery.md").read_text("utf-8")
    section = re.search(rf"^### `{name}`\n(.+?)(?=^### |\Z)", gallery, re.DOTALL | re.MULTILINE)
    if section:
        return "## A run\n\n" + written("docs/gallery.md", site_path, section[1].strip())
    return f"```bash\nvae train {name}\n```\n\nNo run of this preset has been measured for these pages yet."


def _list() -> str:
    rows = [
        f"| [`{name}`]({name}.md) | {tomllib.loads((FOLDER / f'{name}.toml').read_text('utf-8'))['description']} |"
        for name in preset_names()
    ]
    head = ["# Presets", "", "`vae train NAME` trains a preset: an experiment file that comes with the package.", ""]
    return "\n".join([*head, "| preset | description |", "|---|---|", *rows, ""])
