"""A queue whose file is damaged takes no more than the queue: the studio starts, and says what to do."""

from pathlib import Path

from tests.browser.studio_process import running_studio


def test_a_damaged_queue_does_not_keep_the_studio_from_starting(tmp_path: Path) -> None:
    (tmp_path / "studio.db").write_bytes(b"no database" * 1000)
    with running_studio(tmp_path) as studio:
        studio.make_ready()
        assert studio.process.poll() is None
        assert "is damaged" in studio.shown()
        assert "is damaged" in studio.printed
