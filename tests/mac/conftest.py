"""What all tests on the simulated Mac share: its device check, which a first load makes by itself, is a small one."""

import pytest

from studio.engine import device_check


@pytest.fixture(autouse=True)
def small_device_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_check, "LATENTS_SIDE", 8)
