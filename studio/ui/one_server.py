"""Gradio's server is built once: at its launch, and not three times before that for nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradio.routes import App


@contextmanager
def server_built_at_launch() -> Iterator[None]:
    """Lay a page out, and give it its queue, inside the `with` block; launch it after.

    Gradio 6.31 builds all routes of the server when a `Blocks` is begun, when it is left and in `queue()`, and throws
    them away: `launch()` builds those that serve. Each time takes about 0.1 s, a third of what our page takes to start.
    """
    build = App.create_app

    def build_nothing(*_arguments: Any, **_options: Any) -> None:  # noqa: ANN401 - as Gradio calls it
        return None

    App.create_app = staticmethod(build_nothing)
    try:
        yield
    finally:
        App.create_app = staticmethod(build)
