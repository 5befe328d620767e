"""Comparison with the example from scratch: equal weights and noise yield equal losses and gradients."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from helpers import on_tensorflow
from keras_vae import ELBO, VAE

pytestmark = on_tensorflow("the example is plain TensorFlow")

EXAMPLE = Path(__file__).parents[1] / "examples" / "from_scratch.py"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("from_scratch", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("beta", [0.5, 1.0])
def test_equal_weights_and_noise_yield_equal_losses_and_gradients(example: ModuleType, beta: float) -> None:
    import tensorflow as tf

    ours = VAE(objective=ELBO(beta=beta), seed=11)
    plain = example.VAE(example.build_encoder(), example.build_decoder(), beta=beta, seed=11)
    plain.encoder.set_weights(ours.encoder.get_weights())
    plain.decoder.set_weights(ours.decoder.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (16, 28, 28, 1), dtype="uint8")

    with tf.GradientTape() as tape:
        expected = plain.compute_losses(tf.constant(images / np.float32(255)))
    expected_gradients = tape.gradient(expected[0], plain.trainable_weights)
    with tf.GradientTape() as tape:
        total = ours.compute_loss(images, y_pred=ours(images, training=True))
    gradients = tape.gradient(total, [*ours.encoder.trainable_weights, *ours.decoder.trainable_weights])

    metrics = {name: float(tracker.result()) for name, tracker in ours.loss_trackers.items()}
    for name, value in zip(("total_loss", "reconstruction_loss", "kl_loss"), expected, strict=True):
        assert metrics[name] == pytest.approx(float(value), rel=1e-4)
    assert float(total) == pytest.approx(float(expected[0]), rel=1e-4)
    assert len(gradients) == len(expected_gradients) == 18
    for left, right in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-3, atol=1e-4 * float(np.abs(right).max()))


def test_example_runs_and_writes_the_grid(
    example: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--epochs", "1", "--batch-size", "128", "--n", "3", "--out", str(tmp_path / "grid.png")]
    monkeypatch.setattr(sys, "argv", ["from_scratch.py", *arguments])
    example.main()
    assert (tmp_path / "grid.png").stat().st_size > 1000
    assert "nats per image" in capsys.readouterr().out
