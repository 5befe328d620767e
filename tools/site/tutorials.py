"""Tutorials: pages of the site that are executed notebooks, and the notebooks themselves, to download."""

from pathlib import Path

import nbformat

from tools import notebooks
from tools.site.pages import tutorials, written


def pages() -> dict[str, str]:
    """Return the executed tutorials as notebooks, by their paths on the site."""
    found = {}
    for path, site_path in tutorials().items():
        name = Path(path).stem
        notebook = notebooks.executed(name)
        for cell in notebook.cells:
            if cell.cell_type == "markdown":
                cell.source = written(path, site_path, cell.source)
        link = f'<a href="{name}.ipynb" download>Download this page as a notebook</a>'
        notebook.cells.append(nbformat.v4.new_markdown_cell(link))
        found[site_path] = nbformat.writes(notebook)
    return found


def pictures() -> dict[str, bytes]:
    """Return the pictures at the top of the tutorials as PNGs, by their paths on the site."""
    return {f"tutorials/{name}.png": notebooks.picture(notebooks.executed(name)) for name in notebooks.names()}


def downloads() -> dict[str, str]:
    """Return the notebooks to download, by their paths on the site."""
    return {f"tutorials/{name}.ipynb": notebooks.portable(name) for name in notebooks.names()}
