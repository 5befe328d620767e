"""CSV files that grow by whole rows."""

import errno
import os
from pathlib import Path

import numpy as np
import pytest

from keras_vae.core.errors import InputError
from keras_vae.core.row_log import RowLog


def append(log: RowLog, *names: str) -> None:
    log.append({"name": np.array(names), "value": np.arange(len(names)) + 0.5})


def open_log(path: Path, key: object = 1, *, force: bool = False) -> RowLog:
    return RowLog(path, ("name", "value"), key=key, force=force)


def test_rows_accumulate_over_several_openings(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    append(open_log(out), "a", "b, c")
    append(open_log(out), 'd "e"')
    append(open_log(out), "=1+1")
    assert "\n'=1+1," in out.read_text(), "no spreadsheet may evaluate a name"
    assert open_log(out).rows() == [
        {"name": "a", "value": "0.5"},
        {"name": "b, c", "value": "1.5"},
        {"name": 'd "e"', "value": "0.5"},
        {"name": "=1+1", "value": "0.5"},
    ]


def test_a_row_that_was_cut_off_anywhere_is_removed(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    log = open_log(out)
    append(log, "a")
    kept = out.read_bytes()
    append(log, "second")
    whole = out.read_bytes()
    for end in range(len(kept), len(whole)):
        out.write_bytes(whole[:end])
        assert [row["name"] for row in open_log(out).rows()] == ["a"]
        assert out.read_bytes() == kept
        append(open_log(out), "second")
        assert out.read_bytes() == whole


def test_other_settings_do_not_continue_a_file(tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    append(open_log(out), "a")
    content = out.read_bytes()
    with pytest.raises(InputError, match=r"t\.csv: exists, and was not written by this model with these settings"):
        open_log(out, key=2)
    with pytest.raises(InputError, match="exists"):
        RowLog(out, ("name", "other"), key=1)
    assert out.read_bytes() == content
    assert open_log(out, key=2, force=True).rows() == []
    (tmp_path / ".t.csv.key").unlink()
    with pytest.raises(InputError, match="replace it with --force"):
        open_log(out, key=2)


def test_a_full_disk_leaves_only_whole_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "t.csv"
    log = open_log(out)
    append(log, "a")
    content, write, calls = out.read_bytes(), os.write, []

    def write_half(descriptor: int, data: memoryview) -> int:
        calls.append(len(data))
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(descriptor, data[: len(data) // 2])

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write_half)
        with pytest.raises(OSError, match="No space left"):
            append(log, "second")
    assert len(calls) == 2
    assert out.read_bytes() == content
    append(log, "third")
    assert [row["name"] for row in log.rows()] == ["a", "third"]
