"""The ELBO of a saved model does not depend on the backend."""

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vae
from keras_vae import VAE
from keras_vae.core.typing import Array

SCRIPT = """
import json, sys
import numpy as np
import keras_vae
vae = keras_vae.load(sys.argv[1])
print(json.dumps(vae.elbo(np.load(sys.argv[2]), seed=3).tolist()))
"""


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_saved_model_has_the_same_elbo_on_every_backend(
    backend: str, make_vae: Callable[..., VAE], images: Array, tmp_path: Path
) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: `make test-all` installs all three")
    vae = make_vae()
    vae.compile(optimizer=keras.optimizers.Adam(1e-2))
    vae.fit(images, epochs=2, verbose=0)
    vae.save(tmp_path / "vae.keras")
    expected = vae.elbo(images, seed=3)
    if backend == keras.backend.backend():
        found = keras_vae.load(tmp_path / "vae.keras").elbo(images, seed=3)
    else:
        found = elbo_in_another_process(backend, tmp_path / "vae.keras", images)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def elbo_in_another_process(backend: str, model: Path, images: Array) -> list[float]:
    np.save(model.with_name("images.npy"), images)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(model), str(model.with_name("images.npy"))],
        env=os.environ | {"KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])
