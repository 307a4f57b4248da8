"""The page as a web app behind our guards, and the thread that serves it."""

import asyncio
import re
import selectors
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from studio.core.errors import StudioError
from studio.core.files import read_text
from studio.core.paths import assets_folder
from studio.ui.shell.parts import make_theme

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


# Gradio's file routes take URLs too, and look their hosts up at a name server on the net. Our page has none.
URL_AS_FILE = re.compile(r"/(file[=/]|proxy=)[a-z][a-z0-9+.-]*:/", re.IGNORECASE)


class OriginGuard:
    """Answers 403 to a request that changes something and comes from another origin, or that names a URL as a file.

    Browsers name the origin on every request that changes something; programs that are not browsers name none
    and pass.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and _is_refused(scope):
            refusal = PlainTextResponse("LoRA Studio only takes requests from its own page.", status_code=403)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_refused(scope: Scope) -> bool:
    if URL_AS_FILE.search(scope["path"]):
        return True
    return scope["method"] not in SAFE_METHODS and _is_foreign(Headers(scope=scope))


def _is_foreign(headers: Headers) -> bool:
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    # Compared as text, so that a malformed origin is simply a foreign one. Host alone cannot tell the scheme.
    return origin is not None and origin not in (f"http://{headers.get('host')}", f"https://{headers.get('host')}")


TIMER_SECONDS = 0.02  # what a timer may be late; nobody feels it
STARTED_LOOK_SECONDS = 0.002


def web_app(page: gr.Blocks, *, hosts: Sequence[str], logins: list[tuple[str, str]] | None) -> FastAPI:
    """The page at `/`, for requests to `hosts` alone, and for those who log in where there are logins."""
    guards = [Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts)), Middleware(OriginGuard)]
    app = FastAPI(openapi_url=None, middleware=guards)
    gr.mount_gradio_app(
        app,
        page,
        "/",
        auth=logins,
        theme=make_theme(),
        css_paths=[assets_folder() / "studio.css"],
        js=read_text(assets_folder() / "studio.js"),
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size="8gb",
        show_error=False,
        footer_links=["settings"],
    )
    return app


def serve_in_thread(app: FastAPI, *, address: str, port: int) -> None:
    """Serve until the process ends; returns when requests are answered.

    Raises:
        StudioError: where it cannot listen there, though the port was free a moment ago.
    """
    server = uvicorn.Server(uvicorn.Config(app, host=address, port=port, log_level="warning"))

    def run() -> None:
        # Exiting is uvicorn's answer where it cannot listen: of a thread, only this one. It is told below.
        with suppress(SystemExit), asyncio.Runner(loop_factory=event_loop) as runner:
            runner.run(server.serve())

    thread = threading.Thread(target=run, name="web server", daemon=True)
    thread.start()
    while not server.started:
        if not thread.is_alive():
            raise StudioError(f"The page could not be served on port {port}. Start again, or choose another --port.")
        time.sleep(STARTED_LOOK_SECONDS)


def event_loop() -> asyncio.AbstractEventLoop:
    """An event loop that hears requests and threads at once, and looks at its timers fifty times a second."""
    if sys.platform == "win32":  # its loop has no selector, and Gradio's queue rests longer there
        return asyncio.new_event_loop()
    return asyncio.SelectorEventLoop(_RestingSelector())


class _RestingSelector(selectors.DefaultSelector):
    """Gradio's queue, as long as it is empty, sleeps for a millisecond, and again: 5 % of a core for a page that nobody
    has open (6.31). Here no sleep is that short.
    """

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        return super().select(max(timeout, TIMER_SECONDS) if timeout and timeout > 0 else timeout)
