"""Fixtures that all tests share: small images and small models."""

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

# The backend whose tests run: none, one of them, or any. Workers inherit it.
os.environ.setdefault("KERAS_VAE_TEST_BACKEND", os.environ.get("KERAS_BACKEND", "any"))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# JAX compiles a program for each shape in the tests, and optimizing these programs would take most of the time.
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")
# TensorFlow reads these flags, too, and may not know this one.
if os.environ["KERAS_BACKEND"] == "jax":
    os.environ.setdefault("XLA_FLAGS", "--xla_cpu_use_fusion_emitters=false")
# Each worker uses one core. More threads would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")

import numpy as np
import pytest

from keras_vae.core.typing import Array
from keras_vae.data.dataset import Dataset, Splits, split

TESTS, BACKEND = Path(__file__).parent, os.environ["KERAS_VAE_TEST_BACKEND"]
WITHOUT_KERAS = {
    "core": "archives config errors files locks markdown parts progress row_log tables",
    "data": "arrays arrivals convert dataset decoding folders headers layout lazy packed packing published records "
    "sources sprites streams",
    "evaluation": "comparison kl_decomposition neighbors set_distances",
    "report": "figure_files image_grids latent_grid loss_charts scatter",
    "runs": "evaluation_file",
}
"""Files of tests that never import Keras, by folder, and so cannot depend on the backend."""

# The process that distributes the tests does without Keras.
if TYPE_CHECKING:
    from keras_vae import VAE, Run


def _find(name: str) -> Path | None:
    variable = os.environ.get("KERAS_VAE_DATA")
    places = [Path(variable).expanduser()] if variable else []
    for place in (*places, Path(__file__).resolve().parents[2] / "shared" / "data"):
        found = place / name if place.is_dir() else place
        if found.name == name and found.exists():
            return found
    return None


# Find the data before any test changes the environment.
MNIST, CLOTHING = _find("mnist.npz"), _find("clothing")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare a session.

    Without a backend, importing Keras fails. Otherwise, the workers, and the processes that tests start, share the
    programs that JAX compiles.
    """
    if BACKEND == "none":
        sys.modules["keras"] = None  # type: ignore[assignment]
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        folder = tempfile.TemporaryDirectory(prefix="keras-vae-tests-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = folder.name
        os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
        os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"


def pytest_ignore_collect(collection_path: Path) -> bool | None:
    """Collect the tests without Keras only if the backend is none or any, and the others unless it is none."""
    if BACKEND == "any" or not collection_path.is_relative_to(TESTS):
        return None
    if collection_path.is_dir():
        # The configuration of other folders imports Keras.
        return True if BACKEND == "none" and collection_path.name not in ("tests", *WITHOUT_KERAS) else None
    names = WITHOUT_KERAS.get(collection_path.parent.name, "").split()
    is_independent = collection_path.stem.removeprefix("test_") in names
    return True if is_independent != (BACKEND == "none") else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run the slow tests first, so that no worker waits for one that starts last."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture
def real_mnist(monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the real MNIST available as the source `mnist`, or skip the test if it is missing."""
    if MNIST is None:
        pytest.skip("no mnist.npz in $KERAS_VAE_DATA or ../shared/data")
    monkeypatch.setenv("KERAS_VAE_DATA", str(MNIST))
    return MNIST


@pytest.fixture
def clothing() -> Path:
    """The folder of photographs of clothing; skip the test if it is missing."""
    if CLOTHING is None:
        pytest.skip("no folder clothing in $KERAS_VAE_DATA or ../shared/data")
    return CLOTHING


@pytest.fixture(scope="session")
def shared_images() -> Array:
    """The original of `images`, which no test may change."""
    images = np.random.default_rng(7).integers(0, 60, (24, 9, 11, 1), dtype="uint8")
    images[:, 2:7, 3:8] += 190
    return images


@pytest.fixture
def images(shared_images: Array) -> Array:
    """Noisy dark images with a bright center, of an odd, non-square size that no stride divides."""
    return shared_images.copy()


@pytest.fixture
def splits(images: Array) -> Splits:
    """The images with three labels: 16 for training, 4 for validation and 4 for testing."""
    return split_images(images)


def split_images(images: Array) -> Splits:
    dataset = Dataset.from_arrays(images, np.arange(24) % 3, name="frames")
    return split(dataset, None, validation=4, test_size=4, holdout=True, seed=0)


@pytest.fixture(scope="session")
def shared_splits(shared_images: Array) -> Splits:
    """The original of `splits`, which no test may change."""
    return split_images(shared_images)


@pytest.fixture(scope="session")
def shared_run(shared_splits: Splits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The original of `trained_run`, which no test may change."""
    from helpers import small
    from keras_vae import train

    return train(small(), shared_splits, tmp_path_factory.mktemp("trained") / "run").path


@pytest.fixture
def trained_run(shared_run: Path, tmp_path: Path) -> "Run":
    """A copy of the run that `train(small(), splits)` writes."""
    from keras_vae import Run

    return Run(Path(shutil.copytree(shared_run, tmp_path / "trained")))


@pytest.fixture
def one_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a report contain one figure: drawing all of them takes longer than a small training."""
    from keras_vae.report import plots

    monkeypatch.setattr(plots, "available_plots", lambda context: ("curves",))


@pytest.fixture
def make_vae() -> Callable[..., "VAE"]:
    """Return a function that builds a small VAE."""
    from keras_vae import VAE
    from keras_vae.networks import Conv

    def make(image_shape: tuple[int, int, int] = (9, 11, 1), latent_dim: int = 3, **kwargs: object) -> "VAE":
        network = Conv(widths=(4, 6), dense_units=8)
        kwargs.setdefault("seed", 5)
        return VAE(network.encoder(image_shape, latent_dim), network.decoder(latent_dim, image_shape), **kwargs)

    return make


@pytest.fixture
def quick_search(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the default proposal of importance sampling search for a few steps only, which costs accuracy alone."""
    import functools

    from keras_vae.models import proposals

    quick = functools.partial(proposals.MixtureProposal, candidates=5, starts=1, steps=2, rounds=1)
    monkeypatch.setitem(proposals.PROPOSALS, "mixture", quick)
    monkeypatch.setattr(proposals, "MixtureProposal", quick)
