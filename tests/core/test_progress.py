"""Progress bars on terminals, and lines in logs."""

import io

import pytest
from rich.console import Console

from keras_vae.core import progress


def test_bar_shows_title_and_counts_on_a_terminal() -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=True)
    assert list(progress.track(console, range(3), "counting")) == [0, 1, 2]
    assert "counting" in output.getvalue()


def test_spinner_shows_its_title_only_on_a_terminal() -> None:
    for is_terminal in (True, False):
        output = io.StringIO()
        with progress.spinner(Console(file=output, force_terminal=is_terminal), "loading"):
            pass
        assert ("loading …" in output.getvalue()) is is_terminal


def test_log_has_a_line_only_if_the_work_is_long(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = iter(range(0, 1000, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(seconds))
    output = io.StringIO()
    console = Console(file=output, force_terminal=False)
    assert list(progress.track(console, range(2), "short")) == [0, 1]
    assert output.getvalue() == ""
    assert list(progress.track(console, range(9), "long")) == list(range(9))
    lines = output.getvalue().splitlines()
    assert lines[0] == "long: 2 of 9"
    assert 2 <= len(lines) <= 4
