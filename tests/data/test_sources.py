import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from keras_vae.core.errors import InputError, RunError
from keras_vae.data.convert import Color
from keras_vae.data.sources import SOURCES, available, load

RNG = np.random.default_rng(0)
RGB = RNG.integers(0, 256, (6, 9, 7, 3), np.uint8)


def saved(path: Path, images: NDArray[np.generic] = RGB) -> str:
    np.savez(path / "own.npz", images=images)
    return str(path / "own.npz")


def test_mnist_by_path_equals_mnist_by_name(real_mnist: Path) -> None:
    by_path = load(str(real_mnist))
    train, test, *_ = load("mnist")
    assert test is not None
    assert by_path.test is not None
    assert (train.checksum, test.checksum) == (by_path.train.checksum, by_path.test.checksum)
    assert (train.images.shape, test.images.shape) == ((60000, 28, 28, 1), (10000, 28, 28, 1))
    assert train.labels is not None
    assert train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    # The widely published mean gray level of the training images.
    assert train.images.mean() / 255 == pytest.approx(0.1307, abs=1e-4)


def test_digits_are_sharp_and_labeled() -> None:
    train, test, notes, _ = load("digits")
    assert train.images.shape == (1797, 28, 28, 1)
    assert (train.name, train.split, test) == ("digits", "all", None)
    assert train.classes == tuple("0123456789")
    assert train.labels is not None
    assert train.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert notes == ("digits were resampled from 8x8 to 28x28, and their edges sharpened",)
    # Strokes are white and the border is black, with few intermediate levels: the digits are sharp.
    assert train.images.max() == 255
    assert train.images[:, [0, -1]].max() <= 2
    assert train.images[:, :, [0, -1]].max() <= 2
    assert np.mean((train.images > 25) & (train.images < 230)) < 0.2


def test_digits_are_those_of_scikit_learn() -> None:
    from sklearn.datasets import load_digits

    small = load_digits().images
    # Centers of the 8 x 8 source pixels, each 2.8 pixels wide, inside a border of one source pixel.
    centers = np.floor((np.arange(8) + 1.5) * 2.8).astype(int)
    large = load("digits").train.images[:, centers[:, np.newaxis], centers, 0] / 255.0
    assert np.corrcoef(small.ravel(), large.ravel())[0, 1] > 0.95


def test_files_and_folders_are_loaded_by_path(tmp_path: Path, home: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    Image.fromarray(RGB[0]).save(folder / "a.png")
    np.save(home / "own.npy", RGB)
    for source in (saved(tmp_path), "~/own.npy"):
        np.testing.assert_array_equal(load(source).train.images, RGB)
        assert load(source).train.name == "own"
    for path in (str(folder), folder):
        np.testing.assert_array_equal(load(path).train.images, RGB[:1])


def test_name_takes_precedence_over_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("digits").mkdir()
    Image.fromarray(RGB[0]).save("digits/a.png")
    assert len(load("digits").train) == 1797
    for path in ("./digits", "digits/", Path("digits")):
        assert len(load(path).train) == 1


@pytest.mark.parametrize(("size", "color"), [((12, 5), None), (None, "gray"), ((4, 4), "gray")])
def test_size_and_color_apply_to_all_sources(tmp_path: Path, size: tuple[int, int] | None, color: Color | None) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, pixels in enumerate(RGB):
        Image.fromarray(pixels).save(folder / f"{index}.png")
    arrays, pictures = (load(source, image_size=size, color=color) for source in (saved(tmp_path), folder))
    np.testing.assert_array_equal(arrays.train.images, pictures.train.images)
    assert arrays.train.image_shape == (*(size or (9, 7)), 1 if color else 3)
    assert len(arrays.notes) == len(pictures.notes) == (size is not None) + (color is not None)


def test_size_applies_to_digits() -> None:
    assert load("digits", image_size=(8, 12), color="rgb").train.image_shape == (8, 12, 3)


def test_train_and_test_images_of_different_shapes_need_a_size(tmp_path: Path) -> None:
    path = tmp_path / "own.npz"
    np.savez(path, x_train=RGB, x_test=RGB[:, :5])
    with pytest.raises(InputError, match=r"own.npz: train and test images differ in shape: 9 x 7 x 3 and 5 x 7 x 3"):
        load(str(path))
    loaded = load(str(path), image_size=(5, 7))
    assert loaded.test is not None
    assert loaded.test.image_shape == loaded.train.image_shape == (5, 7, 3)
    assert loaded.notes == ("resized to 5x7 (H x W, fit = crop): 6 of 6 images",)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (
            "minst",
            r"^data = 'minst': no such source, and no file or folder /.*/minst; did you mean 'mnist'\? accepted: ",
        ),
        ("Fashion-MNIST", "did you mean 'fashion_mnist'"),
        ("lost/pictures", "no file or folder /.*/lost/pictures; accepted: mnist, fashion_mnist, digits, sprites, or"),
        ("", "^data = '': no such source; accepted"),
        ("~nobody/x.npz", "no file or folder"),
        ("x" * 5000, "no file or folder"),
        ("a\0b", "no file or folder"),
        ("notes.txt", r"^data = /.*/notes.txt: not images; pass a .npz or .npy file, a folder of images"),
        ("a.png", r"^data = /.*/a.png: a single image; pass a folder of images"),
    ],
)
def test_unknown_sources_are_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("text")
    Image.fromarray(RGB[0]).save("a.png")
    with pytest.raises(InputError, match=message) as caught:
        load(source)
    assert "\n" not in str(caught.value)


def test_invalid_options_are_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="color = "):
        load("digits", color="blue")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="image_size"):
        load("digits", image_size=(0, 3))
    with pytest.raises(InputError, match="background = 'white': arrays have no transparency"):
        load(saved(tmp_path), background="white")
    with pytest.raises(InputError, match="background = 'white'"):
        load("mnist", background="white")


def test_failed_download_is_reported() -> None:
    with pytest.raises(RunError, match="data = 'mnist': download from "):
        load("mnist")


def test_available_lists_where_images_come_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "mnist.npz", x=RGB)
    monkeypatch.setenv("KERAS_VAE_DATA", str(tmp_path))
    rows = {row.name: row for row in available()}
    assert list(rows) == list(SOURCES) == ["mnist", "fashion_mnist", "digits", "sprites"]
    assert rows["mnist"].origin == f"local file {tmp_path}/mnist.npz"
    assert rows["fashion_mnist"].origin == "download, 30 MB"
    assert rows["digits"].origin == "embedded in scikit-learn"
    assert rows["sprites"].origin == "drawn when loaded"
    assert all(row.description for row in rows.values())


def test_listing_sources_imports_no_heavy_package() -> None:
    code = "import sys; from keras_vae.data.sources import available; available(); print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "keras_vae.data.sources" in found.stdout.split()
    assert {"keras", "tensorflow", "jax", "torch", "sklearn", "PIL", "matplotlib"}.isdisjoint(found.stdout.split())
