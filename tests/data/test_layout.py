import os
import re
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vae.core.errors import InputError
from keras_vae.data.config import DataConfig
from keras_vae.data.layout import list_images
from keras_vae.data.sources import load, load_splits, stream


def tree(folder: Path, *names: str) -> Path:
    """Write images whose level is the number in their names."""
    folder = folder / "pictures"
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        level = int(re.findall(r"\d+", path.name)[0]) if path.suffix == ".png" else 0
        Image.fromarray(np.full((3, 2), level, "uint8")).save(path)
    return folder


def touch(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()


def test_split_folders_are_splits_and_classes_are_one_level_below(tmp_path: Path) -> None:
    names = [f"train/{name}/{index}.png" for name in ("cat", "dog") for index in range(3)]
    folder = tree(tmp_path, *names, "test/dog/7.png", "test/cat/8.png", "Val/dog/9.png")
    splits, notes = load_splits(DataConfig(source=str(folder), validation=0.3, test=0.3))
    assert [part and part.images[:, 0, 0, 0].tolist() for part in splits] == [[0, 1, 2, 0, 1, 2], [9], [8, 7]]
    assert [part and part.labels is not None and part.labels.tolist() for part in splits] == [
        [0, 0, 0, 1, 1, 1],
        [1],
        [0, 1],
    ]
    assert all(part is not None and part.classes == ("cat", "dog") for part in splits)
    assert notes == ("folders are splits: 9 images, train 6, validation 1, test 2, 2 classes",)
    whole, _ = load_splits(DataConfig(source=str(folder), holdout=False))
    assert len(whole.train) == 9
    block = stream(folder).subset(np.arange(9))
    assert block.names[:3] == ("test/cat/8.png", "test/dog/7.png", "Val/dog/9.png")
    assert block.labels is not None
    assert block.labels.tolist() == [0, 1, 1, 0, 0, 0, 1, 1, 1]


def test_masks_are_never_images(tmp_path: Path) -> None:
    folder = tree(
        tmp_path,
        *("train/good/0.png", "train/good/1.png", "test/crack/2.png", "test/good/3.png"),
        *("ground_truth/crack/2_mask.png", "train/masks/0.png", "train/good/1_mask.png"),
    )
    train, test, notes, _ = load(folder)
    assert test is not None
    assert test.labels is not None
    assert train.images[:, 0, 0, 0].tolist() == [0, 1]
    assert (test.images[:, 0, 0, 0].tolist(), test.labels.tolist()) == ([2, 3], [1, 0])
    assert train.classes == test.classes == ("good", "crack")
    assert notes[1:] == (
        "classes without training images: crack",
        "ignored, masks: 3 (ground_truth/crack/2_mask.png, train/good/1_mask.png, train/masks/0.png)",
    )


@pytest.mark.parametrize("names", [("train/0.png", "car/1.png"), ("train/0.png", "car/1.png", "boat/2.png")])
def test_a_class_may_be_named_train(tmp_path: Path, names: tuple[str, ...]) -> None:
    listing = list_images(tree(tmp_path, *names))
    assert listing.parts[0].split == "all"
    assert "train" in listing.classes


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train/a/0.png", "test/a/1.png", "extra/2.png"), r"next to other images \(extra/\).*pass .*test or .*train"),
        (("train/a/0.png", "1.png"), r"next to other images \(1.png\).*pass .*train$"),
        (("test/a/0.png", "val/a/1.png"), r"without images in train/; pass .*test or .*val"),
        (("train/a/0.png", "test/1.png"), r"train/ has one sub-folder per class, and test/ has none.*pass .*train$"),
        (("train/a/0.png", "training/a/1.png"), "two folders of the same split"),
        (("a/train/0.png", "a/test/1.png", "b/train/2.png", "b/test/3.png"), r"splits of their own; pass .*a or .*b$"),
        (("masks/0.png",), "no images, only masks: masks/0.png"),
    ],
)
def test_other_layouts_are_rejected(tmp_path: Path, names: tuple[str, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        list_images(tree(tmp_path, *names))


def test_clothing_has_splits(clothing: Path) -> None:
    parts = list_images(clothing).parts
    assert [(part.split, len(part.files)) for part in parts] == [("train", 3409), ("test", 372)]


SYSTEM = (
    *(".DS_Store", "._a.png", "Thumbs.db", "desktop.ini", "@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", ".thumbnails/a.png"),
    *("__MACOSX/cat/._a.png", "__MACOSX/cat/b.png", "#recycle/a.png", "lost+found/a.png", "$RECYCLE.BIN/a.png"),
    *("cat/@eaDir/a.png/SYNOPHOTO_THUMB_M.jpg", "cat/.hidden/a.png", "cat/.cache.png"),
)


def test_thumbnails_and_metadata_of_systems_are_ignored(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    for name in (*SYSTEM, "cat/a.png", "dog/b.png"):
        touch(folder / name)
    listing = list_images(folder)
    assert [str(file.relative_to(folder)) for file in listing.files] == ["cat/a.png", "dog/b.png"]
    assert listing.classes == ("cat", "dog")
    (note,) = listing.notes
    assert note.startswith("ignored, hidden or system files: 13 (")


def test_a_hidden_folder_can_be_read_itself(tmp_path: Path) -> None:
    touch(tmp_path / ".photos" / "a.png")
    assert len(list_images(tmp_path / ".photos").files) == 1


def test_image_formats_that_are_not_read_are_named_as_such(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    touch(folder / "b.HEIC")
    with pytest.raises(InputError, match=r"no images that can be read, only b\.HEIC; accepted: \.png, "):
        list_images(folder)
    touch(folder / "a.png")
    assert list_images(folder).notes == ("ignored, image formats that are not read: 1 (b.HEIC)",)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems reject such names")
def test_names_of_classes_are_escaped(tmp_path: Path) -> None:
    for name in (b"caf\xe9", b"line\nbreak", "naïve".encode()):
        touch(Path(os.fsdecode(os.fsencode(tmp_path) + b"/" + name)) / "a.png")
    assert list_images(tmp_path).classes == (r"caf\xe9", r"line\nbreak", "naïve")
    touch(tmp_path / r"caf\xe9" / "a.png")
    with pytest.raises(InputError, match=r"two classes are named caf\\xe9 when escaped; rename one of them"):
        list_images(tmp_path)
