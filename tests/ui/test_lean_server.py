"""Gradio's server is built at the launch alone, is the whole server then, and rests while nothing is asked."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

import gradio as gr
import httpx
import pytest
from gradio.routes import App

from studio.ui.shell.lean_server import look_less_often, server_built_at_launch


@pytest.fixture
def built(monkeypatch: pytest.MonkeyPatch) -> list[gr.Blocks]:
    """The pages for which a server was built, in order."""
    pages: list[gr.Blocks] = []
    build = App.create_app

    def counting(blocks: gr.Blocks, *arguments: object, **options: object) -> App:
        pages.append(blocks)
        return build(blocks, *arguments, **options)

    monkeypatch.setattr(App, "create_app", staticmethod(counting))
    return pages


def laid_out() -> gr.Blocks:
    with gr.Blocks() as page:
        gr.Button()
    return page.queue()


def test_gradio_builds_it_for_nothing_so_the_test_below_can_fail(built: list[gr.Blocks]) -> None:
    laid_out()
    assert len(built) == 3


def test_a_page_is_laid_out_without_a_server_and_launched_with_one(built: list[gr.Blocks]) -> None:
    with server_built_at_launch():
        page = laid_out()
    assert built == []
    _, url, _ = page.launch(prevent_thread_lock=True, quiet=True)
    try:
        assert built == [page]
        assert [httpx.get(url + path).status_code for path in ("", "config", "gradio_api/info")] == [200, 200, 200]
    finally:
        page.close()


def test_after_an_error_gradio_builds_again(built: list[gr.Blocks]) -> None:
    with pytest.raises(ZeroDivisionError), server_built_at_launch():
        raise ZeroDivisionError
    laid_out()
    assert len(built) == 3


def num_looks(page: gr.Blocks) -> int:
    """How often a page's queue looks for events in a fifth of a second."""
    with ThreadPoolExecutor(1) as pool:  # this thread may have the event loop of a browser that other tests drive
        return pool.submit(asyncio.run, _count_looks(page)).result()


async def _count_looks(page: gr.Blocks) -> int:
    queue, looks = page._queue, 0
    number_of_events = type(queue).__len__

    class Counted(type(queue)):  # type: ignore[misc]
        def __len__(self) -> int:
            nonlocal looks
            looks += 1
            return int(number_of_events(self))

    queue.__class__ = Counted
    looking = asyncio.create_task(queue.start_processing())
    await asyncio.sleep(0.2)
    looking.cancel()
    return looks


def test_an_idle_queue_rests() -> None:
    page = laid_out()
    assert num_looks(page) > 40, "so this test can fail"
    page = laid_out()
    look_less_often(page)
    assert 1 <= num_looks(page) <= 12
