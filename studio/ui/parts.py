"""Sending the page only what changed: each part of it carries a digest, and the page says which ones it has."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import gradio as gr

# A part's new value or properties, as a gradio event listener returns them: never a component, whose `repr`
# does not show its properties.
Update = str | dict[str, Any]
Seen = dict[str, str]


def changed_parts(parts: Mapping[str, Update], seen: Seen | None) -> tuple[list[Update], Seen]:
    """Replace every part that the page already shows by `gr.skip()`; also return what it will have seen then."""
    now = {name: _digest(update) for name, update in parts.items()}
    before = seen or {}
    updates = [gr.skip() if before.get(name) == now[name] else update for name, update in parts.items()]
    return updates, now


def any_changed(parts: Mapping[str, Update], seen: Seen, *, but: Collection[str]) -> bool:
    """Whether the page does not show one of them yet, leaving some out."""
    return any(seen.get(name) != _digest(update) for name, update in parts.items() if name not in but)


def _digest(update: Update) -> str:
    words = update if isinstance(update, str) else repr(update)
    return hashlib.blake2b(words.encode(errors="surrogatepass"), digest_size=8).hexdigest()
