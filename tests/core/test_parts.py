"""Parts of a computation: their text, their blocks, and files that are written from the blocks of all parts."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_vae.core import tables
from keras_vae.core.blocks import BlockFolder
from keras_vae.core.errors import InputError, RunError
from keras_vae.core.locks import locked
from keras_vae.core.parts import Part
from lock_helpers import held_elsewhere

KEY = {"images": "a" * 64, "seed": 3}


def write(out: Path, part: str | None = None, computed: list[int] | None = None, **settings: Any) -> Path:
    """Write a table of seven blocks, or one part of it, and append the numbers of computed blocks to a list."""

    def block(number: int) -> dict[str, Any]:
        if computed is not None:
            computed.append(number)
        return {"name": np.array(["x" * number] * 2), "value": np.random.default_rng(number).random((2, 3))}

    blocks = [lambda number=number: block(number) for number in range(7)]
    chosen = Part.of(part)
    return tables.write(out, blocks, key=KEY, title="title", part=chosen, **settings)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        *(("0/8", "'0/8': no such part; the parts are 1 to 8"), ("9/8", "'9/8': no such part; the parts are 1 to 8")),
        *(("3-8", "'3-8': not a part; pass K/N, such as 3/8"), ("3/0", "not a part"), ("-1/8", "not a part")),
        *(("", "not a part"), ("3/8/9", "not a part"), ("²/8", "not a part"), ("1" * 5000 + "/8", "not a part")),
        *(((0, 8), r"\(0, 8\): no such part"), (3, "pass a pair of integers, such as (3, 8)"), ((True, 8), "pair")),
        *(((1.0, 8), "pair"), ((1, 2, 3), "pair")),
    ],
)
def test_wrong_parts_are_one_line(value: Any, problem: str) -> None:
    with pytest.raises(InputError, match=f"^part = .*{problem.replace('(3, 8)', '.3, 8.')}"):
        Part.of(value)


def test_parts_are_consecutive_balanced_and_complete() -> None:
    for num_blocks in range(1, 20):
        for count in range(1, num_blocks + 1):
            parts = [list(Part(number, count).select(num_blocks)) for number in range(1, count + 1)]
            assert [number for part in parts for number in part] == list(range(num_blocks))
            assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("suffix", tables.FORMATS)
def test_merged_parts_are_the_bytes_of_the_whole(suffix: str, tmp_path: Path) -> None:
    whole = write(tmp_path / f"whole{suffix}").read_bytes()
    out, computed = tmp_path / f"t{suffix}", list[int]()
    for part in ("3/3", "1/3", "2/3"):
        write(out, part, computed)
        assert not out.exists()
    assert computed == [4, 5, 6, 0, 1, 2, 3]
    assert write(out, None, computed).read_bytes() == whole
    assert len(computed) == 7, "the merge must compute nothing"
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([f"whole{suffix}", f"t{suffix}"])


def test_missing_parts_are_one_line_and_nothing_is_lost(tmp_path: Path) -> None:
    out, computed = tmp_path / "t.csv", list[int]()
    for number in (1, 2, 4, 6, 7):
        write(out, f"{number}/7")
    with pytest.raises(
        RunError, match=r"t\.csv: parts 3 and 5 of 7 are missing; run the same command with --part 3/7 and --part 5/7,"
    ):
        write(out, None, computed)
    write(out, "5/7")
    with pytest.raises(RunError, match=r"part 3 of 7 is missing; run the same command with --part 3/7, or remove "):
        write(out, None, computed, force=True)
    assert computed == []
    write(out, "3/7", computed)
    write(out, None, computed)
    assert computed == [2]


def test_a_killed_part_resumes_and_a_damaged_block_is_computed_again(tmp_path: Path) -> None:
    out, computed = tmp_path / "t.csv", list[int]()
    whole = write(tmp_path / "whole.csv").read_bytes()
    with pytest.raises(KeyboardInterrupt):
        tables.write(out, [dict] * 3 + [interrupt] * 4, key=KEY, title="", part=Part(2, 2))
    write(out, "1/2")
    BlockFolder(out, KEY).file(1).write_bytes(b"torn")
    with pytest.raises(RunError, match="parts 1 and 2 of 2 are missing"):
        write(out)
    write(out, "1/2", computed)
    write(out, "2/2", computed)
    assert computed == [1, 3, 4, 5, 6]
    assert write(out).read_bytes() == whole


def interrupt() -> Any:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ({"seed": 4}, "seed = 3 instead of 4"),
        ({"images": "b" * 64}, "another images"),
        ({"images": "b" * 64, "seed": 4}, "another images, seed = 3 instead of 4"),
    ],
)
def test_parts_of_other_settings_are_refused(change: dict[str, Any], difference: str, tmp_path: Path) -> None:
    out = tmp_path / "t.csv"
    write(out, "1/2")
    for part in (None, Part(2, 2)):
        with pytest.raises(InputError, match=rf"t\.csv: its parts were computed with {difference}; repeat"):
            tables.write(out, [dict] * 7, key={**KEY, **change}, title="", part=part)
    with pytest.raises(InputError, match="other settings"):
        tables.write(out, [dict] * 8, key=KEY, title="", part=Part(2, 2))
    computed = list[int]()
    write(out, "1/2", computed)
    assert computed == [], "a refused command must not remove parts"
    columns = {"value": np.arange(2)}
    tables.write(out, [lambda: columns], key={**KEY, **change}, title="", force=True)
    assert out.read_text() == "value\n0\n1\n"


def test_another_number_of_parts_is_refused_and_force_keeps_the_blocks(tmp_path: Path) -> None:
    out, computed = tmp_path / "t.csv", list[int]()
    write(out, "1/2", computed)
    with pytest.raises(
        InputError, match=r"part = 1/3: .*t\.csv is divided into 2 parts; pass K/2, or divide it again with --f"
    ):
        write(out, "1/3", computed)
    with pytest.raises(InputError, match="part = 2/8: more parts than blocks of images; choose at most 7"):
        write(out, "2/8")
    write(out, "1/3", computed, force=True)
    assert computed == [0, 1, 2]
    with pytest.raises(RunError, match="parts 2 and 3 of 3 are missing"):
        write(out)
    write(out, "1/7", force=True)
    with pytest.raises(RunError, match=r"parts 4, 5, 6 and 7 of 7 .* --part 4/7, --part 5/7, --part 6/7, …, "):
        write(out)


def test_an_interrupted_whole_can_be_continued_in_parts(tmp_path: Path) -> None:
    out, computed = tmp_path / "t.csv", list[int]()
    blocks = [lambda: {"name": np.array(["", ""]), "value": np.random.default_rng(0).random((2, 3))}]
    with pytest.raises(KeyboardInterrupt):
        tables.write(out, blocks + [interrupt] * 6, key=KEY, title="")
    for number in (1, 2):
        write(out, f"{number}/2", computed)
    assert computed == [1, 2, 3, 4, 5, 6]
    assert write(out).read_bytes() == write(tmp_path / "whole.csv").read_bytes()


def test_parts_exclude_the_same_part_but_not_one_another(tmp_path: Path) -> None:
    out, entered = tmp_path / "t.csv", threading.Event()
    with held_elsewhere(BlockFolder(out, KEY).open(7, Part(1, 2))):
        with pytest.raises(RunError, match=r"part = .*t\.csv-1-of-2: in use by process "):
            write(out, "1/2")
        write(out, "2/2")
        with pytest.raises(RunError, match="part 1 of 2 is missing"):
            write(out)
        entered.set()
    assert entered.is_set()


def test_a_part_does_not_begin_while_another_process_writes_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras_vae.core.blocks._SECONDS_TO_BEGIN", 0.01)
    out = tmp_path / "t.csv"
    with held_elsewhere(locked(out)), pytest.raises(RunError, match=r"out = .*t\.csv: in use by process "):
        write(out, "1/2")
    assert list(tmp_path.iterdir()) == []


def test_processes_that_begin_at_the_same_moment_share_one_folder(tmp_path: Path) -> None:
    # The test module would import a backend.
    program = (
        "import sys, pathlib, numpy as np\nfrom keras_vae.core import tables\nfrom keras_vae.core.parts import Part\n"
        "def block(number):\n"
        "    return {'name': np.array(['x' * number] * 2), 'value': np.random.default_rng(number).random((2, 3))}\n"
        "blocks = [lambda number=number: block(number) for number in range(7)]\n"
        "key = {'images': 'a' * 64, 'seed': 3}\n"
        "tables.write(pathlib.Path(sys.argv[1]), blocks, key=key, title='', part=Part.of(sys.argv[2]))"
    )
    out = tmp_path / "t.npz"
    processes = [subprocess.Popen([sys.executable, "-c", program, out, f"{number}/3"]) for number in range(1, 4)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert json.loads((tmp_path / ".t.npz.part" / "state.json").read_text())["parts"] == 3
    computed = list[int]()
    assert write(out, None, computed).read_bytes() == write(tmp_path / "whole.npz").read_bytes()
    assert computed == []
