"""Locks: one writer at a time, who holds a lock, and locks of processes that were killed."""

import os
import platform
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.files import replacing_folder, write_text
from keras_vae.core.locks import locked
from lock_helpers import held_elsewhere


def test_lock_excludes_others_and_names_the_holder(tmp_path: Path) -> None:
    out = tmp_path / "codes.npz"
    holder = f"in use by process {os.getpid()} on {platform.node()} (`"
    with held_elsewhere(locked(out)):
        assert (tmp_path / ".codes.npz.lock").exists()
        with pytest.raises(RunError) as caught, locked(out):
            pass
        with locked(tmp_path / "other.npz"):
            pass
    assert str(caught.value).startswith(f"out = {out}: {holder}")
    assert str(caught.value).endswith("; wait until it ends")
    assert len(str(caught.value).splitlines()) == 1
    with locked(out):
        pass
    assert list(tmp_path.iterdir()) == []


def test_thread_may_lock_repeatedly_and_different_spellings_are_the_same(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    with locked(tmp_path / "a"), locked(tmp_path / "link" / "a"):
        with locked(tmp_path / "b" / ".." / "a"):
            pass
        assert (tmp_path / ".a.lock").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["link"]


def test_lock_of_a_killed_process_is_recovered(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from keras_vae.core.locks import locked\n"
        "with locked(Path(sys.argv[1]), inside=True): print('locked', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"locked\n"
    with pytest.raises(RunError, match=f"in use by process {process.pid} on "), locked(tmp_path, inside=True):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert (tmp_path / ".lock").exists()
    with locked(tmp_path, inside=True):
        assert f'"pid": {os.getpid()}' in (tmp_path / ".lock").read_text()
    assert not (tmp_path / ".lock").exists()


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"pid": "x\\n"}', '{"pid": 1, "host": "a\\u001b[31m\\nb"}'])
def test_damaged_lock_file_does_not_hide_the_message(tmp_path: Path, content: str) -> None:
    with held_elsewhere(locked(tmp_path / "a")):
        (tmp_path / ".a.lock").write_text(content)
        with pytest.raises(RunError, match=r"in use by another process; wait until it ends$"), locked(tmp_path / "a"):
            pass


def test_lock_that_cannot_be_written_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match=r"^out = .*file/a: cannot be written: "), locked(tmp_path / "file" / "a"):
        pass
    (tmp_path / ".b.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RunError, match="cannot be written: "), locked(tmp_path / "b"):
        pass
    assert not (tmp_path / "elsewhere").exists()


def test_folder_is_written_by_one_process_at_a_time_and_never_replaced_silently(tmp_path: Path) -> None:
    out = tmp_path / "export" / "onnx"
    with held_elsewhere(locked(out)), pytest.raises(RunError, match="in use by process"), replacing_folder(out):
        pass
    with replacing_folder(out, replace=False) as folder:
        write_text(folder / "a.txt", "first")
    # The second process checked that the folder does not exist before the first one had written it.
    with pytest.raises(InputError, match="exists; choose another name"), replacing_folder(out, replace=False):
        pass
    assert (out / "a.txt").read_text() == "first"
    assert [path.name for path in out.parent.iterdir()] == ["onnx"]
