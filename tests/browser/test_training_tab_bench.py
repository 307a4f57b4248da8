"""The bench of the Training tab reads a real browser: in this folder, because its tests share one."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from bench.long_run import LongRun, telling
from bench.training_tab import watch
from studio.core.paths import UserData


@pytest.mark.slow
def test_a_page_that_follows_a_run_is_measured(browser: Browser, tmp_path: Path) -> None:
    user_data = UserData(tmp_path)
    with telling(LongRun(user_data, told_steps=3000)):
        percent, updates = watch(browser, user_data, cpu=True, seconds=8)
    assert 0 < percent < 100
    assert len(updates) >= 2
    assert min(updates) > 0
