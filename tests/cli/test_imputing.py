"""Training on images with missing pixels, `vae impute` and `vae reconstruct --mask`."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from cli_helpers import SMALL, Vae, assert_rejected
from PIL import Image

from helpers import on_tensorflow
from keras_vae import load
from keras_vae.core.typing import Array
from keras_vae.data import sources

pytestmark = on_tensorflow("what the commands call is tested on every backend")


def incomplete(count: int, seed: int) -> tuple[Array, Array]:
    """Return gray images (count, 9, 7) in [0, 1], and masks of about half of their pixels."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 9, 7)) / 255, rng.random((count, 9, 7)) < 0.5


@pytest.fixture
def files(tmp_path: Path) -> None:
    """Incomplete images with NaN, and the same ones with masks."""
    (train, train_mask), (test, test_mask) = incomplete(30, 0), incomplete(8, 1)
    np.savez("nan.npz", x_train=np.where(train_mask, train, np.nan), x_test=np.where(test_mask, test, np.nan))
    np.savez("mask.npz", x_train=train, mask_train=train_mask, x_test=test, mask_test=test_mask)


def test_incomplete_images_are_refused_unless_requested(vae: Vae, files: None) -> None:
    assert_rejected(vae("train", "--data", "nan.npz", *SMALL), "images: NaN or infinite pixels; pass floats in [0, 1]")
    loaded = sources.load("mask.npz")
    assert not loaded.train.has_missing
    assert "arrays of mask.npz that were not used: mask_test, mask_train" in loaded.notes


def test_nan_and_masks_are_the_same_data(vae: Vae, files: None) -> None:
    nan, mask = (sources.load(name, missing="mask") for name in ("nan.npz", "mask.npz"))
    assert nan.train.checksum == mask.train.checksum
    assert nan.test is not None
    assert nan.test.has_missing
    _, known = incomplete(8, 1)
    np.testing.assert_array_equal(~nan.test.images.mask[..., 0], known)
    assert (nan.test.images.data[~known] == 0).all()
    other = sources.load("mask.npz")
    assert other.train.checksum != mask.train.checksum


def test_training_on_incomplete_images_is_evaluated_per_observed_value(vae: Vae, files: None) -> None:
    settings = [*SMALL, "--set", "data.missing=mask", "--set", "data.validation=4", "--set", "model.mask_channels=true"]
    likelihood = ["--set", 'model.likelihood="discretized-logistic"']
    outcome = vae("train", "--data", "nan.npz", "--out", "run", *settings, *likelihood)
    assert outcome.code == 0, outcome.err
    assert vae("evaluate", "run", "--samples", "4").code == 0
    evaluation = json.loads(Path("run/evaluation.json").read_text("utf-8"))
    _, known = incomplete(8, 1)
    section = evaluation["likelihood"]
    assert section["observed"] == pytest.approx(known.mean())
    bits = section["nll"]["mean"] / (known.sum() / len(known) * math.log(2))
    assert section["bits_per_dim"]["mean"] == pytest.approx(bits)
    assert "samples" not in evaluation
    assert_rejected(vae("evaluate", "run", "--stages", "samples"), "stages = samples: it compares whole images")
    assert Path("run/report.html").exists()
    assert load("run").mask_channels
    assert vae("encode", "run", "--out", "z.npz").code == 0
    outcome = vae("impute", "run", "--samples", "20", "-n", "5", "--out", "i.npz")
    assert outcome.code == 0, outcome.err
    assert "effective sample size of 20: median" in outcome.err
    written = np.load("i.npz")
    assert written["images"].shape == written["upper"].shape == (5, 9, 7, 1)
    assert np.isfinite(written["images"]).all()
    assert (~written["mask"]).any()


@pytest.mark.parametrize("mask", ["m.npy", "m.npz", "m.png"])
def test_a_mask_hides_pixels_of_all_images(mask: str, vae: Vae, run: Path, folder: Path) -> None:
    known = np.ones((9, 7), bool)
    known[:4] = False
    if mask == "m.png":
        Image.fromarray(known.astype("uint8") * 255).save(mask)
    elif mask == "m.npy":
        np.save(mask, known)
    else:
        np.savez(mask, mask=np.repeat(known[None], 30, axis=0))
    words = ["impute", run, "--samples", "10"] if mask == "m.npy" else ["reconstruct", run]
    assert vae(*words, "--data", folder, "-n", "3", "--mask", mask, "--out", "i.npz").code == 0
    written = np.load("i.npz")
    np.testing.assert_array_equal(written["mask"], np.broadcast_to(known[..., None], (3, 9, 7, 1)))
    assert vae(*words, "--data", folder, "-n", "3", "--mask", mask, "--out", "i.png").code == 0


def test_wrong_masks_are_refused_in_one_line(vae: Vae, run: Path, folder: Path) -> None:
    np.save("wrong.npy", np.ones((4, 9, 7), bool))
    np.save("turned.npy", np.ones((7, 9), bool))
    np.save("floats.npy", np.ones((9, 7)))
    np.save("complete.npy", np.ones((9, 7), bool))
    Path("broken.png").write_bytes(b"no picture")
    for name, message in (
        ("wrong.npy", "mask.shape = (4, 9, 7): the source has 30 images; pass one mask, (9, 7), or 30"),
        ("turned.npy", "mask.shape = (7, 9): does not fit images of (9, 7); pass a mask of their size"),
        ("floats.npy", "mask.dtype = float64: not a mask; pass booleans, True for observed pixels"),
        ("complete.npy", "--mask: no pixel is missing"),
        ("broken.png", "broken.png"),
        ("absent.npy", "absent.npy"),
    ):
        outcome = vae("impute", run, "--data", folder, "--mask", name, "--out", "i.npz")
        assert_rejected(outcome, message)
    assert_rejected(vae("impute", run, "--data", folder, "--out", "i.npz"), "--mask: no pixel is missing")


def test_sources_without_missing_pixels_are_refused(vae: Vae, folder: Path, files: None) -> None:
    message = "missing = 'mask': only .npz and .npy files can have missing pixels"
    assert_rejected(vae("train", "--data", folder, "--set", "data.missing=mask"), message)
    message = "missing = 'mask': images with missing pixels cannot be converted from 9x7x1 to 4x4x1"
    words = ["train", "--data", "nan.npz", "--set", "data.missing=mask", "--image-size", "4x4"]
    assert_rejected(vae(*words), message)
    train, mask = incomplete(30, 0)
    np.savez("empty.npz", x_train=train, mask_train=mask & (np.arange(30) != 3)[:, None, None])
    words = ["train", "--data", "empty.npz", "--set", "data.missing=mask", "--set", "data.validation=0"]
    assert_rejected(vae(*words, "--set", "data.test=0", *SMALL), "of 30 images have no observed pixel, first image 3")
    np.savez("partial.npz", x_train=train, mask_train=mask, x_test=train)
    message = "only mask_train is present; pass masks for train and test, or for none"
    assert_rejected(vae("train", "--data", "partial.npz", "--set", "data.missing=mask"), message)
