"""What Gradio's server does for nothing, left out: it is built once, and does not spin while nothing is asked."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import gradio as gr
from gradio.routes import App, templates
from jinja2 import BaseLoader, FunctionLoader

QUEUE_LOOK_SECONDS = 0.02  # what an event waits at most; nobody feels it
PROGRESS_LOOK_SECONDS = 0.1


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


def look_less_often(page: gr.Blocks) -> None:
    """Let a page's queue, once it has one, rest between its looks.

    Gradio 6.31 looks for events a thousand times a second, and for their progress a hundred times: 6 % of a core on a
    page that nobody has open.
    """
    page._queue.sleep_when_free = QUEUE_LOOK_SECONDS
    page._queue.progress_update_sleep_when_free = PROGRESS_LOOK_SECONDS


def begin_page_with(script: str) -> None:
    """Put a script before all of Gradio's own, in every page served from now on: `launch(head=)` comes after them."""
    environment = templates.env
    loader = environment.loader
    assert isinstance(loader, BaseLoader)

    def load(name: str) -> str:
        source, _, _ = loader.get_source(environment, name)
        return source.replace("<head>", f"<head><script>{{% raw %}}{script}{{% endraw %}}</script>", 1)

    environment.loader = FunctionLoader(load)
    if environment.cache is not None:
        environment.cache.clear()
