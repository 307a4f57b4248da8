"""The checker's workers: a crash, a hang or a bomb costs one image; what is known is not looked at again."""

import hashlib
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
from PIL import Image

from studio.datasets import checker as checker_module
from studio.datasets.checker import PictureChecker
from studio.images.records import PictureFacts
from tests.datasets.bad_inputs import encoded, picture

pytestmark = pytest.mark.process

WHITE = "#ffffff"


def make_pictures(folder: Path, number: int) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{i:03}.png" for i in range(number)]
    for i, path in enumerate(paths):
        path.write_bytes(encoded(picture(64 + i, 64), "PNG"))
    return paths


@pytest.fixture
def checker(tmp_path: Path):  # noqa: ANN201 - a generator of checkers
    made = PictureChecker(tmp_path / "cache/checks.db", tmp_path / "thumbnails", num_workers=2, seconds_per_picture=3)
    yield made
    made.close()


def check(checker: PictureChecker, paths: list[Path]) -> dict[Path, PictureFacts]:
    found: dict[Path, PictureFacts] = {}
    checker.check(paths, background=WHITE, on_checked=found.__setitem__)
    return found


def test_every_picture_is_told_of_once(checker: PictureChecker, tmp_path: Path) -> None:
    paths = make_pictures(tmp_path / "pictures", 30)
    reported: list[Path] = []
    checker.check(paths, background=WHITE, on_checked=lambda path, _: reported.append(path))
    assert sorted(reported) == paths


def test_what_is_known_needs_no_worker(checker: PictureChecker, tmp_path: Path) -> None:
    paths = make_pictures(tmp_path / "pictures", 5)
    first = check(checker, paths)
    again = PictureChecker(tmp_path / "cache/checks.db", tmp_path / "thumbnails")
    assert check(again, paths) == first
    assert again._pool is None


def test_a_changed_file_is_looked_at_again(checker: PictureChecker, tmp_path: Path) -> None:
    (path,) = make_pictures(tmp_path / "pictures", 1)
    before = check(checker, [path])[path]
    path.write_bytes(encoded(picture(200, 100), "PNG"))
    after = check(checker, [path])[path]
    assert (after.width, after.height) == (200, 100)
    assert after.sha256 != before.sha256


def test_a_lost_thumbnail_is_made_again(checker: PictureChecker, tmp_path: Path) -> None:
    paths = make_pictures(tmp_path / "pictures", 1)
    check(checker, paths)
    (thumbnail,) = (tmp_path / "thumbnails").rglob("*.jpg")
    thumbnail.unlink()
    check(checker, paths)
    assert thumbnail.is_file()


def test_a_damaged_cache_is_set_aside(checker: PictureChecker, tmp_path: Path) -> None:
    paths = make_pictures(tmp_path / "pictures", 2)
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/checks.db").write_bytes(b"this is no database" * 100)
    assert all(facts.is_usable for facts in check(checker, paths).values())
    assert (tmp_path / "cache/checks.damaged").is_file()


def test_a_stop_is_heard(checker: PictureChecker, tmp_path: Path) -> None:
    paths = make_pictures(tmp_path / "pictures", 200)
    stop = threading.Event()
    reported: list[Path] = []

    def take(path: Path, _: PictureFacts) -> None:
        reported.append(path)
        stop.set()

    checker.check(paths, background=WHITE, on_checked=take, stop=stop)
    assert 0 < len(reported) < 200


# What stands in for a decoder that goes wrong: the real ones cannot be made to, which is why workers exist.
def _go_wrong(path: Path, *, background: str, thumbnails: Path) -> PictureFacts:
    if path.name == "000.png":
        os.kill(os.getpid(), signal.SIGSEGV)
    if path.name == "001.png":
        time.sleep(60)
    if path.name == "002.png":
        raise MemoryError
    if path.name == "003.png":
        raise KeyError("a decoder's own mistake")
    return PictureFacts(sha256="0" * 64)


def _inspect_wrongly(batch: tuple[Path, ...], background: str, thumbnails: Path) -> list[PictureFacts]:
    checker_module.inspect = _go_wrong
    return checker_module._inspect_all(batch, background, thumbnails)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")
def test_a_crash_a_hang_and_a_bomb_cost_one_picture_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = make_pictures(tmp_path / "pictures", 8)
    monkeypatch.setattr(checker_module, "BATCH_SIZE", 4)
    original = PictureChecker._schedule

    def schedule(self: PictureChecker, batch: tuple[Path, ...], background: str):  # noqa: ANN202
        original_function = checker_module._inspect_all
        checker_module._inspect_all = _inspect_wrongly
        try:
            return original(self, batch, background)
        finally:
            checker_module._inspect_all = original_function

    monkeypatch.setattr(PictureChecker, "_schedule", schedule)
    checker = PictureChecker(tmp_path / "checks.db", tmp_path / "thumbnails", num_workers=2, seconds_per_picture=1)
    try:
        found = check(checker, paths)
    finally:
        checker.close()
    codes = [next((problem.code for problem in found[path].problems), "") for path in paths]
    assert codes == ["crashes the reader", "takes too long", "too much memory", "damaged", "", "", "", ""]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits a process's memory so")
def test_a_worker_may_not_take_all_memory(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(encoded(picture(4000, 4000), "PNG"))
    checker = PictureChecker(tmp_path / "checks.db", tmp_path / "thumbnails", num_workers=1, memory_bytes=20_000_000)
    try:
        (facts,) = check(checker, [path]).values()
    finally:
        checker.close()
    assert [problem.code for problem in facts.problems] == ["too much memory"]


@pytest.mark.skipif(os.name == "nt", reason="Windows kills a process's children otherwise")
def test_workers_end_with_a_killed_studio(tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 4)
    code = (
        "import sys, time; from pathlib import Path; from studio.datasets.checker import PictureChecker\n"
        "if __name__ == '__main__':\n"
        "    folder = Path(sys.argv[1])\n"
        "    checker = PictureChecker(folder / 'c.db', folder / 't', num_workers=2)\n"
        "    checker.check(sorted((folder / 'pictures').iterdir()), background='#ffffff', on_checked=lambda *_: None)\n"
        "    print('checked', flush=True); time.sleep(60)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(code, encoding="utf-8")
    root = str(Path(checker_module.__file__).parents[2])
    studio = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}
    )
    try:
        assert studio.stdout is not None
        assert studio.stdout.readline().strip() == b"checked"
        workers = psutil.Process(studio.pid).children(recursive=True)
        assert workers
    finally:
        studio.kill()
        studio.wait()
    _, alive = psutil.wait_procs(workers, timeout=10)
    assert not alive


def swap_keeping_size_and_time(path: Path, content: bytes) -> None:
    """As `cp -p`, `rsync -t` and archives do it."""
    before = path.stat()
    assert len(content) == before.st_size
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_file_replaced_with_size_and_time_kept_is_looked_at_again(checker: PictureChecker, tmp_path: Path) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(encoded(picture(), "BMP"))
    before = check(checker, [path])[path]
    swap_keeping_size_and_time(path, encoded(picture().transpose(Image.Transpose.ROTATE_180), "BMP"))
    after = check(checker, [path])[path]
    assert after.sha256 == hashlib.sha256(path.read_bytes()).hexdigest() != before.sha256


def test_a_cache_that_kept_size_and_time_alone_is_made_anew(checker: PictureChecker, tmp_path: Path) -> None:
    (path,) = make_pictures(tmp_path / "pictures", 1)
    (tmp_path / "cache").mkdir()
    with closing(sqlite3.connect(tmp_path / "cache/checks.db")) as old, old:
        old.execute("create table checks (path text, background text, num_bytes integer, modified_ns integer)")
    assert check(checker, [path])[path].is_usable
    with closing(sqlite3.connect(tmp_path / "cache/checks.db")) as made:
        assert made.execute("select name from sqlite_master where type = 'table'").fetchall() == [("checked_files",)]
