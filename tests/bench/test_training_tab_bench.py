"""The bench of the Training tab: its run that nobody trained, what it reads of a browser, and where it cannot run."""

import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from bench import browser as bench_browser
from bench import suite
from bench.browser import find_browser, opened_browser
from bench.long_run import LongRun, telling
from bench.report import to_markdown
from bench.settings import BenchSettings
from bench.suite import Bench, run_benches
from studio.core.errors import SkippedError
from studio.core.paths import UserData
from studio.training.session import TrainingSession


@pytest.fixture
def user_data(tmp_path: Path) -> UserData:
    return UserData(tmp_path)


def test_the_long_run_reads_as_a_training_and_goes_on(user_data: UserData) -> None:
    run = LongRun(user_data, told_steps=1000)
    session = TrainingSession(user_data)
    history = session.view().history
    assert history is not None
    assert len(history.steps) == 1000
    assert (len(history.held_out), len(history.memory), len(history.samples)) == (10, 500, 2)
    assert all((run.folder.root / picture).is_file() for picture in history.samples[-1].pictures if picture)
    assert session.view().active
    with telling(run):
        time.sleep(1.2)
        assert session.view().active
    view = session.view()
    assert view.history is not None
    assert view.status is not None
    assert len(view.history.steps) == view.status.step > 1000
    assert not view.active


def test_without_a_browser_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_browser, "BROWSER_NAMES", ())
    monkeypatch.delenv("STUDIO_CHROMIUM", raising=False)
    with pytest.raises(SkippedError, match="needs Chromium"):
        find_browser()


def test_without_playwright_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "playwright.sync_api", None)
    with pytest.raises(SkippedError, match="needs Playwright"), opened_browser():
        pass


def test_a_skipped_bench_is_told_on_the_page_and_ends_no_other(
    user_data: UserData, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def skip(settings: BenchSettings, user_data: UserData) -> tuple[()]:
        raise SkippedError("it needs a browser.")

    monkeypatch.setattr(suite, "BENCHES", {"training-tab": Bench(skip, "How."), "lora": Bench(lambda *_: (), "So.")})
    settings = BenchSettings(only=("training-tab", "lora"))
    results = run_benches(settings, user_data)
    assert [result.skipped for result in results] == ["", "it needs a browser."]
    assert "skipped: it needs a browser." in capsys.readouterr().err
    page = to_markdown(results, settings, machine=(), measured_at=datetime.now())
    assert "**training-tab**: How. **It was skipped: it needs a browser.**" in page
