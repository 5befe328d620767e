"""The server of the page: access, network requests, and the API."""

import base64
import io
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from helpers import on_tensorflow
from keras_vae.core.errors import InputError
from keras_vae.core.typing import Array

pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
pytestmark = on_tensorflow("the page is the same on every backend")

from keras_vae.explorer import serving, write_space  # noqa: E402
from keras_vae.runs.run import Run  # noqa: E402

VAE = (sys.executable, "-c", "from keras_vae.cli import main; main()")


@contextmanager
def served(*words: object, cwd: Path | None = None, **variables: str) -> Iterator[str]:
    """Start a program that prints the URL of its page, and yield the URL."""
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow", **variables}
    process = subprocess.Popen(
        [*map(str, words)], cwd=cwd, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        address = process.stdout.readline().strip()
        assert address.startswith("http"), process.stderr.read()
        yield address
    finally:
        process.terminate()
        process.communicate(timeout=30)


@pytest.fixture
def run(classic_run: Run) -> Run:
    return classic_run


@pytest.fixture
def address(classic_address: str) -> str:
    return classic_address


def fetched(address: str, **headers: str) -> tuple[int, str, Any]:
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, "", error.headers


def picture(levels: Array) -> str:
    content = io.BytesIO()
    Image.fromarray(levels[..., 0]).save(content, "PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"


def pixels(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


@pytest.mark.slow
def test_the_page_is_local_and_fetches_nothing_from_other_hosts(address: str) -> None:
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", address)
    status, html, headers = fetched(address)
    assert status == 200
    assert "default-src 'self'" in headers["Content-Security-Policy"]
    # No script, style or image comes from another host.
    sources = re.findall(r"<(?:script|link|img|iframe)[^>]*(?:src|href)=[\"']([^\"']+)", html)
    assert sources
    assert [source for source in sources if "//" in source and not source.startswith(address)] == []
    assert '"enable_analytics":true' not in html.replace(" ", "")
    # DNS rebinding: a request for another host name is rejected.
    assert fetched(address, Host="example.org")[0] == 400


@pytest.mark.slow
def test_the_api_returns_the_results_of_the_model(address: str, run: Run, frames: tuple[Array, Array]) -> None:
    from gradio_client import Client
    from gradio_client.exceptions import AppError

    client = Client(address, verbose=False)
    described = client.predict(api_name="/describe")
    assert (described["image_shape"], described["latent_dim"], described["model"]) == ([9, 11, 1], 2, "VAE")
    model = run.load_model()

    decoded = pixels(client.predict(code=[0.5, -1.0], api_name="/decode"))
    expected = model.decode(np.array([[0.5, -1.0]]))[0, ..., 0]
    np.testing.assert_allclose(decoded, expected * 255, atol=1)

    analysis = client.predict(image=picture(frames[0][3]), api_name="/analyze")
    np.testing.assert_allclose(analysis["code"], model.encode(frames[0][3:4]).z_mean[0], atol=1e-4)
    assert analysis["score"] == "nll"

    strip = client.predict(first=picture(frames[0][0]), second=picture(frames[0][1]), api_name="/interpolate")
    assert len(strip) == 11

    drawn = client.predict(count=3, seed=5, api_name="/sample")
    np.testing.assert_allclose(np.stack([*map(pixels, drawn)]), model.sample(3, seed=5)[..., 0] * 255, atol=1)

    for call, message in (
        ({"code": [1.0], "api_name": "/decode"}, "pass 2 numbers"),
        ({"image": "data:image/png;base64,AAAA", "api_name": "/analyze"}, "cannot be read"),
        ({"count": 10**9, "api_name": "/sample"}, "count = 1000000000: out of range; pass a number from 1 to 100"),
    ):
        with pytest.raises(AppError, match=message):
            client.predict(**call)


@pytest.mark.slow
def test_ctrl_c_ends_the_page_without_a_traceback(run: Run) -> None:
    process = subprocess.Popen(
        [*VAE, "explore", run.path, "--port", "0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # The tests may run in the background of a shell, which ignores Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    port = int(process.stdout.readline().rpartition(":")[2])
    # Every page keeps a stream open.
    with socket.create_connection(("127.0.0.1", port)) as stream:
        stream.sendall(f"GET /gradio_api/heartbeat/page HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        assert stream.recv(12) == b"HTTP/1.1 200"
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "FATAL" not in errors


def test_a_port_in_use_is_reported_in_one_line(run: Run) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        outcome = subprocess.run([*VAE, "explore", run.path, "--port", str(port)], capture_output=True, text=True)
    assert outcome.returncode == 2
    assert outcome.stderr.strip() == f"vae: port = {port}: already in use on 127.0.0.1; try {port + 1}"


def test_invalid_addresses_are_rejected() -> None:
    with pytest.raises(InputError, match=r"host = nowhere\.invalid: cannot be resolved"):
        serving.listen("nowhere.invalid", 7860)
    with pytest.raises(InputError, match=r"host = a\.\.b: cannot be resolved"):
        serving.listen("a..b", 7860)
    with pytest.raises(InputError, match=r"host = 192\.0\.2\.1: Cannot assign"):
        serving.listen("192.0.2.1", 7860)


@pytest.mark.slow
def test_the_ipv6_loopback_rejects_other_hosts_too(run: Run) -> None:
    from starlette.testclient import TestClient

    client = TestClient(serving.create_app(run, host="::1"), base_url="http://[::1]:7860")
    assert client.get("/").status_code == 200
    assert client.get("/", headers={"Host": "example.org"}).status_code == 400


def test_a_missing_package_error_names_the_extra(run: Run) -> None:
    code = "import sys; sys.modules['gradio'] = None; from keras_vae.cli import main; main()"
    outcome = subprocess.run([sys.executable, "-c", code, "explore", run.path], capture_output=True, text=True)
    assert outcome.returncode == 2
    assert outcome.stderr.strip() == "vae: explore: gradio is not installed; pip install 'keras-vae[explore]'"


@pytest.mark.slow
def test_a_space_serves_the_run_without_this_checkout(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "space"
    outcome = subprocess.run(
        [*VAE, "export", run.path, "--format", "space", "--out", folder], capture_output=True, text=True
    )
    assert outcome.stdout.strip() == str(folder), outcome.stderr
    files = {"app.py", "requirements.txt", "README.md", "LICENSE", "run", "keras_vae"}
    assert {file.name for file in folder.iterdir()} == files
    assert "Apache License" in (folder / "LICENSE").read_text()
    head = (folder / "README.md").read_text().split("---")[1]
    assert "sdk: gradio" in head
    assert "app_file: app.py" in head
    assert re.search(r"^gradio==\d", (folder / "requirements.txt").read_text(), re.MULTILINE)
    assert not list(folder.rglob("*.npz"))
    # Python puts the folder of a script first on the path, so that the copy of the package in the Space is used.
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with served(sys.executable, "app.py", cwd=folder, PORT=str(port)) as shown:
        assert shown == f"http://0.0.0.0:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                status, html, _ = fetched(f"http://127.0.0.1:{port}")
                break
            except urllib.error.URLError:
                assert time.monotonic() < deadline
        assert status == 200
        assert "Latent map" in html


def test_a_space_replaces_only_an_earlier_space(run: Run, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(InputError, match="exists; choose another name"):
        write_space(run, tmp_path)
    with pytest.raises(InputError, match="not an earlier Space"):
        write_space(run, tmp_path, force=True)
    out = write_space(run, tmp_path / "space")
    (out / "left.txt").write_text("left")
    write_space(run, out, force=True)
    assert not (out / "left.txt").exists()


def test_name_of_a_folder_does_not_break_the_readme_of_its_space(run: Run, tmp_path: Path) -> None:
    yaml = pytest.importorskip("yaml")
    name = 'a: "b" [c]\n---\nsdk: static\n# <b>'
    copy = tmp_path / name
    shutil.copytree(run.path, copy)
    readme = (write_space(Run.open(copy), tmp_path / "space") / "README.md").read_text("utf-8")
    before, front_matter, body = readme.split("---\n", 2)
    assert before == ""
    facts = yaml.safe_load(front_matter)
    assert (facts["title"], facts["sdk"]) == (" ".join(name.split()), "gradio")
    assert body.startswith(r'# a: "b" \[c\] --- sdk: static \# \<b\>')
