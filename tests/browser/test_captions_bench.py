"""The bench of a caption's switch reads a real browser: in this folder, because its tests share one."""

from pathlib import Path

import pytest
from playwright.sync_api import Browser

from bench.captions import measure_switches
from bench.dataset import make_pictures
from bench.settings import BenchSettings
from studio.core.paths import UserData


@pytest.mark.slow
def test_every_switch_is_measured_until_another_caption_is_drawn(browser: Browser, tmp_path: Path) -> None:
    make_pictures(tmp_path / "pictures", 8, side=256)
    settings = BenchSettings(cpu=True, runs=2)
    user_data = UserData(tmp_path / "user_data")
    seconds = measure_switches(browser, tmp_path / "pictures", user_data, settings, num_images=8, num_switches=5)
    assert len(seconds) == 10
    assert min(seconds) > 0.001
    assert max(seconds) < 10, "then it gave up"
