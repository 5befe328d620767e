"""The ELBO of a saved model does not depend on the backend."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_vae
from keras_vae import VAE
from keras_vae.core.typing import Array
from keras_vae.networks import Conv

SCRIPT = """
import json, sys
import numpy as np
import keras_vae
vae = keras_vae.load(sys.argv[1])
print(json.dumps(vae.elbo(np.load(sys.argv[2]), seed=3).tolist()))
"""


@pytest.fixture(scope="module")
def saved(shared_images: Array, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Array]:
    """A model trained and saved on this backend, and its ELBO of the images."""
    network = Conv(widths=(4, 6), dense_units=8)
    vae = VAE(network.encoder((9, 11, 1), 3), network.decoder(3, (9, 11, 1)), seed=5)
    vae.compile(optimizer=keras.optimizers.Adam(1e-2))
    vae.fit(shared_images, epochs=2, verbose=0)
    path = tmp_path_factory.mktemp("saved") / "vae.keras"
    vae.save(path)
    return path, vae.elbo(shared_images, seed=3)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_saved_model_has_the_same_elbo_on_every_backend(backend: str, saved: tuple[Path, Array], images: Array) -> None:
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed: `make test-all` installs all three")
    path, expected = saved
    if backend == keras.backend.backend():
        found = keras_vae.load(path).elbo(images, seed=3)
    else:
        found = elbo_in_another_process(backend, path, images)
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
