"""Runs whose data is missing, or replaced by images in the folder of the run."""

from pathlib import Path

import numpy as np
import pytest
from explorer_runs import CLASSIC, MakeRun

from helpers import on_tensorflow
from keras_vae import Run
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array
from keras_vae.explorer.explorer import NUM_INTERPOLATED, Explorer

pytestmark = on_tensorflow("calls methods of models that their own tests cover on every backend")


def test_a_run_without_its_data_can_be_explored(make_run: MakeRun) -> None:
    run = make_run(*CLASSIC)
    Path(run.experiment.data.source).unlink()
    explorer = Explorer(run)
    assert explorer.sources.examples is None
    assert "do not exist" in explorer.sources.note
    explorer.warm_up()
    space, plane = explorer.latent_space, explorer.latent_space.plane()
    assert space.decode_grid(plane, space.default_view(plane)).shape[0] == space.grid_size**2
    images, description = explorer.choices()
    assert description == "samples from the prior"
    assert explorer.interpolate(*images[:2]).shape[0] == NUM_INTERPOLATED
    explorer.analyzer.score_reference()
    assert explorer.analyzer.analyze(images[0]).percentile is None
    assert explorer.neighbors is None
    assert isinstance(explorer.report.findings, tuple)
    assert "negative ELBO" in explorer.report.html


def test_images_in_the_run_folder_replace_missing_data(make_run: MakeRun, frames: tuple[Array, Array]) -> None:
    run = make_run(*CLASSIC)
    Path(run.experiment.data.source).unlink()
    np.savez(run.path / "images.npz", images=frames[0][:20], labels=frames[1][:20])
    explorer = Explorer(run)
    assert len(explorer.latent_space.dataset) == 20
    assert explorer.sources.splits is None
    explorer.analyzer.score_reference()
    assert explorer.analyzer.analyze(frames[0][0]).percentile is not None
    whole = (run.path / "images.npz").read_bytes()
    for content in (b"damaged", b"", whole[:200]):
        (run.path / "images.npz").write_bytes(content)
        with pytest.raises(InputError, match=r"images\.npz: cannot be read"):
            Explorer(run)


def test_data_is_not_downloaded_if_the_run_folder_has_images(
    make_run: MakeRun, frames: tuple[Array, Array], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("KERAS_VAE_DATA", raising=False)
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr("keras_vae.data.published.urlopen", lambda *_, **__: pytest.fail("accessed the network"))
    run = make_run(*CLASSIC)
    experiment = run.experiment.with_overrides(['data.source="mnist"'])
    (run.path / "experiment.toml").write_text(experiment.to_toml())
    run = Run(run.path)
    np.savez(run.path / "images.npz", images=frames[0], labels=frames[1])
    assert "downloaded" in Explorer(run).sources.note
