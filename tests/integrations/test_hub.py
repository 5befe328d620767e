"""Pushing and pulling runs, with a local server that imitates the HTTP API of the Hub."""

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from helpers import on_tensorflow
from keras_vae import InputError
from keras_vae.integrations.hub import pull, push

pytest.importorskip("huggingface_hub", reason="keras-vae[hub] is not installed")
pytestmark = on_tensorflow("files are pushed and pulled without Keras")

TOKEN = "hf_secret"
LARGE = (".keras", ".png")


class Hub(ThreadingHTTPServer):
    """The documented part of the API that the client uses: repositories with one branch, and large files."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.private: dict[str, bool] = {}
        self.objects: dict[str, bytes] = {}
        self.commits = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def commit(self) -> str:
        return f"{self.commits:040x}"


class Request(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *arguments: object) -> None:
        """Log nothing."""

    def answer(self, content: Any = None, status: int = 200, **headers: str) -> None:
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        chunks = []
        while size := int(self.rfile.readline(), 16):
            chunks.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(chunks)

    def do_POST(self) -> None:
        body = self.body()
        if self.path == "/api/validate-yaml":
            return self.answer({"warnings": [], "errors": []})
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self.answer({"error": "Invalid username or password."}, 401)
        if self.path == "/api/repos/create":
            request = json.loads(body)
            name = f"{request['organization']}/{request['name']}"
            if name in self.server.repositories:
                return self.answer({"error": "exists", "url": f"{self.server.address}/{name}"}, 409)
            self.server.repositories[name] = {}
            self.server.private[name] = request.get("private", request.get("visibility") == "private")
            return self.answer({"url": f"{self.server.address}/{name}"})
        if found := re.fullmatch(r"/api/models/(\w+/[\w-]+)/preupload/main", self.path):
            files = [file["path"] for file in json.loads(body)["files"]]
            modes = ["lfs" if file.endswith(LARGE) else "regular" for file in files]
            rows = [{"path": f, "uploadMode": m, "shouldIgnore": False} for f, m in zip(files, modes, strict=True)]
            return self.answer({"files": rows})
        if found := re.fullmatch(r"/(\w+/[\w-]+)\.git/info/lfs/objects/batch", self.path):
            wanted = json.loads(body)["objects"]
            upload = {"upload": {"href": f"{self.server.address}/upload"}}
            return self.answer({"transfer": "basic", "objects": [{**row, "actions": upload} for row in wanted]})
        if found := re.fullmatch(r"/api/models/(\w+/[\w-]+)/commit/main", self.path):
            self.change(self.server.repositories[found[1]], [json.loads(line) for line in body.splitlines()])
            address = f"{self.server.address}/{found[1]}/commit/{self.server.commit}"
            return self.answer({"success": True, "commitOid": self.server.commit, "commitUrl": address})
        return self.answer({"error": f"no {self.path}"}, 404)

    def change(self, files: dict[str, bytes], lines: list[dict[str, Any]]) -> None:
        self.server.commits += 1
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    files[value["path"]] = self.server.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]

    def do_PUT(self) -> None:
        content = self.body()
        self.server.objects[hashlib.sha256(content).hexdigest()] = content
        self.answer(b"")

    def do_GET(self) -> None:
        path, _, _ = self.path.partition("?")
        found = re.fullmatch(r"(?:/api/models)?/(\w+/[\w-]+)(?:/(tree|revision|resolve)/(\w+)(?:/(.+))?)?", path)
        files = self.server.repositories.get(found[1]) if found else None
        if found is None or files is None or (self.server.private[found[1]] and "Authorization" not in self.headers):
            return self.answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        if found[3] not in (None, "main", self.server.commit):
            return self.answer({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
        sizes = [(name, len(content)) for name, content in files.items()]
        if found[2] == "tree":
            return self.answer([{"type": "file", "path": n, "size": s, "oid": "0" * 40} for n, s in sizes])
        if found[2] == "resolve":
            content = files[found[4]]
            tag = f'"{hashlib.sha256(content).hexdigest()}"'
            return self.answer(content, ETag=tag, X_Repo_Commit=self.server.commit)
        siblings = [{"rfilename": name} for name, _ in sizes]
        return self.answer({"id": found[1], "sha": self.server.commit, "siblings": siblings, "private": False})

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    server = Hub()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", server.address)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    yield server
    server.shutdown()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A complete run with placeholder files."""
    from keras_vae.runs.experiment import Experiment
    from keras_vae.runs.run import Run

    data = {"name": "digits", "image_shape": [8, 8, 1], "images": {"train": 9}, "classes": 0, "class_names": []}
    environment = {"versions": {"keras-vae": "0"}, "backend": "tensorflow", "data": {**data, "checksum": ""}}
    run = Run.create(tmp_path / "mine", Experiment.preset("classic"), environment)
    (run.path / "model.keras").write_bytes(os.urandom(3000))
    run.write_metrics({"epoch": [1.0], "total_loss": [3.0]})
    run.figure_path("grid").write_bytes(b"\x89PNG")
    run.write_report("<script>alert(1)</script>")
    return run.path


def vae(*arguments: object, before: str = "") -> subprocess.CompletedProcess[str]:
    code = f"{before}\nfrom keras_vae.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_pulled_run_equals_the_pushed_one(hub: Hub, run: Path) -> None:
    pushed = vae("push", run, "someone/digits")
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.strip() == f"{hub.address}/someone/digits"
    assert hub.private["someone/digits"]
    assert b"library_name: keras-vae" in hub.repositories["someone/digits"]["README.md"]

    pulled = vae("pull", "someone/digits")
    assert pulled.returncode == 0, pulled.stderr
    assert pulled.stdout.strip() == "runs/digits"
    mine = contents(run)
    del mine["report.html"]
    assert contents(Path("runs/digits")) == mine

    again = vae("pull", "someone/digits")
    assert again.returncode == 2
    assert "runs/digits: exists" in again.stderr
    assert vae("pull", "someone/digits", "--force").returncode == 0
    Path("thesis").mkdir()
    Path("thesis/chapter.txt").write_text("years")
    refused = vae("pull", "someone/digits", "--out", "thesis", "--force")
    assert (refused.returncode, Path("thesis/chapter.txt").read_text()) == (2, "years")
    assert ": not an earlier run, so --force does not replace it" in refused.stderr


def test_push_removes_files_that_the_run_no_longer_has(hub: Hub, run: Path) -> None:
    (run / "fitted.keras").write_bytes(b"a prior")
    assert vae("push", run, "someone/digits", "--public").returncode == 0
    assert not hub.private["someone/digits"]
    assert "fitted.keras" in hub.repositories["someone/digits"]
    (run / "fitted.keras").unlink()
    assert vae("push", run, "someone/digits").returncode == 0
    assert "fitted.keras" not in hub.repositories["someone/digits"]


def test_pull_ignores_formats_that_can_run_code(hub: Hub, run: Path) -> None:
    assert vae("push", run, "someone/digits").returncode == 0
    hub.repositories["someone/digits"] |= {"evil.py": b"1", "model.pkl": b"2", "report.html": b"<script>"}
    assert vae("pull", "someone/digits", "--out", "theirs").returncode == 0
    assert {file for file in contents(Path("theirs")) if file.endswith((".py", ".pkl", ".html"))} == set()


@pytest.mark.parametrize("name", ["figures/../../evil.png", "code//tmp/evil.py"])
def test_pull_refuses_file_names_that_are_paths(name: str, hub: Hub, tmp_path: Path) -> None:
    hub.repositories["someone/digits"] = {"experiment.toml": b"", "environment.json": b"{}", name: b"evil"}
    hub.private["someone/digits"] = False
    outcome = vae("pull", "someone/digits")
    assert (outcome.returncode, outcome.stdout) == (2, "")
    assert f"vae: repository = 'someone/digits': its file {name!r} is a path; pull another" in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("*evil*"))
    assert not Path("runs/digits").exists()


@pytest.mark.parametrize("repository", ["someone/..", "../x", "/x", "someone/", "a/b\0"])
def test_repository_name_is_not_a_path(repository: str) -> None:
    for call in (pull, lambda name: push("mnist-2d", name)):
        with pytest.raises(InputError, match=r"^repository = "):
            call(repository)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["pull", "someone/nothing"], 2, "repository = 'someone/nothing': does not exist, or you have no access"),
        (["pull", "no name"], 2, "invalid name; pass OWNER/NAME"),
        (["pull", "someone/foreign"], 2, "repository = 'someone/foreign': contains no run"),
        (["pull", "someone/foreign", "--revision", "v9"], 2, "no such revision"),
        (["push", "nowhere", "someone/digits"], 2, "run = nowhere: does not exist"),
    ],
)
def test_errors_have_one_line(arguments: list[str], code: int, message: str, hub: Hub) -> None:
    hub.repositories["someone/foreign"], hub.private["someone/foreign"] = {"weights.bin": b"0"}, False
    outcome = vae(*arguments)
    assert (outcome.returncode, outcome.stdout) == (code, "")
    assert message in outcome.stderr
    assert len(outcome.stderr.strip().splitlines()) == 1
    assert not Path("runs").exists() or not list(Path("runs").iterdir())


def test_invalid_token_is_rejected(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "wrong")
    outcome = vae("push", run, "someone/digits")
    assert outcome.returncode == 2
    assert "access denied" in outcome.stderr or "you have no access" in outcome.stderr
    assert hub.repositories == {}


def test_unreachable_hub_is_reported(hub: Hub, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for arguments in (["push", run, "someone/digits"], ["pull", "someone/digits"]):
        # The client waits before it tries again.
        outcome = vae(*arguments, before="import time; time.sleep = lambda seconds: None")
        assert outcome.returncode == 1
        # `push` first names the files.
        *announced, error = outcome.stderr.splitlines()
        assert len(announced) == (arguments[0] == "push")
        assert "cannot be reached" in error
