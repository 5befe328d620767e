"""Convert the tutorials, Markdown pages with Python code, into executed notebooks.

    python -m tools.notebooks            # writes build/notebooks/NAME.ipynb and docs/tutorials/NAME.png
    python -m tools.notebooks NAME …

The figure of the cell with the tag "picture" becomes the picture at the top of the tutorial.
"""

import argparse
import ast
import base64
import hashlib
import json
import os
import re
import tempfile
from pathlib import Path

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import jupytext
import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

from keras_vae.core import backend
from keras_vae.core.locks import locked

ROOT = Path(__file__).parents[1]
PAGES, NOTEBOOKS = ROOT / "docs" / "tutorials", ROOT / "build" / "notebooks"
PACKAGE = ROOT / "src" / "keras_vae"

KERNEL = {"name": "python3", "display_name": "Python 3", "language": "python"}

STYLE = (
    "import matplotlib; from keras_vae.report.figures.style import PALETTE, STYLE; "
    "matplotlib.rcParams.update(STYLE | {'axes.prop_cycle': matplotlib.cycler(color=PALETTE)})"
)
"""Code that gives the figures of a notebook the style of the package."""

LINK = re.compile(r"(?<!!)\[([^]]+)\]\((?!https?:)[^)]+\)")
"""A link to another page of the documentation."""


def names() -> list[str]:
    """Return the names of all tutorials."""
    return sorted(page.stem for page in PAGES.glob("*.md") if page.stem != "index")


def executed(name: str) -> NotebookNode:
    """Return a tutorial as an executed notebook. Its code runs only if it or the package has changed.

    Args:
        name: Name of the tutorial.

    Raises:
        nbclient.exceptions.CellExecutionError: A cell failed.
    """
    notebook, path = jupytext.read(PAGES / f"{name}.md"), NOTEBOOKS / f"{name}.ipynb"
    notebook.metadata |= {"kernelspec": KERNEL, "digest": _digest(notebook)}
    # Tests and the site may ask for the same tutorial at the same time.
    with locked(path, timeout=-1):
        earlier = nbformat.read(path, as_version=4) if path.exists() else None
        if earlier is not None and earlier.metadata.get("digest") == notebook.metadata.digest:
            for cell, same in zip(_code(notebook), _code(earlier), strict=True):
                cell.outputs, cell.execution_count = same.outputs, same.execution_count
        else:
            _execute(notebook)
        nbformat.write(notebook, path)
    return notebook


def picture(notebook: NotebookNode) -> bytes:
    """Return the figure of the cell with the tag "picture", as a PNG.

    Raises:
        ValueError: Not exactly one such figure was drawn.
    """
    cells = [cell for cell in _code(notebook) if "picture" in cell.metadata.get("tags", ())]
    found = [output.get("data", {}).get("image/png") for cell in cells for output in cell.outputs]
    images = [image for image in found if image is not None]
    if len(images) != 1:
        raise ValueError(f"{len(images)} figures are drawn by cells with the tag 'picture'; there must be one")
    return base64.b64decode(images[0])


def portable(name: str) -> str:
    """Return an executed tutorial that needs no other file: its picture is attached, and links to pages are removed.

    Args:
        name: Name of the tutorial.
    """
    notebook = executed(name)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = LINK.sub(r"\1", cell.source)
    first, file = notebook.cells[0], f"{name}.png"
    first.source = first.source.replace(f"({file})", f"(attachment:{file})")
    first.attachments = {file: {"image/png": base64.b64encode(picture(notebook)).decode()}}
    return nbformat.writes(notebook)


def _execute(notebook: NotebookNode) -> None:
    """Execute all cells in an empty folder, and store their outputs in the notebook."""
    with tempfile.TemporaryDirectory() as folder:
        NotebookClient(
            notebook,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--log-level=ERROR", f"--IPKernelApp.exec_lines={STYLE}"],
            record_timing=False,
            coalesce_streams=True,
        ).execute()


def _digest(notebook: NotebookNode) -> str:
    """Return a checksum of the code of a notebook, except for its layout, and of all on which its outputs depend."""
    code = (ast.dump(ast.parse(cell.source)).encode() for cell in _code(notebook))
    package = (file.read_bytes() for file in sorted(PACKAGE.rglob("*")) if file.is_file() and file.suffix != ".pyc")
    software = json.dumps([backend.describe_software(), os.environ["KERAS_BACKEND"], STYLE]).encode()
    return hashlib.sha256(b"".join([*code, *package, software])).hexdigest()


def _code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def main() -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(names())}; all by default")
    chosen = parser.parse_args().names
    if unknown := set(chosen) - set(names()):
        parser.error(f"NAME = {', '.join(sorted(unknown))}: not a tutorial; pass some of {', '.join(names())}")
    for name in chosen or names():
        (PAGES / f"{name}.png").write_bytes(picture(executed(name)))
        print(NOTEBOOKS / f"{name}.ipynb")


if __name__ == "__main__":
    main()
