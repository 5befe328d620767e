"""Messages of libraries: importing and using the package prints nothing that the user did not ask for."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

from helpers import on_tensorflow
from keras_vae import VAE
from keras_vae.core import tracing
from keras_vae.core.typing import Array

MakeVAE = Callable[..., VAE]

USE = "from keras_vae import VAE; import numpy as np; VAE(seed=0).sample(2)"


def messages(code: str, level: str | None) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    source = Path(__file__).parents[2] / "src"
    environment["PYTHONPATH"] = f"{source}{os.pathsep}{environment.get('PYTHONPATH', '')}"
    if level is not None:
        environment["TF_CPP_MIN_LOG_LEVEL"] = level
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=300
    )
    return result.stdout + result.stderr


def test_import_and_first_use_print_nothing() -> None:
    assert messages(USE, None) == ""


def test_submodules_print_nothing_and_other_messages_are_kept() -> None:
    code = (
        "import os, keras_vae.networks, tensorflow\n"
        "print(tensorflow.__loader__.__class__.__name__, flush=True)\n"
        "os.write(2, b'W0000 a later warning\\n')"
    )
    pytest.importorskip("tensorflow")
    assert messages(code, None).splitlines() == ["SourceFileLoader", "W0000 a later warning"]


@on_tensorflow("its messages")
def test_log_level_of_the_user_is_respected() -> None:
    # TensorFlow itself ignores the level during its import.
    if "oneDNN" not in messages("import tensorflow", "3"):
        pytest.skip("this build of TensorFlow does not log its use of oneDNN")
    assert "oneDNN" in messages("import keras_vae.networks", "0")
    assert messages(USE, "3") == ""


@on_tensorflow("its warnings and traces")
def test_any_number_of_images_causes_no_warning_and_at_most_two_traces(
    make_vae: MakeVAE, images: Array, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    vae = make_vae()
    vae.compile(keras.optimizers.SGD(0.0))
    traces = []
    forward = vae._forward
    monkeypatch.setattr(vae, "_forward", lambda *args: traces.append(args) or forward(*args))
    with caplog.at_level(logging.WARNING, "tensorflow"):
        for n in (1, 2, 3, 5, 7, 9, 11):
            vae.elbo(images[:n])
        assert len(traces) <= 2
        for n in (1, 2, 3, 5, 7, 9, 11):
            vae.encode(images[:n])
            vae.reconstruct(images[:n])
            vae.sample(n)
            vae.decode(np.zeros((n, 3)))
            vae.image_decoder.predict_on_batch(np.zeros((n, 3), "float32"))
            vae.test_on_batch(images[:n])
            vae.log_likelihood(images[:n], samples=2, proposal="posterior")
        for _ in range(6):
            other = make_vae()
            other.encode(images[:2])
            other.elbo(images[:2])
            other.log_likelihood(images[:2], samples=2, proposal="posterior")
    assert not [record for record in caplog.records if record.name == "tensorflow"]


def test_warnings_of_other_functions_remain(caplog: pytest.LogCaptureFixture) -> None:
    tf = pytest.importorskip("tensorflow")
    with tracing.expected_tracing():
        pass

    @tf.function
    def double(x: object) -> object:
        return x + x  # type: ignore[operator]

    logger = logging.getLogger("tensorflow")
    with caplog.at_level(logging.WARNING, "tensorflow"):
        logger.addHandler(caplog.handler)
        try:
            for number in range(8):
                double(number)
        finally:
            logger.removeHandler(caplog.handler)
    assert any("retracing" in record.getMessage() for record in caplog.records)
