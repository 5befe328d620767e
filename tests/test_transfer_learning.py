"""The example of transfer learning runs, and its classifier learns on a frozen encoder."""

import runpy
import sys
from pathlib import Path

import numpy as np
import pytest

import keras_vae

EXAMPLE = Path(__file__).parents[1] / "examples" / "transfer_learning.py"


def test_example_prints_the_accuracy_on_codes_and_on_pixels(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), "--epochs", "100"])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert [line.split(": ")[0].rsplit(" on ")[-1] for line in lines] == ["16 codes", "784 pixels"]
    # Chance is 0.1. Which of the two is better depends on the labeled images.
    assert all(float(line.rsplit(" ", 1)[1]) > 0.6 for line in lines)


def test_classifier_leaves_the_frozen_encoder_unchanged() -> None:
    example = runpy.run_path(str(EXAMPLE))
    encoder = keras_vae.load("mnist-16d").image_encoder
    encoder.trainable = False
    before = [np.array(weight) for weight in encoder.get_weights()]
    images = np.random.default_rng(0).integers(0, 256, (20, 28, 28, 1), dtype="uint8")
    classifier = example["build_classifier"](encoder, images.shape[1:])
    head = [np.array(weight) for weight in classifier.trainable_weights]
    classifier.fit(images, np.arange(20) % 10, epochs=2, verbose=0)
    assert any((old != np.array(new)).any() for old, new in zip(head, classifier.trainable_weights, strict=True))
    for old, new in zip(before, encoder.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
