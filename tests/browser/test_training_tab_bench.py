"""The bench of the Training tab reads a real browser: in this folder, because its tests share one."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from bench.browser import browser_seconds
from bench.long_run import LongRun, telling
from bench.training_tab import idle_percent, watch
from studio.core.paths import UserData


@pytest.mark.slow
def test_a_page_that_follows_a_run_is_measured(browser: Browser, tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    with telling(LongRun(user_data, told_steps=3000)):
        percent, updates = watch(browser, user_data, cpu=True, seconds=8)
    assert 0 < percent < 100
    assert len(updates) >= 2
    assert min(updates) > 0


@pytest.mark.slow
def test_what_an_idle_page_takes_has_both_sides_in_it(browser: Browser, tmp_path: Path) -> None:
    before = browser_seconds(browser)
    assert before > 0
    percent = idle_percent(browser, UserData(tmp_path), cpu=True, seconds=4)
    taken = browser_seconds(browser) - before
    assert taken > 0.1, "a page was drawn"
    assert 0 < percent < 100
