"""Tars, Parquet files and saved data sets are packed, and training on them is refused with the command."""

import io
import json
import sys
import tarfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.data import packing, sources
from keras_vae.data.packing import pack

PIXELS = np.random.default_rng(0).integers(0, 256, (20, 6, 5, 3), dtype="uint8")


def png(index: int) -> bytes:
    content = io.BytesIO()
    Image.fromarray(PIXELS[index]).save(content, "PNG")
    return content.getvalue()


def write_tar(path: Path, members: Iterable[tuple[str, bytes]]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(
    indices: Iterable[int], suffix: str = "cls", label: Callable[[int], str] = lambda index: str(index % 3)
) -> Iterator[tuple[str, bytes]]:
    for index in indices:
        yield f"{index:03}.png", png(index)
        yield f"{index:03}.{suffix}", label(index).encode()


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of 3 images, each of which is saved."""
    monkeypatch.setattr("keras_vae.data.sequential._BLOCK_SIZE", 3)
    monkeypatch.setattr(packing, "SAVE_BYTES", 1)


def train(path: Path) -> tuple[Array, list[str]]:
    """Images and labels by name of a packed file."""
    loaded = sources.load(path).train
    return loaded.images, [] if loaded.labels is None else [loaded.classes[label] for label in loaded.labels]


class _Killed(Exception):
    pass


def assert_continues(source: Path | str, folder: Path) -> Path:
    """Pack a source in processes that are killed after four images each, and compare with a pack in one go."""
    whole, out = pack(source, folder / "whole" / "out.npy").path, folder / "killed" / "out.npy"

    def progress(items: Iterable[object], label: str) -> Iterator[object]:
        for position, item in enumerate(items):
            if label == "packing images" and position == 4:
                raise _Killed
            yield item

    kills = 0
    while not out.exists():
        try:
            pack(source, out, progress=progress)  # type: ignore[arg-type]
        except _Killed:
            kills += 1
    assert kills > 1
    names = sorted(path.name for path in whole.with_suffix(".pack").iterdir())
    for one, other in [(whole, out), *((whole.with_suffix(".pack") / n, out.with_suffix(".pack") / n) for n in names)]:
        assert one.read_bytes() == other.read_bytes()
    return whole


@pytest.mark.parametrize(
    ("suffix", "label", "expected"),
    [
        ("cls", lambda index: f"{index % 3 + 7}\n", lambda index: str(index % 3 + 7)),
        ("json", lambda index: json.dumps({"label": "ab"[index % 2], "x": 1}), lambda index: "ab"[index % 2]),
        ("json", lambda index: json.dumps({"label": index % 2}), lambda index: str(index % 2)),
        ("txt", lambda index: f"cat {index % 4}\n", lambda index: f"cat {index % 4}"),
    ],
)
def test_labels_of_a_tar(suffix: str, label: Any, expected: Any, tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "x.tar", samples(range(12), suffix, label))
    images, labels = train(pack(tar, tmp_path / "x.npy").path)
    np.testing.assert_array_equal(images, PIXELS[:12])
    assert labels == [expected(index) for index in range(12)]
    assert f"labels are the content of .{suffix} files: 12 images" in sources.load(tmp_path / "x.npy").notes


def test_a_tar_without_labels(tmp_path: Path) -> None:
    members = [("a/readme.md", b"text"), ("._0.png", b""), *((f"a/{index}.png", png(index)) for index in range(3))]
    packed = pack(write_tar(tmp_path / "x.tar", members), tmp_path / "x.npy")
    assert packed.labels is None
    assert packed.names(0, 3) == ("a/0.png", "a/1.png", "a/2.png")


@pytest.mark.usefixtures("small_blocks")
def test_shards_are_read_in_order_and_a_killed_pack_continues(tmp_path: Path) -> None:
    for shard in range(4):
        write_tar(tmp_path / f"shard-{shard:03}.tar", samples(range(5 * shard, 5 * shard + 5)))
    whole = assert_continues(str(tmp_path / "shard-{000..003}.tar"), tmp_path)
    images, labels = train(whole)
    np.testing.assert_array_equal(images, PIXELS)
    assert labels == [str(index % 3) for index in range(20)]
    assert whole.read_bytes() == pack(tmp_path, tmp_path / "folder.npy").path.read_bytes()
    assert sources.stream(whole).read(0).names[6] == "shard-001.tar/006.png"
    (tmp_path / "shard-002.tar").unlink()
    with pytest.raises(InputError, match=r"1 of 4 files are missing, such as .*shard-002\.tar"):
        pack(str(tmp_path / "shard-{000..003}.tar"), tmp_path / "x.npy")


def test_files_named_as_splits_are_splits(tmp_path: Path) -> None:
    folder = tmp_path / "shards"
    folder.mkdir()
    for name, chosen in {"val-0": range(6, 9), "train-0": range(3), "train-1": range(3, 6), "test-0": [9]}.items():
        write_tar(folder / f"{name}.tar", samples(chosen))
    loaded = sources.load(pack(folder, tmp_path / "x.npy").path)
    assert loaded.test is not None
    assert loaded.validation is not None
    parts = ((loaded.train, PIXELS[:6]), (loaded.validation, PIXELS[6:9]), (loaded.test, PIXELS[9:10]))
    for part, expected in parts:
        np.testing.assert_array_equal(part.images, expected)
    assert "files are splits: train 2, validation 1, test 1" in loaded.notes


def test_a_truncated_or_damaged_tar_is_refused(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "whole.tar", samples(range(9))).read_bytes()
    with tarfile.open(tmp_path / "whole.tar") as tar:
        edges = [member.offset for member in tar]
    bad = tmp_path / "bad.tar"
    for size in (*edges[1:], edges[4] + 100, edges[4] + 600, len(whole.rstrip(b"\0"))):
        bad.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"bad\.tar: "):
            pack(bad, tmp_path / "x.npy")
    # Python ends silently at a header whose checksum is wrong.
    bad.write_bytes(whole[: edges[6]] + b"?" + whole[edges[6] + 1 :])
    with pytest.raises(InputError, match=r"bad\.tar: no end mark at byte .*truncated or damaged"):
        pack(bad, tmp_path / "x.npy")


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            [("0.left.png", png(0)), ("0.right.png", png(1))],
            r"several images in the sample 0, 0\.left\.png and 0\.right",
        ),
        ([("0.png", png(0)), ("1.png", png(1)), ("0.cls", b"1")], "sample 0: a label without an image"),
        ([("0.png", png(0)), ("0.cls", b"1"), ("1.png", png(1))], "1 of 2 samples have no label"),
        ([("0.json", b"{}")], "no images"),
        ([("0.png", png(0)), ("0.json", b"{")], "cannot be read"),
    ],
)
def test_wrong_samples_are_refused(members: Sequence[tuple[str, bytes]], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message) as caught:
        pack(write_tar(tmp_path / "x.tar", members), tmp_path / "x.npy")
    assert "\n" not in str(caught.value)


def test_broken_images_of_a_tar_are_left_out_with_their_labels(tmp_path: Path) -> None:
    members = [("a.png", b"text"), ("a.cls", b"0"), *samples([1, 2])]
    tar = write_tar(tmp_path / "x.tar", members)
    with pytest.raises(InputError, match=r"x\.tar/a\.png: .*--skip-broken"):
        pack(tar, tmp_path / "x.npy")
    images, labels = train(pack(tar, tmp_path / "x.npy", skip_broken=True).path)
    np.testing.assert_array_equal(images, PIXELS[1:3])
    assert labels == ["1", "2"]


def write_parquet(path: Path, columns: dict[str, Any], features: dict[str, Any] | None = None) -> Path:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table(columns)
    if features:
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=4)
    return path


@pytest.mark.usefixtures("small_blocks")
def test_parquet_files_of_hugging_face(tmp_path: Path) -> None:
    features = {"picture": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog", "owl"]}}
    (tmp_path / "hub" / "data").mkdir(parents=True)
    for name, chosen in {
        "train-00000-of-00002": range(7),
        "train-00001-of-00002": range(7, 14),
        "test-0": [14],
    }.items():
        images = [{"bytes": png(index), "path": f"{index}.png"} for index in chosen]
        columns = {"picture": images, "label": [index % 2 for index in chosen], "id": list(chosen)}
        write_parquet(tmp_path / "hub" / "data" / f"{name}.parquet", columns, features)
    whole = assert_continues(tmp_path / "hub", tmp_path)
    images, labels = train(whole)
    np.testing.assert_array_equal(images, PIXELS[:14])
    assert labels == [("cat", "dog")[index % 2] for index in range(14)]
    loaded = sources.load(whole)
    assert loaded.test is not None
    np.testing.assert_array_equal(loaded.test.images, PIXELS[14:15])
    assert loaded.train.classes == ("cat", "dog", "owl")
    assert "columns that were not used: id" in loaded.notes
    assert sources.stream(whole).read(0).names == ("14.png",)


def test_parquet_with_binary_images_and_text_labels(tmp_path: Path) -> None:
    columns = {"image": [png(index) for index in range(6)], "label": ["b", "a"] * 3}
    images, labels = train(pack(write_parquet(tmp_path / "x.parquet", columns), tmp_path / "x.npy").path)
    np.testing.assert_array_equal(images, PIXELS[:6])
    assert labels == ["b", "a"] * 3


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"one": [b"x"], "two": [b"y"]}, r"several columns could be the images: one \(binary\), two \(binary\)"),
        ({"number": [1]}, r"no column of encoded images: number \(int64\)"),
        ({"image": [png(0), png(1)], "label": [1, None]}, "1 of 2 labels are missing"),
        ({"image": [png(0)], "label": [-1]}, "labels: from -1 to -1"),
        ({"image": [None, None]}, "2 of 2 files cannot be used"),
    ],
)
def test_wrong_columns_are_refused(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    if columns.get("image") == [None, None]:
        columns = {"image": pa.array([None, None], pa.binary())}
    with pytest.raises(InputError, match=message):
        pack(write_parquet(tmp_path / "x.parquet", columns), tmp_path / "x.npy")


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    path = write_parquet(tmp_path / "x.parquet", {"image": [png(index) for index in range(6)]})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(InputError, match=r"x\.parquet: cannot be read"):
        pack(path, tmp_path / "x.npy")


@pytest.mark.usefixtures("small_blocks")
def test_saved_data_sets(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})

    def made(chosen: Sequence[int]) -> Any:
        images = [Image.fromarray(PIXELS[index]) for index in chosen]
        return datasets.Dataset.from_dict({"image": images, "label": [i % 2 for i in chosen]}, features=features)

    whole, parts = tmp_path / "saved" / "whole", tmp_path / "saved" / "parts"
    made(range(14)).save_to_disk(whole, num_shards=2)
    datasets.DatasetDict({"test": made([14, 15]), "train": made(range(3))}).save_to_disk(parts)
    images, labels = train(assert_continues(whole, tmp_path))
    np.testing.assert_array_equal(images, PIXELS[:14])
    assert labels == [("cat", "dog")[index % 2] for index in range(14)]
    loaded = sources.load(pack(parts, tmp_path / "parts.npy").path)
    assert loaded.test is not None
    np.testing.assert_array_equal(loaded.train.images, PIXELS[:3])
    np.testing.assert_array_equal(loaded.test.images, PIXELS[14:16])
    shard = next(whole.glob("*.arrow"))
    shard.write_bytes(shard.read_bytes()[:-8])
    with pytest.raises(InputError, match=r"\.arrow: no end mark: truncated or damaged"):
        pack(whole, tmp_path / "x.npy")


def test_a_missing_package_names_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_parquet(tmp_path / "x.parquet", {"image": [png(0)]})
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(InputError, match=r"x\.parquet: pyarrow is not installed; pip install 'keras-vae\[parquet\]'"):
        pack(path, tmp_path / "x.npy")


@pytest.mark.parametrize("use", [sources.load, sources.stream])
def test_direct_use_is_refused_with_the_command(use: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "many").mkdir()
    for name in ("x-0.tar", "x-1.tar", "many/a.tar"):
        write_tar(Path(name), samples(range(2)))
    Path("x.parquet").touch()
    Path("saved").mkdir()
    Path("saved/state.json").write_text('{"_data_files": []}')
    Path("saved/dataset_info.json").write_text("{}")
    for source, kind, command in (
        ("x-0.tar", "a WebDataset tar", "x-0.tar x-0.npy"),
        ("x-{0..1}.tar", "a WebDataset tar", "'x-{0..1}.tar' x.npy"),
        ("many", "a WebDataset tar", "many many.npy"),
        ("x.parquet", "a Parquet file", "x.parquet x.npy"),
        ("saved", "a saved Hugging Face data set", "saved saved.npy"),
    ):
        with pytest.raises(InputError) as caught:
            use(source)
        out = command.rpartition(" ")[2]
        remedy = f"run `vae data pack {command}`, and use {out} as the source"
        assert str(caught.value) == f"data = {source}: {kind} is read from start to end; {remedy}"


def test_a_folder_of_images_next_to_a_tar_remains_a_folder_of_images(tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    (folder / "cats").mkdir(parents=True)
    (folder / "cats" / "0.png").write_bytes(png(0))
    write_tar(folder / "original.tar", samples(range(2)))
    assert len(sources.load(folder).train) == 1
