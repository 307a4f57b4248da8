"""The page as a web app behind our guards, in every language, and the thread that serves it."""

import asyncio
import re
import selectors
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit

import gradio as gr
import uvicorn
from fastapi import FastAPI
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from studio.core.errors import StudioError
from studio.core.files import read_text
from studio.core.language import ENGLISH, _, speaking
from studio.core.paths import assets_folder
from studio.core.text import template
from studio.ui.shell.guards import LanguagePath, LoginGuard, OriginGuard, RootPath, SecurityHeaders, UploadGuard

TIMER_SECONDS = 0.02  # what a timer may be late; nobody feels it
STARTED_LOOK_SECONDS = 0.002
SCRIPT_MESSAGE = re.compile(r'\bgettext\(\s*"([^"\\]+)"')

_template = template("ui/templates/shell.html")
BuildPage = Callable[[], gr.Blocks]


def web_app(
    build_page: BuildPage,
    *,
    hosts: Sequence[str],
    logins: list[tuple[str, str]] | None,
    uploads: Path,
    root_path: str = "",
) -> FastAPI:
    """The page at `/`, for requests to `hosts` alone, and for those who log in where there are logins.

    In other languages it stands at `/pt-BR/` and so on, made when it is asked for: that takes a third of a second.

    Args:
        build_page: makes it in the language that is spoken then.
        uploads: Gradio's folder for them.
        root_path: as in `ServerSettings`.
    """
    public = urlsplit(root_path)
    public_hosts = [public.hostname] if public.hostname else []
    guards = [
        Middleware(SecurityHeaders),
        Middleware(TrustedHostMiddleware, allowed_hosts=[*hosts, *public_hosts]),
        Middleware(OriginGuard, public_origin=f"{public.scheme}://{public.netloc}" if public.netloc else ""),
        Middleware(CORSMiddleware),  # no origin but our own, which needs none; Gradio's lets any port of localhost read
        Middleware(RootPath, path=public.path),
        Middleware(LanguagePath),
        *([Middleware(LoginGuard)] if logins else []),
        Middleware(UploadGuard, folder=uploads),
    ]
    pages = PagesByLanguage(build_page, logins=logins, root_path=root_path)
    app = FastAPI(openapi_url=None, middleware=guards, lifespan=pages.lifespan, routes=_installing())
    app.mount("/", pages)
    return app


def _installing() -> list[BaseRoute]:
    """What a browser asks for to install the page as an app: all addresses are relative, so they hold below any proxy.

    Gradio's own manifest names its icon from the server's root, and each language would be another app.
    """
    icons = [
        {"src": "icon.svg", "sizes": "any", "type": "image/svg+xml"},
        {"src": "icon-192.png", "sizes": "192x192", "type": "image/png"},
        {"src": "icon-512.png", "sizes": "512x512", "type": "image/png"},
    ]
    manifest = {
        "name": "LoRA Studio",
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": "#f8fafc",
        "theme_color": "#4f46e5",
        "icons": icons,
    }

    def answer_manifest(_request: Request) -> JSONResponse:
        return JSONResponse(manifest, media_type="application/manifest+json")

    def answer_icon(request: Request) -> FileResponse:
        return FileResponse(assets_folder() / request.url.path.rpartition("/")[2])

    return [Route("/manifest.json", answer_manifest), *(Route(f"/{icon['src']}", answer_icon) for icon in icons)]


class PagesByLanguage:
    """Hands every request to the page in its language; each is an app of its own, made once."""

    def __init__(self, build_page: BuildPage, *, logins: list[tuple[str, str]] | None, root_path: str) -> None:
        self._build_page, self._logins, self._root_path = build_page, logins, root_path
        self._making = asyncio.Lock()
        self._apps = {ENGLISH: self._make(ENGLISH)}
        self._running = AsyncExitStack()

    @property
    def routes(self) -> Sequence[BaseRoute]:
        """What a page answers: the same in every language."""
        return self._apps[ENGLISH].routes

    @asynccontextmanager
    async def lifespan(self, _app: FastAPI) -> AsyncIterator[None]:
        """Runs what the pages run beside requests, from now on and for those that are made later."""
        async with self._running:
            await self._start(self._apps[ENGLISH])
            yield

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        tag = scope.get("language", ENGLISH)
        if tag not in self._apps:
            async with self._making:
                if tag not in self._apps:
                    app = await asyncio.to_thread(self._make, tag)
                    await self._start(app)
                    self._apps[tag] = app
        await self._apps[tag](scope, receive, send)

    async def _start(self, app: FastAPI) -> None:
        await self._running.enter_async_context(app.router.lifespan_context(app))

    def _make(self, tag: str) -> FastAPI:
        with speaking(tag):
            path = self._root_path if tag == ENGLISH else f"{self._root_path}/{tag}"
            return _gradio_app(self._build_page(), tag=tag, logins=self._logins, root_path=path)


def _gradio_app(page: gr.Blocks, *, tag: str, logins: list[tuple[str, str]] | None, root_path: str) -> FastAPI:
    # With a CORS middleware of ours Gradio adds none of its own.
    app = FastAPI(openapi_url=None, middleware=[Middleware(CORSMiddleware)])
    gr.mount_gradio_app(
        app,
        page,
        "/",
        auth=logins,
        root_path=root_path or None,
        head=page_head(tag),
        theme=make_theme(),
        css_paths=[assets_folder() / "studio.css"],
        js=read_text(assets_folder() / "studio.js"),
        run_history=False,
        enable_monitoring=False,
        ssr_mode=False,
        max_file_size="8gb",
        show_error=False,
        footer_links=["settings"],
        favicon_path=str(assets_folder() / "icon.svg"),
    )
    return app


def page_head(tag: str) -> str:
    """What tells the page's scripts its language, and the messages that they say in it."""
    messages = {message: _(message) for message in script_messages()}
    root = "./" if tag == ENGLISH else "../"
    return _template("head", tag=tag, messages={key: said for key, said in messages.items() if said != key}, root=root)


@cache
def script_messages() -> tuple[str, ...]:
    """The messages that the page's scripts name."""
    scripts = (read_text(file) for file in sorted(assets_folder().glob("*.js")))
    return tuple(dict.fromkeys(found for script in scripts for found in SCRIPT_MESSAGE.findall(script)))


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
            raise StudioError(
                _("The page could not be served on port {port}. Start again, or choose another --port.", port=port)
            )
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


SYSTEM_FONT = ["system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif"]
SYSTEM_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "Consolas", "monospace"]


def make_theme() -> gr.themes.Base:
    """Gradio's base theme in our colours, with one accent and the system's own fonts: nothing is fetched.

    `assets/studio.css` does the rest.
    """
    return gr.themes.Base(
        primary_hue=gr.themes.colors.indigo,
        neutral_hue=gr.themes.colors.slate,
        font=SYSTEM_FONT,
        font_mono=SYSTEM_MONO,
        spacing_size=gr.themes.sizes.spacing_md,
        radius_size=gr.themes.sizes.radius_md,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_background_fill_dark="*primary_600",
        button_primary_background_fill_hover_dark="*primary_700",
        button_primary_text_color="white",
        checkbox_border_color="*neutral_500",
        checkbox_border_color_dark="*neutral_400",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_300",
        input_placeholder_color="*neutral_600",
        input_placeholder_color_dark="*neutral_300",
        block_info_text_color="*neutral_600",
        block_info_text_color_dark="*neutral_300",
        block_label_text_color="*neutral_700",
        block_label_text_color_dark="*neutral_200",
    )
