"""A file is the old one or the new one, whatever happens in between."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studio.core.files import file_stamp, remove_uploads, write_atomically

resource = pytest.importorskip("resource", reason="Windows has no limits on file sizes to fill a disk with")


def test_a_file_is_written_with_the_folder_it_needs(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file.bin"
    write_atomically(path, b"content")
    assert path.read_bytes() == b"content"
    assert [p.name for p in path.parent.iterdir()] == ["file.bin"]


def test_a_disk_that_takes_no_more_leaves_the_old_file_and_no_remnant(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    write_atomically(path, b"old")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            write_atomically(path, b"x" * 5000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file.bin"]


@pytest.mark.process
def test_a_kill_at_any_moment_leaves_a_whole_file(tmp_path: Path) -> None:
    path = tmp_path / "file.bin"
    size = 2_000_000
    write_atomically(path, b"0" * size)
    code = (
        "import sys; from pathlib import Path; from studio.core.files import write_atomically\n"
        "for i in range(10000): write_atomically(Path(sys.argv[1]), str(i % 10).encode() * int(sys.argv[2]))"
    )
    for trial in range(8):
        process = subprocess.Popen([sys.executable, "-c", code, str(path), str(size)], cwd=Path.cwd())
        time.sleep(0.3 + 0.037 * trial)
        process.kill()
        process.wait()
        content = path.read_bytes()
        assert len(content) == size
        assert len(set(content)) == 1


@pytest.mark.parametrize("replaced", [False, True])
def test_a_stamp_differs_where_size_and_time_were_kept(tmp_path: Path, *, replaced: bool) -> None:
    path, other = tmp_path / "a.png", tmp_path / "other.png"
    path.write_bytes(b"one")
    before, stamp = path.stat(), file_stamp(path)
    if replaced:
        other.write_bytes(b"two")
        other.replace(path)
    else:
        path.write_bytes(b"two")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file_stamp(path)[:2] == stamp[:2]
    assert file_stamp(path) != stamp


def test_uploads_go_with_their_folders_and_nothing_else_does(tmp_path: Path) -> None:
    uploads = tmp_path / "uploads"
    for name in ("a/x.png", "b/x.png", "b/y.png", "whole.png", "a/deep/x.png", "../outside.png", "../other/z.png"):
        (uploads / name).parent.mkdir(parents=True, exist_ok=True)
        (uploads / name).write_bytes(b"x")
    (uploads / "link").symlink_to(tmp_path / "other")
    foreign = ["a/deep/x.png", "../outside.png", "a/../../other/z.png", "link/z.png", "a/..", "a"]
    named = ["b/x.png", "whole.png", "gone/x.png", *foreign]
    remove_uploads([uploads / name for name in named], uploads)
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"uploads/a/x.png", "uploads/b/y.png", "uploads/a/deep/x.png", "outside.png", "other/z.png"}
    remove_uploads([uploads / "b/y.png"], uploads)
    assert not (uploads / "b").exists()
