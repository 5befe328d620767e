"""ONNX Runtime Web: from a folder, from the cache or from npm."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from keras_vae.core.errors import InputError, RunError
from keras_vae.integrations.export import web_runtime
from keras_vae.integrations.export.web_runtime import BINARY, SCRIPT, WebRuntime, load_runtime

FILES = WebRuntime(b"export {};", b"\0asm")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and no programs on the path."""
    monkeypatch.setenv("KERAS_VAE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "cache"


@pytest.fixture
def expected(monkeypatch: pytest.MonkeyPatch) -> None:
    checksums = [hashlib.sha256(content).hexdigest() for content in FILES]
    monkeypatch.setattr(web_runtime, "_CHECKSUMS", dict(zip((SCRIPT, BINARY), checksums, strict=True)))


@pytest.fixture
def npm(tmp_path: Path) -> Path:
    """A program `npm` that puts an archive with `FILES` into the current folder."""
    archive = tmp_path / "package.tar"
    with tarfile.open(archive, "w:gz") as package:
        for name, content in zip((SCRIPT, BINARY), FILES, strict=True):
            member = tarfile.TarInfo(f"package/dist/{name}")
            member.size = len(content)
            package.addfile(member, io.BytesIO(content))
    return program(tmp_path, f"/bin/cp {archive} onnxruntime-web.tgz")


def program(folder: Path, command: str) -> Path:
    (folder / "bin").mkdir()
    file = folder / "bin" / "npm"
    file.write_text(f"#!/bin/sh\n{command}\n")
    file.chmod(0o755)
    return file


def write(folder: Path) -> Path:
    folder.mkdir(parents=True)
    for name, content in zip((SCRIPT, BINARY), FILES, strict=True):
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.usefixtures("expected")
def test_files_of_a_folder_are_used(tmp_path: Path) -> None:
    assert load_runtime(write(tmp_path / "dist")) == FILES


@pytest.mark.usefixtures("expected", "npm")
def test_npm_downloads_once(npm: Path, cache: Path) -> None:
    assert load_runtime() == FILES
    npm.unlink()
    assert load_runtime() == FILES
    (file,) = cache.glob(f"*/{BINARY}")
    file.write_bytes(b"damaged")
    with pytest.raises(InputError, match="npm is not installed"):
        load_runtime()


def test_a_folder_of_another_version_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^runtime = .*dist: does not contain .* of onnxruntime-web [\d.]+; pass"):
        load_runtime(write(tmp_path / "dist"))


@pytest.mark.usefixtures("npm")
def test_files_from_npm_are_verified(cache: Path) -> None:
    with pytest.raises(RunError, match="other checksums than expected"):
        load_runtime()
    assert not cache.exists()


def test_the_reason_of_npm_is_reported(tmp_path: Path) -> None:
    error = json.dumps({"error": {"code": "ENOTFOUND", "summary": "the registry cannot be reached\nsecond line"}})
    program(tmp_path, f"echo '{error}'; exit 1".replace("\\n", "\\\\n"))
    with pytest.raises(RunError, match=r"npm cannot download it \(the registry cannot be reached\)$"):
        load_runtime()


def test_without_npm_the_error_names_the_alternatives() -> None:
    with pytest.raises(InputError, match=r"npm is not installed to download it; install npm, or pass the folder dist"):
        load_runtime()
