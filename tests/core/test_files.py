"""Atomic writing of files and folders."""

from pathlib import Path

import pytest

from keras_vae.core.files import replacing, replacing_folder, write_text


def test_failed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    write_text(path, "old")

    def fill_the_disk() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half of the ne")
            raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
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
    # The remains of a killed process are no obstacle.
    (tmp_path / "runs" / ".one.part" / "half").mkdir(parents=True)
    with replacing_folder(path) as temporary:
        write_text(temporary / "new.txt", "new")
    assert [file.name for file in path.iterdir()] == ["new.txt"]
    assert list(path.parent.iterdir()) == [path]
