"""The example of transfer learning runs and shows that codes need fewer labels than pixels."""

import runpy
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "transfer_learning.py"


def test_codes_need_fewer_labels_than_pixels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    codes, pixels = (float(line.rsplit(" ", 1)[1]) for line in capsys.readouterr().out.splitlines()[-2:])
    assert 0.1 < pixels < codes
