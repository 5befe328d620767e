"""A run that the tests of exports share."""

from pathlib import Path

import pytest

from keras_vae import Experiment
from keras_vae.training import trainer


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one epoch on the digits data set, which no test may change."""
    experiment = Experiment.preset("classic").with_overrides(
        ["data.source=digits", "training.epochs=1", "model.network.widths=[2, 3]", "training.batch_size=256"]
    )
    return trainer.train(experiment, out=tmp_path_factory.mktemp("runs") / "run").path
