"""Files that are whole or not there."""

from pathlib import Path

import pytest

from keras_vae.core.files import replacing, replacing_folder, write_text


def test_failure_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
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


def test_success_replaces_it_and_keeps_the_suffix_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "model.keras"
    write_text(path, "old")
    with replacing(path) as temporary:
        assert temporary.suffix == ".keras"
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole_or_stays(tmp_path: Path) -> None:
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
    # What a kill left does not stand in the way.
    (tmp_path / "runs" / ".one.part" / "half").mkdir(parents=True)
    with replacing_folder(path) as temporary:
        write_text(temporary / "new.txt", "new")
    assert [file.name for file in path.iterdir()] == ["new.txt"]
    assert list(path.parent.iterdir()) == [path]
