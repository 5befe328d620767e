"""Reading of files with one-line errors, and atomic writing of files and folders."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.files import (
    cache_folder,
    check_destination,
    printable,
    reading,
    replacing,
    replacing_folder,
    samples,
    to_path,
    write_text,
)


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    write_text(path, "old")

    def fill_the_disk() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="cannot be written: No space left"):
        fill_the_disk()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_temporary_file_has_the_suffix_and_replaces_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    write_text(path, "old")
    with replacing(path) as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_folder_is_replaced_completely_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "runs" / "one"
    with replacing_folder(path) as temporary:
        write_text(temporary / "old.txt", "old")
        assert not path.exists()

    def fill_the_disk() -> None:
        with replacing_folder(path) as temporary:
            write_text(temporary / "new.txt", "new")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        fill_the_disk()
    assert [file.name for file in path.iterdir()] == ["old.txt"]
    # Files of a killed process are replaced.
    (tmp_path / "runs" / ".one.part" / "half").mkdir(parents=True)
    with replacing_folder(path) as temporary:
        write_text(temporary / "new.txt", "new")
    assert [file.name for file in path.iterdir()] == ["new.txt"]
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (InputError("labels: too few"), "x.npz: labels: too few"),
        (MemoryError(), "x.npz: does not fit in memory; use a part of it"),
        (PermissionError(13, "Permission denied"), "x.npz: cannot be read: Permission denied"),
        (KeyError(), "x.npz: cannot be read: KeyError"),
        (ValueError("bad header\nat byte 6"), "x.npz: cannot be read: bad header"),
        (
            ValueError("Cannot load file containing pickled data when allow_pickle=False"),
            "x.npz: cannot be read: it contains Python objects or is not a NumPy file; save numeric arrays with"
            " numpy.savez",
        ),
    ],
)
def test_read_errors_have_one_line_with_the_path(error: Exception, message: str) -> None:
    with pytest.raises(InputError) as caught, reading(Path("x.npz")):
        raise error
    assert str(caught.value) == message
    assert caught.value.__cause__ is error


def test_destination_is_replaced_only_by_force_and_only_if_it_has_the_marker(tmp_path: Path) -> None:
    check_destination(tmp_path / "new", force=False, marker="manifest.json", kind="export")
    check_destination(tmp_path, force=True, marker="manifest.json", kind="export")  # an empty folder
    with pytest.raises(InputError, match="exists; choose another name, or replace it with --force"):
        check_destination(tmp_path, force=False, marker="manifest.json", kind="export")
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(InputError, match="not an earlier export"):
        check_destination(tmp_path, force=True, marker="manifest.json", kind="export")
    (tmp_path / "manifest.json").write_text("{}")
    check_destination(tmp_path, force=True, marker="manifest.json", kind="export")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("photo 1.png", "photo 1.png"),
        ("日本/é ☃.png", "日本/é ☃.png"),
        ("a\\b", "a\\b"),
        (os.fsdecode(b"caf\xe9"), r"caf\xe9"),
        ("line\nbreak\r\t", r"line\nbreak\r\t"),
        ("\x1b[31mred\x7f", r"\x1b[31mred\x7f"),
        ("next\x85line\u2028and\u2029paragraph", r"next\u0085line\u2028and\u2029paragraph"),
        ("gnp.\u202eexe", r"gnp.\u202eexe"),
        ("\ud800", r"\ud800"),
    ],
)
def test_names_are_one_line_of_valid_unicode(name: str, shown: str) -> None:
    assert printable(name) == printable(Path(name)) == shown
    assert shown.encode("utf-8").decode() == shown
    assert len(shown.splitlines()) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems reject such names")
@pytest.mark.parametrize("name", [b"caf\xe9", b"a\nb\x01", "\x85\u2028".encode(), b"a\\xe9", b"plain", b"back\\slash"])
def test_paths_are_found_by_their_escaped_names(tmp_path: Path, name: bytes) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name))
    path.touch()
    assert to_path(printable(path)) == to_path(path) == path
    assert to_path(printable(path) + "x") == Path(printable(path) + "x")


def test_samples_cover_a_file_from_start_to_end(tmp_path: Path) -> None:
    path = tmp_path / "x"
    content = np.random.default_rng(0).integers(0, 256, 100_000, "uint8").tobytes()
    path.write_bytes(content)
    with path.open("rb") as opened:
        size, *parts = samples(opened, 4)
    # Thirds of 100,000 - 4096 = 95,904.
    assert int.from_bytes(size, "little") == 100_000
    assert parts == [content[start : start + 4096] for start in (0, 31_968, 63_936, 95_904)]
    path.write_bytes(content[:5000])
    with path.open("rb") as opened:
        parts = samples(opened, 64)[1:]
    assert parts == [content[:4096], content[904:5000]]


def test_the_cache_folder_follows_the_environment_variable_or_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("KERAS_VAE_CACHE", "~/elsewhere")
    assert cache_folder() == Path("/home/somebody/elsewhere")
    monkeypatch.delenv("KERAS_VAE_CACHE")
    assert cache_folder() == Path("/home/somebody/.cache/keras-vae")
