"""What every request passes before it reaches Gradio, and every answer after it."""

import asyncio
import errno
import logging
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import gradio as gr
import pytest
from fastapi import FastAPI
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient
from starlette.types import Message, Receive, Scope, Send

from studio.ui.shell import guards
from studio.ui.shell.guards import LoginGuard, RootPath, UploadGuard
from studio.ui.shell.web_server import web_app

UPLOAD = "/gradio_api/upload"
LOGINS = [("ada", "correct horse")]

# Each is needed by the form that asks for the password, or is the way in or out.
OPEN_ROUTES = {
    "/",
    "/login",
    "/login/",
    "/logout",
    "/svelte/{path:path}",
    "/static/{path:path}",
    "/assets/{path:path}",
    "/favicon.ico",
    "/theme.css",
    "/robots.txt",
    "/manifest.json",
    "/icon.svg",
    "/icon-192.png",
    "/icon-512.png",
    "/gradio_api/login_check",
    "/gradio_api/login_check/",
}


def served(uploads: Path, *, logins: list[tuple[str, str]] | None = None, root_path: str = "") -> TestClient:
    with gr.Blocks() as page:
        gr.Button().click(lambda: "secret", None, gr.Textbox(), api_name="press")
    app = web_app(lambda: page, hosts=["127.0.0.1"], uploads=uploads, logins=logins, root_path=root_path)
    return TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False)


@pytest.fixture(scope="module")
def with_logins(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return served(tmp_path_factory.mktemp("uploads"), logins=LOGINS)


@pytest.fixture(scope="module")
def without_logins(tmp_path_factory: pytest.TempPathFactory) -> TestClient:
    return served(tmp_path_factory.mktemp("uploads"))


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/", {}, 200),
        ("/config", {}, 200),
        ("/nowhere", {}, 404),
        ("/", {"Host": "evil.example"}, 400),
        ("/gradio_api/file=https://evil.example", {}, 403),
    ],
)
def test_every_answer_tells_browsers_what_not_to_do(
    without_logins: TestClient, path: str, headers: dict[str, str], status: int
) -> None:
    answer = without_logins.get(path, headers=headers)
    assert answer.status_code == status
    wanted = {
        "content-security-policy": "frame-ancestors 'self'",
        "x-frame-options": "SAMEORIGIN",
        "x-content-type-options": "nosniff",
        "referrer-policy": "same-origin",
    }
    assert {name: answer.headers[name] for name in wanted} == wanted


@pytest.mark.parametrize(
    "origin", ["http://localhost:3000", "http://127.0.0.1:8000", "http://127.0.0.1", "null", "http://evil.example"]
)
def test_no_other_origin_may_read_an_answer(without_logins: TestClient, origin: str) -> None:
    for answer in (
        without_logins.get("/config", headers={"Origin": origin}),
        without_logins.options("/config", headers={"Origin": origin, "Access-Control-Request-Method": "POST"}),
    ):
        assert "access-control-allow-origin" not in answer.headers
        assert "access-control-allow-credentials" not in answer.headers


def routes(owner: object) -> Iterator[tuple[str, str]]:
    """Each method and path below an app or router."""
    for route in getattr(owner, "routes", ()):
        if hasattr(route, "path") and hasattr(route, "methods"):
            yield from ((method, route.path) for method in route.methods or ())
        inner = getattr(route, "app", None) or getattr(route, "original_router", None)
        yield from routes(inner)


@pytest.mark.parametrize(("path", "said"), [("/config", "Log in first."), ("/pt-BR/config", "Faça login primeiro.")])
def test_a_guard_answers_in_the_language_of_the_page(with_logins: TestClient, path: str, said: str) -> None:
    answer = with_logins.get(path)
    assert (answer.status_code, answer.text) == (401, said)


@pytest.mark.timeout(60)  # some routes would answer for ever
def test_without_a_login_nothing_is_open_but_what_is_listed(with_logins: TestClient) -> None:
    found = set(routes(with_logins.app))
    assert {("POST", "/gradio_api/queue/join"), ("GET", "/config"), ("GET", "/gradio_api/app_id")} <= found
    assert len(found) > 60, "so this test walks Gradio's routes"
    answers = {}
    for method, route in found - {("POST", "/login"), ("POST", "/login/")}:
        path = re.sub(r"\{[^}]*\}", "x", route)
        answers[method, route] = with_logins.request(method, path, follow_redirects=False).status_code
    assert {route for (_, route), status in answers.items() if status != 401} | {"/login", "/login/"} == {
        route for route in OPEN_ROUTES if not route.startswith("/gradio_api/login_check")
    }
    assert with_logins.get("/nowhere").status_code == 401
    assert "secret" not in with_logins.get("/").text


def test_after_the_login_all_is_open_and_after_the_logout_nothing(with_logins: TestClient) -> None:
    visitor = TestClient(with_logins.app, base_url="http://127.0.0.1")
    assert visitor.post("/login", data={"username": "ada", "password": "correct horse"}).status_code == 200
    assert visitor.get("/config").status_code == 200
    assert visitor.get("/gradio_api/app_id").status_code == 200
    assert visitor.get("/nowhere").status_code == 404
    visitor.get("/logout", follow_redirects=False)
    assert visitor.get("/gradio_api/app_id").status_code == 401


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


async def nothing(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("")(scope, receive, send)


def test_each_wrong_password_doubles_the_wait_up_to_half_a_minute() -> None:
    clock = Clock()
    guard = LoginGuard(nothing, clock=clock)
    waits = []
    for _ in range(9):
        waits.append(guard.reserve("10.0.0.7"))
        clock.now += waits[-1]
    assert waits == [0, 1, 2, 4, 8, 16, 30, 30, 30]
    assert guard.reserve("10.0.0.8") == 0, "another machine waits for none of it"
    clock.now += 30
    assert guard.reserve("10.0.0.7") == 0, "who waits by himself does not wait twice"


def test_many_passwords_at_once_wait_in_line_and_then_are_refused() -> None:
    guard = LoginGuard(nothing, clock=Clock())
    assert [guard.reserve("10.0.0.7") for _ in range(7)] == [0, 1, 3, 7, 15, 31, 61]
    assert guard.reserve("10.0.0.7") == 61, "one that is refused is not counted"


def test_addresses_are_not_kept_for_ever() -> None:
    clock = Clock()
    guard = LoginGuard(nothing, clock=clock)
    for number in range(guards.MAX_ADDRESSES):
        guard.reserve(str(number))
    clock.now += guards.MAX_DELAY_SECONDS
    guard.reserve("new")
    assert guard.num_addresses == 1


def test_wrong_passwords_are_slow_and_logged_and_a_right_one_ends_it(
    with_logins: TestClient, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    sleep = asyncio.sleep

    async def noted(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", noted)
    with caplog.at_level(logging.WARNING):
        for password in ("a", "b", "c", "correct horse", "d"):
            status = with_logins.post("/login/", data={"username": "ada", "password": password}).status_code
            assert status == (200 if password == "correct horse" else 400)
    waits = [seconds for seconds in slept if seconds == 0 or seconds > 0.1]
    assert waits == [0, pytest.approx(1, abs=0.5), pytest.approx(3, abs=0.5), pytest.approx(7, abs=0.5), 0]
    said = [record.message for record in caplog.records]
    assert said[:3] == [f"Wrong password from testclient ({n} since the last right one)." for n in (1, 2, 3)]
    assert not any("ada" in words or "horse" in words for words in said)


def test_too_many_at_once_are_told_to_wait(with_logins: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LoginGuard, "reserve", lambda self, address: guards.MAX_WAIT_SECONDS + 1)
    answer = with_logins.post("/login", data={"username": "ada", "password": "correct horse"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "60")
    assert answer.text == "Too many wrong passwords. Wait a minute, then try again."


@pytest.mark.parametrize("prefix", ["", "/studio"])
@pytest.mark.parametrize("root_path", ["/studio", "https://example.com/studio"])
def test_a_proxy_may_take_its_path_off_or_leave_it_on(tmp_path: Path, root_path: str, prefix: str) -> None:
    client = served(tmp_path, root_path=root_path)
    root = "http://127.0.0.1/studio" if root_path == "/studio" else root_path
    assert client.get(f"{prefix}/config").json()["root"] == root
    assert f'"root":"{root}"' in client.get(f"{prefix}/").text.replace(" ", "")
    assert client.post(f"{prefix}/gradio_api/run/press", json={"data": []}).json()["data"] == ["secret"]


@pytest.mark.parametrize(
    ("root_path", "host", "origin", "status"),
    [
        ("https://example.com/studio", "example.com", "https://example.com", 200),
        ("https://example.com/studio", "127.0.0.1", "https://example.com", 200),
        ("https://example.com/studio", "127.0.0.1", "https://evil.example", 403),
        ("https://example.com/studio", "evil.example", "https://evil.example", 400),
        ("/studio", "example.com", "https://example.com", 400),
    ],
)
def test_a_proxys_own_name_is_answered_and_no_other(
    tmp_path: Path, root_path: str, host: str, origin: str, status: int
) -> None:
    client = served(tmp_path, root_path=root_path)
    headers = {"Host": host, "Origin": origin}
    assert client.post("/gradio_api/run/press", json={"data": []}, headers=headers).status_code == status


def test_a_path_that_only_begins_alike_is_left_alone() -> None:
    seen: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        seen.append(scope["path"])
        await PlainTextResponse("")(scope, receive, send)

    client = TestClient(RootPath(app, path="/studio"))
    for path in ("/studio/a", "/studiox/a", "/a/studio/b"):
        client.get(path)
    assert seen == ["/a", "/studiox/a", "/a/studio/b"]


def test_an_upload_larger_than_the_disk_is_refused_before_it_is_sent(
    without_logins: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = guards.shutil.disk_usage("/")._replace(free=2 * 2**20)
    monkeypatch.setattr(guards.shutil, "disk_usage", lambda folder: usage)
    answer = without_logins.post(UPLOAD, files={"files": ("a.png", b"x" * (3 * 2**20))})
    assert answer.status_code == 507
    assert answer.text == "The upload has 3 MB, and the disk has 2 MB free. Free some space first."
    assert without_logins.post(UPLOAD, files={"files": ("a.png", b"x" * 2**20)}).status_code == 200


def full_disk(folder: Path) -> FastAPI:
    app = FastAPI()

    @app.post(UPLOAD)
    def upload() -> None:
        (folder / "tmpabc").write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(folder / "tmpabc"))

    return app


def test_a_disk_that_is_full_in_the_middle_says_so_and_keeps_nothing(tmp_path: Path) -> None:
    answer = TestClient(UploadGuard(full_disk(tmp_path), folder=tmp_path)).post(UPLOAD)
    assert answer.status_code == 507
    assert answer.text.startswith("The disk is full: ")
    assert list(tmp_path.iterdir()) == []


def test_what_an_upload_leaves_goes_and_what_another_still_writes_stays(tmp_path: Path) -> None:
    """Three at once: the second breaks off while the others go on, and the first ends last."""
    going_on = {name: threading.Event() for name in "abc"}
    begun = {name: threading.Event() for name in "abc"}

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        name = scope["query_string"].decode()
        (tmp_path / f"tmp{name}").write_bytes(b"half")
        begun[name].set()
        await asyncio.to_thread(going_on[name].wait, 10)
        if name == "b":
            raise guards.ClientDisconnect
        (tmp_path / f"tmp{name}").rename(tmp_path / name)
        await PlainTextResponse("")(scope, receive, send)

    guard = UploadGuard(app, folder=tmp_path)

    async def together() -> None:
        tasks = {}
        for name in "abc":
            tasks[name] = asyncio.create_task(ask(guard, name))
            await asyncio.to_thread(begun[name].wait, 10)
        for name, left in (("b", {"tmpa", "tmpc", "tmpb"}), ("c", {"tmpa", "c", "tmpb"}), ("a", {"a", "c"})):
            going_on[name].set()
            await tasks[name]
            assert names_in(tmp_path) == left

    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, together()).result()


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


async def ask(app: Callable[[Scope, Receive, Send], Any], query: str) -> None:
    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        pass

    await app(
        {"type": "http", "method": "POST", "path": UPLOAD, "query_string": query.encode(), "headers": []}, receive, send
    )
