"""No test of data reads the user's own files, or the network, unless it says so."""

from pathlib import Path
from urllib.error import URLError

import pytest

from keras_vae.data import published


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty home folder, in which Keras's cache would lie; nothing answers a download."""

    def refuse(url: str, timeout: float) -> None:
        raise URLError("no network")

    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("KERAS_HOME", raising=False)
    monkeypatch.delenv(published.DATA_VARIABLE, raising=False)
    monkeypatch.setattr(published, "urlopen", refuse)
    return folder
