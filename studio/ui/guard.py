"""Refuses what another site's page sends: plain Gradio takes it (it has no token that a form could lack)."""

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})


class OriginGuard:
    """Answers 403 to a request that changes something and comes from another origin.

    Browsers name the origin on every such request; programs that are not browsers name none and pass.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE_METHODS and _is_foreign(Headers(scope=scope)):
            refusal = PlainTextResponse("LoRA Studio only takes requests from its own page.", status_code=403)
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _is_foreign(headers: Headers) -> bool:
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    # Compared as text, so that a malformed origin is simply a foreign one. Host alone cannot tell the scheme.
    return origin is not None and origin not in (f"http://{headers.get('host')}", f"https://{headers.get('host')}")
