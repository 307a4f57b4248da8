"""Refuses what plain Gradio takes: what another site's page sends, and a URL where a file is meant."""

import re

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

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
