"""What the studio answers to those who are not its own page: nothing."""

import http.client
import json
import os
import shutil
import socket
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import psutil
import pytest

from studio.core.errors import SettingsError
from studio.core.paths import CHECKOUT_FOLDER
from studio.core.settings import ServerSettings
from studio.ui.shell.guards import allowed_hosts, read_root_path
from studio.ui.shell.server import loopback_past_proxies, warnings_of
from tests import command_line
from tests.browser.studio_process import RunningStudio, running_studio, wait_for

SECRET = "only the owner of this machine may read this"
EVIL = "http://evil.example"
JOIN = "/gradio_api/queue/join"
UPLOAD = "/gradio_api/upload"


@dataclass
class Eavesdropper:
    """A proxy that every library would use, and a list of who tried to; it answers nobody."""

    server: socket.socket
    heard: list[bytes] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server.getsockname()[1]}"

    def listen(self) -> None:
        while True:
            try:
                caller, _ = self.server.accept()
            except OSError:  # closed: the test is over
                return
            with caller:
                caller.settimeout(1)
                self.heard.append(caller.recv(200))


@pytest.fixture(scope="module")
def eavesdropper() -> Iterator[Eavesdropper]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ear = Eavesdropper(server)
        threading.Thread(target=ear.listen, daemon=True).start()
        yield ear
        server.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory, eavesdropper: Eavesdropper) -> Iterator[RunningStudio]:
    """A studio that would have to go through the eavesdropper to reach anyone, and does not know that it is offline."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"), eavesdropper.address)
    proxies |= {name.lower(): value for name, value in proxies.items()}
    environment = {**proxies, "NO_PROXY": "", "no_proxy": "", "HF_HUB_OFFLINE": "0"}
    user_data = tmp_path_factory.mktemp("studio") / "user_data"
    with running_studio(user_data, environment=environment) as running:
        (user_data / "secret.txt").write_text(SECRET, encoding="utf-8")
        yield running


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil.example:80", "0.0.0.0", ""])
@pytest.mark.parametrize("path", ["/", "/config", "/gradio_api/info"])
def test_a_foreign_host_is_refused(studio: RunningStudio, host: str, path: str) -> None:
    status, body = _ask(studio, "GET", path, {"Host": host})
    assert status == 400
    assert b"LoRA Studio" not in body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_the_own_hosts_are_answered(studio: RunningStudio, host: str) -> None:
    assert _ask(studio, "GET", "/", {"Host": f"{host}:{studio.port}"})[0] == 200


def foreign_headers() -> list[dict[str, str]]:
    """What browsers say of a request that another site's page makes."""
    origins = [EVIL, "null", "http://127.0.0.1:1", "http://127.0.0.1.evil.example", "file://"]
    sites = ["cross-site", "same-site"]
    return [*({"Origin": origin} for origin in origins), *({"Sec-Fetch-Site": site} for site in sites)]


@pytest.mark.parametrize("headers", foreign_headers(), ids=lambda headers: next(iter(headers.values())))
def test_a_foreign_page_cannot_press_a_button(studio: RunningStudio, headers: dict[str, str]) -> None:
    status, body = _press(studio, "cancel", headers)
    assert (status, body) == (403, b"LoRA Studio only takes requests from its own page.")
    assert _press(studio, "cancel", {"Origin": studio.url})[0] == 200, "the own page can"


@pytest.mark.parametrize("headers", foreign_headers(), ids=lambda headers: next(iter(headers.values())))
def test_an_upload_from_a_foreign_page_is_not_stored(studio: RunningStudio, headers: dict[str, str]) -> None:
    assert _upload(studio, headers, content=b"foreign") == 403
    assert b"foreign" not in _stored(studio)
    assert _upload(studio, {"Origin": studio.url}, content=b"our own") == 200
    assert b"our own" in _stored(studio), "the own page's upload is stored, so this test can see one"


def test_an_upload_that_breaks_off_leaves_nothing(studio: RunningStudio) -> None:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n'
    with socket.create_connection(("127.0.0.1", studio.port)) as line:
        line.sendall(
            f"POST {UPLOAD} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            "Content-Length: 10000000\r\n\r\n".encode()
        )
        line.sendall(head + b"half" * 100_000)
        partial = wait_for(lambda: _partial_uploads(studio), what="the upload to begin")
        assert partial[0].stat().st_size <= 400_000
    wait_for(lambda: not _partial_uploads(studio), what="the upload to go")
    assert "Traceback" not in studio.printed


def test_a_foreign_page_may_not_read_answers(studio: RunningStudio) -> None:
    for origin in (EVIL, "null", "http://localhost:3000", f"http://127.0.0.1:{studio.port + 1}"):
        answer = httpx.get(f"{studio.url}/config", headers={"Origin": origin})
        assert answer.headers.get("access-control-allow-origin") is None


def test_json_that_calls_itself_text_is_refused_and_nothing_is_done(studio: RunningStudio) -> None:
    wait_for(lambda: " ready " in studio.shown(), what="the engine")
    body = {
        "data": ["/nowhere", "float32", "auto", False],
        "fn_index": _function(studio, "load"),
        "session_hash": "test",
    }
    for kind in ("text/plain", "text/plain;charset=UTF-8", "application/x-www-form-urlencoded", None):
        for path in (JOIN, "/gradio_api/run/load", "/gradio_api/call/load"):
            status, _ = _ask(studio, "POST", path, {"Content-Type": kind} if kind else {}, json.dumps(body).encode())
            assert 400 <= status < 500, (kind, path)
    assert "/nowhere" not in studio.shown()
    assert " ready " in studio.shown()
    _ask(studio, "POST", "/gradio_api/run/load", {"Content-Type": "application/json"}, json.dumps(body).encode())
    wait_for(lambda: "There is no model folder or file /nowhere" in studio.shown(), what="what true JSON does")


def test_files_cannot_be_reached_by_any_path(studio: RunningStudio) -> None:
    for target in _private_files(studio):
        content = target.read_bytes()[:40]
        assert content
        for path in _ways_to(target):
            status, body = _ask(studio, "GET", path)
            assert content not in body, path
            assert status >= 400, path


def test_a_file_that_the_page_uploaded_can_be_reached_but_its_neighbours_cannot(studio: RunningStudio) -> None:
    answer = httpx.post(f"{studio.url}{UPLOAD}", files={"files": ("own.txt", b"our own")})
    uploaded = Path(answer.json()[0])
    assert _ask(studio, "GET", f"/gradio_api/file={uploaded}") == (200, b"our own"), "so this test can see a file"
    up = "../" * len(uploaded.parts)
    for path in (f"{uploaded.parent}/{up}{_private_files(studio)[0]}", str(uploaded.parent)):
        assert _ask(studio, "GET", f"/gradio_api/file={path}")[0] >= 400


def test_the_server_listens_on_loopback_alone(studio: RunningStudio) -> None:
    listening = [c.laddr for c in _connections(studio) if c.status == psutil.CONN_LISTEN]
    assert [(address.ip, address.port) for address in listening] == [("127.0.0.1", studio.port)]


def test_studio_and_engine_speak_to_nobody_outside(studio: RunningStudio, eavesdropper: Eavesdropper) -> None:
    wait_for(lambda: " ready " in studio.shown() or "no model loaded" in studio.shown(), what="the engine")
    assert eavesdropper.heard == []
    remote = {connection.raddr.ip for connection in _connections(studio) if connection.raddr}
    assert remote <= {"127.0.0.1", "::1"}


@pytest.mark.parametrize("route", ["file=", "file/", "proxy="])
@pytest.mark.parametrize("url", ["https://example.com/x.png", "http://localhost/x.png", "https:/example.com/x.png"])
def test_nobody_can_make_the_studio_fetch_a_url(
    studio: RunningStudio, eavesdropper: Eavesdropper, route: str, url: str
) -> None:
    before = len(eavesdropper.heard)
    status, _ = _ask(studio, "GET", f"/gradio_api/{route}{url}")
    assert eavesdropper.heard[before:] == []
    assert 400 <= status < 500


@pytest.mark.process
def test_an_installed_studio_in_an_odd_place_starts_in_any_environment(tmp_path: Path) -> None:
    """No checkout, spaces and umlauts in its paths, no locale, behind a proxy of its own, and others' broken settings
    for traffic that is not its own, which are left to the engine.
    """
    site = tmp_path / "Größe 42" / "site packages"
    install(site)
    broken = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY"), "socks://127.0.0.1:9/") | {
        "ALL_PROXY": "socks5://127.0.0.1:9"
    }
    broken |= {name.lower(): value for name, value in broken.items()}
    broken |= {"SSL_CERT_FILE": "/nowhere/ca.pem", "SSL_CERT_DIR": "/nowhere"}
    no_proxy = {"NO_PROXY": "ours.example, [::1]", "no_proxy": ""}
    place = {"PYTHONPATH": str(site), "PYTHONSAFEPATH": "1", "LC_ALL": "C", "LANG": "C"}
    environment = {**broken, **no_proxy, **place}
    with running_studio(tmp_path / "my data", "--root-path", "/my/studio", environment=environment) as studio:
        page = httpx.get(f"{studio.url}/my/studio/", trust_env=False)
        assert page.status_code == 200
        assert f'"root":"{studio.url}/my/studio"' in page.text.replace(" ", "")
        engine = studio.wait_for_engine()
        for_engine = engine.environ()
        assert {name: for_engine[name] for name in broken} == broken
        assert for_engine["NO_PROXY"] == "ours.example,::1,127.0.0.1,localhost"
        assert for_engine["no_proxy"] == "127.0.0.1,localhost,::1"
        assert Path(engine.cwd()) != CHECKOUT_FOLDER
        wait_for(lambda: " ready " in studio.shown(), what="the shipped model of the installed studio")
        assert studio.press("open_demo") == 200
        recipe = wait_for(lambda: [*studio.user_data.datasets.glob("*/recipe.json")], what="the demo's dataset")[0]
        assert str(site) in json.loads(recipe.read_bytes())["source"]
        assert "Traceback" not in studio.printed


def test_no_proxy_stays_the_users_and_this_machine_needs_none() -> None:
    ipv4 = "127.0.0.1,localhost"
    loopback = f"{ipv4},::1"
    assert loopback_past_proxies({}) == {}, "else the proxies of macOS' and Windows' own settings would be hidden"
    for environment, upper, lower in (
        ({"HTTPS_PROXY": "http://a"}, loopback, loopback),
        ({"NO_PROXY": "b.example"}, f"b.example,{loopback}", f"b.example,{loopback}"),
        ({"http_proxy": "http://a", "no_proxy": "[::1], b"}, f"::1,b,{ipv4}", f"::1,b,{ipv4}"),
        ({"http_proxy": "http://a", "NO_PROXY": "b", "no_proxy": ""}, f"b,{loopback}", loopback),
    ):
        assert loopback_past_proxies(environment) == {"NO_PROXY": upper, "no_proxy": lower}


def test_listening_to_others_without_passwords_is_refused(tmp_path: Path) -> None:
    ended = _studio_that_ends("--listen", user_data=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("listen opens the studio to other machines, so it needs auth_file, got none.")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.parametrize("content", ["", "no colon\n", "user:\n", ":password\n"])
def test_a_file_without_logins_is_refused(tmp_path: Path, content: str) -> None:
    logins = tmp_path / "logins.txt"
    logins.write_text(content, encoding="utf-8")
    ended = _studio_that_ends("--listen", "--auth-file", str(logins), user_data=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith("auth_file must hold")


@pytest.mark.process
def test_with_passwords_nothing_is_shown_before_the_login(tmp_path: Path) -> None:
    logins = tmp_path / "logins.txt"
    logins.write_text("ada:correct horse\n", encoding="utf-8")
    logins.chmod(0o604)
    with (
        running_studio(
            tmp_path / "user_data", "--listen", "--auth-file", str(logins), environment=turkish(tmp_path)
        ) as studio,
        httpx.Client(base_url=studio.url) as visitor,
    ):
        assert "Smoke test" not in visitor.get("/").text
        for path in ("/config", "/gradio_api/info", "/gradio_api/file=x"):
            assert visitor.get(path).status_code in (401, 403), path
        assert visitor.post(JOIN, json={"data": [], "fn_index": 0, "session_hash": "x"}).status_code == 401
        assert visitor.post(UPLOAD, files={"files": ("x.txt", b"x")}).status_code == 401
        assert visitor.get("/gradio_api/app_id").status_code == 401, "open in Gradio"
        assert "Warning: other machines reach the studio by plain HTTP" in studio.printed
        assert f"Warning: everyone on this machine can read the passwords in {logins}." in studio.printed
        wrong = visitor.post("/login", data={"username": "ada", "password": "wrong"})
        assert wrong.status_code == 400
        assert "Wrong password from 127.0.0.1 (1 since the last right one)." in studio.printed
        assert visitor.post("/login", data={"username": "ada", "password": "correct horse"}).status_code == 200
        assert "Smoke test" in visitor.get("/config").text


def install(site: Path) -> None:
    """Put the package where pip would, as pyproject.toml has it in its wheel."""
    wheel = tomllib.loads((CHECKOUT_FOLDER / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"][
        "wheel"
    ]
    for source, target in ({"studio": "studio"} | wheel["force-include"]).items():
        copy = shutil.copytree if (CHECKOUT_FOLDER / source).is_dir() else shutil.copyfile
        copy(CHECKOUT_FOLDER / source, site / target)


def turkish(folder: Path) -> dict[str, str]:
    """The environment of a machine that writes I as ı in small, where this one can make such a locale."""
    if shutil.which("localedef"):
        command = ["localedef", "-i", "tr_TR", "-f", "UTF-8", str(folder / "tr_TR.UTF-8")]
        subprocess.run(command, check=False, capture_output=True)
    return {"LC_ALL": "tr_TR.UTF-8", "LANG": "tr_TR.UTF-8", "LOCPATH": str(folder)}


@pytest.mark.skipif("os.name == 'nt'", reason="Windows has other permissions")
@pytest.mark.parametrize(
    ("listen", "root_path", "mode", "words"),
    [
        (False, "", 0o600, []),
        (False, "", 0o640, []),
        (False, "", 0o644, ["everyone on this machine can read the passwords in"]),
        (True, "", 0o600, ["other machines reach the studio by plain HTTP"]),
        (True, "http://a.example", 0o600, ["other machines reach the studio by plain HTTP"]),
        (True, "https://a.example", 0o600, []),
    ],
)
def test_what_others_could_read_is_warned_of(
    tmp_path: Path, listen: bool, root_path: str, mode: int, words: list[str]
) -> None:
    logins = tmp_path / "logins.txt"
    logins.write_text("ada:correct horse\n", encoding="utf-8")
    logins.chmod(mode)
    found = warnings_of(ServerSettings(listen=listen, root_path=root_path, auth_file=logins))
    assert [len(words)] == [len(found)]
    assert all(warning.startswith(start) for warning, start in zip(found, words, strict=True))


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("", ""),
        ("/studio", "/studio"),
        ("/a/b/", "/a/b"),
        ("https://a.example", "https://a.example"),
        ("https://a.example:8443/studio/", "https://a.example:8443/studio"),
    ],
)
def test_a_root_path_is_a_path_or_an_address(typed: str, read: str) -> None:
    assert read_root_path(ServerSettings(root_path=typed)) == read


@pytest.mark.parametrize(
    "typed", ["studio", "//evil.example", "ftp://a.example", "/a?b", "https:///a", "/a b", "/a//b"]
)
def test_what_is_no_root_path_is_refused(typed: str) -> None:
    with pytest.raises(SettingsError, match="root_path must be the address at which a proxy shows the page"):
        read_root_path(ServerSettings(root_path=typed))


def test_listening_to_others_answers_to_this_machines_names_and_to_no_other() -> None:
    hosts = allowed_hosts(True)
    assert {"127.0.0.1", "localhost", socket.gethostname()} <= set(hosts)
    assert not [host for host in hosts if "*" in host or not host]
    assert allowed_hosts(False) == ["127.0.0.1", "localhost"]


def test_a_port_in_use_is_said_in_a_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        ended = _studio_that_ends("--port", str(port), user_data=tmp_path)
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"port must be free, got {port}, which another program uses")
    assert len(ended.stderr.splitlines()) == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to catch")
@pytest.mark.process
def test_told_to_stop_the_studio_ends_with_its_engine_and_leaves_no_cache(tmp_path: Path) -> None:
    with running_studio(tmp_path) as studio:
        engine = studio.wait_for_engine()
        assert studio.end() == 0
        assert not engine.is_running()
        assert "Traceback" not in studio.printed
        assert list((tmp_path / "cache" / "page").iterdir()) == []


@pytest.mark.process
def test_an_engine_that_waits_for_work_leaves_when_its_studio_is_killed(tmp_path: Path) -> None:
    with running_studio(tmp_path) as studio:
        wait_for(lambda: " ready " in studio.shown(), what="the engine")
        engine = studio.wait_for_engine()
        studio.process.kill()
        assert psutil.wait_procs([engine], timeout=15) == ([engine], [])


def _ask(
    studio: RunningStudio, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[int, bytes]:
    """Send a request exactly as it is written: no client tidies its path, Host or Content-Type."""
    connection = http.client.HTTPConnection("127.0.0.1", studio.port, timeout=20)
    connection.putrequest(method, path, skip_host="Host" in (headers or {}))
    for name, value in (headers or {}).items():
        connection.putheader(name, value)
    connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    content = answer.read()
    connection.close()
    return answer.status, content


def _function(studio: RunningStudio, name: str) -> int:
    """The number of a handler, as the page knows it."""
    dependencies = httpx.get(f"{studio.url}/config").json()["dependencies"]
    number: int = next(dependency["id"] for dependency in dependencies if dependency["api_name"] == name)
    return number


def _press(studio: RunningStudio, name: str, headers: dict[str, str]) -> tuple[int, bytes]:
    body = json.dumps({"data": [], "fn_index": _function(studio, name), "session_hash": "test"}).encode()
    return _ask(studio, "POST", JOIN, {"Content-Type": "application/json", **headers}, body)


def _upload(studio: RunningStudio, headers: dict[str, str], *, content: bytes) -> int:
    return httpx.post(f"{studio.url}{UPLOAD}", files={"files": ("x.txt", content)}, headers=headers).status_code


def _stored(studio: RunningStudio) -> list[bytes]:
    return [path.read_bytes() for path in studio.user_data.cache.rglob("*") if path.is_file()]


def _partial_uploads(studio: RunningStudio) -> list[Path]:
    return list((studio.user_data.cache / "page").glob("*/tmp*"))


def _private_files(studio: RunningStudio) -> list[Path]:
    files = [
        studio.user_data.root / "secret.txt",
        CHECKOUT_FOLDER / "pyproject.toml",
        CHECKOUT_FOLDER / "assets" / "studio.css",
        Path("/etc/passwd"),
    ]
    return [path for path in files if path.is_file()]


def _ways_to(target: Path) -> list[str]:
    """The path itself, and from below each route that serves files: written plainly, escaped, escaped twice."""
    absolute = target.as_posix()
    up = "../" * 24 + absolute.lstrip("/")
    spellings = [
        absolute,
        f"/{absolute}",
        up,
        f"x/{up}",
        quote(absolute, safe=""),
        up.replace("../", "%2e%2e/"),
        up.replace("../", "..%2f"),
        up.replace("../", "%2e%2e%2f"),
        up.replace("../", "%252e%252e%252f"),
        up.replace("../", "..%5c"),
        up.replace("../", "....//"),
    ]
    routes = [
        "/gradio_api/file=",
        "/gradio_api/file/",
        "/file=",
        "/static/",
        "/assets/",
        "/svelte/",
        "/theme.css/",
        "/",
    ]
    return [route + spelling for route in routes for spelling in spellings]


def _connections(studio: RunningStudio) -> list[Any]:
    family = [psutil.Process(studio.pid), *psutil.Process(studio.pid).children(recursive=True)]
    return [connection for process in family for connection in process.net_connections(kind="inet")]


def _studio_that_ends(*options: str, user_data: Path) -> subprocess.CompletedProcess[str]:
    return command_line.studio("ui", "--no-browser", *options, user_data=user_data)
