"""Isolate the data tests from the user's files and from the network."""

from pathlib import Path
from urllib.error import URLError

import pytest

from keras_vae.data import published


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home folder, the parent of the cache of Keras, and make downloads fail."""

    def fail(url: str, timeout: float) -> None:
        raise URLError("no network")

    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.delenv(published.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(published, "urlopen", fail)
    return folder
