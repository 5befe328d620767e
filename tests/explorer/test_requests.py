"""Malformed events and requests from other sites."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from explorer_runs import CLASSIC, MakeRun

from helpers import on_tensorflow

pytest.importorskip("gradio", reason="keras-vae[explore] is not installed")
pytestmark = [on_tensorflow("the page is the same on every backend"), pytest.mark.slow]

from starlette.testclient import TestClient  # noqa: E402

from keras_vae.explorer import serving  # noqa: E402

HOST = "http://127.0.0.1:7860"

VALUES = (
    None,
    "x",
    1e308,
    -1,
    [],
    {},
    [None] * 3,
    {"path": "/etc/passwd"},
    True,
    "data:image/png;base64,AAAA",
    [[1]],
    ["zoom in", 1.0],
    {"plane": 3, "point": [None, "x"], "mark": [1], "region": 2},
)

BODIES: tuple[Any, ...] = (
    *({}, [], 3, None, {"fn_index": 0}, {"fn_index": 0, "data": "x"}),
    *({"fn_index": index, "data": []} for index in (10**6, "x", -1, None)),
    {"fn_index": 0, "data": [], "event_data": {"x": 1}},
)


@pytest.fixture(scope="module")
def client(make_run: MakeRun) -> Iterator[TestClient]:
    app = serving.create_app(make_run(*CLASSIC))
    with TestClient(app, base_url=HOST, raise_server_exceptions=False) as client:
        yield client


def post(client: TestClient, path: str, body: Any, **headers: str) -> tuple[int, str]:
    content = body if isinstance(body, bytes) else json.dumps(body)
    response = client.post(path, content=content, headers={"content-type": "application/json", **headers})
    return response.status_code, response.text


def test_every_malformed_event_is_refused_in_one_line(client: TestClient, capfd: pytest.CaptureFixture[str]) -> None:
    events = client.get("/config").json()["dependencies"]
    bodies: list[Any] = [
        {"fn_index": event["id"], "data": data, "session_hash": "s"}
        for event in events
        for data in ([], [1] * 9, *([value] * len(event["inputs"]) for value in VALUES))
    ]
    bodies += [*BODIES, b"\xff{", b"", b"[" * 99999]
    answers = [post(client, "/gradio_api/run/predict", body) for body in bodies]
    answers += [post(client, f"/gradio_api/call/{name}", body) for name in ("decode", "nope") for body in BODIES]
    assert len(answers) > 400
    # Some events accept any value, such as those of buttons.
    assert {status for status, _ in answers} <= {200, 400, 422}
    refused = [json.loads(text) for status, text in answers if status == 422]
    assert len(refused) > 300
    errors = [answer["error"] for answer in refused if "error" in answer]
    assert [error for error in errors if "\n" in error or "object at 0x" in error] == []
    assert "Traceback" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("call", "data", "error"),
    [
        ("analyze", [3, None], "image = 3: not a string; pass a string"),
        ("sample", ["x", 0, None, None], "count = 'x': not an integer; pass an integer"),
        ("decode", [["x", 1.0], None], "code = 'x': not a number; pass a number"),
    ],
)
def test_a_wrong_type_in_a_call_of_the_api_is_named(client: TestClient, call: str, data: list[Any], error: str) -> None:
    status, text = post(client, f"/gradio_api/run/{call}", {"data": data})
    assert (status, json.loads(text)["error"]) == (422, error)


def test_requests_from_other_sites_are_refused(client: TestClient) -> None:
    files = {"files": ("digit.png", b"\x89PNG", "image/png")}
    for origin in ("http://example.org", "null", "http://127.0.0.1:7861", "http://127.0.0.1"):
        response = client.post("/gradio_api/upload", files=files, headers={"Origin": origin})
        assert response.status_code == 403
        assert response.json()["error"] == f"origin = {origin}: another site; use the page itself"
        body = {"data": [1, 0, None, None]}
        assert post(client, "/gradio_api/run/sample", body, Origin=origin)[0] == 403
    assert client.post("/gradio_api/upload", files=files, headers={"Origin": HOST}).status_code == 200
    # Programs send no origin.
    assert client.post("/gradio_api/upload", files=files).status_code == 200
    forwarded = {"Origin": "https://me-mine.example", "X-Forwarded-Host": "me-mine.example"}
    assert client.post("/gradio_api/upload", files=files, headers=forwarded).status_code == 200
