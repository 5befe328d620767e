"""Packed images are those of their source, and a pack that was killed continues to the same files."""

import io
import itertools
import os
import shutil
import signal
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vae.core.errors import InputError, RunError
from keras_vae.core.locks import locked
from keras_vae.data import packing, sources
from keras_vae.data.dataset import Dataset
from keras_vae.data.packed import open_packed
from keras_vae.data.packing import pack


def write_folder(folder: Path, counts: dict[str, int], size: tuple[int, int] = (6, 5)) -> Path:
    rng = np.random.default_rng(0)
    for name, count in counts.items():
        (folder / name).mkdir(parents=True)
        for number in range(count):
            pixels = rng.integers(0, 256, (*size, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / name / f"{number:04}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "pets", {"train/cat": 5, "train/dog": 4, "test/dog": 3})


def arrays(path: Path) -> Path:
    rng = np.random.default_rng(1)
    values = {f"x_{split}": rng.integers(0, 256, (n, 4, 4), dtype="uint8") for split, n in (("train", 7), ("test", 3))}
    values |= {"y_train": np.arange(7) % 3, "y_test": np.arange(3)}
    values |= {"factors_train": rng.integers(0, 3, (7, 2)), "factors_test": rng.integers(0, 3, (3, 2))}
    np.savez_compressed(path, **values)
    return path


def content(path: Path) -> dict[str, bytes]:
    """The bytes of a packed array and of the files that describe it."""
    files = [path, *path.with_suffix(".pack").iterdir()]
    return {file.name: file.read_bytes() for file in files}


def assert_same(one: Dataset | None, other: Dataset | None) -> None:
    if one is None or other is None:
        assert one is other
        return
    np.testing.assert_array_equal(one.images, other.images)
    np.testing.assert_array_equal(one.labels, other.labels)
    assert (one.split, one.classes) == (other.split, other.classes)
    assert (one.factors is None) == (other.factors is None)
    if one.factors is not None and other.factors is not None:
        np.testing.assert_array_equal(one.factors.values, other.factors.values)
        assert (one.factors.names, one.factors.sizes) == (other.factors.names, other.factors.sizes)


def test_packed_files_have_the_permissions_of_new_files(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").touch()
    pack(folder, tmp_path / "packed.npy")
    modes = {path.stat().st_mode for path in (tmp_path / "packed.npy", *(tmp_path / "packed.pack").iterdir())}
    assert modes == {(tmp_path / "other").stat().st_mode}


@pytest.mark.parametrize("kind", ["folder", "arrays", "array", "name", "packed"])
@pytest.mark.parametrize("load", ["memory", "stream"])
def test_packed_images_are_those_of_the_source(kind: str, load: str, folder: Path, tmp_path: Path) -> None:
    source: Path | str = folder
    if kind == "arrays":
        source = arrays(tmp_path / "a.npz")
    elif kind == "array":
        source = tmp_path / "a.npy"
        np.save(source, np.random.default_rng(0).random((9, 4, 4)))
    elif kind == "name":
        source = "digits"
    elif kind == "packed":
        source = pack(folder, tmp_path / "first.npy").path
    out = pack(source, tmp_path / "out.npy").path
    expected, found = sources.load(source), sources.load(out, load=load)
    assert_same(expected.train, found.train)
    assert_same(expected.validation, found.validation)
    assert_same(expected.test, found.test)
    assert not list(tmp_path.glob(".*"))


def test_the_array_is_that_of_numpy(folder: Path, tmp_path: Path) -> None:
    out = pack(folder, tmp_path / "out.npy").path
    content = io.BytesIO()
    np.save(content, np.load(out))
    assert out.read_bytes() == content.getvalue()


def test_names_appear_in_the_stream(folder: Path, tmp_path: Path) -> None:
    out = pack(folder, tmp_path / "out.npy").path
    expected, found = sources.stream(folder), sources.stream(out)
    assert found.read(0).names == expected.read(0).names
    assert found.read(0).names[0] == "test/dog/0000.png"


def test_options_convert_the_images(folder: Path, tmp_path: Path) -> None:
    out = pack(folder, tmp_path / "out.npy", image_size=(3, 4), color="gray").path
    expected = sources.load(folder, image_size=(3, 4), color="gray")
    assert_same(expected.train, sources.load(out).train)
    notes = [note for note in expected.notes if "resized" in note or "converted" in note]
    assert len(notes) == 2
    assert set(notes) <= set(sources.load(out).notes)


def test_broken_files_are_refused_or_left_out(tmp_path: Path) -> None:
    folder, out = write_folder(tmp_path / "pets", {"bird": 1, "cat": 5, "dog": 4}), tmp_path / "out.npy"
    for name in ("bird/0000.png", "cat/0002.png"):
        (folder / name).write_bytes(b"text")
    with pytest.raises(InputError, match=r"2 of 10 files cannot be used: .*bird/0000.png.*--skip-broken"):
        pack(folder, out)
    assert not out.exists()
    pack(folder, out, skip_broken=True)
    expected, found = sources.load(folder, skip_broken=True), sources.load(out)
    assert_same(expected.train, found.train)
    assert found.train.classes == ("cat", "dog")
    assert any("skipped, cannot be used: 2 of 10 files" in note for note in found.notes)


class _Killed(Exception):
    pass


def killed_after(count: int) -> Callable[[Iterable[object], str], Iterator[object]]:
    """A progress report that ends the pack after a number of images."""

    def progress(items: Iterable[object], label: str) -> Iterator[object]:
        for position, item in enumerate(items):
            if label == "packing images" and position == count:
                raise _Killed
            yield item

    return progress


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 3 images; the state is saved after every second block."""
    monkeypatch.setattr("keras_vae.data.sequential._BLOCK_SIZE", 3)
    monkeypatch.setattr(packing, "SAVE_BYTES", 5 * 6 * 5 * 3)


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("kind", ["folder", "arrays"])
def test_a_killed_pack_continues_to_the_same_bytes(
    kind: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder if kind == "folder" else arrays(tmp_path / "a.npz")
    if kind == "folder":
        (folder / "train/cat/0001.png").write_bytes(b"text")
    else:
        monkeypatch.setattr(packing, "SAVE_BYTES", 4 * 16)
    options = {"skip_broken": kind == "folder"}
    (tmp_path / "whole").mkdir()
    expected = content(pack(source, tmp_path / "whole" / "out.npy", **options).path)
    out, starts = tmp_path / "out.npy", list[int]()

    def progress(items: Iterable[object], label: str) -> Iterable[object]:
        starts.append(next(iter(items), 99))  # type: ignore[arg-type]
        return killed_after(3)(items, label)

    for _ in range(2):
        with pytest.raises(_Killed):
            pack(source, out, progress=progress, **options)  # type: ignore[arg-type]
        assert not out.exists()
    pack(source, out, **options)  # type: ignore[arg-type]
    assert starts == [0, 6]
    assert content(out) == expected
    assert not list(tmp_path.glob(".*"))


@pytest.mark.usefixtures("small_blocks")
def test_another_source_or_option_is_refused_unless_forced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    with pytest.raises(_Killed):
        pack(folder, out, progress=killed_after(8))  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"out\.npy: an interrupted pack of another source .*--force"):
        pack(folder, out, color="gray")
    other = write_folder(tmp_path / "others", {"cat": 3})
    with pytest.raises(InputError, match=r"an interrupted pack of another source"):
        pack(other, out)
    assert pack(other, out, force=True).images.shape == (3, 6, 5, 3)
    with pytest.raises(InputError, match=r"out\.npy: exists; choose another name, or replace it with --force"):
        pack(folder, out)
    assert len(pack(folder, out, force=True).images) == 12
    assert len(sources.load(out).train) == 9


def test_files_that_are_not_packs_are_kept(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "out.pack").mkdir()
    (tmp_path / "out.pack" / "mine.txt").touch()
    with pytest.raises(InputError, match=r"out\.pack exists and describes no packed images"):
        pack(folder, tmp_path / "out.npy", force=True)
    np.save(tmp_path / "own.npy", np.full((2, 4, 4), 9, "uint8"))
    with pytest.raises(InputError, match="the source itself"):
        pack(tmp_path / "own.npy", tmp_path / "own.npy", force=True)
    with pytest.raises(InputError, match=r"out\.npz: unknown format"):
        pack(folder, tmp_path / "out.npz")


@pytest.mark.usefixtures("small_blocks")
def test_a_file_that_changes_stops_the_pack(folder: Path, tmp_path: Path) -> None:
    victim = folder / "test/dog/0002.png"

    def progress(items: Iterable[object], label: str) -> Iterator[object]:
        for item in items:
            victim.unlink(missing_ok=True)
            yield item

    with pytest.raises(InputError, match=r"0002\.png: no longer exists; restore it"):
        pack(folder, tmp_path / "out.npy", skip_broken=True, progress=progress)  # type: ignore[arg-type]


def test_images_that_are_nearly_black_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dark").mkdir()
    Image.fromarray(np.eye(4, dtype="uint8")).save(tmp_path / "dark" / "a.png")
    with pytest.raises(InputError, match="dark: images: integers that are all 0 or 1"):
        pack(tmp_path / "dark", tmp_path / "out.npy")


def test_space_is_checked_before_decoding(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=12 * 6 * 5 * 3 - 1)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(RunError, match=r"out\.npy: needs 0\.0 GiB, and its disk has 0\.0 GiB left"):
        pack(folder, tmp_path / "out.npy")
    usage = usage._replace(free=12 * 6 * 5 * 3)
    pack(folder, tmp_path / "out.npy")


def test_a_full_disk_stops_the_pack_with_one_line_and_keeps_its_state(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, small_blocks: None
) -> None:
    real, calls = os.fsync, itertools.count()

    def fsync(descriptor: int) -> None:
        # Two calls per saved state, and two for the state file.
        if next(calls) == 4:
            raise OSError(28, "No space left on device")
        real(descriptor)

    out = tmp_path / "out.npy"
    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(RunError, match=r"out\.npy: cannot be written: No space left"):
        pack(folder, out)
    assert not out.exists()
    assert (tmp_path / ".out.npy.part" / "state.json").exists()
    assert_same(sources.load(folder).train, sources.load(pack(folder, out).path).train)


def test_a_pack_that_is_killed_before_the_array_is_moved_continues(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, out = Path.replace, tmp_path / "out.npy"

    def replace(path: Path, target: Path) -> Path:
        if target == out:
            raise _Killed
        return real(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(_Killed):
            pack(folder, out)
    assert out.with_suffix(".pack").exists()
    assert not out.exists()
    monkeypatch.setattr("keras_vae.data.sequential.decode_blocks", None)  # nothing is decoded again
    assert len(sources.load(pack(folder, out).path).train) == 9


def test_a_second_process_is_refused(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    code = f"from keras_vae.data.packing import pack; pack({str(folder)!r}, {str(out)!r})"
    with locked(out):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "out.npy: in use by process" in done.stderr
    assert not out.exists()


def test_a_killed_process_leaves_a_state_that_continues(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npy"
    code = f"""
import os, signal
from keras_vae.data import packing, sequential
packing.SAVE_BYTES, sequential._BLOCK_SIZE = 1, 3
def progress(items, label):
    for position, item in enumerate(items):
        if position == 7:
            os.kill(os.getpid(), signal.SIGKILL)
        yield item
packing.pack({str(folder)!r}, {str(out)!r}, progress=progress)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    state = (tmp_path / ".out.npy.part" / "state.json").read_text()
    assert '"position": 9' in state
    found = content(pack(folder, out).path)
    assert found == content(pack(folder, tmp_path / "again" / "out.npy").path)


@pytest.mark.parametrize("kind", ["folder", "array", "arrays"])
def test_peak_memory_does_not_depend_on_the_number_of_images(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("keras_vae.data.sequential._BLOCK_SIZE", 16)
    peaks = []
    for count in (300, 700):
        source = tmp_path / f"{count}"
        if kind == "folder":
            write_folder(source, {"": count}, size=(64, 64))
        else:
            pixels = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype="uint8")
            source = source.with_suffix(".npy" if kind == "array" else ".npz")
            np.save(source, pixels) if kind == "array" else np.savez_compressed(source, images=pixels)
        tracemalloc.start()
        pack(source, tmp_path / f"out-{count}.npy")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # The images of the second source take 4.9 MB more than those of the first.
    assert peaks[1] < peaks[0] + 1_000_000


def test_the_description_of_a_pack_is_complete(folder: Path, tmp_path: Path) -> None:
    packed = open_packed(pack(folder, tmp_path / "out.npy").path)
    assert packed is not None
    assert packed.info.splits == {"train": 9, "test": 3}
    assert packed.info.classes == ["cat", "dog"]
    assert packed.info.source == str(folder)
    assert packed.names(8, 10) == ("train/dog/0003.png", "test/dog/0000.png")
