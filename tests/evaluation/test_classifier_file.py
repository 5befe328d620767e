"""The classifier that the perceptual loss reads from a file."""

from pathlib import Path

import numpy as np
import pytest
from keras import ops

from keras_vae.components.image_losses import Perceptual
from keras_vae.components.image_losses.feature_networks import feature_maps, load_feature_network
from keras_vae.core.errors import InputError
from keras_vae.core.files import CACHE_VARIABLE
from keras_vae.data.dataset import Splits
from keras_vae.evaluation import features
from keras_vae.evaluation.classifier_file import save_classifier


@pytest.fixture(autouse=True)
def short_training(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(features, "_MIN_STEPS", 2)


def test_file_contains_the_convolutions_of_the_classifier(splits: Splits, tmp_path: Path) -> None:
    file = save_classifier(tmp_path / "classifier.keras", splits)
    network = load_feature_network(str(file))
    images = splits.test.images
    (maps,) = feature_maps(network, ops.convert_to_tensor(images / np.float32(255)))
    assert tuple(maps.shape) == (4, 9, 11, 16)
    # The features of the classifier itself follow from the maps by its pooling and its hidden layer.
    classifier = features.classifier_features(splits)
    *_, pooling, flatten, hidden = classifier.network.layers
    expected = classifier(images)
    np.testing.assert_allclose(ops.convert_to_numpy(hidden(flatten(pooling(maps)))), expected, rtol=1e-4, atol=1e-5)
    loss = Perceptual(features=str(file))
    loss.build((9, 11, 1))
    found = loss(ops.convert_to_tensor(images / np.float32(255)), ops.zeros((4, 9, 11, 1)), step=0)
    assert np.all(ops.convert_to_numpy(found.loss) > 0)


def test_other_formats_are_rejected(splits: Splits, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"classifier.h5: unknown format; choose a name that ends in .keras"):
        save_classifier(tmp_path / "classifier.h5", splits)
