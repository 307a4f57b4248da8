"""Thousands of image files inspected in worker processes, with a cache.

What was found of each image file, kept so that a second visit decodes nothing. A cache: losing it costs time.

Looking at thousands of images in worker processes: none of them can take the studio down, or hold it up.
"""

import os
import sqlite3
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from pathlib import Path
from typing import ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessFuture, ProcessPool
from pydantic import ValidationError

from studio.core.errors import PictureFileError, system_error_message
from studio.core.files import FileStamp, file_stamp
from studio.core.language import N_, _, for_later
from studio.datasets.inspection import inspect, rejected, thumbnail_path
from studio.images.records import PictureFacts

CHECK_VERSION = 9
"""Raise it whenever the same file would be judged otherwise."""

_CREATE = """
create table if not exists checked_files (
  path text, background text, stamp text, version integer, facts text,
  primary key (path, background)
) without rowid
"""
_CHUNK = 400


class CheckCache:
    """One SQLite file. A damaged one is set aside and made anew; each call opens it, so any thread may ask."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def find(self, stamps: Mapping[Path, FileStamp], *, background: str) -> dict[Path, PictureFacts]:
        """What is known of the files as they are now."""
        found: dict[Path, PictureFacts] = {}
        with self._opened() as connection:
            for chunk in _chunks(stamps, _CHUNK):
                marks = ",".join("?" * len(chunk))
                rows = connection.execute(
                    "select path, stamp, facts from checked_files "
                    f"where background = ? and version = ? and path in ({marks})",
                    (background, CHECK_VERSION, *map(str, chunk)),
                )
                for path, stamp, facts in rows:
                    if _stamp_text(stamps[Path(path)]) == stamp and (known := _read(facts)):
                        found[Path(path)] = known
        return found

    def keep(self, checked: Sequence[tuple[Path, FileStamp, PictureFacts]], *, background: str) -> None:
        """Remember what was found."""
        rows = [(str(p), background, _stamp_text(stamp), CHECK_VERSION, f.model_dump_json()) for p, stamp, f in checked]
        with self._opened() as connection, connection:
            connection.executemany("insert or replace into checked_files values (?, ?, ?, ?, ?)", rows)

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection]:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        try:
            connection = self._connect()
        except sqlite3.DatabaseError:
            self._file.replace(self._file.with_suffix(".damaged"))
            connection = self._connect()
        try:
            yield connection
        except sqlite3.OperationalError:  # locked, or the disk is full
            raise
        except sqlite3.DatabaseError:  # damaged behind its beginning: nothing of it is known then
            self._file.replace(self._file.with_suffix(".damaged"))
        finally:
            connection.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._file, timeout=30)
        try:
            connection.execute("pragma journal_mode = wal")
            connection.execute("pragma synchronous = normal")
            connection.execute("drop table if exists checks")  # of versions that kept size and time alone
            connection.execute(_CREATE)
        except sqlite3.DatabaseError:
            connection.close()
            raise
        return connection


def _stamp_text(stamp: FileStamp) -> str:
    return " ".join(map(str, stamp))  # as text: some inode numbers are larger than SQLite's integers


def _read(facts: str) -> PictureFacts | None:
    try:
        return PictureFacts.model_validate_json(facts)
    except ValidationError:  # of another version: looked at again
        return None


def _chunks(paths: Iterable[Path], size: int) -> Iterator[list[Path]]:
    remaining = iter(paths)
    while chunk := list(islice(remaining, size)):
        yield chunk


MAX_WORKERS = 8
BATCH_SIZE, POLL_SECONDS = 8, 0.5
GIB = 1024**3


@dataclass(frozen=True)
class CheckProgress:
    """How far the check is; `problem` says why it ended early, "" where it did not."""

    num_checked: int
    num_pictures: int
    running: bool
    problem: str = ""


OnChecked = Callable[[Path, PictureFacts], None]
Asked = ParamSpec("Asked")
Made = TypeVar("Made")


class PictureChecker:
    """Checks images, from the cache where they did not change, else in worker processes.

    The workers start with the first image that is not in the cache, and end with `close()` or with this process.
    """

    def __init__(
        self,
        cache_file: Path,
        thumbnails: Path,
        *,
        num_workers: int | None = None,
        seconds_per_picture: float = 20,
        memory_bytes: int = 2 * GIB,
    ) -> None:
        """Nothing is started or written yet.

        Args:
            seconds_per_picture: an image that takes longer is rejected.
            memory_bytes: what a worker may take for images, where the system can limit it (not on a Mac).
        """
        self._cache = CheckCache(cache_file)
        self._thumbnails = thumbnails
        self.num_workers = num_workers or max(1, min(MAX_WORKERS, os.cpu_count() or 1))
        self._seconds = seconds_per_picture
        self._memory_bytes = memory_bytes
        self._lock = threading.Lock()
        self._pool: ProcessPool | None = None

    def check(
        self,
        paths: Sequence[Path],
        *,
        background: str,
        on_checked: OnChecked,
        stop: threading.Event | None = None,
    ) -> None:
        """Look at each image once and tell of it, in this thread, in no fixed order. Blocks.

        Args:
            stop: set by another thread to end early; what was found until then is kept.

        Raises:
            OSError: where the cache or the thumbnails cannot be written (the disk is full).
        """
        stamps, missing = _stamps(paths)
        for path, facts in missing.items():
            on_checked(path, facts)
        known = self._cache.find(stamps, background=background)
        new = []
        for path in stamps:
            if path in known and self._has_thumbnail(known[path], background):
                on_checked(path, known[path])
            else:
                new.append(path)
        if new:
            self._look(new, stamps, background=background, on_checked=on_checked, stop=stop or threading.Event())

    def run(self, work: Callable[Asked, Made], *args: Asked.args, **named: Asked.kwargs) -> Made:
        """Do some other work on one image in a worker, with the same limits. Blocks.

        Raises:
            PictureFileError, CancelledError: where it takes too long or too much memory, or crashes; workers ended.
        """
        try:
            with self._lock:
                pool = self._workers()
                future = pool.schedule(work, args=args, kwargs=named, timeout=self._seconds)
            while not wait([future], timeout=POLL_SECONDS).done:
                if not pool.active:  # a pool that was stopped may leave what it worked on without an answer
                    raise CancelledError
            return future.result()
        except BrokenProcessPool as error:
            raise CancelledError from error
        except (FutureTimeoutError, ProcessExpired, MemoryError) as error:
            raise PictureFileError(_said(error, self._seconds).problems[0].sentence) from error

    def close(self) -> None:
        """End the workers."""
        with self._lock:
            if self._pool is not None:
                self._pool.stop()  # type: ignore[no-untyped-call]
                self._pool.join()
                self._pool = None

    def _look(
        self,
        paths: Sequence[Path],
        stamps: dict[Path, FileStamp],
        *,
        background: str,
        on_checked: OnChecked,
        stop: threading.Event,
    ) -> None:
        """Batches in flight, a few for each worker, so that a stop is soon heard."""
        waiting = deque(tuple(paths[i : i + BATCH_SIZE]) for i in range(0, len(paths), BATCH_SIZE))
        flying: deque[tuple[tuple[Path, ...], ProcessFuture[list[PictureFacts]]]] = deque()
        fresh: list[tuple[Path, FileStamp, PictureFacts]] = []
        try:
            while (waiting and not stop.is_set()) or flying:
                while waiting and len(flying) < 3 * self.num_workers and not stop.is_set():
                    batch = waiting.popleft()
                    flying.append((batch, self._schedule(batch, background)))
                batch, future = flying.popleft()
                for path, (facts, certain) in zip(batch, self._result(batch, future, background), strict=True):
                    if certain:
                        fresh.append((path, stamps[path], facts))
                    on_checked(path, facts)
                if len(fresh) >= 200:
                    self._cache.keep(fresh, background=background)
                    fresh.clear()
        finally:
            for __, future in flying:
                future.cancel()  # type: ignore[no-untyped-call]
            self._cache.keep(fresh, background=background)

    def _schedule(self, batch: tuple[Path, ...], background: str) -> "ProcessFuture[list[PictureFacts]]":
        with self._lock:
            args = (batch, background, self._thumbnails)
            return self._workers().schedule(_inspect_all, args=args, timeout=self._seconds * len(batch))

    def _workers(self) -> ProcessPool:
        if self._pool is None:
            self._pool = ProcessPool(
                max_workers=self.num_workers,
                initializer=_start_worker,
                initargs=(os.getpid(), self._memory_bytes),
                context=get_context("spawn"),  # this process has threads
            )
        return self._pool

    def _result(
        self, batch: tuple[Path, ...], future: "ProcessFuture[list[PictureFacts]]", background: str
    ) -> list[tuple[PictureFacts, bool]]:
        """A batch's facts, and whether they are certain; what breaks a batch is found by looking at each by itself."""
        try:
            return [(facts, True) for facts in future.result()]
        except (FutureTimeoutError, ProcessExpired, MemoryError) as error:
            if len(batch) > 1:
                return [
                    result
                    for path in batch
                    for result in self._result((path,), self._schedule((path,), background), background)
                ]
            return [(_said(error, self._seconds), False)]

    def _has_thumbnail(self, facts: PictureFacts, background: str) -> bool:
        return not facts.is_usable or thumbnail_path(self._thumbnails, facts.sha256, background).is_file()


def _stamps(paths: Sequence[Path]) -> tuple[dict[Path, FileStamp], dict[Path, PictureFacts]]:
    """Each file's stamp; what is no file needs no worker to say so."""
    stamps: dict[Path, FileStamp] = {}
    missing: dict[Path, PictureFacts] = {}
    for path in paths:
        try:
            stamps[path] = file_stamp(path)
        except OSError:
            missing[path] = inspect(path, background="#ffffff", thumbnails=Path())  # says what is wrong, opens nothing
    return stamps, missing


def _said(error: Exception, seconds: float) -> PictureFacts:
    if isinstance(error, FutureTimeoutError):
        return rejected(
            N_("takes too long"),
            _("Not decoded after {seconds:g} seconds. Save it again, or exclude it.", seconds=seconds),
        )
    if isinstance(error, MemoryError):
        return rejected(N_("too much memory"), _("Decoding it takes more memory than an image should. Save it again."))
    return rejected(N_("crashes the reader"), _("The decoder crashed on it. Save it again, or exclude it."))


def _inspect_all(batch: tuple[Path, ...], background: str, thumbnails: Path) -> list[PictureFacts]:
    """In a worker."""
    with for_later():
        return [_inspect_one(path, background, thumbnails) for path in batch]


def _inspect_one(path: Path, background: str, thumbnails: Path) -> PictureFacts:
    """The boundary of the workers: whatever a decoder raises becomes a finding about its image.

    Raises:
        MemoryError, OSError: as `inspect` does.
    """
    try:
        return inspect(path, background=background, thumbnails=thumbnails)
    except (MemoryError, OSError):
        raise
    except Exception as error:  # noqa: BLE001 - decoders of foreign files raise anything, and none may be lost
        sentence = _("It cannot be decoded ({reason}).", reason=system_error_message(error))
        return rejected(N_("damaged"), sentence)


def _start_worker(parent: int, memory_bytes: int) -> None:
    """In a new worker: end with the studio, and take no more memory than is allowed."""
    threading.Thread(target=_end_with, args=(parent,), name="parent watch", daemon=True).start()
    if sys.platform == "linux":
        import resource

        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        limit = pages * resource.getpagesize() + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _end_with(parent: int) -> None:
    """A killed studio cannot end its workers: each sees for itself that it is alone."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
