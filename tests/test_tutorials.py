"""The tutorials: every page runs from its first to its last cell, and begins with its result as a picture."""

import base64
from pathlib import Path

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from tools import notebooks
from tools.site import navigation

from helpers import on_tensorflow

pytestmark = [pytest.mark.slow, on_tensorflow("the tutorials use the default backend")]

PAGE = '# A page\n\n![A line](page.png)\n\n[More](more.md)\n\n```python tags=["picture"]\n{code}\n```\n'
DRAW = "import uuid\nimport matplotlib.pyplot as plt\nprint(uuid.uuid4())\nplt.plot([1, 2])\nplt.show()"


@pytest.fixture
def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tutorial of one cell, whose printed text differs each time it runs."""
    monkeypatch.setattr(notebooks, "PAGES", tmp_path)
    monkeypatch.setattr(notebooks, "NOTEBOOKS", tmp_path / "notebooks")
    path = tmp_path / "page.md"
    path.write_text(PAGE.format(code=DRAW), "utf-8")
    return path


@pytest.mark.parametrize("name", navigation.TUTORIALS)
def test_tutorial_runs_and_begins_with_its_picture(name: str) -> None:
    notebook = notebooks.executed(name)
    title, picture, *_ = notebook.cells[0].source.split("\n\n")
    assert title.startswith("# ")
    assert picture.startswith("![")
    assert picture.endswith(f"]({name}.png)")
    assert notebooks.picture(notebook).startswith(b"\x89PNG")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.execution_count for cell in code)
    outputs = [output for cell in code for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


def test_notebook_runs_again_only_if_its_code_has_changed(page: Path) -> None:
    first = notebooks.executed("page").cells[-1]
    page.write_text(page.read_text("utf-8").replace("# A page", "# The page"), "utf-8")
    second = notebooks.executed("page")
    assert second.cells[0].source.startswith("# The page")
    assert second.cells[-1].outputs == first.outputs
    page.write_text(page.read_text("utf-8").replace("[1, 2]", "[1, 3]"), "utf-8")
    assert notebooks.executed("page").cells[-1].outputs[0].text != first.outputs[0].text


def test_failing_cell_fails_the_tutorial_each_time(page: Path) -> None:
    page.write_text(PAGE.format(code="assert 1 > 2"), "utf-8")
    for _ in range(2):
        with pytest.raises(CellExecutionError, match="AssertionError"):
            notebooks.executed("page")


def test_downloaded_notebook_needs_no_other_file(page: Path) -> None:
    first = nbformat.reads(notebooks.portable("page"), as_version=4).cells[0]
    assert "![A line](attachment:page.png)" in first.source
    assert first.source.endswith("\n\nMore")
    assert base64.b64decode(first.attachments["page.png"]["image/png"]).startswith(b"\x89PNG")


def test_all_tutorials_are_converted_by_default(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["notebooks"])
    notebooks.main()
    assert (page.parent / "page.png").read_bytes().startswith(b"\x89PNG")
    monkeypatch.setattr("sys.argv", ["notebooks", "paeg"])
    with pytest.raises(SystemExit):
        notebooks.main()
