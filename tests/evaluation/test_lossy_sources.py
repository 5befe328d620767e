"""The warning about bits per dimension of images that were compressed with loss."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from helpers import on_tensorflow
from keras_vae import VAE
from keras_vae.components.likelihoods import Bernoulli
from keras_vae.data.config import DataConfig
from keras_vae.data.decoding import is_lossy
from keras_vae.data.packing import pack
from keras_vae.data.sources import load, load_splits
from keras_vae.evaluation.likelihood import measure_likelihood
from keras_vae.evaluation.summary import summarize

pytestmark = on_tensorflow("files and sections do not depend on the backend")


def encoded(kind: str, **options: object) -> bytes:
    """Return a noisy picture in an image format."""
    levels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype="uint8")
    content = io.BytesIO()
    Image.fromarray(levels).save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize(
    ("kind", "options", "lossy"),
    [
        ("JPEG", {}, True),
        ("WEBP", {}, True),
        ("WEBP", {"exif": b"Exif\0\0II*\0\x08\0\0\0\0\0\0\0\0\0"}, True),
        ("WEBP", {"lossless": True}, False),
        ("PNG", {}, False),
        ("GIF", {}, False),
    ],
)
def test_lossy_formats_are_recognized(kind: str, options: dict[str, object], lossy: bool) -> None:
    assert is_lossy(encoded(kind, **options)) is lossy


def folder(path: Path, *kinds: str) -> Path:
    path.mkdir()
    for index in range(12):
        kind = kinds[index % len(kinds)]
        (path / f"{index:02}.{kind.lower()}").write_bytes(encoded(kind))
    return path


@pytest.mark.parametrize("mode", ["memory", "stream"])
def test_folders_remember_lossy_files_in_all_splits_and_packs(tmp_path: Path, mode: str) -> None:
    mixed, exact = folder(tmp_path / "mixed", "PNG", "JPEG"), folder(tmp_path / "exact", "PNG")
    for source, lossy in ((mixed, True), (exact, False)):
        splits, _ = load_splits(DataConfig(source=str(source), load=mode, validation=2, test=2))
        assert [part.is_lossy for part in splits] == [lossy] * 3
        whole, _ = load_splits(DataConfig(source=str(source), load=mode, image_size=[4, 4], holdout=False))
        assert whole.train.is_lossy is lossy
    jpeg = folder(tmp_path / "jpeg", "JPEG")
    pack(jpeg, tmp_path / "packed.npy")
    assert load(tmp_path / "packed.npy", load=mode).train.is_lossy


def test_bits_per_dimension_of_lossy_images_carry_a_warning(tmp_path: Path, make_vae: Callable[..., VAE]) -> None:
    model = make_vae((8, 8, 3), likelihood=Bernoulli(binarize="dynamic"))
    model.build((None, 8, 8, 3))
    warnings = {}
    for kind in ("JPEG", "PNG"):
        config = DataConfig(source=str(folder(tmp_path / kind, kind)), validation=2, test=2)
        section = measure_likelihood(model, load_splits(config)[0], seed=0).section
        assert section["lossy"] is (kind == "JPEG")
        section |= {"bits_per_dim": {"mean": 3.5, "standard_error": 0.1}}
        warnings[kind] = [line for line in summarize({"likelihood": section}) if "JPEG" in line]
    assert len(warnings["JPEG"]) == 1
    assert "bits per dimension" in warnings["JPEG"][0]
    assert warnings["PNG"] == []
