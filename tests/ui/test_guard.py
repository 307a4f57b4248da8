"""The guard by itself; test_network.py asks a whole studio."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from studio.ui.shell.web_server import OriginGuard

OWN = "http://127.0.0.1:7860"


@pytest.fixture(scope="module")
def page() -> TestClient:
    """A page of our own behind the guard, which answers everything with 200."""

    def answer(request: Request) -> PlainTextResponse:
        return PlainTextResponse("yes")

    return TestClient(OriginGuard(Starlette(routes=[Route("/{path:path}", answer, methods=["GET", "POST"])])), OWN)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),  # not a browser
        ({"Origin": OWN}, 200),
        ({"Origin": OWN, "Sec-Fetch-Site": "same-origin"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:7861"}, 403),
        ({"Origin": "null"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
    ],
)
def test_what_changes_something_must_come_from_the_own_page(
    headers: dict[str, str], status: int, page: TestClient
) -> None:
    assert page.post("/gradio_api/queue/join", headers=headers).status_code == status
    assert page.get("/", headers=headers).status_code == 200, "looking is free"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/gradio_api/file=http://evil.example/x", 403),
        ("/gradio_api/FILE=HTTPS://evil.example/x", 403),
        ("/gradio_api/proxy=http://evil.example/x", 403),
        ("/gradio_api/file=/home/ada/x.png", 200),
    ],
)
def test_a_url_is_not_taken_for_a_file(path: str, status: int, page: TestClient) -> None:
    assert page.get(path).status_code == status
