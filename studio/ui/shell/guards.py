"""What stands between the network and the page: every request passes these guards, every answer comes back through.

Each is a middleware of ASGI (https://asgi.readthedocs.io), so Gradio is left as it is.
"""

import asyncio
import logging
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, urlencode

import psutil
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from studio.core.errors import SettingsError, system_error_message
from studio.core.language import ENGLISH, LANGUAGES, _, preferred_language, speaking
from studio.core.settings import ServerSettings
from studio.core.text import gigabytes

LOOPBACK_HOSTS = ("127.0.0.1", "localhost")
ROOT_PATH = re.compile(r"(https?://[^/?#\s]+)?(/[^/?#\s]+)*/?")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
UPLOAD_PATH = "/gradio_api/upload"
LOGIN_PATH = "/login"
LOGIN_CHECK_PATH = "/gradio_api/login_check"

# What a visitor needs to see the form that asks for the password; it holds nothing of the user's.
OPEN_PATHS = frozenset(
    (
        *("", "/logout", "/theme.css", "/robots.txt", LOGIN_CHECK_PATH),
        *("/manifest.json", "/favicon.ico", "/icon.svg", "/icon-192.png", "/icon-512.png"),
    )
)
OPEN_FOLDERS = ("/static/", "/assets/", "/svelte/")

LANGUAGE_COOKIE = "language"
LANGUAGE_SECONDS = 365 * 24 * 3600

MAX_DELAY_SECONDS = 30.0
MAX_WAIT_SECONDS = 60.0
MAX_ADDRESSES = 10_000

SECURITY_HEADERS = {
    "Content-Security-Policy": "frame-ancestors 'self'",
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
}

# Gradio's file routes take URLs too, and look their hosts up at a name server on the net. Our page has none.
URL_AS_FILE = re.compile(r"/(file[=/]|proxy=)[a-z][a-z0-9+.-]*:/", re.IGNORECASE)

logger = logging.getLogger(__name__)


def allowed_hosts(listen: bool) -> list[str]:
    """The Host names we answer to. Any other may be a foreign site whose name was pointed at this machine."""
    hosts = list(LOOPBACK_HOSTS)
    if listen:
        name = socket.gethostname()
        hosts += [name, f"{name}.local", socket.getfqdn()]
        hosts += [a.address for group in psutil.net_if_addrs().values() for a in group if a.family == socket.AF_INET]
    return list(dict.fromkeys(hosts))


def read_root_path(settings: ServerSettings) -> str:
    """What a proxy has before the page's own paths: `""`, `/studio` or `https://example.com/studio`.

    Raises:
        SettingsError: where it is none of these.
    """
    if not ROOT_PATH.fullmatch(settings.root_path):
        raise SettingsError(
            _(
                "root_path must be the address at which a proxy shows the page, such as "
                "https://example.com/studio, or its path, such as /studio, got {given!r}.",
                given=settings.root_path,
            )
        )
    return settings.root_path.rstrip("/")


class SecurityHeaders:
    """Tells browsers, with every answer: no other site may frame the page, and a type is what it is said to be."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class RootPath:
    """Takes the path that a proxy shows the page under off the requests of a proxy that leaves it on."""

    def __init__(self, app: ASGIApp, *, path: str) -> None:
        self._app = app
        self._path = path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._path and scope["type"] == "http" and scope["path"].startswith(f"{self._path}/"):
            path = scope["path"].removeprefix(self._path)
            scope = {**scope, "path": path, "raw_path": quote(path).encode("ascii")}
        await self._app(scope, receive, send)


class LanguagePath:
    """Takes the language off the front of a path (`/pt-BR/…`), and sends whoever opens the page to theirs.

    Theirs is the one they chose (`?language=pt-BR`, kept in a cookie), else the first of their browser's that is ours.
    What follows finds it in the scope, as `language`. All redirects are relative, so they are right below any proxy.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        first, slash, rest = scope["path"].removeprefix("/").partition("/")
        spoken = first if first in LANGUAGES else ENGLISH
        path = f"/{rest}" if first in LANGUAGES else scope["path"]
        if scope["method"] == "GET" and path == "/":
            wanted, chosen, query = _wanted_language(scope, spoken if first in LANGUAGES else "")
            if chosen or wanted != spoken or (first in LANGUAGES and not slash):
                up = "../" if slash and first in LANGUAGES else "./"
                place = up if wanted == ENGLISH else f"{up}{wanted}/"
                answer = RedirectResponse(f"{place}?{query}" if query else place, status_code=303)
                answer.headers["Vary"] = "Accept-Language, Cookie"
                if chosen:
                    answer.set_cookie(LANGUAGE_COOKIE, chosen, max_age=LANGUAGE_SECONDS, httponly=True, samesite="lax")
                await answer(scope, receive, send)
                return
        scope = {**scope, "path": path, "raw_path": quote(path).encode("ascii"), "language": spoken}
        with speaking(spoken):  # the guards that follow answer in it
            await self._app(scope, receive, send)


def _wanted_language(scope: Scope, spoken: str) -> tuple[str, str, str]:
    """(the language of the page that is to be shown, the one that was chosen just now or "", the rest of the query)."""
    connection = HTTPConnection(scope)
    asked = [value for name, value in connection.query_params.multi_items() if name == "language"]
    chosen = asked[-1] if asked and asked[-1] in LANGUAGES else ""
    rest = urlencode([pair for pair in connection.query_params.multi_items() if pair[0] != "language"])
    kept = connection.cookies.get(LANGUAGE_COOKIE, "")
    wanted = chosen or spoken or (kept if kept in LANGUAGES else "")
    return wanted or preferred_language(connection.headers.get("accept-language", "")), chosen, rest


class OriginGuard:
    """Answers 403 to a request that changes something and comes from another origin, or that names a URL as a file.

    Browsers name the origin on every request that changes something; programs that are not browsers name none
    and pass.
    """

    def __init__(self, app: ASGIApp, *, public_origin: str = "") -> None:
        self._app = app
        self._public_origin = public_origin

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_refused(scope):
            refusal = PlainTextResponse(_("LoRA Studio only takes requests from its own page."), status_code=403)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _is_refused(self, scope: Scope) -> bool:
        if URL_AS_FILE.search(scope["path"]):
            return True
        return scope["method"] not in SAFE_METHODS and self._is_foreign(Headers(scope=scope))

    def _is_foreign(self, headers: Headers) -> bool:
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return True
        origin = headers.get("origin")
        # Compared as text, so that a malformed origin is simply a foreign one. Host alone cannot tell the scheme.
        host = headers.get("host")
        return origin not in (None, f"http://{host}", f"https://{host}", self._public_origin or None)


@dataclass
class _Attempts:
    """Passwords that came from one address since the last right one."""

    number: int = 0
    next_at: float = 0.0


class LoginGuard:
    """Where there are logins: without one there is the login form and nothing else, and guessing is slow and logged.

    Gradio leaves a part of its routes open to everyone. Here all are closed but those named above.
    """

    def __init__(self, app: ASGIApp, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._app = app
        self._clock = clock
        self._attempts: dict[str, _Attempts] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "").rstrip("/")
        if scope["type"] == "lifespan" or path in OPEN_PATHS or path.startswith(OPEN_FOLDERS):
            await self._app(scope, receive, send)
        elif path == LOGIN_PATH and scope.get("method") == "POST":
            await self._log_in(scope, receive, send)
        elif await self._is_logged_in(scope):
            await self._app(scope, receive, send)
        else:
            await PlainTextResponse(_("Log in first."), status_code=401)(scope, receive, send)

    async def _is_logged_in(self, scope: Scope) -> bool:
        """Asks Gradio, which holds the sessions."""
        answers: list[Message] = []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            answers.append(message)

        question = {**scope, "method": "GET", "path": LOGIN_CHECK_PATH, "raw_path": LOGIN_CHECK_PATH.encode()}
        await self._app(question, receive, send)
        return answers[0].get("status") == 200

    async def _log_in(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One password at a time from each address, each wrong one doubling what the next has to wait."""
        address = scope["client"][0] if scope.get("client") else "an unknown address"
        wait = self.reserve(address)
        if wait > MAX_WAIT_SECONDS:
            words = _("Too many wrong passwords. Wait a minute, then try again.")
            await PlainTextResponse(words, status_code=429, headers={"Retry-After": "60"})(scope, receive, send)
            return
        await asyncio.sleep(wait)

        async def send_noted(message: Message) -> None:
            if message.get("status") == 200:
                self._attempts.pop(address, None)
            elif message.get("status") == 400:
                number = self._attempts[address].number if address in self._attempts else 1
                logger.warning("Wrong password from %s (%d since the last right one).", address, number)
            await send(message)

        await self._app(scope, receive, send_noted)

    @property
    def num_addresses(self) -> int:
        """How many it remembers."""
        return len(self._attempts)

    def reserve(self, address: str) -> float:
        """Count an attempt of this address: the seconds it has to wait, more than MAX_WAIT_SECONDS for one refused.

        Counted before it is known to be wrong, so that many at once are no way around.
        """
        now = self._clock()
        if len(self._attempts) >= MAX_ADDRESSES:
            self._attempts = {key: kept for key, kept in self._attempts.items() if kept.next_at > now}
        attempts = self._attempts.setdefault(address, _Attempts())
        at = max(now, attempts.next_at)
        if at - now <= MAX_WAIT_SECONDS:
            attempts.number += 1
            attempts.next_at = at + min(2.0 ** (attempts.number - 1), MAX_DELAY_SECONDS)
        return at - now


class UploadGuard:
    """Answers a full disk in a sentence, and removes what an upload leaves that was cancelled or failed.

    Gradio writes an upload into `folder` under temporary names, and moves what is whole into folders of its own.
    """

    def __init__(self, app: ASGIApp, *, folder: Path) -> None:
        self._app = app
        self._folder = folder
        self._running: list[set[Path]] = []  # for each upload, the partial files that were there before it

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"].rstrip("/") != UPLOAD_PATH:
            await self._app(scope, receive, send)
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        refusal = self._refusal(Headers(scope=scope)) or await self._upload(scope, receive, send)
        if refusal:
            await PlainTextResponse(refusal, status_code=507)(scope, receive, send)

    def _refusal(self, headers: Headers) -> str:
        """Said before the first byte is written: the disk has not the room."""
        length = headers.get("content-length", "")
        needed, free = int(length) if length.isdecimal() else 0, shutil.disk_usage(self._folder).free
        if needed < free:
            return ""
        return _(
            "The upload has {size}, and the disk has {free} free. Free some space first.",
            size=gigabytes(needed),
            free=gigabytes(free),
        )

    async def _upload(self, scope: Scope, receive: Receive, send: Send) -> str:
        """Let Gradio take it; returns what to answer in its place, if anything."""

        failed = False

        async def send_unless_failed(message: Message) -> None:
            nonlocal failed
            failed = failed or message.get("status") == 500
            if not failed:  # else its error follows, and is answered by us
                await send(message)

        before = self._partial_files()
        self._running.append(before)
        try:
            await self._app(scope, receive, send_unless_failed)
        except ClientDisconnect:
            return ""
        except OSError as error:
            logger.warning("An upload could not be stored: %s", error)
            return system_error_message(error)
        finally:
            self._running.remove(before)
            # Not of any upload that runs: all those saw it when they began.
            stray = self._partial_files().intersection(*self._running)
            for file in stray:
                file.unlink(missing_ok=True)
        return ""

    def _partial_files(self) -> set[Path]:
        return {path for path in self._folder.glob(f"{tempfile.gettempprefix()}*") if path.is_file()}
