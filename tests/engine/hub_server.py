"""A small Hugging Face Hub on loopback: what downloads need of it, and ways to go wrong."""

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE_BYTES = 100_000  # the Hub keeps larger files by their SHA-256, smaller ones as git does
CHUNK_BYTES = 64 * 1024


@dataclass(frozen=True)
class Request:
    """One request as it came in."""

    method: str
    path: str
    range: str | None
    authorization: str | None
    encoding: str | None

    @property
    def file(self) -> str:
        """The file that was asked for; empty where none was."""
        return self.path.split("/resolve/")[-1].split("/", 1)[-1] if "/resolve/" in self.path else ""


@dataclass
class FakeHub:
    """Models by commit, and what shall go wrong. `requests` is what was asked, in order."""

    address: str = ""
    models: dict[str, dict[str, dict[str, bytes]]] = field(default_factory=dict)
    branches: dict[tuple[str, str], str] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    """Sizes that the Hub claims, where they are not the true ones."""
    cut_after: dict[str, list[int]] = field(default_factory=dict)
    """For a file, after how many bytes each of the next answers is cut."""
    statuses: dict[str, list[int]] = field(default_factory=dict)
    """For a file, the statuses of the next answers."""
    swapped: dict[str, bytes] = field(default_factory=dict)
    """For a file, what is sent in its stead."""
    gated: set[str] = field(default_factory=set)
    delivery: str = ""
    """The address of another server that files are fetched from, as the real Hub has it."""
    no_ranges: bool = False
    captive: bool = False
    requests: list[Request] = field(default_factory=list)

    def add(self, name: str, files: dict[str, bytes], *, branch: str = "main") -> str:
        """Publish a commit, and return its hash."""
        commit = hashlib.sha1(name.encode() + b"".join(k.encode() + v for k, v in sorted(files.items()))).hexdigest()
        self.models.setdefault(name, {})[commit] = files
        self.branches[name, branch] = commit
        return commit

    def commit(self, name: str, revision: str) -> str | None:
        known = self.models.get(name, {})
        return revision if revision in known else self.branches.get((name, revision))

    def fetched(self) -> list[str]:
        """Which files were asked for, in order."""
        return [request.file for request in self.requests if request.method == "GET" and request.file]


def files_of(folder: Path) -> dict[str, bytes]:
    """A folder as a repository's files."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def _digests(content: bytes) -> dict[str, object]:
    blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
    if len(content) < LARGE_BYTES:
        return {"blobId": blob}
    sha256 = hashlib.sha256(content).hexdigest()
    return {"blobId": blob, "lfs": {"size": len(content), "sha256": sha256, "pointerSize": 130}}


class _Handler(BaseHTTPRequestHandler):
    hub: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(
            Request(
                self.command,
                path,
                self.headers.get("Range"),
                self.headers.get("Authorization"),
                self.headers.get("Accept-Encoding"),
            )
        )
        if self.hub.captive:
            self._send(200, b"<!doctype html><title>Please log in</title>")
        elif path.startswith("/api/models/"):
            self._model(path.removeprefix("/api/models/"))
        else:
            self._file(path)

    do_HEAD = do_GET

    def _model(self, path: str) -> None:
        name, _, revision = path.partition("/revision/")
        if name not in self.hub.models:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound"})
            return
        commit = self.hub.commit(name, revision or "main")
        if commit is None:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
            return
        siblings = [
            {"rfilename": file, "size": self.hub.sizes.get(file, len(content)), **_digests(content)}
            for file, content in self.hub.models[name][commit].items()
        ]
        self._send(200, json.dumps({"id": name, "sha": commit, "siblings": siblings}).encode())

    def _file(self, path: str) -> None:
        name, _, rest = path.removeprefix("/").partition("/resolve/")
        revision, _, file = rest.partition("/")
        if name in self.hub.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
            return
        commit = self.hub.commit(name, revision)
        if commit is None or file not in self.hub.models[name][commit]:
            self._send(404, b"{}", {"X-Error-Code": "EntryNotFound"})
            return
        if self.hub.delivery:
            self._send(302, b"", {"Location": self.hub.delivery + path})
            return
        if self.hub.statuses.get(file):
            self._send(self.hub.statuses[file].pop(0), b"{}")
            return
        content = self.hub.swapped.get(file, self.hub.models[name][commit][file])
        wanted = self.headers.get("Range")
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and not self.hub.no_ranges else 0
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'}
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        cuts = self.hub.cut_after.get(file)
        self._send(206 if start else 200, content[start:], headers, cut_after=cuts.pop(0) if cuts else None)

    def _send(
        self, status: int, body: bytes, headers: dict[str, str] | None = None, *, cut_after: int | None = None
    ) -> None:
        self.send_response(status)
        for key, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        sent = body if cut_after is None else body[:cut_after]
        for i in range(0, len(sent), CHUNK_BYTES):
            try:
                self.wfile.write(sent[i : i + CHUNK_BYTES])
            except (BrokenPipeError, ConnectionResetError):  # the client cancelled
                self.close_connection = True
                return
        if cut_after is not None:
            self.wfile.flush()
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        """Keep quiet: pytest's output is for failures."""


@contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A server for the length of the `with` block."""
    hub = FakeHub()
    handler = type("Handler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
