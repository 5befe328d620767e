"""Tables: writing block by block, resuming, and equal content in all formats."""

import csv
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from keras_vae.core import tables
from keras_vae.core.errors import InputError

SIZES = (3, 3, 2)


def blocks(computed: list[int], fail_at: int | None = None) -> list[Callable[[], dict[str, Any]]]:
    """Return functions that compute three blocks and append the computed ones to a list."""

    def block(number: int) -> dict[str, Any]:
        if number == fail_at:
            raise KeyboardInterrupt
        computed.append(number)
        rng = np.random.default_rng(number)
        return {
            "name": np.array([f"image-{'x' * number}{index}" for index in range(SIZES[number])]),
            "codes": rng.normal(size=(SIZES[number], 2)).astype("float32"),
            "label": rng.integers(0, 9, SIZES[number]),
            "anomaly": rng.random(SIZES[number]) > 0.5,
        }

    return [lambda number=number: block(number) for number in range(3)]


def expected() -> dict[str, Any]:
    parts = [block() for block in blocks([])]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def write(out: Path, computed: list[int], key: str = "key", fail_at: int | None = None) -> Path:
    return tables.write(out, blocks(computed, fail_at), key={"model": key}, title="title")


def test_blocks_are_joined_into_arrays(tmp_path: Path) -> None:
    with np.load(write(tmp_path / "t.npz", [])) as archive:
        assert archive.files == list(expected())
        for name, values in expected().items():
            np.testing.assert_array_equal(archive[name], values)
    assert [path.name for path in tmp_path.iterdir()] == ["t.npz"]


def test_csv_represents_float32_exactly(tmp_path: Path) -> None:
    lines = write(tmp_path / "t.csv", []).read_text("utf-8").splitlines()
    assert lines[0] == "name,codes_0,codes_1,label,anomaly"
    rows = [line.split(",") for line in lines[1:]]
    whole = expected()
    np.testing.assert_array_equal(np.array([row[1:3] for row in rows], "float32"), whole["codes"])
    assert [row[0] for row in rows] == whole["name"].tolist()
    assert [row[4] for row in rows] == [str(mark) for mark in whole["anomaly"]]


def test_parquet_holds_the_same_columns(tmp_path: Path) -> None:
    from pyarrow import parquet

    table = parquet.read_table(write(tmp_path / "t.parquet", []))
    whole = expected()
    assert table["name"].to_pylist() == whole["name"].tolist()
    np.testing.assert_array_equal(table["codes_1"].to_numpy(), whole["codes"][:, 1])


@pytest.mark.parametrize("suffix", tables.FORMATS)
def test_numeric_column_is_read_back(suffix: str, tmp_path: Path) -> None:
    np.testing.assert_array_equal(tables.read_column(write(tmp_path / f"t{suffix}", []), "label"), expected()["label"])


def test_interrupted_table_resumes_with_the_missing_blocks(tmp_path: Path) -> None:
    computed: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "t.csv", computed, fail_at=2)
    assert not (tmp_path / "t.csv").exists()
    write(tmp_path / "t.csv", computed)
    assert computed == [0, 1, 2]
    assert (tmp_path / "t.csv").read_bytes() == write(tmp_path / "other.csv", []).read_bytes()


def test_blocks_with_another_key_are_discarded(tmp_path: Path) -> None:
    computed: list[int] = []
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path / "t.csv", computed, fail_at=2)
    write(tmp_path / "t.csv", computed, key="another model")
    assert computed == [0, 1, 0, 1, 2]


def test_progress_covers_the_missing_blocks(tmp_path: Path) -> None:
    shown: list[tuple[int, str]] = []

    def progress(items: list[Any], title: str) -> Iterator[Any]:
        shown.append((len(items), title))
        return iter(items)

    tables.write(tmp_path / "t.csv", blocks([]), key={}, progress=progress, title="encoding")
    assert shown == [(3, "encoding")]


def test_unknown_formats_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"t\.xlsx: unknown format; choose a name that ends in \.npz, \.csv or \.parquet"
    ):
        write(tmp_path / "t.xlsx", [])


def test_missing_package_is_reported_with_the_extra_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'keras-vae\[parquet\]'"):
        write(tmp_path / "t.parquet", [])


NAMES = [
    '=HYPERLINK("http://example.com")',
    "+1+1",
    "-2+3|cmd",
    "@SUM(A1)",
    "  =1",
    "\t=1",
    "\r=1",
    "＝1+1",
    "two\nlines, and a comma",
    "bell\x07",
    "line\u2028separator",
    "undecodable\udcff",
    "back\\slash",
    "=back\\x0aslash\\",
    "'quoted",
    "''",
    "cat-1.png",
    "-12.5",
    "",
    "Zoë+1",
]


def test_no_text_in_a_csv_file_is_a_formula_and_all_texts_can_be_read_back(tmp_path: Path) -> None:
    numbers = np.linspace(-1, 1, len(NAMES))
    columns = {"name": np.array(NAMES), "score": numbers, "label": np.arange(len(NAMES)) - 3}
    out = tables.write(tmp_path / "t.csv", [lambda: columns], key={}, title="")
    with out.open(encoding="utf-8", newline="") as opened:
        rows = list(csv.DictReader(opened))
    assert [tables.unescape_cell(row["name"]) for row in rows] == NAMES
    for row in rows:
        assert row["name"] in ("", "-12.5") or row["name"].strip()[0] not in "=+-@＝"
        assert all(character.isprintable() for character in row["name"])
    # Numbers stay numbers, and most names stay the same.
    np.testing.assert_allclose(tables.read_column(out, "score"), numbers, rtol=1e-8)
    assert [int(row["label"]) for row in rows] == columns["label"].tolist()
    for name in ("back\\slash", "cat-1.png", "-12.5", "Zoë+1"):
        assert tables.escape_cell(name) == name
