"""The page's web server: it rests while nothing is asked, wakes at once, and says where it cannot listen."""

import asyncio
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI

from studio.core.errors import StudioError
from studio.ui.shell.web_server import event_loop, serve_in_thread

needs_selector = pytest.mark.skipif("sys.platform == 'win32'", reason="there the queue rests by itself")


def looks_in_a_fifth_of_a_second(make_loop: Callable[[], asyncio.AbstractEventLoop]) -> int:
    """How often a loop wakes for who sleeps a millisecond again and again, as Gradio's empty queue does."""
    looks = 0

    async def sleep_again_and_again() -> None:
        nonlocal looks
        while True:
            await asyncio.sleep(0.001)
            looks += 1

    async def watch() -> None:
        task = asyncio.create_task(sleep_again_and_again())
        await asyncio.sleep(0.2)
        task.cancel()

    _in_a_thread(make_loop, watch)
    return looks


def _in_a_thread(make_loop: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], object]) -> None:
    """Where no event loop of another test's runs."""

    def run() -> None:
        with asyncio.Runner(loop_factory=make_loop) as runner:
            runner.run(main())  # type: ignore[arg-type]

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()


@needs_selector
def test_an_idle_queue_rests() -> None:
    assert looks_in_a_fifth_of_a_second(lambda: asyncio.SelectorEventLoop()) > 30, "so this test can fail"
    assert 1 <= looks_in_a_fifth_of_a_second(event_loop) <= 11


@needs_selector
def test_work_that_is_ready_does_not_rest() -> None:
    async def thousand_turns() -> None:
        for _ in range(1000):  # 20 s, were each to wait for the clock
            await asyncio.sleep(0)

    started = time.monotonic()
    _in_a_thread(event_loop, thousand_turns)
    assert time.monotonic() - started < 10


@needs_selector
def test_threads_and_sockets_are_heard_though_the_clock_is_far() -> None:
    async def ask() -> None:
        loop = asyncio.get_running_loop()
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        with ours, theirs:
            far = loop.call_later(60, lambda: None)
            await loop.run_in_executor(None, theirs.send, b"x")
            assert await loop.sock_recv(ours, 1) == b"x"
            far.cancel()

    started = time.monotonic()
    _in_a_thread(event_loop, ask)
    assert time.monotonic() - started < 30


@contextmanager
def taken_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_port_that_was_taken_meanwhile_is_said() -> None:
    with taken_port() as port, pytest.raises(StudioError, match=f"port {port}"):
        serve_in_thread(FastAPI(), address="127.0.0.1", port=port)
