"""ONNX Runtime Web, which runs graphs in a browser: its files, from npm or a folder."""

import contextlib
import hashlib
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import NamedTuple

from keras_vae.core.errors import InputError, RunError, first_line
from keras_vae.core.files import cache_folder, replacing_folder

PACKAGE, VERSION = "onnxruntime-web", "1.24.3"

SCRIPT, BINARY = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""The smallest build that can be imported from a page on disk: WebAssembly only, with its loader in the script."""

_CHECKSUMS = {
    SCRIPT: "9f716d6e3c4280dcced6f0fcb9814c1d7630de83d8177880a2ef445fe48ca913",
    BINARY: "be0e129949062ad50290ef94683fac8be5bb6156f709e030b7a5f1661a2f6c17",
}
"""SHA-256 of each file."""

_SECONDS = 600


class WebRuntime(NamedTuple):
    """The files of ONNX Runtime Web.

    Args:
        script: The JavaScript module.
        binary: The WebAssembly module.
    """

    script: bytes
    binary: bytes


def load_runtime(folder: Path | None = None) -> WebRuntime:
    """Return the files of ONNX Runtime Web, with verified checksums.

    Without a folder, they are read from the cache (see `cache_folder`), or downloaded into it by `npm pack`.

    Args:
        folder: The folder with the files, such as `node_modules/onnxruntime-web/dist`.

    Raises:
        InputError: The folder does not contain the files of this version, or the files are not in the cache and npm is
            not installed.
        RunError: npm cannot download the package, or its files are not the expected ones.
    """
    if folder is not None:
        runtime = _read(folder)
        if runtime is None:
            raise InputError(
                f"runtime = {folder}: does not contain {SCRIPT} and {BINARY} of {PACKAGE} {VERSION}; pass the folder "
                f"dist of that version"
            )
        return runtime
    cached = cache_folder() / f"{PACKAGE}-{VERSION}"
    return _read(cached) or _download(cached)


def _read(folder: Path) -> WebRuntime | None:
    """Return the files in a folder; None if one is missing or has another checksum."""
    contents = []
    for name, checksum in _CHECKSUMS.items():
        try:
            content = (folder / name).read_bytes()
        except OSError:
            return None
        if hashlib.sha256(content).hexdigest() != checksum:
            return None
        contents.append(content)
    return WebRuntime(*contents)


def _download(cached: Path) -> WebRuntime:
    """Download the package with npm, and keep the two files in the cache."""
    npm = shutil.which("npm")
    if npm is None:
        raise InputError(
            f"runtime = None: {PACKAGE} {VERSION} is not in {cached.parent}, and npm is not installed to download it; "
            f"install npm, or pass the folder dist of that version"
        )
    with tempfile.TemporaryDirectory() as temporary:
        archive = _pack(npm, Path(temporary))
        try:
            with tarfile.open(archive) as package:
                for name in _CHECKSUMS:
                    member = package.extractfile(f"package/dist/{name}")
                    assert member is not None
                    (Path(temporary) / name).write_bytes(member.read())
        except (tarfile.TarError, KeyError, OSError) as error:
            raise RunError(f"{PACKAGE} {VERSION}: npm's archive cannot be read ({first_line(error)})") from error
        runtime = _read(Path(temporary))
        if runtime is None:
            raise RunError(f"{PACKAGE} {VERSION}: npm's files have other checksums than expected; check its registry")
    # Without a cache, the next export downloads the package again.
    with contextlib.suppress(InputError, RunError, OSError), replacing_folder(cached) as folder:
        for name, content in zip(_CHECKSUMS, runtime, strict=True):
            (folder / name).write_bytes(content)
    return runtime


def _pack(npm: str, folder: Path) -> Path:
    """Download the archive of the package into a folder with npm, and return it."""
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", "--json", "--loglevel=silent", "--ignore-scripts"]
    try:
        done = subprocess.run(
            command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise RunError(f"{PACKAGE} {VERSION}: npm failed ({first_line(error)})") from error
    archive = next(folder.glob("*.tgz"), None)
    if done.returncode or archive is None:
        raise RunError(f"{PACKAGE} {VERSION}: npm cannot download it ({_reason(done.stdout)})")
    return archive


def _reason(output: str) -> str:
    """Return the summary of npm's error, which it writes as JSON."""
    with contextlib.suppress(ValueError, KeyError, TypeError):
        return first_line(RunError(json.loads(output)["error"]["summary"]))
    return "no reason given"
