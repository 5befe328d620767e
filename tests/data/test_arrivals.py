"""Files that arrive in a folder."""

import os
import shutil
from pathlib import Path

from keras_vae.data.arrivals import Arrivals, Signature


class Clock:
    time = 0.0

    def __call__(self) -> float:
        return self.time


def names(arrivals: Arrivals) -> list[str]:
    return [arrival.name for arrival in arrivals.poll()]


def test_a_file_arrives_once_it_is_equal_in_two_polls(tmp_path: Path) -> None:
    clock = Clock()
    arrivals = Arrivals(tmp_path, {}, clock)
    assert names(arrivals) == []
    file = tmp_path / "a.png"
    for size in range(1, 4):
        file.write_bytes(b"x" * size)
        assert names(arrivals) == []
    os.utime(file, ns=(5, 5))
    assert names(arrivals) == [], "the time changed"
    clock.time = 7
    (arrival,) = arrivals.poll()
    assert (arrival.name, arrival.signature, arrival.age) == ("a.png", Signature(3, 5), 7)
    assert arrival.is_unchanged
    assert names(arrivals) == ["a.png"], "it is not finished"
    arrivals.finish(arrival)
    assert names(arrivals) == []
    file.write_bytes(b"new content")
    assert not arrival.is_unchanged
    assert names(arrivals) == []
    assert names(arrivals) == ["a.png"], "a changed file arrives again"


def test_finished_files_of_an_earlier_process_do_not_arrive(tmp_path: Path) -> None:
    for name in ("old.png", "changed.png", "new.png"):
        (tmp_path / name).write_bytes(b"x")
    finished = {name: Signature.of(tmp_path / name) for name in ("old.png", "changed.png")}
    (tmp_path / "changed.png").write_bytes(b"xy")
    arrivals = Arrivals(tmp_path, finished)
    arrivals.poll()
    assert names(arrivals) == ["changed.png", "new.png"]


def test_other_files_and_vanished_folders_are_no_error(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    arrivals = Arrivals(folder, {})
    assert names(arrivals) == []
    assert not arrivals.is_available
    (folder / "deep" / "deeper").mkdir(parents=True)
    for name in ("deep/deeper/a.png", "b.png", "notes.txt", ".hidden.png", "c_mask.png", "c.png"):
        (folder / name).write_bytes(b"x")
    names(arrivals)
    assert arrivals.is_available
    assert sorted(names(arrivals)) == ["b.png", "c.png", "deep/deeper/a.png"]
    (folder / "b.png").unlink()
    assert sorted(names(arrivals)) == ["c.png", "deep/deeper/a.png"]
    shutil.rmtree(folder)
    assert names(arrivals) == []
    assert not arrivals.is_available
