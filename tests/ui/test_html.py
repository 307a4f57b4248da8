"""What users and files supply is text on the page, never markup."""

from pathlib import Path

import pytest

from studio.core.text import duration, escape
from studio.ui.shell.parts import download_link, table

MARKUP = "<img src=x onerror=alert(1)>\"'"


def test_markup_becomes_text() -> None:
    assert escape(MARKUP) == "&lt;img src=x onerror=alert(1)&gt;&quot;&#x27;"
    assert "<img" not in table((MARKUP,), [(MARKUP,)], caption=MARKUP)


def test_a_download_carries_the_file_itself(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text("# hello")
    link = download_link(path, "Report", media_type="text/markdown")
    assert 'href="data:text/markdown;base64,IyBoZWxsbw=="' in link
    assert 'download="report.md"' in link
    assert download_link(tmp_path / "gone.md", "Report", media_type="text/markdown") == ""


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.04, "0.0 s"),
        (4.23, "4.2 s"),
        (12.4, "12 s"),
        (185, "3 min 05 s"),
        (3599.7, "1 h 00 min"),
        (4320, "1 h 12 min"),
    ],
)
def test_durations_read_as_people_say_them(seconds: float, words: str) -> None:
    assert duration(seconds) == words
