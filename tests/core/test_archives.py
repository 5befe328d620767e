"""Sizes in archives are checked before memory is allocated."""

import io
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from keras_vae.core.archives import check_zip, read_npz
from keras_vae.core.errors import InputError


def array_file(shape: tuple[int, ...], content: bytes) -> bytes:
    """Return a `.npy` file with any shape in its header."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + content


def write_zip(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def test_arrays_are_read_in_their_order(tmp_path: Path) -> None:
    arrays = {
        "b": np.arange(6.0).reshape(2, 3),
        "a": np.array("text"),
        "c": np.zeros((0, 3), "uint8"),
        "d": np.int64(3),
    }
    np.savez_compressed(tmp_path / "a.npz", **arrays)
    loaded = read_npz(tmp_path / "a.npz")
    assert list(loaded) == list(arrays)
    for name, array in arrays.items():
        np.testing.assert_array_equal(loaded[name], array)


@pytest.mark.parametrize("shape", [(10**11, 28, 28), (10**5,), (3,), (2**62, 4), (-1, -4)])
def test_header_with_a_wrong_shape_allocates_nothing(shape: tuple[int, ...], tmp_path: Path) -> None:
    file = write_zip(tmp_path / "a.npz", {"images.npy": array_file(shape, b"1234")})
    tracemalloc.start()
    with pytest.raises(InputError, match=r"a\.npz: images\.npy: states the shape .*; restore the file$"):
        read_npz(file)
    assert tracemalloc.get_traced_memory()[1] < 10**6
    tracemalloc.stop()


def test_zip_bomb_is_rejected_before_it_is_read(tmp_path: Path) -> None:
    file = tmp_path / "bomb.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        with archive.open("images.npy", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(2**20))
    assert file.stat().st_size < 2**21
    for read in (check_zip, read_npz):
        with pytest.raises(InputError, match=r"bomb\.npz: damaged or hostile: 1 MB that expand to 315 MB"):
            read(file)
    # Images of one color are compressed as much, but are small.
    np.savez_compressed(tmp_path / "white.npz", images=np.zeros((1000, 64, 64), "uint8"))
    assert read_npz(tmp_path / "white.npz")["images"].shape == (1000, 64, 64)


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04" + bytes(40)])
def test_damaged_archive_is_reported(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "a.npz"
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npz: "):
        read_npz(file)
    write_zip(file, {"a.npy": b"not an array"})
    with pytest.raises(InputError, match=r"a\.npz: "):
        read_npz(file)


def test_python_objects_are_rejected(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", a=np.array([{}], dtype=object), allow_pickle=True)
    with pytest.raises(InputError, match="contains Python objects"):
        read_npz(tmp_path / "a.npz")
