"""A slow wire between browser and studio: every byte of both directions arrives late, those of event streams too.

Playwright's routes delay requests alone, and Chromium's own emulation delays an answer's beginning alone: what Gradio
answers through a stream that is open already would come at once.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager


class SlowLink:
    """Listens on a port of its own and hands everything on to the studio's.

    Attributes:
        port: the one to open the page at.
        seconds: by how much each direction is late; set it at any time.
        broken: True while no connection comes about, and what there was is cut.
    """

    def __init__(self, studio_port: int) -> None:
        self.port = 0
        self.seconds = 0.0
        self._studio_port = studio_port
        self._loop = asyncio.new_event_loop()
        self._broken = False
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def broken(self) -> bool:
        return self._broken

    @broken.setter
    def broken(self, broken: bool) -> None:
        self._broken = broken
        if broken:
            self._loop.call_soon_threadsafe(self._cut)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, ready: threading.Event) -> None:
        """Serve until `stop`."""
        asyncio.set_event_loop(self._loop)
        serving = asyncio.start_server(lambda *ends: self._begin(self._take(*ends)), "127.0.0.1", 0)
        server = self._loop.run_until_complete(serving)
        self.port = server.sockets[0].getsockname()[1]
        ready.set()
        self._loop.run_forever()
        server.close()
        self._cut()
        tasks = asyncio.all_tasks(self._loop)
        for task in tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        self._loop.close()

    def stop(self) -> None:
        """End serving."""
        self._loop.call_soon_threadsafe(self._loop.stop)

    def _cut(self) -> None:
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _take(self, from_page: asyncio.StreamReader, to_page: asyncio.StreamWriter) -> None:
        if self._broken:
            to_page.transport.abort()
            return
        from_studio, to_studio = await asyncio.open_connection("127.0.0.1", self._studio_port)
        self._open |= {to_page, to_studio}
        for reader, writer in ((from_page, to_studio), (from_studio, to_page)):
            self._begin(self._hand_on(reader, writer))

    def _begin(self, work: Coroutine[None, None, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _hand_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        late: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        self._begin(self._deliver(late, writer))
        content = b"first"
        while content:
            try:
                content = await reader.read(1 << 16)
            except OSError:  # the other end was cut off
                content = b""
            late.put_nowait((self._loop.time() + self.seconds, content))

    async def _deliver(self, late: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        """Each piece at its time, in order; the empty one is the end."""
        while True:
            due, content = await late.get()
            await asyncio.sleep(due - self._loop.time())
            if not content or writer.transport.is_closing():
                writer.close()
                self._open.discard(writer)
                return
            writer.write(content)


@contextmanager
def slow_link(studio_port: int) -> Iterator[SlowLink]:
    """A wire to a studio's port; not slow yet."""
    link, ready = SlowLink(studio_port), threading.Event()
    thread = threading.Thread(target=link.run, args=(ready,), name="slow link", daemon=True)
    thread.start()
    assert ready.wait(10)
    try:
        yield link
    finally:
        link.stop()
        thread.join(10)
